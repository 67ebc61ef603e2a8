"""CLIP's byte-pair tokenizer for the text trunk.

The merges are stored as pairs of token ids (`clip_merges.npz`, made from the table that OpenAI
published under the MIT licence): ids 0..255 are bytes, 256..511 bytes that end a word, and
512 + i is the result of merge i. So the first N merges alone make a smaller, consistent
tokenizer.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibllm_tools.preprocess.config import CLIP_MERGES, PreprocessConfig

_BYTES = 256
_FIRST_MERGE = 2 * _BYTES
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
# Longer words are cut: far beyond what fits into the context, and it bounds the time.
_MAX_WORD_BYTES = 4096


class ClipTokenizer:
    """Turns text into CLIP's token ids.

    Attributes:
        n_merges: How many merges are used.
        start: Id of the start token, the last but one of the vocabulary.
        end: Id of the end token, the last one.
        vocab_size: 512 + n_merges + 2.
    """

    def __init__(self, n_merges: int = CLIP_MERGES) -> None:
        """Load the first `n_merges` merges."""
        pairs = _merge_table()[:n_merges].astype(np.int64)
        self.n_merges = n_merges
        self.start = _FIRST_MERGE + n_merges
        self.end = self.start + 1
        self.vocab_size = self.end + 1
        keys = (pairs[:, 0] << 16 | pairs[:, 1]).tolist()
        self._merged = dict(zip(keys, range(_FIRST_MERGE, self.start), strict=True))
        self._byte_ids = _byte_ids()
        self._word = lru_cache(maxsize=1 << 16)(self._encode_word)

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """Return the ids of a text, without start and end.

        Args:
            text: Any text. Broken encodings and HTML entities are repaired, white space is
                joined, letters are lowered.
            special_tokens: Whether the texts `<|startoftext|>` and `<|endoftext|>` become
                special tokens, as in the reference.
        """
        ids: list[int] = []
        for word in _word_pattern(special_tokens).findall(_clean(text)):
            if special_tokens and word in _SPECIAL:
                ids.append(self.start + _SPECIAL.index(word))
            else:
                ids.extend(self._word(word))
        return ids

    def __call__(
        self, texts: Sequence[str], context: int = 77, *, special_tokens: bool = True
    ) -> Tensor:
        """Return (B, context) int64: start, ids, end, then zeros.

        A text that is too long is cut and keeps its end token.
        """
        rows = torch.zeros(len(texts), context, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = self.encode(text, special_tokens=special_tokens)[: context - 2]
            row[: len(ids) + 2] = torch.tensor([self.start, *ids, self.end])
        return rows

    def _encode_word(self, word: str) -> tuple[int, ...]:
        """Merge the bytes of one word, lowest merge first."""
        raw = word.encode()[:_MAX_WORD_BYTES]
        ids = [self._byte_ids[byte] for byte in raw]
        ids[-1] += _BYTES  # marks the end of the word
        while len(ids) > 1:
            candidates = [self._merged.get(a << 16 | b, self.start) for a, b in pairwise(ids)]
            best = min(candidates)
            if best == self.start:
                break
            ids = _join(ids, candidates, best)
        return tuple(ids)


def _join(ids: list[int], candidates: list[int], best: int) -> list[int]:
    """Replace, from the left, every pair whose merge is `best`."""
    joined, i = [], 0
    while i < len(ids):
        if i < len(candidates) and candidates[i] == best:
            joined.append(best)
            i += 2
        else:
            joined.append(ids[i])
            i += 1
    return joined


@lru_cache(maxsize=4)
def clip_tokenizer(n_merges: int = CLIP_MERGES) -> ClipTokenizer:
    """Return the shared tokenizer with the first `n_merges` merges."""
    return ClipTokenizer(n_merges)


def tokenize(texts: Sequence[str], config: PreprocessConfig) -> Tensor:
    """Return the tokens of a batch of texts: (B, text_context) int64."""
    tokenizer = clip_tokenizer(config.text_merges)
    return tokenizer(texts, config.text_context, special_tokens=config.text_special_tokens)


def _clean(text: str) -> str:
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@lru_cache(maxsize=2)
def _word_pattern(special_tokens: bool) -> Any:
    import regex

    special = "".join(regex.escape(name) + "|" for name in _SPECIAL) if special_tokens else ""
    return regex.compile(special + _WORDS, regex.IGNORECASE)


@lru_cache(maxsize=1)
def _merge_table() -> NDArray[np.uint16]:
    """All merges as (48894, 2) uint16 token ids."""
    path = resources.files("ibllm_tools.preprocess") / "clip_merges.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as table:
        pairs: NDArray[np.uint16] = table["pairs"]
        return pairs


def _byte_ids() -> list[int]:
    """Id of each byte: CLIP counts the printable Latin-1 characters first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = printable + [byte for byte in range(_BYTES) if byte not in printable]
    ids = [0] * _BYTES
    for index, byte in enumerate(order):
        ids[byte] = index
    return ids
