"""From logits to text: choosing the next token, and turning tokens into text as they come.

```
logits -> choose_tokens -> token id -> AnswerText.push (TokenText, then StopText) -> text to show
          (Sampler, ConstraintState.allowed)
```

Nothing here knows the model, the media or LangChain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

MAX_TOKENS = 256
MAX_LOGPROBS = 100
NUCLEUS_FIRST = 256  # so many of the likeliest tokens nearly always hold the nucleus
TINY = 1e-38
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
SENTENCEPIECE_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")


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
        logprobs: None for none; else each token comes with its log-probability and with those of
            this many of the likeliest. They are the model's own, before temperature and grammar.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = MAX_TOKENS
    seed: int | None = None
    stop: tuple[str, ...] = ()
    timeout_s: float | None = None
    logprobs: int | None = None

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
        _check(
            self.logprobs is None or 0 <= self.logprobs <= MAX_LOGPROBS,
            "logprobs",
            self.logprobs,
            f"None, or 0 to {MAX_LOGPROBS}",
        )


def _check(valid: bool, name: str, found: object, expected: str) -> None:
    if not valid:
        raise ConfigurationError(f"{name} is {found}; expected {expected}")


@dataclass(frozen=True)
class TokenLogprob:
    """One token of an answer and how likely the model found it.

    Attributes:
        token: Its text; the replacement character stands for a part of a character.
        bytes: Its bytes in UTF-8; None where the tokenizer does not tell them.
        logprob: Natural logarithm of its probability.
        top: The likeliest tokens in its place, likeliest first.
    """

    token: str
    bytes: bytes | None
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


class Constraint(Protocol):
    """What an answer must look like. Immutable; threads and answers may share one."""

    @property
    def marks(self) -> frozenset[int]:
        """Special tokens that are part of what the answer says, so that its text shows them."""

    def begin(self, max_tokens: int) -> ConstraintState:
        """Follow one answer of at most this many tokens.

        Raises:
            IbllmError: So few tokens can hold no valid answer.
        """


class ConstraintState(Protocol):
    """One answer on its way through a `Constraint`."""

    def allowed(self) -> NDArray[np.int32] | None:
        """Say which tokens may come next.

        Returns:
            (ceil(V / 32),) bitmask; bit i of word w stands for token 32 * w + i, and tokens that
            it does not reach are forbidden. None allows every token. It is read before the next
            call.
        """

    def take(self, token: int) -> int:
        """Go on with a sampled token; return the one that is really used.

        It may be another one, which closes the answer in time, and it may be an end token.
        """

    @property
    def finished(self) -> bool:
        """Whether nothing may follow."""

    @property
    def forced(self) -> bool:
        """Whether the answer was closed for want of tokens."""


class Sampler:
    """Chooses the tokens of one answer; holds its random state.

    It draws by Gumbel-max: the token whose logit plus noise is greatest. A rounding error of the
    logits, which depends on how many answers are computed together, then nearly never changes the
    choice, as it does where a number is compared with sums of probabilities.
    """

    def __init__(self, sampling: Sampling) -> None:
        """Seed the random state from `sampling.seed`, or freshly where it is None."""
        self.sampling = sampling
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def choose(self, logits: Tensor) -> int:
        """Choose a token by the logits (V,) of the last position."""
        return choose_tokens(logits[None], [self])[0]

    def draw(self, logits: Tensor) -> int:
        """Draw a token by logits (V,), at a temperature above 0.

        It is done on the CPU in float32, so that one seed gives one answer on every device.
        """
        scores = logits.float().cpu() / self.sampling.temperature
        scores = _cut(scores, self.sampling.top_p, self.sampling.top_k)
        waits = torch.empty_like(scores).exponential_(generator=self._random)
        return int((scores - waits.clamp_min(TINY).log()).argmax())


def choose_tokens(
    logits: Tensor,
    samplers: Sequence[Sampler],
    allowed: Sequence[NDArray[np.int32] | None] = (),
) -> list[int]:
    """Choose the next token of several answers, each as its own sampler wants.

    Args:
        logits: (N, V) of the last positions.
        samplers: N samplers.
        allowed: N bitmasks of `ConstraintState.allowed`, or nothing.

    Returns:
        N token ids; -1 where no token is left, or the logits are not finite.
    """
    if any(mask is not None for mask in allowed):
        logits = _forbid(logits, allowed)
    best, ids = logits.max(-1)
    chosen: list[int] = torch.where(best.isfinite(), ids, -1).tolist()
    for row, sampler in enumerate(samplers):
        if sampler.sampling.temperature > 0 and chosen[row] >= 0:
            chosen[row] = sampler.draw(logits[row])
    return chosen


def _forbid(logits: Tensor, allowed: Sequence[NDArray[np.int32] | None]) -> Tensor:
    """Give -inf to every token that a row's mask does not allow, or does not reach."""
    n_tokens = logits.shape[-1]
    n_bytes = -(-n_tokens // 8)
    bits = np.full((len(allowed), n_bytes), 255, np.uint8)
    for row, mask in enumerate(allowed):
        if mask is not None:
            given = np.asarray(mask).view(np.uint8)[:n_bytes]
            bits[row, : len(given)] = given
            bits[row, len(given) :] = 0
    flags = np.unpackbits(bits, axis=1, count=n_tokens, bitorder="little")
    forbidden = torch.from_numpy(flags == 0).to(logits.device)
    return logits.masked_fill(forbidden, -torch.inf)


def _cut(scores: Tensor, top_p: float, top_k: int) -> Tensor:
    """Keep the nucleus of `top_p`, then the `top_k` likeliest; the rest gets -inf.

    As in `model.sampling`, a token stays if those strictly more likely hold at most `top_p`.
    """
    n_tokens = len(scores)
    if top_k and top_k < n_tokens:
        least_k = scores.topk(top_k).values[-1]
    else:
        least_k = scores.new_tensor(-torch.inf)
    if top_p == 1:
        return scores.masked_fill(scores < least_k, -torch.inf)
    whole = scores.logsumexp(-1)
    for n_ranked in (min(NUCLEUS_FIRST, n_tokens), n_tokens):
        ranked = scores.topk(n_ranked).values
        shares = (ranked - whole).exp()
        inside = shares.cumsum(-1) - shares <= top_p
        if not inside[-1]:
            break
    least = ranked[int(inside.sum()) - 1]
    return scores.masked_fill((scores < least) | (scores < least_k), -torch.inf)


def logprobs_of(tokenizer: Any, logits: Tensor, token: int, n_top: int) -> TokenLogprob:
    """The log-probability of a token and of the `n_top` likeliest, by logits (V,)."""
    logits = logits.float()
    whole = logits.logsumexp(-1)
    top = []
    if n_top:
        values, ids = (logits - whole).topk(min(n_top, len(logits)))
        top = [
            TokenLogprob(*spell(tokenizer, i), x)
            for i, x in zip(ids.tolist(), values.tolist(), strict=True)
        ]
    return TokenLogprob(*spell(tokenizer, token), float(logits[token] - whole), tuple(top))


def spell(tokenizer: Any, token: int) -> tuple[str, bytes | None]:
    """Text and bytes of one token; a token may hold a part of a character.

    The bytes are None where the tokenizer does not tell them.
    """
    piece = tokenizer.convert_ids_to_tokens(token) or ""
    text: str = tokenizer.decode([token], skip_special_tokens=False)
    if piece.startswith(SENTENCEPIECE_SPACE) and not text.startswith(" "):
        text = " " + text
    if REPLACEMENT not in text:
        return text, text.encode()
    if found := _BYTE_TOKEN.fullmatch(piece):
        return text, bytes([int(found[1], 16)])
    known = _byte_of_character()
    if all(character in known for character in piece):
        return text, bytes(known[character] for character in piece)
    return text, None


@cache
def _byte_of_character() -> dict[str, int]:
    """The alphabet of byte-level tokenizers: bytes without a printable sign start at 256."""
    signs = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in signs]
    pairs = {chr(byte): byte for byte in signs}
    return pairs | {chr(256 + index): byte for index, byte in enumerate(others)}


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

    def __init__(
        self, tokenizer: Any, stop: Sequence[str] = (), marks: frozenset[int] = frozenset()
    ) -> None:
        """Decode with `tokenizer`, show `marks`, and end before the first text of `stop`."""
        self._tokens = TokenText(tokenizer, marks)
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
