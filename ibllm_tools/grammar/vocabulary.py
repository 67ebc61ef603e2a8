"""A tokenizer as the grammar sees it: bytes of tokens, end tokens, and grammars compiled so far.

One `Vocabulary` per tokenizer and set of end tokens; it lives as long as its tokenizer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.errors import ConfigurationError

BITS = 32
N_GRAMMARS = 128
"""Compiled grammars that are kept per vocabulary; the one unused for longest goes first."""

Mask = NDArray[np.int32]
Value = TypeVar("Value")

_N_LONG_WORDS = 4
_FIRST = b"019aA -.@_:/+"
"""Bytes that are tried first where a text may go on with anything."""


class Recent:
    """The most recently used results of a function, by key; safe to use from many threads."""

    def __init__(self, size: int) -> None:
        """Keep `size` results."""
        self._size = size
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the result of `key`, made by `make` if it is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                kept: Value = self._kept[key]
                return kept
        made = make()
        with self._lock:
            self._kept[key] = made
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return made


class Vocabulary:
    """The tokens of one tokenizer.

    Attributes:
        tokenizer: llguidance's form of it.
        n_tokens: V.
        end_ids: Tokens that end an answer; the tokenizer's own comes first.
        bytes: (V) what each token writes; nothing for special tokens.
        specials: Ids by spelling of the tokens that plain text never stands for: special ones,
            and added ones that look like tags.
        special_ids: The ids of `specials`.
        grammars: What was compiled for these tokens.
    """

    def __init__(self, tokenizer: Any, end_ids: Collection[int] = ()) -> None:
        """Read every token once.

        Raises:
            ConfigurationError: It is no fast tokenizer, or there is no end token.
        """
        self.end_ids = _end_ids(tokenizer, end_ids)
        self.tokenizer = _convert(tokenizer, list(self.end_ids))
        self.n_tokens: int = self.tokenizer.vocab_size
        self.bytes = [self._read(index) for index in range(self.n_tokens)]
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.specials = {
            token.content: index
            for index, token in added.items()
            if token.content and self.tokenizer.is_special_token(index)
        }
        self.special_ids = frozenset(self.specials.values())
        self.grammars = Recent(N_GRAMMARS)
        # Of two tokens for one byte, the earlier one is a fallback that no text is encoded with.
        self._singles = {text[0]: i for i, text in enumerate(self.bytes) if len(text) == 1}
        self.quoting = self.mask_of(i for i, text in enumerate(self.bytes) if text[:1] == b'"')
        self.no_digits = ~self.mask_of(i for i, text in enumerate(self.bytes) if text[:1].isdigit())
        self._fillers = np.array(self._order_fillers())

    def single(self, byte: str) -> int | None:
        """The token that writes this one byte; None where there is none."""
        return self._singles.get(ord(byte))

    def empty_mask(self) -> Mask:
        """A bitmask (ceil(V / 32),) that allows nothing."""
        return np.zeros((self.n_tokens + BITS - 1) // BITS, np.int32)

    def mask_of(self, tokens: Any) -> Mask:
        """The bitmask that allows these tokens."""
        flags = np.zeros(len(self.empty_mask()) * BITS, np.uint8)
        flags[list(tokens)] = 1
        return np.packbits(flags, bitorder="little").view(np.int32)

    def _read(self, index: int) -> bytes:
        if self.tokenizer.is_special_token(index):
            return b""
        text: bytes = self.tokenizer.decode_bytes([index])
        return text

    def fillers(self, mask: Mask) -> list[int]:
        """Tokens of a mask that may bring an answer to its end, in the order to try them."""
        flags = np.unpackbits(mask.view(np.uint8), bitorder="little")
        found: list[int] = self._fillers[flags[self._fillers] != 0].tolist()
        return found

    def _order_fillers(self) -> list[int]:
        """Special tokens, long words for texts that have to be long, then every single byte."""
        words = [i for i, text in enumerate(self.bytes) if text.isalpha() and text.isascii()]
        words.sort(key=lambda index: -len(self.bytes[index]))
        firsts = [self._singles[byte] for byte in _FIRST if byte in self._singles]
        others = [token for _, token in sorted(self._singles.items())]  # ASCII first
        order = [*self.specials.values(), *words[:_N_LONG_WORDS], *firsts, *others]
        return [token for token in dict.fromkeys(order) if token not in self.end_ids]


def allows(mask: Mask, token: int) -> bool:
    """Whether a bitmask allows a token."""
    return bool(int(mask[token // BITS]) >> (token % BITS) & 1)


def allowed_tokens(mask: Mask) -> list[int]:
    """The tokens that a bitmask allows, in order."""
    found: list[int] = np.flatnonzero(
        np.unpackbits(mask.view(np.uint8), bitorder="little")
    ).tolist()
    return found


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """Id of each special token by its spelling."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {t.content: index for index, t in added.items() if t.special and t.content}


_known: WeakKeyDictionary[Any, dict[tuple[int, ...], Vocabulary]] = WeakKeyDictionary()
_lock = threading.Lock()


def vocabulary_of(tokenizer: Any, end_ids: Collection[int] = ()) -> Vocabulary:
    """Return the vocabulary of a tokenizer, made once.

    Args:
        tokenizer: A fast tokenizer of transformers.
        end_ids: Further tokens that end an answer.
    """
    key = _end_ids(tokenizer, end_ids)
    with _lock:
        kept = _known.setdefault(tokenizer, {})
        if key not in kept:
            kept[key] = Vocabulary(tokenizer, end_ids)
        return kept[key]


def _end_ids(tokenizer: Any, further: Collection[int]) -> tuple[int, ...]:
    own = tokenizer.eos_token_id
    found = tuple(([] if own is None else [own]) + sorted(set(further) - {own}))
    if not found:
        raise ConfigurationError(
            "the tokenizer has no end token, and none was given; set its eos_token"
        )
    return found


def _convert(tokenizer: Any, end_ids: list[int]) -> Any:
    import llguidance

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigurationError(
            f"found a tokenizer of type {type(tokenizer).__name__}; a grammar needs a fast one, "
            "that is a model folder with tokenizer.json: load it with AutoTokenizer and save it"
        )
    # Through text, since padding and truncation are state of the tokenizer, which threads share.
    copy = type(backend).from_str(backend.to_str())
    copy.no_padding()
    copy.no_truncation()
    try:
        return llguidance.LLTokenizer(copy.to_str(), eos_token=end_ids)
    except (ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"this tokenizer cannot be used with a grammar ({error}); expected a byte-complete "
            "tokenizer of the kind BPE or Unigram"
        ) from error
