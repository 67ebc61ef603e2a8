"""From logits to text: choosing the next token, and turning tokens into text as they come.

```
logits -> Sampler.choose -> token id -> AnswerText.push (TokenText, then StopText) -> text to show
```

Nothing here knows the model, the media or LangChain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.model.sampling import nucleus_probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_TOKENS = 256
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Sampling:
    """How an answer is chosen and where it ends.

    Attributes:
        temperature: 0 takes the most likely token (greedy); above 0 samples.
        top_p: Sample among the likeliest tokens that together hold this probability.
        top_k: Sample among this many tokens; 0 means all.
        max_tokens: Upper bound of the answer's tokens.
        seed: Makes sampling repeatable; None takes a fresh seed for every answer.
        stop: The answer ends before any of these texts.
        timeout_s: The answer ends after this many seconds with what it has.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = MAX_TOKENS
    seed: int | None = None
    stop: tuple[str, ...] = ()
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            ConfigurationError: A value is out of its range; the message names the range.
        """
        _check(0 <= self.temperature < float("inf"), "temperature", self.temperature, "0 or more")
        _check(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        _check(self.top_k >= 0, "top_k", self.top_k, "0 (all) or more")
        _check(self.max_tokens >= 1, "max_tokens", self.max_tokens, "1 or more")
        _check(self.timeout_s is None or self.timeout_s > 0, "timeout", self.timeout_s, "above 0")


def _check(valid: bool, name: str, found: object, expected: str) -> None:
    if not valid:
        raise ConfigurationError(f"{name} is {found}; expected {expected}")


class Sampler:
    """Chooses one token per step; holds the random state of one answer."""

    def __init__(self, sampling: Sampling) -> None:
        """Seed the random state from `sampling.seed`, or freshly where it is None."""
        self.sampling = sampling
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def choose(self, logits: torch.Tensor) -> int:
        """Choose a token.

        Args:
            logits: (V,) of the last position.

        Returns:
            The token id.
        """
        if self.sampling.temperature == 0:
            return int(logits.argmax())
        # Sampled on the CPU in float32, so that one seed gives one answer on every device.
        probabilities = nucleus_probabilities(
            logits.float().cpu(), self.sampling.temperature, self.sampling.top_p
        )
        n_kept = min(self.sampling.top_k or len(probabilities), len(probabilities))
        ranked, ids = probabilities.topk(n_kept)
        return int(ids[torch.multinomial(ranked, 1, generator=self._random)])


class TokenText:
    """Turns token ids into text as they come, never splitting a character.

    A byte-level token may hold part of a character. Its text is held back until the
    character is whole; what is broken at the end comes out as the replacement character.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Decode with `tokenizer`; special tokens give no text."""
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # decoding starts here, so that joining rules between tokens hold
        self._read = 0  # tokens before this one are in the text handed out

    def push(self, token: int) -> str:
        """Add a token; return the text that became certain by it, often empty."""
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
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text


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
        n_open = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - n_open
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """Return the text held back, for use after the last token."""
        shown, self._held = self._held, ""
        return shown


class AnswerText:
    """The text of one answer as its tokens come: whole characters, nothing from a stop text on."""

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        """Decode with `tokenizer` and end before the first text of `stop`."""
        self._tokens = TokenText(tokenizer)
        self._stops = StopText(stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop text was found."""
        return self._stops.found

    def push(self, token: int) -> str:
        """Add a token; return what may be shown now, often empty."""
        return self._stops.push(self._tokens.push(token))

    def finish(self) -> str:
        """Return what was held back, for use after the last token."""
        if self.stopped:
            return ""
        return self._stops.push(self._tokens.flush()) + self._stops.flush()


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
