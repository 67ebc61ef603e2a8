"""Rules of answers with notes: each thing is named once, and no tool is called that nobody offers.

A note lists what is perceived: `dog, sea`, never `dog, dog`. A model that reads a mixture of two
things off one vector still sees the stronger one after it has named it. Notes that compare
(`dog?cat-`) repeat names on purpose and are left alone. A tiny model that learned to call tools
below a system prompt also calls where there is only the prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ibllm_tools.decoding.reasoning import token_id
from ibllm_tools.model.prompts import CALL, NOTE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

COMMA, COMPARES = ", ", "?"


class NoteNames:
    """The `Constraint` of answers that are otherwise free."""

    marks: frozenset[int] = frozenset()

    def __init__(self, tokenizer: Any, note: int, call: int | None = None) -> None:
        """Know how a tokenizer spells notes; `note` is their mark, `call` is what is forbidden."""
        self.note = note
        self.call = [] if call is None else [call]
        self.comma = tuple(tokenizer.encode(COMMA, add_special_tokens=False))
        self.compares = frozenset(tokenizer.encode(COMPARES, add_special_tokens=False))
        self.n_words = -(-len(tokenizer) // 32)

    @classmethod
    def of(cls, tokenizer: Any, *, calls: bool = True) -> Self | None:
        """The constraint for a tokenizer; None where its model writes no notes.

        Args:
            tokenizer: Of the model.
            calls: Tools are offered.
        """
        note = token_id(tokenizer, NOTE)
        call = None if calls else token_id(tokenizer, CALL)
        return None if note is None else cls(tokenizer, note, call)

    def begin(self, max_tokens: int) -> NoteState:  # noqa: ARG002  # the interface's
        """Follow one answer."""
        return NoteState(self)

    def named(self, answer: Sequence[int]) -> list[int]:
        """Tokens that begin names which the note at an answer's start has, if a name comes next.

        Args:
            answer: The tokens so far.
        """
        size = len(self.comma)
        inside = tuple(answer[1:])
        if not answer or answer[0] != self.note or self.note in inside:
            return []
        if inside[-size:] != self.comma or self.compares.intersection(inside):
            return []
        starts = [0, *(i + size for i in range(len(inside)) if inside[i : i + size] == self.comma)]
        return [inside[i] for i in starts if i < len(inside)]


class NoteState:
    """One answer on its way; see `ConstraintState`."""

    finished = False
    forced = False

    def __init__(self, names: NoteNames) -> None:
        """Begin an answer."""
        self._names = names
        self._answer: list[int] = []
        self._is_open = True

    def allowed(self) -> NDArray[np.int32] | None:
        """Forbid names that the note has, and calls; see `ConstraintState`."""
        named = self._names.named(self._answer) if self._is_open else []
        if not named and not self._names.call:
            return None
        words = np.full(self._names.n_words, 2**32 - 1, np.uint32)
        for token in (*named, *self._names.call):
            words[token // 32] &= np.uint32(2**32 - 1 - (1 << token % 32))
        return words.view(np.int32)

    def take(self, token: int) -> int:
        """Go on with a token, whatever it is."""
        if self._is_open:  # the first token opens the note, the next one like it closes it
            self._answer.append(token)
            self._is_open = (token == self._names.note) == (len(self._answer) == 1)
        return token
