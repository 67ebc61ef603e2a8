"""The shortest way found from where an answer is to an end that its grammar accepts.

```
{"name": "Ann", "tags": ["a   ->   "   ]   }
```
What is forced is followed; a string is closed, an array or object is closed. Where neither can
be, tokens are tried in breadth, fewest tokens first, and states that allow the same are taken
for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ibllm_tools.grammar.vocabulary import Mask, Vocabulary, allowed_tokens, allows

MAX_STRING_BYTES = 8192
MAX_DIGITS = 20
MAX_EXPONENT_DIGITS = 2
_QUOTE, _ESCAPE = ord('"'), ord("\\")
_SEARCHES = ((2, 6, 6000), (16, 256, 4000))
"""Breadth, tokens tried in each state, and states visited at most: first narrow, then wide."""


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
    matcher: Any, words: Vocabulary, place: JsonPlace, limit: int, *, thorough: bool = True
) -> list[int] | None:
    """Find tokens that bring an answer to an accepted end.

    Args:
        matcher: llguidance's matcher; it is not changed.
        words: The tokens.
        place: Where in its JSON text the answer is.
        limit: Tokens at most.
        thorough: Search widely where the narrow search finds nothing.

    Returns:
        The tokens, none where the answer may end here; None where no way was found.
    """
    if matcher.is_accepting():
        return []
    for breadth, n_tried, n_states in _SEARCHES[: 2 if thorough else 1]:
        found = _Search(words, breadth, n_tried, n_states).run(matcher, place, limit)
        if found is not None:
            return found
    return None


@dataclass
class _Search:
    words: Vocabulary
    breadth: int
    n_tried: int
    n_states: int

    def run(self, matcher: Any, place: JsonPlace, limit: int) -> list[int] | None:
        states = [_State(matcher.deep_copy(), place.copy(), (), self.words.empty_mask())]
        for _ in range(limit):
            following: list[_State] = []
            seen: set[bytes] = set()
            for state in states:
                options = self._options(state)
                for token in options:
                    reached = self._step(state, token, alone=len(options) == 1)
                    self.n_states -= 1
                    if reached is None:
                        continue
                    if reached.matcher.is_accepting():
                        return list(reached.tokens)
                    if self._is_new(reached, seen, alone=len(options) == len(states) == 1):
                        following.append(reached)
            states = following[: self.breadth]
            if not states or self.n_states <= 0:
                return None
        return None

    def _options(self, state: _State) -> list[int]:
        """Tokens to try: what is forced, what closes, or the first that fill."""
        if forced := state.matcher.compute_ff_tokens():
            return list(forced[:1])
        compute_mask(state.matcher, state.mask)
        for byte in '"' if state.place.in_string else "}]":
            token = self.words.single(byte)
            if token is not None and allows(state.mask, token) and not state.place.escaped:
                return [token]
        found = self.words.fillers(state.mask)
        if not found:
            found = [t for t in allowed_tokens(state.mask) if t not in self.words.end_ids]
        return found[: self.n_tried]

    def _step(self, state: _State, token: int, *, alone: bool) -> _State | None:
        matcher = state.matcher if alone else state.matcher.deep_copy()
        if matcher.try_consume_tokens([token]) != 1:
            return None
        place = state.place if alone else state.place.copy()
        place.feed(self.words.bytes[token])
        mask = state.mask if alone else state.mask.copy()
        return _State(matcher, place, (*state.tokens, token), mask)

    @staticmethod
    def _is_new(state: _State, seen: set[bytes], *, alone: bool) -> bool:
        if alone:
            return True
        compute_mask(state.matcher, state.mask)
        key = state.mask.tobytes()
        is_new = key not in seen
        seen.add(key)
        return is_new
