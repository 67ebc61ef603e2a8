"""One answer on its way through the batch: its prompt, its place, and what became of its tokens."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ibllm_tools.decoding import AnswerText, Sampler, Sampling, TokenLogprob, logprobs_of
from ibllm_tools.engine.answers import Finish, FinishReason, Piece
from ibllm_tools.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ibllm_tools.decoding import Constraint, ReasoningMarkup
    from ibllm_tools.engine.channels import Channel
    from ibllm_tools.injection import PerRow


@dataclass(frozen=True)
class Prompt:
    """What the model reads before it answers.

    Attributes:
        ids: Token ids.
        injection: One row per medium of the conversation; None without media.
        media_index: The row of each token; None where all tokens get row 0.
    """

    ids: list[int]
    injection: PerRow | None = None
    media_index: list[int] | None = None

    @property
    def answer_row(self) -> int:
        """The row of `injection` that the answer gets: the one of the latest medium."""
        return self.media_index[-1] if self.media_index else 0


class Request:
    """One answer. Apart from `cancel`, the scheduler's thread alone uses it.

    Attributes:
        prompt: What the model reads.
        slot: Its place in the batch's cache; -1 before it has one.
        length: Tokens of it in the cache.
        last: The token that is to be fed next.
        alone: Whether it is prefilled alone, since a batch with it failed.
        cancelled: Whether nobody waits for it any more.
    """

    def __init__(
        self,
        prompt: Prompt,
        sampling: Sampling,
        channel: Channel,
        *,
        n_room: int,
        tokenizer: Any,
        end_ids: frozenset[int],
        started: float,
        constraint: Constraint | None = None,
        reasoning: ReasoningMarkup | None = None,
        opened: bool = False,
        whole: bool = False,
    ) -> None:
        """Begin an answer of at most `n_room` tokens; the time runs from `started`.

        `opened` says that the prompt ends with the opening of `reasoning`.
        """
        self.prompt = prompt
        self.sampler = Sampler(sampling)
        self.slot = -1
        self.length = 0
        self.last = -1
        self.alone = False
        self.cancelled = False
        self._channel = channel
        self._n_room = n_room
        self._n_output = 0
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        limit = sampling.timeout_s
        self._deadline = None if limit is None else started + limit
        self._state = constraint.begin(n_room) if constraint else None
        marks = constraint.marks if constraint else frozenset()
        self._text = AnswerText(tokenizer, sampling.stop, marks, reasoning=reasoning, opened=opened)
        self._whole = whole
        self._shown: list[str] = []
        self._reasoning = ""
        self._logprobs: list[TokenLogprob] = []

    @property
    def n_unread(self) -> int:
        """Tokens of the prompt that the model has not read yet."""
        return len(self.prompt.ids) - self.length

    def cancel(self) -> None:
        """Let the answer leave the batch before the next step. Any thread may call it."""
        self.cancelled = True

    def allowed(self) -> NDArray[np.int32] | None:
        """The constraint's bitmask for the next token."""
        return None if self._state is None else self._state.allowed()

    def take(self, token: int, logits: Tensor) -> bool:
        """Go on with a chosen token; hand out the text that became certain.

        Args:
            token: -1 where the model's numbers left no choice.
            logits: (V,) that it was chosen by.

        Returns:
            Whether the answer goes on.

        Raises:
            ModelError: There is no token.
        """
        if token < 0:
            raise ModelError(
                "found logits that are no finite numbers; look for broken weights or media, or use "
                "dtype='float32'"
            )
        if self._state is not None:
            token = self._state.take(token)
        n_top = self.sampler.sampling.logprobs
        if token in self._end_ids:
            self._end("stop")
            return False
        if n_top is not None:
            self._logprobs.append(logprobs_of(self._tokenizer, logits, token, n_top))
        self.last = token
        self._n_output += 1
        self._show(token)
        reason = self._reason_to_end()
        if reason is not None:
            self._end(reason)
        elif not self._whole and self._has_news() and not self._channel.put(self._piece()):
            self.cancelled = True
        return reason is None

    def _show(self, token: int) -> None:
        n_before = self._text.n_reasoning_tokens
        self._shown.append(self._text.push(token))
        if self._text.n_reasoning_tokens > n_before:
            self._logprobs.clear()  # they are those of the answer alone

    def _has_news(self) -> bool:
        self._reasoning += self._text.take_reasoning()
        return bool(self._shown[-1] or self._reasoning)

    def expire(self) -> bool:
        """End an answer whose time is over, wherever it is; says whether it did."""
        if not self._is_late():
            return False
        self._end("timeout")
        return True

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.cancelled = True
        self._channel.put(error)

    def _reason_to_end(self) -> FinishReason | None:
        if self._text.stopped or (self._state is not None and self._state.finished):
            return "stop"
        if self._is_late():
            return "timeout"
        return "length" if self._n_output >= self._n_room else None

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _end(self, reason: FinishReason) -> None:
        self._shown.append(self._text.finish())
        if self._text.stopped:
            reason = "stop"
        elif self._state is not None and self._state.forced:
            reason = "length"
        finish = Finish(reason, len(self.prompt.ids), self._n_output, self._text.n_reasoning_tokens)
        self._channel.put(self._piece(finish))

    def _piece(self, finish: Finish | None = None) -> Piece:
        piece = Piece(
            "".join(self._shown),
            finish,
            tuple(self._logprobs),
            self._n_output,
            self._reasoning + self._text.take_reasoning(),
            self._text.n_reasoning_tokens,
        )
        self._shown, self._logprobs, self._reasoning = [], [], ""
        return piece
