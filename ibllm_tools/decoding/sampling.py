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

    def waits(self, n_tokens: int) -> Tensor:
        """Draw (V,) exponential waiting times, on the CPU; the shortest wins."""
        return torch.empty(n_tokens).exponential_(generator=self._random)


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
    drawing = [
        row for row, s in enumerate(samplers) if s.sampling.temperature > 0 and chosen[row] >= 0
    ]
    if drawing:
        drawn = _draw(logits[drawing], [samplers[row] for row in drawing])
        for row, token in zip(drawing, drawn, strict=True):
            chosen[row] = token
    return chosen


def _draw(logits: Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """Draw a token of each row (N, V), at temperatures above 0.

    The token that wins with its noise among all tokens is the one that wins among those of the
    nucleus and the likeliest `top_k`, if it is one of them; else it and all that are less likely
    leave, and the next one wins. Nothing is sorted. It is done on the CPU in float32, so that one
    seed gives one answer on every device.
    """
    options = [sampler.sampling for sampler in samplers]
    scores = logits.float().cpu() / torch.tensor([[o.temperature] for o in options])
    n_tokens = scores.shape[-1]
    waits = torch.stack([sampler.waits(n_tokens) for sampler in samplers])
    noisy = scores - waits.clamp_min_(TINY).log_()
    if all(o.top_p == 1 and not o.top_k for o in options):
        winners: list[int] = noisy.argmax(-1).tolist()
        return winners
    shares = scores.softmax(-1)
    top_p = torch.tensor([o.top_p if o.top_p < 1 else torch.inf for o in options])
    top_k = torch.tensor([o.top_k or n_tokens for o in options])
    while True:
        winner = noisy.argmax(-1, keepdim=True)
        least = scores.gather(-1, winner)
        above = scores > least
        outside = ((shares * above).sum(-1) > top_p) | (above.sum(-1) >= top_k)
        if not outside.any():
            return [int(token) for token in winner[:, 0]]
        noisy.masked_fill_(outside[:, None] & ~above, -torch.inf)


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
