"""Stage 0, first part: photos and words learn one space."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibllm_tools.encoder import ImageBind
from ibllm_tools.preprocess import PreprocessConfig
from ibllm_tools.train.augment import paste_boxes, strange_photos, view_photos
from ibllm_tools.train.contrastive import (
    SCALE,
    accuracy,
    clean_rows,
    cross_entropy,
    encode,
    encode_all,
    fast_cpu,
    is_inner_matrix,
    trunk_parts,
)
from ibllm_tools.train.data import Table, class_weights
from ibllm_tools.train.loop import Run, Schedule, run_stage
from ibllm_tools.train.words import Prompts, subtype_index, trim

PASTED = 0.5


def train_photos(
    run: Run,
    schedule: Schedule,
    encoder: ImageBind,
    config: PreprocessConfig,
    photos: Table,
    held: Table,
    prompts: Prompts,
    captions: tuple[Tensor, Tensor],
    batch: int = 256,
    small_share: float = 0.8,
) -> Anchors:
    """Bind photos and text: a photo to the words of its concept and of its finer kind.

    Args:
        run: Seed, folder and log.
        schedule: Steps and rates.
        encoder: Its vision and text trunks learn.
        config: Preprocessing.
        photos: Training rows.
        held: Training rows that are kept out; their accuracy goes to the log.
        prompts: Texts of the concepts.
        captions: Token rows (N, T) of captions that name one concept, and these concepts (N,).
        batch: Photos a step.
        small_share: Share of the steps, from the first, that see photos of three quarters of
            the side: nearly twice as fast, and most of what is to be learnt is in them.

    Returns:
        Where the concepts and their finer kinds lie.
    """
    labels = torch.from_numpy(photos.concept)
    weights = class_weights(photos.concept)
    fine = torch.tensor(subtype_index(photos))

    anchors = Anchors(prompts, encoder.config.joint_dim)

    def step_loss(rng: random.Random, share: float) -> Tensor:
        px = config.image_px * 3 // 4 if share < small_share else config.image_px
        rows = np.random.default_rng(rng.getrandbits(32)).choice(len(photos), batch, p=weights)
        y = labels[rows]
        x = view_photos(torch.from_numpy(photos.values[rows]), config, px)
        x, other, own = paste_boxes(x, PASTED)
        strange = strange_photos(x[: max(4, batch // 16)])
        with fast_cpu():
            seen = encode(encoder, "image", torch.cat((x, strange)))
        image, unknown = seen[:batch], seen[batch:]
        concepts, kinds = anchors()
        loss = cross_entropy(image, concepts, y, own)
        loss = loss + cross_entropy(image, concepts, y[other], 1 - own)
        loss = loss - 0.1 * F.log_softmax(SCALE * unknown @ concepts.T, dim=1).mean()
        if len(kinds):
            known = fine[rows].clamp(min=0)
            loss = loss + 0.4 * cross_entropy(image, kinds, known, own * (fine[rows] >= 0))
        return loss + _text_loss(encoder, prompts, captions, concepts.detach(), kinds.detach())

    def report() -> str:
        found = encode_all(encoder, "image", lambda r: clean_rows(held, r, config), len(held))
        scores = (accuracy(found, a, held) for a in (anchors()[0], prompts.ensemble(encoder)))
        return "held-out photos {:.3f} by words {:.3f}".format(*scores)

    parts = nn.ModuleList([trunk_parts(encoder, "vision"), trunk_parts(encoder, "text")])
    run_stage(run, "photos", {"encoder": parts.train(), "anchors": anchors}, schedule, step_loss,
              lr_scale=lambda name: 0.4 if name.startswith("encoder.1.") else 1.0,
              is_matrix=is_inner_matrix, report=report, report_every=200)  # fmt: skip
    parts.eval()
    return anchors.requires_grad_(requires_grad=False)


def train_words(
    run: Run,
    schedule: Schedule,
    encoder: ImageBind,
    prompts: Prompts,
    captions: tuple[Tensor, Tensor],
    anchors: Anchors,
) -> None:
    """Go on with the text trunk alone, until the words lie where the photos went.

    Args:
        run: Seed, folder and log.
        schedule: Steps and rates.
        encoder: Its text trunk learns.
        prompts: Texts of the concepts.
        captions: As for `train_photos`.
        anchors: The places that photos learnt.
    """
    concepts, kinds = anchors()

    def step_loss(_rng: random.Random, _share: float) -> Tensor:
        return _text_loss(encoder, prompts, captions, concepts, kinds)

    def report() -> str:
        nearness = (prompts.ensemble(encoder) * concepts).sum(1)
        return f"cosine of words and places {nearness.mean():.3f}, least {nearness.min():.3f}"

    part = trunk_parts(encoder, "text")
    run_stage(run, "words", {"encoder": part.train()}, schedule, step_loss, report=report)
    part.eval()


class Anchors(nn.Module):
    """Free places of the concepts and finer kinds: photos and texts learn towards them alike.

    A small text trunk moves slowly at first, and photos that chase it learn nothing. So photos
    find places of their own, and the words follow; in the end both lie together.
    """

    def __init__(self, prompts: Prompts, joint_dim: int) -> None:
        super().__init__()
        self.concepts = nn.Parameter(torch.randn(prompts.n_concepts, joint_dim))
        self.kinds = nn.Parameter(torch.randn(len(prompts.subtype_concept), joint_dim))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return unit vectors of all concepts and of all finer kinds."""
        return F.normalize(self.concepts, dim=-1), F.normalize(self.kinds, dim=-1)


def _text_loss(
    encoder: ImageBind,
    prompts: Prompts,
    captions: tuple[Tensor, Tensor],
    concepts: Tensor,
    kinds: Tensor,
    n_drawn: int = 32,
) -> Tensor:
    """Pull the words of concepts, of finer kinds, and captions to their places."""
    with fast_cpu():
        words = encode(encoder, "text", prompts.draw())
    loss = cross_entropy(words, concepts, torch.arange(len(concepts)))
    loss = loss + (1 - (words * concepts).sum(1)).mean()
    if len(kinds):
        drawn = torch.randperm(len(kinds))[:n_drawn]
        with fast_cpu():
            named = encode(encoder, "text", trim(prompts.subtypes[drawn]))
        loss = loss + 0.5 * (1 - (named * kinds[drawn]).sum(1)).mean()
    if len(captions[0]):
        drawn = torch.randint(len(captions[0]), (n_drawn,))
        with fast_cpu():
            said = encode(encoder, "text", trim(captions[0][drawn]))
        loss = loss + 0.2 * cross_entropy(said, concepts, captions[1][drawn])
    return loss
