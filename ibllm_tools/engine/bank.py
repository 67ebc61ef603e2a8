"""The injections of the answers in a batch, one row per slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibllm_tools.injection import closed_rows, row_tensors, with_row_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from ibllm_tools.injection import PerRow


class Bank:
    """Holds one row of an injection per slot; slots without media have a closed row."""

    def __init__(self, n_slots: int) -> None:
        self._n_slots = n_slots
        self._rows: PerRow | None = None
        self._open = [False] * n_slots

    def put(self, slot: int, injection: PerRow | None, row: int) -> None:
        """Give a slot one row of an injection; None closes it."""
        self._open[slot] = injection is not None
        if injection is None:
            if self._rows is not None:
                self._copy(closed_rows(self._rows, 1), 0, slot)
            return
        if self._rows is None:
            self._rows = closed_rows(injection, self._n_slots)
        self._copy(injection, row, slot)

    def move(self, source: int, target: int) -> None:
        """Give a slot what another one has."""
        self._open[target] = self._open[source]
        if self._rows is not None:
            self._copy(self._rows, source, target)

    def of(self, slots: slice | Tensor) -> PerRow | None:
        """The rows of some slots; None if none of them has media."""
        if self._rows is None or not any(self._open[s] for s in _numbers(slots)):
            return None
        picked = []
        for x, dim in row_tensors(self._rows):
            if isinstance(slots, slice):
                picked.append(x.narrow(dim, slots.start, slots.stop - slots.start))
            else:
                picked.append(x.index_select(dim, slots.to(x.device)))
        return with_row_tensors(self._rows, picked)

    def _copy(self, source: PerRow, row: int, slot: int) -> None:
        assert self._rows is not None
        pairs = zip(row_tensors(self._rows), row_tensors(source), strict=True)
        for (target, dim), (given, _) in pairs:
            target.select(dim, slot).copy_(given.select(dim, row))


def _numbers(slots: slice | Tensor) -> list[int]:
    if isinstance(slots, slice):
        return list(range(slots.start, slots.stop))
    numbers: list[int] = slots.tolist()
    return numbers
