"""Reading calls out of a model's text as it comes, by the markup of its chat template."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ibllm_tools.grammar import CallDelta, CallMarkup, CallStart, TextDelta


@dataclass(frozen=True)
class Said:
    """Something that an answer says: text, or a part of a call.

    Attributes:
        text: Text for people, or JSON text of a call's arguments.
        index: Which call it belongs to, from 0; None for text for people.
        name: The called tool, where a call begins.
        call_id: The call's id, where it begins.
    """

    text: str
    index: int | None = None
    name: str | None = None
    call_id: str | None = None


class CallReader:
    """Splits text into what is said to people and the calls; makes the calls' ids."""

    def __init__(self, tokenizer: Any, answer: str | None, *, talks: bool) -> None:
        """Read the markup of a tokenizer's template.

        Args:
            tokenizer: The model's tokenizer.
            answer: The tool whose arguments are meant for people; see `tools.Plan`.
            talks: Whether there may be text beside the calls.
        """
        self._parser = CallMarkup.of(tokenizer).stream()
        self._answer = answer
        self._talks = talks
        self._places: dict[int, int | None] = {}  # the markup's index to ours; None: for people
        self.n_calls = 0

    def feed(self, text: str) -> Iterator[Said]:
        """Add text; yield what became certain by it."""
        return self._read(self._parser.feed(text))

    def close(self) -> Iterator[Said]:
        """Yield what was held back, after the last text."""
        return self._read(self._parser.finish())

    def _read(self, events: Iterable[Any]) -> Iterator[Said]:
        for event in events:
            if isinstance(event, TextDelta):
                if self._talks:
                    yield Said(event.text)
            elif isinstance(event, CallStart):
                yield from self._start(event)
            elif isinstance(event, CallDelta):
                yield Said(event.text, self._places[event.index])

    def _start(self, event: CallStart) -> Iterator[Said]:
        if event.name == self._answer:
            self._places[event.index] = None
            return
        place = self._places[event.index] = self.n_calls
        self.n_calls += 1
        yield Said("", place, event.name, f"call_{uuid.uuid4().hex[:24]}")
