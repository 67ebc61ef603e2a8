"""A compiled grammar, and its state in one answer: what may follow, and the guard that closes it.

```
Grammar.begin(max_tokens) -> GrammarState
    allowed() -> bitmask -> the engine samples -> take(token) -> the token that is used
```
The state always holds tokens that bring the answer to an end within what is left of its budget.
A token after which no such way would fit is refused, and the answer is ended along the way held.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any

from ibllm_tools.errors import ConfigurationError, SchemaError
from ibllm_tools.grammar.closing import JsonPlace, find_path, leads_to_end
from ibllm_tools.grammar.vocabulary import Mask, Vocabulary

LONGEST_PATH = 8192
"""Tokens of the longest shortest answer that is looked for."""
EFFORT = 40
"""How much longer is searched once for the shortest answer than while one is written."""
RESERVE = 48
"""Where no way to the end is found, tokens are still taken while this many more are left."""
BEYOND = 512
"""How many tokens beyond the budget a way to the end is looked for."""
_RETRY_EVERY = 8


@dataclass(frozen=True)
class Grammar:
    """What answers may look like. Immutable; shared by threads and by all answers of a kind.

    Attributes:
        words: The tokens.
        matcher: llguidance's matcher before the first token; only ever copied.
        path: Tokens of the shortest answer found.
        ends_anywhere: The answer is or begins with free text.
        marks: Special tokens that belong to the text of the answer.
    """

    words: Vocabulary
    matcher: Any
    path: tuple[int, ...]
    ends_anywhere: bool = False
    marks: frozenset[int] = frozenset()

    @classmethod
    def compile(
        cls,
        text: str,
        words: Vocabulary,
        *,
        ends_anywhere: bool = False,
        marks: frozenset[int] = frozenset(),
    ) -> Grammar:
        """Compile a grammar in llguidance's language.

        Raises:
            SchemaError: It is refused, or no answer of any length was found.
        """
        matcher = new_matcher(text, words)
        path = find_path(matcher, words, JsonPlace(), LONGEST_PATH, effort=EFFORT)
        if path is None:
            raise SchemaError(
                "no finite answer was found that fits the schema; a required property may lead "
                "back to its own definition, or a pattern may need thousands of characters"
            )
        return cls(words, matcher, tuple(path), ends_anywhere, marks)

    @property
    def min_tokens(self) -> int:
        """Tokens of the shortest answer found, the end token not counted."""
        return len(self.path)

    def begin(self, max_tokens: int) -> GrammarState:
        """Begin one answer of at most `max_tokens` tokens.

        Raises:
            ConfigurationError: The shortest answer does not fit.
        """
        if len(self.path) > max_tokens:
            raise ConfigurationError(
                f"the shortest answer that fits the schema takes {len(self.path)} tokens, but "
                f"only {max_tokens} may be written; set max_tokens to {len(self.path)} or more, "
                "or send a shorter conversation if the context is full"
            )
        return GrammarState(self, max_tokens)


def new_matcher(text: str, words: Vocabulary) -> Any:
    """Compile a grammar text.

    Raises:
        SchemaError: llguidance refuses it.
    """
    import llguidance

    matcher = llguidance.LLMatcher(words.tokenizer, text, log_level=0)
    if matcher.is_error():
        raise SchemaError(f"the grammar is refused: {matcher.get_error()}")
    return matcher


class GrammarState:
    """One answer in the making; used by one thread at a time.

    Attributes:
        finished: Nothing may follow.
        forced: The guard has ended the answer, for want of tokens.
    """

    def __init__(self, grammar: Grammar, max_tokens: int) -> None:
        """Begin; `Grammar.begin` checks the budget."""
        self._grammar = grammar
        self._words = grammar.words
        self._matcher = grammar.matcher.deep_copy()
        self._path: deque[int] | None = deque(grammar.path)
        self._place = JsonPlace()
        self._left = max_tokens
        self._mask = grammar.words.empty_mask()
        self._address = self._mask.ctypes.data  # reading it takes as long as a mask
        self._until_retry = 0
        self.finished = False
        self.forced = False

    def allowed(self) -> Mask:
        """Return the bitmask (ceil(V / 32),) of the tokens that may follow.

        Bit i of word w stands for token 32 w + i. The array is overwritten by the next call.

        Raises:
            SchemaError: The grammar has become too complex to be followed.
        """
        if self.forced and self._path:
            return self._words.mask_of(list(self._path)[:1])
        self._matcher.unsafe_compute_mask_ptr(self._address, self._mask.nbytes)
        if self._matcher.is_error():
            raise SchemaError(
                f"the grammar cannot be followed any further: {self._matcher.get_error()}; "
                "use a simpler schema"
            )
        self._place.narrow(self._mask, self._words)
        return self._mask

    def take(self, token: int) -> int:
        """Consume the sampled token.

        Args:
            token: One of those allowed.

        Returns:
            The token that is used, another one where the answer has to be ended now. It may be
            an end token.
        """
        if self.forced:
            return self._play()
        if token in self._words.end_ids and self._matcher.is_accepting():
            self.finished = True
            return token
        if not self._keeps_a_way(token):
            self.forced = True
            return self._play()
        self._consumed(token)
        return token

    def _play(self) -> int:
        """Use the next token of the way to the end."""
        if not self._path:
            self.finished = True
            return self._words.end_ids[0]
        token = self._path.popleft()
        self._matcher.consume_token(token)
        self._consumed(token)
        self.finished = self.finished or not self._path
        return token

    def _consumed(self, token: int) -> None:
        self._left -= 1
        accepting = self._matcher.is_accepting()
        if accepting:
            self._place = JsonPlace()
        else:
            self._place.feed(self._words.bytes[token])
        is_last = self._left <= 0 and accepting and not self._grammar.ends_anywhere
        self.finished = is_last or bool(self._matcher.is_stopped())

    def _keeps_a_way(self, token: int) -> bool:
        """Consume `token` if a way to the end fits after it; tell whether it did."""
        if self._matcher.try_consume_tokens([token]) != 1:
            return False
        if self._path and token == self._path[0]:
            self._path.popleft()
            return True
        if self._path is not None and self._still_leads():
            return True
        found = self._search(token)
        if found is not None and len(found) < self._left:
            self._path = deque(found)
            return True
        held = len(self._path or ())
        if found is None and self._left > RESERVE + held:
            self._path = None
            return True
        self._matcher.rollback(1)
        if self._path is None:
            before = find_path(self._matcher, self._words, self._place, self._left)
            self._path = deque(before or ())
        return False

    def _still_leads(self) -> bool:
        """Whether the way held leads on, all of it, or without what the token stands for."""
        if not self._path:
            return bool(self._matcher.is_accepting())
        path = list(self._path)
        for way in (path, path[1:], self._core()):
            if len(way) < self._left and leads_to_end(self._matcher, way, self._words):
                self._path = deque(way)
                return True
        return False

    def _core(self) -> list[int]:
        """The way held without the bytes that complete a character."""
        texts = self._words.bytes
        return list(
            dropwhile(lambda t: len(texts[t]) == 1 and texts[t] >= b"\x80", self._path or ())
        )

    def _search(self, token: int) -> list[int] | None:
        if self._path is None and self._until_retry > 0 and self._left > 2 * RESERVE:
            self._until_retry -= 1
            return None
        self._until_retry = _RETRY_EVERY
        place = self._place.copy()
        place.feed(self._words.bytes[token])
        # Beyond what is left too: a way that is too long says more than none that was found.
        limit = self._left + BEYOND
        return find_path(self._matcher, self._words, place, limit, self._core())
