"""Tokens with times become words with times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibllm_tools.experts.results import Word

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Written without spaces: each group of whole characters is a word, as in Whisper.
WITHOUT_SPACES = {"zh", "ja", "th", "lo", "my", "yue"}
BROKEN = "\ufffd"  # what an unfinished character decodes to


def to_words(
    tokens: Sequence[int],
    ends_s: Sequence[float],
    start_s: float,
    decode: Callable[[list[int]], str],
    language: str | None,
) -> list[Word]:
    """Join text tokens to words.

    Args:
        tokens: (N,) text tokens, no special ones.
        ends_s: (N,) when each token ends.
        start_s: When the first token begins.
        decode: Turns tokens into text; bytes of an unfinished character give U+FFFD.
        language: Its code; decides whether spaces divide words.
    """
    words: list[Word] = []
    group: list[int] = []
    begin_s = end_before_s = start_s
    for token, end_s in zip(tokens, ends_s, strict=True):
        group.append(token)
        text = decode(group)
        end_s = max(end_s, end_before_s)
        if BROKEN in text:
            continue
        if words and _continues(text, language):
            last = words[-1]
            words[-1] = last.model_copy(update={"text": last.text + text, "end_s": end_s})
        else:
            words.append(Word(text=text, start_s=begin_s, end_s=end_s))
        group, begin_s, end_before_s = [], end_s, end_s
    trimmed = [word.model_copy(update={"text": word.text.strip()}) for word in words]
    return [word for word in trimmed if word.text]


def _continues(text: str, language: str | None) -> bool:
    """Tell whether a piece belongs to the word before it."""
    if not any(letter.isalnum() for letter in text):
        return True
    return language not in WITHOUT_SPACES and not text.startswith(" ")
