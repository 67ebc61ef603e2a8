"""How likely the model found a token, and how a token is spelled."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
SENTENCEPIECE_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class TokenLogprob:
    """One token of an answer and how likely the model found it.

    Attributes:
        token: Its text; the replacement character stands for a part of a character.
        bytes: Its bytes in UTF-8; None where the tokenizer does not tell them.
        logprob: Natural logarithm of its probability.
        top: The likeliest tokens in its place, likeliest first.
    """

    token: str
    bytes: bytes | None
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


def logprobs_of(tokenizer: Any, logits: Tensor, token: int, n_top: int) -> TokenLogprob:
    """The log-probability of a token and of the `n_top` likeliest, by logits (V,)."""
    logits = logits.float()
    whole = logits.logsumexp(-1)
    top = []
    if n_top:
        values, ids = (logits - whole).topk(min(n_top, len(logits)))
        top = [
            TokenLogprob(*spell(tokenizer, i), x)
            for i, x in zip(ids.tolist(), values.tolist(), strict=True)
        ]
    return TokenLogprob(*spell(tokenizer, token), float(logits[token] - whole), tuple(top))


def spell(tokenizer: Any, token: int) -> tuple[str, bytes | None]:
    """Text and bytes of one token; a token may hold a part of a character.

    The bytes are None where the tokenizer does not tell them.
    """
    piece = tokenizer.convert_ids_to_tokens(token) or ""
    text: str = tokenizer.decode([token], skip_special_tokens=False)
    if piece.startswith(SENTENCEPIECE_SPACE) and not text.startswith(" "):
        text = " " + text
    if REPLACEMENT not in text:
        return text, text.encode()
    if found := _BYTE_TOKEN.fullmatch(piece):
        return text, bytes([int(found[1], 16)])
    known = _byte_of_character()
    if all(character in known for character in piece):
        return text, bytes(known[character] for character in piece)
    return text, None


@cache
def _byte_of_character() -> dict[str, int]:
    """The alphabet of byte-level tokenizers: bytes without a printable sign start at 256."""
    signs = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in signs]
    pairs = {chr(byte): byte for byte in signs}
    return pairs | {chr(256 + index): byte for index, byte in enumerate(others)}
