"""The forms in which an injection travels as a call argument, and operations on their rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class AdapterTokens:
    """Adapters of more than one token, over which every word token attends.

    Attributes:
        keys: (L, B, H, Q, D), neither normalised nor rotated.
        values: (L, B, H, Q, D).
        gates: (L, H), already through tanh; 0 for rows without media is in `open_rows`.
        open_rows: (B,) bool; a row that is False gets nothing.
    """

    keys: Tensor
    values: Tensor
    gates: Tensor
    open_rows: Tensor

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class WordOffsets:
    """The paper's Eq. 2: vectors that are added to the word tokens before each layer.

    Attributes:
        offsets: (L, B, 1, dim), gates applied.
    """

    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True)
class LateValues:
    """One-token adapters whose values each layer computes itself, with its own projection.

    The result is that of `gated_values`. Sharded training needs this form: a layer's weights are
    whole only while that layer runs.

    Attributes:
        tokens: (L, B, dim) bound vector plus prefix query of each injected layer.
        gates: (L, H), before tanh.
        open_rows: (B,) bool; a row that is False gets nothing. All rows when None.
    """

    tokens: Tensor
    gates: Tensor
    open_rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)


PerRow: TypeAlias = "Tensor | Sequence[Tensor] | AdapterTokens | WordOffsets | LateValues"


@dataclass(frozen=True)
class PerToken:
    """An injection that differs from token to token: which row of another one each token gets.

    It lets every turn of a conversation keep the media that it was said with. The values are
    still computed once per medium; a layer picks those of its tokens.

    Attributes:
        source: An injection of R rows, one per medium.
        rows: (B, T) int64, the row of `source` that a token gets. A call with one token gets the
            last column, and tokens beyond T get it too, so that an answer goes on with it.
    """

    source: PerRow
    rows: Tensor

    def __len__(self) -> int:
        return len(self.source)

    def rows_of(self, n_tokens: int) -> Tensor:
        """The row of each of `n_tokens` tokens that a layer sees, (B, n_tokens).

        Raises:
            ConfigurationError: Fewer tokens than rows, but more than one.
        """
        n_rows = self.rows.shape[1]
        if n_tokens == n_rows:
            return self.rows
        if n_tokens == 1:
            return self.rows[:, -1:]
        if n_tokens < n_rows:
            raise ConfigurationError(
                f"found {n_tokens} tokens and {n_rows} entries of media_index; expected as many, "
                "or one token that follows the prompt"
            )
        last = self.rows[:, -1:].expand(-1, n_tokens - n_rows)
        return torch.cat([self.rows, last], 1)


Injection: TypeAlias = "PerRow | PerToken"


def row_tensors(injection: PerRow) -> list[tuple[Tensor, int]]:
    """The tensors that have a row per medium, each with the number of that dimension."""
    if isinstance(injection, AdapterTokens):
        return [(injection.keys, 1), (injection.values, 1), (injection.open_rows, 0)]
    if isinstance(injection, WordOffsets):
        return [(injection.offsets, 1)]
    if isinstance(injection, LateValues):
        opened = [] if injection.open_rows is None else [(injection.open_rows, 0)]
        return [(injection.tokens, 1), *opened]
    if isinstance(injection, Tensor):
        return [(injection, 1)]
    return [(layer, 0) for layer in injection]


def with_row_tensors(injection: PerRow, tensors: Sequence[Tensor]) -> PerRow:
    """Put tensors in the place of those that `row_tensors` gives."""
    if isinstance(injection, AdapterTokens):
        keys, values, open_rows = tensors
        return replace(injection, keys=keys, values=values, open_rows=open_rows)
    if isinstance(injection, WordOffsets):
        return WordOffsets(tensors[0])
    if isinstance(injection, LateValues):
        opened = None if injection.open_rows is None else tensors[1]
        return replace(injection, tokens=tensors[0], open_rows=opened)
    return tensors[0] if isinstance(injection, Tensor) else list(tensors)


def expand_rows(injection: Injection, n: int) -> Injection:
    """Repeat every row `n` times, for beams or several answers per request."""
    if isinstance(injection, PerToken):
        return PerToken(injection.source, injection.rows.repeat_interleave(n, 0))
    found = row_tensors(injection)
    return with_row_tensors(injection, [x.repeat_interleave(n, dim) for x, dim in found])


def join_rows(injections: Sequence[PerRow | None]) -> PerRow | None:
    """Put the rows of several injections one after another; None stands for a closed row.

    Returns:
        None if all are None.
    """
    given = [injection for injection in injections if injection is not None]
    if len(given) == len(injections) == 1 or not given:
        return given[0] if given else None
    closed = closed_rows(given[0], 1)
    parts = [row_tensors(closed if x is None else x) for x in injections]
    joined = [torch.cat([x for x, _ in same], same[0][1]) for same in zip(*parts, strict=True)]
    return with_row_tensors(given[0], joined)


def closed_rows(like: PerRow, n_rows: int) -> PerRow:
    """An injection of the same form that adds nothing to any of its rows."""
    zeros = []
    for x, dim in row_tensors(like):
        shape = list(x.shape)
        shape[dim] = n_rows
        zeros.append(x.new_zeros(shape))
    return with_row_tensors(like, zeros)
