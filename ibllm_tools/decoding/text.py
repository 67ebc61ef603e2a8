"""Tokens to text as they come: whole characters, reasoning apart, stop texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ibllm_tools.decoding.logprobs import REPLACEMENT
from ibllm_tools.decoding.reasoning import ReasoningMarkup, ReasoningText, overlap

if TYPE_CHECKING:
    from collections.abc import Sequence


class TokenText:
    """Turns token ids into text as they come, never splitting a character.

    A byte-level token may hold part of a character. Its text is held back until the
    character is whole; what is broken at the end comes out as the replacement character.
    """

    def __init__(self, tokenizer: Any, marks: frozenset[int] = frozenset()) -> None:
        """Decode with `tokenizer`; special tokens give no text, except those in `marks`."""
        self._tokenizer = tokenizer
        self._skipped = special_ids(tokenizer) - marks if marks else None
        self._ids: list[int] = []
        self._start = 0  # decoding starts here, so that joining rules between tokens hold
        self._read = 0  # tokens before this one are in the text handed out

    def push(self, token: int) -> str:
        """Add a token; return the text that became certain by it, often empty."""
        if self._skipped is not None and token in self._skipped:
            return ""
        self._ids.append(token)
        text = self._pending()
        if text.endswith(REPLACEMENT):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return text

    def flush(self) -> str:
        """Return the text held back, for use after the last token."""
        text = self._pending()
        self._start = self._read = len(self._ids)
        return text

    def _pending(self) -> str:
        known = self._decode(self._ids[self._start : self._read])
        return self._decode(self._ids[self._start :])[len(known) :]

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=self._skipped is None)
        return text


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The tokens that `skip_special_tokens` leaves out of a text."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).items()
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added if token.special}


class StopText:
    """Ends a text before the first stop text; holds back what could become one."""

    def __init__(self, stop: Sequence[str]) -> None:
        """Watch for each non-empty text in `stop`."""
        self._stop = [text for text in stop if text]
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Add text; return what may be shown now. Sets `found` at a stop text."""
        self._held += text
        places = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            shown, self._held = self._held[: min(places)], ""
            return shown
        n_open = max((overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - n_open
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """Return the text held back, for use after the last token."""
        shown, self._held = self._held, ""
        return shown


class AnswerText:
    """The text of one answer as its tokens come: whole characters, nothing from a stop text on.

    Attributes:
        n_reasoning_tokens: Tokens so far that are reasoning, its markup included.
    """

    def __init__(
        self,
        tokenizer: Any,
        stop: Sequence[str] = (),
        marks: frozenset[int] = frozenset(),
        *,
        reasoning: ReasoningMarkup | None = None,
        opened: bool = False,
    ) -> None:
        """Decode with `tokenizer`, show `marks`, and end before the first text of `stop`.

        What stands in `reasoning` markup at the beginning is not part of the answer; `opened`
        where the prompt has begun it already.
        """
        markup = reasoning.token_ids(tokenizer) if reasoning else frozenset()
        self._tokens = TokenText(tokenizer, marks | (markup & special_ids(tokenizer)))
        self._later_markup = (markup & special_ids(tokenizer)) - marks
        self._parts = ReasoningText(reasoning, opened=opened) if reasoning else None
        self._stops = StopText(stop)
        self._reasoning: list[str] = []
        self._n_unclear = 0
        self.n_reasoning_tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop text was found."""
        return self._stops.found

    def push(self, token: int) -> str:
        """Add a token; return what may be shown of the answer now, often empty."""
        if self._parts is None:
            return self._stops.push(self._tokens.push(token))
        before = self._parts.state
        if before in ("after", "answer") and token in self._later_markup:
            return ""
        reasoning, answer = self._parts.push(self._tokens.push(token))
        self._reasoning.append(reasoning)
        self._count(before, self._parts.state)
        return self._stops.push(answer)

    def take_reasoning(self) -> str:
        """Return the reasoning since the last call."""
        taken, self._reasoning = "".join(self._reasoning), []
        return taken

    def finish(self) -> str:
        """Return what was held back of the answer, for use after the last token."""
        if self.stopped:
            return ""
        text = self._tokens.flush()
        if self._parts is not None:
            pushed, rest = self._parts.push(text), self._parts.finish()
            self._reasoning += [pushed[0], rest[0]]
            text = pushed[1] + rest[1]
        return self._stops.push(text) + self._stops.flush()

    def _count(self, before: str, after: str) -> None:
        if before == "start":
            self._n_unclear += 1
            if after in ("inside", "after"):
                self.n_reasoning_tokens = self._n_unclear
        elif before == "inside":
            self.n_reasoning_tokens += 1
