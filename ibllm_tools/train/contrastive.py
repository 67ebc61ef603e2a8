"""Stage 0: a small ImageBind. Photos learn with text; sounds, shapes and depth bind to photos.

Step one trains the photo and text trunks together. They are then frozen, and every photo of
the training split is encoded once. Step two trains each other trunk so that its features lie
near the photos (and the words) of the same concept.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ibllm_tools.encoder import ImageBind, ImageBindConfig, PointGroups, group_points
from ibllm_tools.preprocess import PreprocessConfig, tokenize
from ibllm_tools.train.augment import (
    clean_photos,
    count_frames,
    paste_boxes,
    render_depth,
    strange_photos,
    view_clouds,
    view_mels,
    view_photos,
    whole_mels,
)
from ibllm_tools.train.data import Table, class_weights
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.loop import Run, Schedule, run_stage

SCALE = 16.0
SMOOTHING = 0.1
PASTED = 0.5
FINER = 0.4
ENGLISH = (
    "{a}",
    "{n}",
    "a photo of {a}",
    "a picture of {a}",
    "an image of {a}",
    "this is {a}",
    "the sound of {a}",
    "the shape of {a}",
    "a blurry photo of {a}",
    "a close photo of {a}",
    "there is {a}",
    "I see {a}",
    "I hear {a}",
)
CHINESE = ("{z}", "一张{z}的照片", "这是{z}", "{z}的图片", "{z}的声音", "{z}的形状", "有{z}")
GENERIC_SUBTYPES = ("product photo", "animal call")


@dataclass(frozen=True)
class EncoderSizes:
    """Sizes of pocket's encoder and of its preprocessing."""

    joint_dim: int = 256
    image_px: int = 64
    n_points: int = 2048
    text_context: int = 32
    text_merges: int = 7688
    vision: dict[str, Any] = field(
        default_factory=lambda: {
            "width": 256,
            "n_layers": 2,
            "n_heads": 4,
            "stem_channels": (24, 64, 256, 256),
            "stem_depths": (0, 1, 1, 1),
            "stem_pool": True,
        }
    )
    text: dict[str, Any] = field(
        default_factory=lambda: {"width": 128, "n_layers": 2, "n_heads": 4}
    )
    audio: dict[str, Any] = field(
        default_factory=lambda: {
            "width": 192,
            "n_layers": 3,
            "n_heads": 3,
            "drop_path": 0.1,
            "stem_channels": (16, 32, 64, 128, 192),
            "stem_depths": (0, 1, 1, 1, 0),
            "stem_pool": True,
        }
    )
    depth: dict[str, Any] = field(
        default_factory=lambda: {
            "width": 160,
            "n_layers": 2,
            "n_heads": 4,
            "stem_channels": (16, 32, 96, 160),
            "stem_depths": (0, 1, 1, 1),
        }
    )
    point: dict[str, Any] = field(
        default_factory=lambda: {
            "width": 192,
            "n_layers": 4,
            "n_heads": 3,
            "drop_path": 0.1,
            "n_groups": 64,
            "group_size": 32,
            "mlp_channels": (32, 64, 128),
            "mlp_out": 128,
            "projection_dim": 256,
        }
    )

    def preprocessing(self) -> PreprocessConfig:
        """Return the preprocessing that fits these sizes."""
        return PreprocessConfig(
            image_px=self.image_px,
            depth_px=self.image_px,
            depth_unit_range=True,
            thermal_px=self.image_px,
            n_points=self.n_points,
            text_context=self.text_context,
            text_merges=self.text_merges,
            text_special_tokens=False,
            video_crops=1,
        )

    def build(self) -> ImageBind:
        """Build the encoder with fresh weights; it has no thermal and no IMU trunk."""
        side = {"image_px": self.image_px, "patch_px": self.image_px // 4}
        vocab = 512 + self.text_merges + 2
        config = ImageBindConfig.only(
            joint_dim=self.joint_dim,
            vision={**side, **self.vision},
            text={"vocab_size": vocab, "n_context": self.text_context, **self.text},
            audio=self.audio,
            depth={**side, **self.depth},
            point=self.point,
        )
        encoder = ImageBind(config)
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return encoder


@contextmanager
def fast_cpu() -> Iterator[None]:
    """Train in bf16 with plain attention products: several times faster for short sequences."""
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield


def encode(encoder: ImageBind, modality: str, x: Tensor | PointGroups) -> Tensor:
    """Encode a batch to unit vectors (B, joint) in float32."""
    if isinstance(x, Tensor) and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return F.normalize(encoder.head(modality, x).float(), dim=-1)


def row_batches(n_rows: int, size: int) -> list[Tensor]:
    """Split the row numbers 0 .. n_rows-1 into runs of at most `size`."""
    return [torch.arange(i, min(i + size, n_rows)) for i in range(0, n_rows, size)]


@torch.no_grad()
def encode_all(
    encoder: ImageBind,
    modality: str,
    batches: Callable[[Tensor], Any],
    n_rows: int,
    size: int = 256,
) -> Tensor:
    """Encode rows 0 .. n_rows-1 in evaluation mode; `batches` maps row numbers to inputs."""
    was_training = encoder.training
    encoder.eval()
    with fast_cpu():
        parts = [encode(encoder, modality, batches(r)) for r in row_batches(n_rows, size)]
    encoder.train(was_training)
    return torch.cat(parts) if parts else torch.empty(0)


class Prompts:
    """Texts that name concepts and their finer kinds, tokenised once."""

    def __init__(
        self, facts: Sequence[Fact], subtypes: dict[str, int], config: PreprocessConfig
    ) -> None:
        """Tokenise every template for every concept, and each subtype in a photo phrase."""
        english = [[t.format(a=f.phrase, n=f.name) for t in ENGLISH] for f in facts]
        chinese = [[t.format(z=f.name_zh) for t in CHINESE] for f in facts]
        self.n_concepts = len(facts)
        self.english = tokenize([t for row in english for t in row], config)
        self.chinese = tokenize([t for row in chinese for t in row], config)
        self.subtype_concept = torch.tensor(list(subtypes.values()), dtype=torch.long)
        texts = [f"a photo of {name}" for name in subtypes] or ["thing"]
        self.subtypes = tokenize(texts, config)

    def draw(self) -> Tensor:
        """Draw one prompt a concept, a third of them Chinese: (concepts, T)."""
        n = self.n_concepts
        rows = torch.arange(n)
        english = self.english[rows * len(ENGLISH) + torch.randint(len(ENGLISH), (n,))]
        chinese = self.chinese[rows * len(CHINESE) + torch.randint(len(CHINESE), (n,))]
        return trim(torch.where(torch.rand(n, 1) < 0.33, chinese, english))

    def encode_subtypes(self, encoder: ImageBind) -> Tensor:
        """Encode the words of the finer kinds: (subtypes, joint)."""
        pick = partial(_pick_text, self.subtypes)
        return encode_all(encoder, "text", pick, len(self.subtype_concept))

    @torch.no_grad()
    def ensemble(self, encoder: ImageBind) -> Tensor:
        """Average all prompts of each concept: (concepts, joint) unit vectors."""
        parts = []
        for tokens, count in ((self.english, len(ENGLISH)), (self.chinese, len(CHINESE))):
            n_rows = len(tokens)
            vectors = encode_all(encoder, "text", partial(_pick_text, tokens), n_rows)
            parts.append(F.normalize(vectors.view(self.n_concepts, count, -1).mean(1), dim=-1))
        return F.normalize(parts[0] + 0.5 * parts[1], dim=-1)


def _pick_text(tokens: Tensor, rows: Tensor) -> Tensor:
    return trim(tokens[rows])


def trim(tokens: Tensor) -> Tensor:
    """Cut the padding that no row of a token batch needs."""
    return tokens[:, : int((tokens != 0).sum(1).max())]


def subtype_names(table: Table, least: int = 10) -> dict[str, int]:
    """Finer names with at least `least` rows, each with its concept."""
    counts: dict[tuple[str, int], int] = {}
    for name, concept in zip(table.subtype, table.concept.tolist(), strict=True):
        counts[name, concept] = counts.get((name, concept), 0) + 1
    return {
        name: concept
        for (name, concept), count in sorted(counts.items())
        if name and count >= least and name not in GENERIC_SUBTYPES
    }


def cross_entropy(
    features: Tensor, anchors: Tensor, labels: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Contrast features with one anchor a class; rows may have weights."""
    scores = SCALE * features @ anchors.T
    if weights is None:
        return F.cross_entropy(scores, labels, label_smoothing=SMOOTHING)
    losses = F.cross_entropy(scores, labels, label_smoothing=SMOOTHING, reduction="none")
    return (losses * weights).mean()


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
    small_share: float = 0.6,
) -> None:
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
    """
    labels = torch.from_numpy(photos.concept)
    weights = class_weights(photos.concept)
    fine = torch.tensor(_subtype_index(photos))

    anchors = Anchors(prompts, encoder.config.joint_dim)

    def step_loss(rng: random.Random, share: float) -> Tensor:
        px = config.image_px * 3 // 4 if share < small_share else config.image_px
        rows = np.random.default_rng(rng.getrandbits(32)).choice(len(photos), batch, p=weights)
        y = labels[rows]
        x = view_photos(torch.from_numpy(photos.values[rows]), config, px)
        x, other, own = paste_boxes(x, PASTED)
        strange = strange_photos(x[: batch // 16])
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

    parts = nn.ModuleList([_part(encoder, "vision"), _part(encoder, "text")])
    run_stage(run, "photos", {"encoder": parts.train(), "anchors": anchors}, schedule, step_loss,
              lr_scale=lambda name: 0.4 if name.startswith("encoder.1.") else 1.0,
              is_matrix=is_inner_matrix, report=report, report_every=200)  # fmt: skip
    parts.eval()


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


def is_inner_matrix(name: str, weight: Tensor) -> bool:
    """Choose for Muon: the convolutions before a normalisation, and the blocks' matrices."""
    if weight.ndim == 4:
        return ".stages." in name and weight.shape[1] > 3
    return weight.ndim == 2 and "blocks" in name and "rgbt" not in name


def _subtype_index(table: Table, least: int = 10) -> list[int]:
    known = {name: i for i, name in enumerate(subtype_names(table, least))}
    return [known.get(name, -1) for name in table.subtype]


def _part(encoder: ImageBind, trunk: str) -> nn.ModuleDict:
    """The modules of one trunk, as one module that can be trained and saved."""
    parts: dict[str, nn.Module] = {}
    for name, module in encoder.named_children():
        if isinstance(module, nn.ModuleDict) and trunk in module:
            parts[name] = module[trunk]
    if trunk == "point":
        parts["point_trunk"] = encoder.point_trunk
    return nn.ModuleDict(parts)


def clean_rows(photos: Table, rows: Tensor, config: PreprocessConfig) -> Tensor:
    """Photos of some rows as the encoder sees them without augmentation."""
    return clean_photos(torch.from_numpy(photos.values[rows.numpy()]), config)


def accuracy(features: Tensor, anchors: Tensor, table: Table) -> float:
    """Share of rows whose nearest anchor is their concept."""
    if not len(table):
        return float("nan")
    guess = (features @ anchors.T).argmax(1)
    return float((guess == torch.from_numpy(table.concept)).float().mean())


@dataclass(frozen=True)
class Hub:
    """What other modalities are bound to, frozen.

    Attributes:
        photos: (N, joint) features of the training photos.
        concept: (N,) their concepts.
        words: (concepts, joint) features of the concepts' words.
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

    fine = torch.tensor(_subtype_index(table))
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

    part = _part(encoder, modality)
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
        audio_to_clips(torch.from_numpy(w[None, :n]).float() / 32768, config.audio_rate_hz, config)
        for w, n in zip(table.values, table.length, strict=True)
    ]
