"""What a model writes for itself before it answers: found by its markup, kept out of the answer.

```
<|note|>a dog, a ball<|note|>A dog plays.      <think>It barks.</think>A dog.
         reasoning            answer                      reasoning         answer
```
Only an answer's beginning can be reasoning; the same markup later is plain text.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

from ibllm_tools.model.prompts import NOTE

THINK = ("<think>", "</think>")


class ReasoningMarkup(NamedTuple):
    """The texts before and after the reasoning; they may be the same."""

    open: str
    close: str

    @classmethod
    def of(cls, tokenizer: Any) -> Self | None:
        """Find the markup that an LLM uses, by its tokens or its chat template.

        Returns:
            None where it has none.
        """
        if token_id(tokenizer, NOTE) is not None:
            return cls(NOTE, NOTE)
        template = getattr(tokenizer, "chat_template", None)
        if all(token_id(tokenizer, text) is not None for text in THINK) or (
            isinstance(template, str) and THINK[1] in template
        ):
            return cls(*THINK)
        return None

    def token_ids(self, tokenizer: Any) -> frozenset[int]:
        """The tokens that are markup by themselves."""
        found = (token_id(tokenizer, text) for text in self)
        return frozenset(i for i in found if i is not None)


def token_id(tokenizer: Any, text: str) -> int | None:
    """The token that spells a text alone; None if there is none."""
    found = tokenizer.convert_tokens_to_ids(text)
    is_one = isinstance(found, int) and tokenizer.convert_ids_to_tokens(found) == text
    return found if is_one else None


class ReasoningText:
    """Divides a text into reasoning and answer as it comes; holds back what is not yet clear."""

    def __init__(self, markup: ReasoningMarkup, *, opened: bool = False) -> None:
        """Watch for `markup`; `opened` where the prompt has begun the reasoning already."""
        self._markup = markup
        self._held = ""
        self._state = "inside" if opened else "start"
        self._fresh = opened  # nothing of the reasoning was shown yet

    @property
    def state(self) -> str:
        """Where the text is: "start" (not yet clear), "inside", "after" (spaces) or "answer"."""
        return self._state

    def push(self, text: str) -> tuple[str, str]:
        """Add text; return the reasoning and the answer that became certain."""
        self._held += text
        reasoning = ""
        if self._state == "start":
            self._begin()
        if self._state == "inside":
            reasoning = self._reason()
        if self._state == "after":
            self._held = self._held.lstrip()
            self._state = "answer" if self._held else "after"
        if self._state != "answer":
            return reasoning, ""
        answer, self._held = self._held, ""
        return reasoning, answer

    def finish(self) -> tuple[str, str]:
        """Return what was held back; reasoning that nothing closed is reasoning."""
        held, self._held = self._held, ""
        if self._state == "inside":
            return held.rstrip(), ""
        return "", held if self._state == "start" else ""

    def _begin(self) -> None:
        begun = self._held.lstrip()
        if begun.startswith(self._markup.open):
            self._held = begun[len(self._markup.open) :]
            self._state, self._fresh = "inside", True
        elif not self._markup.open.startswith(begun):
            self._state = "answer"

    def _reason(self) -> str:
        """Take the reasoning that is certain, without spaces at its ends."""
        if self._fresh:
            self._held = self._held.lstrip()
        place = self._held.find(self._markup.close)
        if place >= 0:
            shown = self._held[:place].rstrip()
            self._held = self._held[place + len(self._markup.close) :]
            self._state = "after"
            return shown
        shown = self._held[: len(self._held) - overlap(self._held, self._markup.close)].rstrip()
        self._held = self._held[len(shown) :]
        self._fresh = self._fresh and not shown
        return shown


def split_reasoning(text: str, markup: ReasoningMarkup | None) -> tuple[str, str]:
    """Divide the whole text of an answer into reasoning and answer."""
    if markup is None:
        return "", text
    parts = ReasoningText(markup)
    pushed, rest = parts.push(text), parts.finish()
    return pushed[0] + rest[0], pushed[1] + rest[1]


def overlap(text: str, end: str) -> int:
    """How many characters at the end of `text` begin `end`."""
    longest = min(len(text), len(end) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(end[:n])), 0)
