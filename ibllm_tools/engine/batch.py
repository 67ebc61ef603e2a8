"""The answers that are computed together: who joins, who reads how much, who leaves.

```
slots 0 .. n-1: answers that write, one token each per step      slots n ..: prompts being read
```
Writing answers lie side by side, so that a step reads the cache without copying; who leaves makes
room by moving the last one into the hole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ibllm_tools.decoding import choose_tokens
from ibllm_tools.engine.bank import Bank
from ibllm_tools.engine.calls import Calls
from ibllm_tools.engine.slots import SlotCache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ibllm_tools.engine.requests import Request

BUSY_CHUNKS = 8
PADDED = 1.25  # tokens with padding to tokens without, at most


class Batch:
    """The answers of one model that are under way. One thread uses it.

    Args:
        model: An `ImageBindLLM`.
        n_slots: Answers at most.
        chunk: Prompt tokens that are read between two steps of answers that are being written;
            up to eight times as many where more wait to be read than are written.
        max_context: Tokens of an answer with its prompt at most.
    """

    def __init__(self, model: Any, n_slots: int, chunk: int, max_context: int) -> None:
        self._n_slots = n_slots
        self._chunk = chunk
        n_layers = model.get_decoder().config.num_hidden_layers
        self._cache = SlotCache(n_layers, n_slots, max_context)
        self._bank = Bank(n_slots)
        self._calls = Calls(model, self._cache, self._bank)
        self._writing: list[Request] = []  # in the order of their slots
        self._reading: list[Request] = []  # in the order of their arrival
        self._turn = 0

    @property
    def rows(self) -> list[Request]:
        """All answers in it."""
        return [*self._writing, *self._reading]

    @property
    def n_free(self) -> int:
        """How many answers may join."""
        return self._n_slots - len(self._writing) - len(self._reading)

    def join(self, request: Request) -> None:
        """Take an answer in; there must be a free slot."""
        taken = {row.slot for row in self._reading}
        first = len(self._writing)
        request.slot = next(s for s in range(first, self._n_slots) if s not in taken)
        self._reading.append(request)

    def step(self) -> None:
        """Read a chunk of prompts, then write one token of each answer."""
        self._drop_gone()
        if self._reading:
            self._read()
        if self._writing:
            self._write(list(self._writing))

    def _drop_gone(self) -> None:
        for row in self.rows:
            if row.cancelled or row.expire():
                self._leave(row)

    # reading prompts

    def _read(self) -> None:
        rows = self._choose_readers()
        counts = self._share(rows)
        try:
            logits = self._calls.read(rows, counts)
        except Exception as error:  # noqa: BLE001  # whatever it is, it ends no other answer
            self._read_failed(rows, error)
            return
        for row, count in zip(rows, counts, strict=True):
            row.length += count
        done = [index for index, row in enumerate(rows) if row.n_unread == 0]
        if done:
            ready = [rows[index] for index in done]
            for row in self._take(ready, logits[done]):
                self._promote(row)

    def _budget(self) -> int:
        crowded = len(self._reading) > len(self._writing)
        return self._chunk * (BUSY_CHUNKS if crowded else 1)

    def _choose_readers(self) -> list[Request]:
        """Prompts that are read together within the budget, with little padding.

        The eldest and the shortest prompt come first by turns, so that a long one delays no short
        one much, and short ones do not keep a long one waiting.
        """
        self._turn += 1
        order = self._reading
        if self._turn % 2 == 0:
            order = sorted(order, key=lambda row: row.n_unread)
        if order[0].alone:
            return order[:1]
        budget, longest, n_tokens = self._budget(), 0, 0
        chosen: list[Request] = []
        for row in order:
            count = min(row.n_unread, budget)
            n_padded = (len(chosen) + 1) * max(longest, count)
            fits = n_padded <= min(budget, PADDED * (n_tokens + count))
            if not row.alone and (not chosen or fits):
                chosen.append(row)
                longest, n_tokens = max(longest, count), n_tokens + count
        return chosen

    def _share(self, rows: Sequence[Request]) -> list[int]:
        budget = self._budget()
        return [min(row.n_unread, budget) for row in rows]

    def _read_failed(self, rows: Sequence[Request], error: Exception) -> None:
        """Let each row of a failed call try alone; one that was alone has failed."""
        if len(rows) == 1:
            self._fail(rows[0], error)
        for row in rows:
            row.alone = True

    def _promote(self, row: Request) -> None:
        """Move an answer whose prompt is read to the end of those that write."""
        target = len(self._writing)
        other = next((r for r in self._reading if r.slot == target and r is not row), None)
        if row.slot != target and other is None:
            self._cache.move(row.slot, target, row.length)
        elif other is not None:
            self._cache.swap(row.slot, target, max(row.length, other.length))
            other.slot = row.slot
        row.slot = target
        self._reading.remove(row)
        self._writing.append(row)
        self._bank.put(target, row.prompt.injection, row.prompt.answer_row)

    # writing answers

    def _write(self, rows: list[Request]) -> None:
        try:
            logits = self._calls.step(rows)
        except Exception as error:  # noqa: BLE001  # whatever it is, it ends no other answer
            if len(rows) == 1:
                self._fail(rows[0], error)
            else:
                for row in rows:
                    self._write([row])
            return
        for row in rows:
            row.length += 1
        self._take(rows, logits)

    def _take(self, rows: list[Request], logits: Tensor) -> list[Request]:
        """Choose each row's next token; returns the rows that go on, the others have left."""
        allowed, able = [], []
        for index, row in enumerate(rows):
            try:
                allowed.append(row.allowed())
                able.append(index)
            except Exception as error:  # noqa: BLE001  # of this row's constraint alone
                self._fail(row, error)
        if len(able) < len(rows):
            rows, logits = [rows[index] for index in able], logits[able]
        if not rows:
            return []
        tokens = choose_tokens(logits, [row.sampler for row in rows], allowed)
        going = []
        for row, token, row_logits in zip(rows, tokens, logits, strict=True):
            try:
                if row.take(token, row_logits):
                    going.append(row)
                else:
                    self._leave(row)
            except Exception as error:  # noqa: BLE001  # of this row's constraint, text or consumer
                self._fail(row, error)
        return going

    # leaving

    def _fail(self, row: Request, error: Exception) -> None:
        self._cache.clear(row.slot)
        self._leave(row)
        row.fail(error)

    def _leave(self, row: Request) -> None:
        if row in self._reading:
            self._reading.remove(row)
            return
        last = self._writing.pop()
        if last is not row:
            self._cache.move(last.slot, row.slot, last.length)
            self._bank.move(last.slot, row.slot)
            self._writing[row.slot] = last
            last.slot = row.slot
