"""Tokenised rows of text and how they are padded into batches of equal cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100


@dataclass(frozen=True)
class Row:
    """One tokenised text.

    Attributes:
        ids: Token ids.
        learned: Whether each token is a target.
        shown: Concepts that the row's media show; -1 for none.
        has_media: Whether the row has media.
        later: Concepts of media that come with a later turn, like `shown`.
        later_from: Index of that turn's first token; 0 where no other media come.
        decides: Quoted words of its answer are decisions, and its prompt is always the same.
    """

    ids: list[int]
    learned: list[bool]
    shown: tuple[int, int] = (-1, -1)
    has_media: bool = False
    later: tuple[int, int] = (-1, -1)
    later_from: int = 0
    decides: bool = False


@dataclass(frozen=True)
class Batch:
    """Padded rows.

    Attributes:
        ids: (B, T) int64, like the labels.
        labels: Targets; -100 where there is none.
        shown: (B, 2) concepts of the media.
        has_media: (B,) bool.
        later: (B, 2) concepts of the media of a later turn.
        later_from: (B,) index of that turn's first token; 0 for none.
        decides: (B,) bool, as of the rows.
    """

    ids: Tensor
    labels: Tensor
    shown: Tensor
    has_media: Tensor
    later: Tensor
    later_from: Tensor
    decides: Tensor

    @property
    def media_index(self) -> Tensor:
        """Which media each token belongs to, (B, T): 0 the first, 1 those of the later turn."""
        places = torch.arange(self.ids.shape[1])[None]
        starts = self.later_from[:, None]
        return ((places >= starts) & (starts > 0)).long()


def make_batches(rows: Sequence[Row], pad: int, batch_tokens: int) -> list[Batch]:
    """Sort rows by length and pad them into batches of exactly `batch_tokens` tokens.

    Lengths are rounded up to divisors of `batch_tokens`, so that matrix products always have
    the same shape: on a CPU each new shape costs more than the product itself. Longer rows
    are left out.
    """
    lengths = [n for n in range(16, batch_tokens + 1, 8) if batch_tokens % n == 0]
    buckets: dict[int, list[Row]] = {n: [] for n in lengths}
    for row in rows:
        length = next((n for n in lengths if n >= len(row.ids)), None)
        if length is not None:
            buckets[length].append(row)
    batches = []
    for length, bucket in buckets.items():
        count = batch_tokens // length
        for first in range(0, len(bucket), count):
            group = bucket[first : first + count]
            batches.append(pad_rows((group * count)[:count], length, pad))  # the last repeats
    return batches


def pad_rows(group: Sequence[Row], length: int, pad: int) -> Batch:
    """Pad rows on the right to a length; what is longer is cut."""
    ids = torch.full((len(group), length), pad)
    labels = torch.full((len(group), length), IGNORED)
    for i, row in enumerate(group):
        tokens = torch.tensor(row.ids[:length])
        ids[i, : len(tokens)] = tokens
        labels[i, : len(tokens)] = tokens.masked_fill(~torch.tensor(row.learned[:length]), IGNORED)
    return Batch(
        ids,
        labels,
        shown=torch.tensor([row.shown for row in group]),
        has_media=torch.tensor([row.has_media for row in group]),
        later=torch.tensor([row.later for row in group]),
        later_from=torch.tensor([row.later_from for row in group]),
        decides=torch.tensor([row.decides for row in group]),
    )


def weighted_loss(
    logits: Tensor,
    batch: Batch,
    heavy: Mapping[int, float],
    pad: int,
    prompt_weight: float = 0.0,
    note: tuple[int, float] | None = None,
    quote: tuple[int, float] | None = None,
) -> Tensor:
    """Cross entropy of the next token; prompts count little, padding nothing.

    Args:
        logits: (B, T, V).
        batch: Ids and labels.
        heavy: Weight of a learned token by the id before it, where something is decided.
        pad: Id of the padding.
        prompt_weight: Weight of tokens that are no answer.
        note: The id that opens and closes notes, and the weight of learned tokens in them.
        quote: The id of a quotation mark, and the weight of what follows one in rows that decide.
    """
    targets, learned = batch.ids[:, 1:], batch.labels[:, 1:] != IGNORED
    outside = prompt_weight * (targets != pad) * ~batch.decides[:, None]
    weights = torch.where(learned, 1.0, outside)
    for before, weight in heavy.items():
        weights = torch.where((batch.ids[:, :-1] == before) & learned, weight, weights)
    if note is not None:
        inside = (batch.ids[:, :-1] == note[0]).cumsum(1) % 2 == 1
        weights = torch.where(inside & learned, note[1], weights)
    if quote is not None:
        decided = (batch.ids[:, :-1] == quote[0]) & learned & batch.decides[:, None]
        weights = torch.where(decided, quote[1], weights)
    losses = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets.flatten(), reduction="none"
    )
    return (losses * weights.flatten()).sum() / weights.sum().clamp(min=1.0)
