"""What the engine hands out: pieces of an answer, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ibllm_tools.decoding import TokenLogprob

FinishReason = Literal["stop", "length", "timeout"]


@dataclass(frozen=True)
class Finish:
    """How an answer ended, and what it took.

    Attributes:
        reason: "stop" (end token, stop text, or the constraint is fulfilled), "length"
            (max_tokens, or the context is full) or "timeout".
        n_input_tokens: Text tokens of the prompt. A medium takes no place in the prompt.
        n_output_tokens: Tokens generated, the end token not counted.
        n_reasoning_tokens: Those of them that are reasoning, its markup included.
    """

    reason: FinishReason
    n_input_tokens: int
    n_output_tokens: int
    n_reasoning_tokens: int = 0


@dataclass(frozen=True)
class Piece:
    """A part of an answer.

    Attributes:
        text: The next text.
        finish: How the answer ended; in the last piece only.
        logprobs: The answer's tokens since the last piece, if `Sampling.logprobs` asks for them.
        n_output_tokens: Tokens generated so far.
        reasoning: The next part of what the model writes for itself before it answers.
        n_reasoning_tokens: Tokens of that so far.
    """

    text: str
    finish: Finish | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    n_output_tokens: int = 0
    reasoning: str = ""
    n_reasoning_tokens: int = 0
