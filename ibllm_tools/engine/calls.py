"""One forward call for tokens of several answers: ids, positions, masks, places, injections.

```
answers and how many tokens of each -> Call (B, T), padded on the left -> logits (B, V)
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ibllm_tools.engine.slots import Places, SlotCache, slots_of
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.injection import Injection, PerToken, join_rows, row_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ibllm_tools.engine.bank import Bank
    from ibllm_tools.engine.requests import Request

FULL, SLIDING = "full_attention", "sliding_attention"


class Layout(NamedTuple):
    """Token ids and positions of a call, (B, T) int64 on the model's device, and its places."""

    ids: Tensor
    positions: Tensor
    places: Places


def lay_out(rows: Sequence[Request], counts: Sequence[int], device: torch.device) -> Layout:
    """Lay out the next `counts` tokens of each answer, padded on the left.

    Padding has position 0, where there is always something to see, and is never written.
    """
    n_columns = max(counts)
    ids: list[list[int]] = []
    positions: list[list[int]] = []
    slots: list[int] = []
    written: list[int] = []
    picked: list[int] = []
    for index, (row, count) in enumerate(zip(rows, counts, strict=True)):
        padding = [0] * (n_columns - count)
        following = list(range(row.length, row.length + count))
        ids.append(padding + next_tokens(row, count))
        positions.append(padding + following)
        slots += [row.slot] * count
        written += following
        picked += range(index * n_columns + len(padding), (index + 1) * n_columns)
    is_padded = len(picked) < len(rows) * n_columns
    places = Places(
        torch.tensor(slots, device=device),
        torch.tensor(written, device=device),
        torch.tensor(picked, device=device) if is_padded else None,
        slots_of([row.slot for row in rows], device),
        max(row.length + count for row, count in zip(rows, counts, strict=True)),
    )
    return Layout(torch.tensor(ids, device=device), torch.tensor(positions, device=device), places)


def next_tokens(row: Request, count: int) -> list[int]:
    """The next tokens that the model reads of an answer: of its prompt, or its own last one."""
    return row.prompt.ids[row.length : row.length + count] if row.n_unread > 0 else [row.last]


class Windows:
    """The attention masks that a base LLM wants: which keys a token may see.

    Args:
        config: That of the decoder.
        dtype: That of the attention's scores.
        device: Where masks are made.

    Raises:
        ConfigurationError: A layer of a kind that needs another cache.
    """

    def __init__(self, config: Any, dtype: torch.dtype, device: torch.device) -> None:
        self._window: int | None = getattr(config, "sliding_window", None)
        kinds = set(getattr(config, "layer_types", None) or ())
        if kinds - {FULL, SLIDING}:
            raise ConfigurationError(
                f"found layers of type {', '.join(sorted(kinds - {FULL, SLIDING}))}; expected full "
                "or sliding attention; use model.generate for this LLM"
            )
        if not kinds:
            kinds = {SLIDING if self._window else FULL}
        self._kinds = kinds
        self._seen = torch.zeros((), dtype=dtype, device=device)
        self._hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=device)

    def masks(self, positions: Tensor, width: int) -> Tensor | dict[str, Tensor]:
        """Masks to be added to the scores of tokens at `positions` (B, T) over `width` keys.

        Returns:
            (B, 1, T, width), or one by layer type where the LLM has several types.
        """
        own = positions[:, None, :, None]
        keys = torch.arange(width, device=positions.device)
        masks = {}
        for kind in self._kinds:
            seen = keys <= own
            if kind == SLIDING and self._window is not None:
                seen &= keys > own - self._window
            masks[kind] = torch.where(seen, self._seen, self._hidden)
        return masks if len(masks) > 1 else next(iter(masks.values()))


class Calls:
    """Makes forward calls of one model on one cache of slots."""

    def __init__(self, model: Any, cache: SlotCache, bank: Bank) -> None:
        self._model = model
        self._cache = cache
        self._bank = bank
        dtype = model.get_input_embeddings().weight.dtype
        self._windows = Windows(model.get_decoder().config, dtype, model.device)

    def read(self, rows: Sequence[Request], counts: Sequence[int]) -> Tensor:
        """Read the next `counts` tokens of each prompt; (B, V) logits of each one's last."""
        layout = lay_out(rows, counts, self._model.device)
        injection = prompt_injection(rows, counts, layout.ids.shape)
        return self._forward(rows, layout, injection)

    def step(self, rows: Sequence[Request]) -> Tensor:
        """Feed the last token of each answer; (B, V) logits."""
        layout = lay_out(rows, [1] * len(rows), self._model.device)
        return self._forward(rows, layout, self._bank.of(layout.places.read))

    def _forward(
        self, rows: Sequence[Request], layout: Layout, injection: Injection | None
    ) -> Tensor:
        self._cache.reserve(max(row.slot for row in rows) + 1, layout.places.width)
        self._cache.place(layout.places)
        masks = self._windows.masks(layout.positions, layout.places.width)
        logits: Tensor = self._model(
            input_ids=layout.ids,
            position_ids=layout.positions,
            attention_mask=masks,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            injection=injection,
        ).logits
        return logits[:, -1]


def prompt_injection(
    rows: Sequence[Request], counts: Sequence[int], shape: Sequence[int]
) -> Injection | None:
    """The injection for the next `counts` tokens of several prompts, laid out as (B, T)."""
    source = join_rows([row.prompt.injection for row in rows])
    if source is None or all(row.prompt.media_index is None for row in rows):
        return source
    index = torch.zeros(tuple(shape), dtype=torch.long)
    first = 0
    for number, (row, count) in enumerate(zip(rows, counts, strict=True)):
        given = row.prompt.media_index
        part = [0] * count if given is None else given[row.length : row.length + count]
        index[number, -count:] = first + torch.tensor(part)
        injection = row.prompt.injection
        first += 1 if injection is None else _n_rows(injection)
    return PerToken(source, index)


def _n_rows(injection: Any) -> int:
    tensor, dim = row_tensors(injection)[0]
    return int(tensor.shape[dim])
