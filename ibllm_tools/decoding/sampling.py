"""Choosing the next token of answers from logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
