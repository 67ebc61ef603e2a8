"""Reading an answer as it comes: its text, and the calls in it.

```
feed("Let me") feed(" see.<|call|>{"name": "f", "argum") feed('ents": {"x": 1}}') finish()
  -> TextDelta("Let me see.")  CallStart(0, "f")  CallDelta(0, '{"x": 1}')  CallEnd(0)
```
However an answer is split, the joined events are the same. What may yet become markup is held
back, and so is white space, which is dropped where a call follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import regex

from ibllm_tools.grammar.markup import ID_MARK, object_or_text

if TYPE_CHECKING:
    from ibllm_tools.grammar.markup import CallMarkup


@dataclass(frozen=True)
class TextDelta:
    """More of the text."""

    text: str


@dataclass(frozen=True)
class CallStart:
    """A call begins; its name is complete."""

    index: int
    name: str


@dataclass(frozen=True)
class CallDelta:
    """More of the arguments' JSON text of a call."""

    index: int
    text: str


@dataclass(frozen=True)
class CallEnd:
    """The arguments of a call are complete."""

    index: int


Event = TextDelta | CallStart | CallDelta | CallEnd


@dataclass
class _Depth:
    """How deep in a JSON value the text read so far stands; `closed` after the value."""

    depth: int = 0
    in_string: bool = False
    escaped: bool = False
    closed: bool = False

    def read(self, text: str) -> int:
        """Read on; return how many characters belong to the value."""
        for place, character in enumerate(text):
            if self.in_string:
                if self.escaped:
                    self.escaped = False
                elif character == "\\":
                    self.escaped = True
                elif character == '"':
                    self.in_string = False
            elif character == '"':
                self.in_string = True
            elif character in "{[":
                self.depth += 1
            elif character in "}]":
                self.depth -= 1
                if self.depth <= 0:
                    self.closed = True
                    return place + 1
        return len(text)


class CallParser:
    """Turns the text of one answer, fed piece by piece, into events."""

    def __init__(self, markup: CallMarkup) -> None:
        """Read calls that are written in `markup`."""
        self._opening = _pattern(markup.opening)
        self._middle = _pattern(markup.middle)
        self._joint = None if markup.joint is None else _pattern(markup.joint)
        self._closing = _pattern(markup.closing)
        self._is_bare = markup.is_bare
        self._step = self._read_text
        self._held = ""
        self._depth = _Depth()
        self._index = -1
        self._talked = False
        self._ended = False

    def feed(self, text: str) -> list[Event]:
        """Read on.

        Args:
            text: More of the answer, with the special tokens of the markup spelled.

        Returns:
            What became certain by it.
        """
        self._held += text
        return list(self._run())

    def finish(self) -> list[Event]:
        """Return what was held back, for use after the last piece."""
        self._ended = True
        return list(self._run())

    def _run(self) -> Iterator[Event]:
        while True:
            step, held = self._step, self._held
            yield from step()
            if self._step == step and (self._held == held or not self._held):
                return

    def _read_text(self) -> Iterator[Event]:
        """Hand out text up to an opening; hold back what may become one."""
        found = self._find_opening()
        end = len(self._held) if found is None else found.start()
        if found is None or found.partial:
            shown = self._held if self._ended else self._held[:end].rstrip()
            if self._is_bare and not self._ended and not self._talked and not shown:
                return
            self._held = self._held[len(shown) :]
            if shown:
                self._talked = True
                yield TextDelta(shown)
            return
        if shown := self._held[:end].rstrip():
            yield TextDelta(shown)
        self._held = self._held[found.end() :]
        self._talked = True
        self._step = self._read_name

    def _find_opening(self) -> Any:
        if self._is_bare:
            if self._talked:
                return None
            blank = len(self._held) - len(self._held.lstrip())
            return self._opening.match(self._held, blank, partial=not self._ended)
        return self._opening.search(self._held, partial=not self._ended)

    def _read_name(self) -> Iterator[Event]:
        found = self._middle.search(self._held)
        if found is None:
            return
        self._index += 1
        yield CallStart(self._index, self._held[: found.start()])
        self._held = self._held[found.end() :]
        self._depth = _Depth()
        self._step = self._read_arguments

    def _read_arguments(self) -> Iterator[Event]:
        n_own = self._depth.read(self._held)
        shown, self._held = self._held[:n_own], self._held[n_own:]
        if shown:
            yield CallDelta(self._index, shown)
        if self._depth.closed:
            yield CallEnd(self._index)
            self._step = self._read_after

    def _read_after(self) -> Iterator[Event]:
        """After arguments comes another call or the end of the calls."""
        yield from ()
        for pattern, step in ((self._joint, self._read_name), (self._closing, self._read_text)):
            if pattern is None:
                continue
            found = pattern.match(self._held, partial=not self._ended)
            if found is not None and found.partial:
                return
            if found is not None:
                self._held = self._held[found.end() :]
                self._step = step
                return
        self._step = self._read_text


def parse_answer(markup: CallMarkup, answer: str) -> tuple[str, list[dict[str, Any]]]:
    """Split a whole answer; see `CallMarkup.parse`."""
    parser = CallParser(markup)
    text, calls = "", []
    for event in [*parser.feed(answer), *parser.finish()]:
        if isinstance(event, TextDelta):
            text += event.text
        elif isinstance(event, CallStart):
            calls.append({"name": event.name, "arguments": ""})
        elif isinstance(event, CallDelta):
            calls[event.index]["arguments"] += event.text
    for call in calls:
        call["arguments"] = object_or_text(call["arguments"])
    return text, calls


def _pattern(text: str) -> Any:
    """A part of a markup as a pattern; ids are nine letters and digits."""
    pieces = (regex.escape(piece, special_only=False) for piece in text.split(ID_MARK))
    return regex.compile("[a-zA-Z0-9]{9}".join(pieces))
