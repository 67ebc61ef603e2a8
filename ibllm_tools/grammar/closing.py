"""The shortest way found from where an answer is to an end that its grammar accepts.

```
{"name": "Ann", "tags": ["a   ->   "   ]   }
```
What is forced is followed; a string is closed, an array or object is closed. Where neither can
be, tokens are tried in breadth, fewest tokens first, and states that allow the same are taken
for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ibllm_tools.grammar.vocabulary import Mask, Vocabulary, allowed_tokens, allows

MAX_STRING_BYTES = 8192
MAX_DIGITS = 20
MAX_EXPONENT_DIGITS = 2
_QUOTE, _ESCAPE = ord('"'), ord("\\")


class _Plan(NamedTuple):
    """How widely to search.

    Attributes:
        breadth: States kept on each level.
        n_tried: Tokens tried in each state.
        n_steps: Tokens tried altogether, where there is a choice.
        sees_all_levels: States that allow the same are taken for one on all levels, not only on
            the same one. That is quick, but wrong where something is counted.
    """

    breadth: int
    n_tried: int
    n_steps: int
    sees_all_levels: bool


_PLANS = (
    _Plan(2, 8, 400, sees_all_levels=False),
    _Plan(16, 160, 1600, sees_all_levels=True),
    _Plan(4, 160, 1600, sees_all_levels=False),
)


@dataclass(slots=True)
class JsonPlace:
    """Where in a JSON text the last byte stands.

    Attributes:
        in_string: Between quotes.
        escaped: Right after a backslash in a string.
        n_string: Bytes of the string so far.
        n_digits: Digits of the number so far, of its part after the point or of its exponent.
        in_exponent: In a number after "e".
    """

    in_string: bool = False
    escaped: bool = False
    n_string: int = 0
    n_digits: int = 0
    in_exponent: bool = False

    def copy(self) -> JsonPlace:
        """Return a copy."""
        return JsonPlace(
            self.in_string, self.escaped, self.n_string, self.n_digits, self.in_exponent
        )

    def feed(self, text: bytes) -> None:
        """Read on."""
        for byte in text:
            if self.in_string:
                self.n_string += 1
                if self.escaped:
                    self.escaped = False
                elif byte == _ESCAPE:
                    self.escaped = True
                elif byte == _QUOTE:
                    self.in_string = False
            elif 48 <= byte <= 57:
                self.n_digits += 1
            else:
                self.in_exponent = byte in b"eE" or (self.in_exponent and byte in b"+-")
                self.n_digits = 0
                if byte == _QUOTE:
                    self.in_string, self.n_string = True, 0

    def narrow(self, mask: Mask, words: Vocabulary) -> None:
        """Take from a mask what makes a string or a number longer than any use, in place."""
        if self.in_string:
            if self.n_string >= MAX_STRING_BYTES and not self.escaped:
                _keep(mask, mask & words.quoting)
        elif self.n_digits >= (MAX_EXPONENT_DIGITS if self.in_exponent else MAX_DIGITS):
            _keep(mask, mask & words.no_digits)


def _keep(mask: Mask, narrowed: Mask) -> None:
    if narrowed.any():
        mask[:] = narrowed


def compute_mask(matcher: Any, mask: Mask) -> None:
    """Write the bitmask of what a matcher allows next into `mask`."""
    matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)


@dataclass(slots=True)
class _State:
    matcher: Any
    place: JsonPlace
    tokens: tuple[int, ...]
    mask: Mask


def find_path(
    matcher: Any,
    words: Vocabulary,
    place: JsonPlace,
    limit: int,
    known: Sequence[int] = (),
    *,
    effort: int = 1,
) -> list[int] | None:
    """Find tokens that bring an answer to an accepted end.

    Args:
        matcher: llguidance's matcher; it is not changed.
        words: The tokens.
        place: Where in its JSON text the answer is.
        limit: Tokens at most.
        known: A way that led to the end from a place nearby; it is taken where it is reached.
        effort: How many times as many tokens to try as is usual while an answer is written.

    Returns:
        The tokens, none where the answer may end here; None where no way was found.
    """
    if matcher.is_accepting():
        return []
    for plan in _PLANS:
        plan = plan._replace(n_steps=plan.n_steps * effort)
        found = _Search(words, plan, known, limit).run(matcher, place)
        if found is not None and len(found) <= limit:
            return found
    return find_path(matcher, words, place, limit) if known else None


def leads_to_end(matcher: Any, tokens: Sequence[int], words: Vocabulary) -> bool:
    """Whether these tokens may follow and bring the answer to an accepted end."""
    # Validating costs a microsecond. Consuming the last token of an answer costs thirty.
    n_valid: int = matcher.validate_tokens([*tokens, words.end_ids[0]])
    return n_valid == len(tokens) + 1


class _Search:
    """One search in breadth, level by level; a level holds states after the same tokens."""

    def __init__(self, words: Vocabulary, plan: _Plan, known: Sequence[int], limit: int) -> None:
        self._words = words
        self._plan = plan
        self._known = list(known)
        self._limit = limit
        self._n_left = plan.n_steps
        self._seen: set[bytes] = set()

    def run(self, matcher: Any, place: JsonPlace) -> list[int] | None:
        states = [_State(matcher.deep_copy(), place.copy(), (), self._words.empty_mask())]
        for _ in range(self._limit):
            following: list[_State] = []
            closing: list[_State] = []  # what needed no choice comes first
            if not self._plan.sees_all_levels:
                self._seen.clear()
            for state in states:
                options = self._options(state)
                alone = len(options) == 1
                for token in options:
                    reached = self._step(state, token, alone=alone)
                    if reached is None:
                        continue
                    if (end := self._end(reached)) is not None:
                        return end
                    if (alone and len(states) == 1) or self._is_new(reached):
                        (closing if alone else following).append(reached)
            states = [*closing, *following][: self._plan.breadth]
            if not states or self._n_left <= 0:
                return None
        return None

    def _end(self, state: _State) -> list[int] | None:
        """The whole way, if this state is an end or the known way leads on from it."""
        if state.matcher.is_accepting():
            return list(state.tokens)
        if self._known and leads_to_end(state.matcher, self._known, self._words):
            return [*state.tokens, *self._known]
        return None

    def _options(self, state: _State) -> list[int]:
        """Tokens to try: what is forced, what ends a value, or the first that fill."""
        if forced := state.matcher.compute_ff_tokens():
            return list(forced[:1])
        compute_mask(state.matcher, state.mask)
        found = self._words.fillers(state.mask)
        if found and found[0] in self._words.special_ids:
            return found[: self._plan.n_tried]  # the text beside is no JSON
        if not state.place.escaped:
            for byte in '"' if state.place.in_string else "}],":
                token = self._words.single(byte)
                if token is not None and allows(state.mask, token):
                    return [token]
        if not found:
            found = [t for t in allowed_tokens(state.mask) if t not in self._words.end_ids]
        return found[: self._plan.n_tried]

    def _step(self, state: _State, token: int, *, alone: bool) -> _State | None:
        self._n_left -= not alone
        matcher = state.matcher if alone else state.matcher.deep_copy()
        if matcher.try_consume_tokens([token]) != 1:
            return None
        place = state.place if alone else state.place.copy()
        place.feed(self._words.bytes[token])
        mask = state.mask if alone else state.mask.copy()
        return _State(matcher, place, (*state.tokens, token), mask)

    def _is_new(self, state: _State) -> bool:
        compute_mask(state.matcher, state.mask)
        key = state.mask.tobytes()
        is_new = key not in self._seen
        self._seen.add(key)
        return is_new
