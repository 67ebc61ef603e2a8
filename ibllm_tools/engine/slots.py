"""A key-value cache of slots: each answer has one and fills it at its own pace.

```
keys, values of a layer: (slots, length, H_kv, D)      written: any (slot, position) pairs
                                                       read: some slots, up to a common width
```
A token's heads lie side by side: with the heads outside, strides are powers of two, and reading
takes up to twice as long on a CPU.
Slots and length grow by doubling, as they are needed. Source: the layer interface of transformers'
caches (`CacheLayerMixin`); full attention only, a sliding window is left to the mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from ibllm_tools.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

FIRST_LENGTH = 64


@dataclass(frozen=True)
class Places:
    """Where the tokens of one forward call belong.

    Attributes:
        slots: (N,) int64, the slot of each real token of the call, row by row.
        positions: (N,) int64, its position there.
        picked: (N,) int64 numbers of the real tokens among (B * T); None if all are.
        read: The slots of the call's B rows, in order.
        width: Positions that are read.
    """

    slots: Tensor
    positions: Tensor
    picked: Tensor | None
    read: slice | Tensor
    width: int

    def on(self, device: torch.device) -> Places:
        """The same on another device, for LLMs that are spread over several."""
        if self.slots.device == device:
            return self
        return Places(
            self.slots.to(device),
            self.positions.to(device),
            None if self.picked is None else self.picked.to(device),
            self.read if isinstance(self.read, slice) else self.read.to(device),
            self.width,
        )


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """The slots of one layer."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized = True
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.n_slots = 0
        self.length = 0
        self.places: Places | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room: sizes, dtype and device are those of the first states."""
        # Zeros, since what no row may see is multiplied by 0, and 0 * NaN is NaN.
        sizes = (self.n_slots, self.length, key_states.shape[1])
        self.keys = key_states.new_zeros(*sizes, key_states.shape[-1])
        self.values = value_states.new_zeros(*sizes, value_states.shape[-1])

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the states (B, H_kv, T, D) of a call and return what its rows have so far."""
        assert self.places is not None
        if self.keys is None:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        found = []
        for store, states in ((self.keys, key_states), (self.values, value_states)):
            tokens = states.transpose(1, 2).flatten(0, 1)  # (B * T, H_kv, D)
            where = self.places.on(store.device)
            if where.picked is not None:
                tokens = tokens[where.picked]
            store[where.slots, where.positions] = tokens
            found.append(store[where.read, : where.width].transpose(1, 2))
        return found[0], found[1]

    def resize(self, n_slots: int, length: int) -> None:
        """Grow to these sizes, keeping the content."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            if old is not None:
                # It may be larger already, where there was no memory for another one.
                sizes = max(n_slots, old.shape[0]), max(length, old.shape[1])
                new = old.new_zeros(*sizes, *old.shape[2:])
                new[: old.shape[0], : old.shape[1]] = old
                setattr(self, name, new)
        self.n_slots, self.length = n_slots, length

    def get_seq_length(self) -> int:
        """Tokens seen; positions are always given, so that nothing depends on it."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Width and offset of a mask; masks are always given."""
        return (self.places.width if self.places else query_length), 0

    def get_max_length(self) -> int:
        """Positions that a slot may come to have: no bound."""
        return -1


class SlotCache(Cache):  # type: ignore[misc]
    """The slots of all layers."""

    def __init__(self, n_layers: int, max_slots: int, max_length: int) -> None:
        super().__init__(layers=[SlotLayer() for _ in range(n_layers)])
        self.n_slots = 0
        self.length = 0
        self._max = (max_slots, max_length)

    def reserve(self, n_slots: int, length: int) -> None:
        """Make sure that so many slots of this length exist.

        Raises:
            ModelError: There is no memory for them.
        """
        if n_slots <= self.n_slots and length <= self.length:
            return
        n_slots = max(self.n_slots, min(_doubled(n_slots, 1), self._max[0]))
        length = max(self.length, min(_doubled(length, FIRST_LENGTH), self._max[1]))
        try:
            for layer in self.layers:
                layer.resize(n_slots, length)
        except (MemoryError, RuntimeError) as error:
            raise ModelError(
                f"found no memory for a cache of {n_slots} answers of {length} tokens ({error}); "
                "send fewer or shorter requests at a time, or make the engine with fewer slots"
            ) from error
        self.n_slots, self.length = n_slots, length

    def place(self, places: Places) -> None:
        """Say where the tokens of the next forward call belong."""
        for layer in self.layers:
            layer.places = places

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of a slot to another one."""
        for store in self._stores():
            store[target, :length] = store[source, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` positions of two slots."""
        for store in self._stores():
            kept = store[one, :length].clone()
            store[one, :length] = store[other, :length]
            store[other, :length] = kept

    def clear(self, slot: int) -> None:
        """Fill a slot with zeros, so that nothing that is no number is left in it."""
        for store in self._stores():
            store[slot].zero_()

    def _stores(self) -> Sequence[Tensor]:
        layers: list[Any] = self.layers
        return [x for layer in layers for x in (layer.keys, layer.values) if x is not None]


def _doubled(wanted: int, first: int) -> int:
    """The smallest of first, 2 first, 4 first, ... that is not below `wanted`."""
    size = first
    while size < wanted:
        size *= 2
    return size


def slots_of(numbers: Sequence[int], device: torch.device) -> slice | Tensor:
    """Slots as a slice where they follow one another, so that reading them copies nothing."""
    first = numbers[0]
    if list(numbers) == list(range(first, first + len(numbers))):
        return slice(first, first + len(numbers))
    return torch.tensor(list(numbers), device=device)
