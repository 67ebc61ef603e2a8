"""What an answer must look like: the interface between grammars and the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
