"""Stage 0, second part: sounds, shapes and depth maps are bound to the frozen photos and words."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibllm_tools.encoder import ImageBind, PointGroups, group_points
from ibllm_tools.preprocess import PreprocessConfig
from ibllm_tools.train.augment import count_frames, render_depth, view_clouds, view_mels, whole_mels
from ibllm_tools.train.contrastive import (
    SCALE,
    cross_entropy,
    encode,
    fast_cpu,
    is_inner_matrix,
    row_batches,
    trunk_parts,
)
from ibllm_tools.train.data import Table, class_weights
from ibllm_tools.train.loop import Run, Schedule, run_stage
from ibllm_tools.train.words import subtype_index

FINER = 0.4


@dataclass(frozen=True)
class Hub:
    """What other modalities are bound to, frozen.

    Attributes:
        photos: (N, joint) features of the training photos.
        concept: (N,) their concepts.
        words: (concepts + 1, joint) features of the concepts' words, then of nothing.
    """

    photos: Tensor
    concept: Tensor
    words: Tensor

    def draw(self, shots: int = 4) -> Tensor:
        """Draw one anchor a concept: the mean of a few random photos, or its words."""
        anchors = self.words.clone()
        order = torch.randperm(len(self.concept))
        for concept in sorted(set(self.concept.tolist())):
            rows = order[self.concept[order] == concept][:shots]
            anchors[concept] = self.photos[rows].mean(0)
        return F.normalize(anchors, dim=-1)

    def means(self) -> Tensor:
        """Return one anchor a concept: the mean of all its photos, or its words."""
        return self.draw(shots=1 << 30)


@dataclass(frozen=True)
class Views:
    """Random inputs of a batch, perhaps mixed in pairs.

    Attributes:
        inputs: What the encoder takes.
        other: (B,) row of the batch that is mixed into each row; None if none is.
        own: (B,) share of each row that is its own.
    """

    inputs: Tensor | PointGroups
    other: Tensor | None = None
    own: Tensor | None = None


def bind_modality(
    run: Run,
    schedule: Schedule,
    encoder: ImageBind,
    modality: str,
    hub: Hub,
    table: Table,
    make_views: Callable[[], Callable[[Tensor], Views]],
    report: Callable[[], str],
    batch: int = 64,
) -> None:
    """Bind one modality to the frozen photos and words.

    Args:
        run: Seed, folder and log.
        schedule: Steps and rates.
        encoder: One of its trunks learns.
        modality: audio, depth or point.
        hub: Photo and word features.
        table: Training rows; gives labels and sampling.
        make_views: Prepares the data and returns what draws augmented inputs of rows.
        report: Text for the log.
        batch: Rows a step.
    """
    labels = torch.from_numpy(table.concept)
    weights, views = class_weights(table.concept), cache(make_views)

    fine = torch.tensor(subtype_index(table))
    finer = nn.Linear(hub.words.shape[1], int(fine.max()) + 2)  # thrown away afterwards

    def step_loss(rng: random.Random, _share: float) -> Tensor:
        rows = np.random.default_rng(rng.getrandbits(32)).choice(len(table), batch, p=weights)
        seen = views()(torch.from_numpy(rows))
        with fast_cpu():
            features = encode(encoder, modality, seen.inputs)
        anchors, y = hub.draw(), labels[rows]
        own = torch.ones(len(y)) if seen.own is None else seen.own
        loss = hub_loss(features, anchors, hub.words, y, own)
        if seen.other is not None:
            loss = loss + hub_loss(features, anchors, hub.words, y[seen.other], 1 - own)
        scores = SCALE * finer(features)
        kinds = F.cross_entropy(scores, fine[rows], ignore_index=-1, reduction="none")
        return loss + FINER * (own * kinds).mean()

    part = trunk_parts(encoder, modality)
    run_stage(run, modality, {"encoder": part.train(), "finer": finer}, schedule, step_loss,
              is_matrix=is_inner_matrix, report=report, report_every=250)  # fmt: skip
    part.eval()


def hub_loss(features: Tensor, photos: Tensor, words: Tensor, y: Tensor, own: Tensor) -> Tensor:
    """Pull features to the photos and words of their concept, and away from all others."""
    near = (own * (1 - (features * photos[y]).sum(1))).mean()
    to_photos, to_words = (cross_entropy(features, a, y, own) for a in (photos, words))
    return to_photos + 0.5 * to_words + near


def sound_views(table: Table, config: PreprocessConfig) -> Callable[[Tensor], Views]:
    """Prepare the mel bins of all sounds, and return a function that draws views of rows."""
    parts = [
        whole_mels(torch.from_numpy(table.values[rows.numpy()]), config)
        for rows in row_batches(len(table), 64)
    ]
    mels, n_frames = torch.cat(parts), count_frames(torch.from_numpy(table.length))
    return lambda rows: Views(*view_mels(mels[rows], n_frames[rows], config))


def point_views(table: Table, encoder: ImageBind) -> Callable[[Tensor], Views]:
    """Group all clouds once, and return a function that draws turned views of rows."""
    groups = group_clouds(table, encoder)

    def draw(rows: Tensor) -> Views:
        chosen = groups.select(rows)
        return Views(replace(chosen, xyz=view_clouds(chosen.xyz)))

    return draw


def group_clouds(table: Table, encoder: ImageBind) -> PointGroups:
    """Normalise and group the clouds of a table."""
    from ibllm_tools.preprocess.points import normalize_points

    clouds = normalize_points(torch.from_numpy(np.array(table.values)).float())
    config = encoder.config.point
    assert config is not None  # pocket's encoder has a point trunk
    parts = [group_points(clouds[rows], config) for rows in row_batches(len(clouds), 128)]
    return PointGroups(
        clouds,
        tuple(torch.cat(level) for level in zip(*(p.centers for p in parts), strict=True)),
        tuple(torch.cat(level) for level in zip(*(p.neighbours for p in parts), strict=True)),
    )


def depth_views(table: Table, px: int) -> Callable[[Tensor], Views]:
    """Return a function that renders depth maps of rows from random sides."""
    clouds = torch.from_numpy(np.array(table.values)).float()
    return lambda rows: Views(render_depth(clouds[rows], px))


def official_clips(table: Table, config: PreprocessConfig) -> list[Tensor]:
    """Clips of all sounds as the public preprocessing cuts them: (3, 1, mels, frames) each."""
    from ibllm_tools.preprocess.audio import audio_to_clips

    return [
        audio_to_clips(
            torch.from_numpy(np.array(w[None, :n])).float() / 32768, config.audio_rate_hz, config
        )
        for w, n in zip(table.values, table.length, strict=True)
    ]
