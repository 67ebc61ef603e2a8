"""Drills of copying and choosing over random token ids.

A drill has no meaning: any token may stand anywhere, so that the only way to be right is to
look. Each is a list of ids and a mask of what can be known. Four forms: repeat a list, recall
the value of a key, copy a marked span into a call, and choose among tools by words of their
descriptions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from ibllm_tools.train.text_batches import Row
from ibllm_tools.train.tokenizer import (
    ARGUMENTS_OPEN,
    ASSISTANT,
    BOS,
    CALL,
    END,
    NAME_OPENS,
    SPECIAL_TOKENS,
    SYSTEM,
    TOOL_MARKS,
    USER,
    encode_text,
)


@dataclass(frozen=True)
class DrillTokens:
    """The ids that drills are made of.

    Attributes:
        plain: All tokens that are not special.
        of: Ids of special tokens and JSON pieces by their text.
        glue: Ids of a space, a quotation mark, brackets and the like.
    """

    plain: list[int]
    of: dict[str, int]
    glue: dict[str, int]

    @classmethod
    def read(cls, tokenizer: PreTrainedTokenizerFast) -> DrillTokens:
        """Collect the ids of a tokenizer."""
        names = (*SPECIAL_TOKENS, NAME_OPENS, ARGUMENTS_OPEN)
        of = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
        plain = sorted(set(range(len(tokenizer))) - set(of.values()))
        glue = {text: encode_text(tokenizer, text)[0] for text in ' "(){}:?.,_'}
        return cls(plain, of, glue)

    def words(self, rng: random.Random, count: int) -> list[int]:
        """Any tokens."""
        return rng.choices(self.plain, k=count)


def draw_drill(rng: random.Random, tokens: DrillTokens, longest: int) -> Row:
    """Draw one drill of at most `longest` tokens."""
    makers: tuple[Callable[..., Row], ...] = (_repeat, _recall, _copy_span, _choose_tool)
    return rng.choices(makers, (1.0, 1.5, 2.0, 1.5))[0](rng, tokens, longest)


def draw_drill_rows(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, count: int, longest: int = 160
) -> list[Row]:
    """Draw drills of at most `longest` tokens."""
    tokens = DrillTokens.read(tokenizer)
    rows: list[Row] = []
    while len(rows) < count:
        row = draw_drill(rng, tokens, longest)
        if len(row.ids) <= longest:
            rows.append(row)
    return rows


def _join(parts: Sequence[tuple[Sequence[int], bool]]) -> Row:
    ids: list[int] = []
    known: list[bool] = []
    for piece, learned in parts:
        ids += piece
        known += [learned] * len(piece)
    return Row(ids, known)


def _repeat(rng: random.Random, tokens: DrillTokens, longest: int) -> Row:
    length = rng.randint(4, max(4, min(40, longest // 2 - 2)))
    span = tokens.words(rng, length)
    return _join([([tokens.of[BOS]], False), (span + span[:1], False), (span[1:], True)])


def _recall(rng: random.Random, tokens: DrillTokens, longest: int) -> Row:
    n_keys = rng.randint(3, max(3, min(16, longest // 9)))
    keys = rng.sample(tokens.plain, n_keys)
    values = [tokens.words(rng, rng.randint(1, 3)) for _ in keys]
    stop = tokens.glue["."]
    parts: list[tuple[Sequence[int], bool]] = [([tokens.of[BOS]], False)]
    for key, value in zip(keys, values, strict=True):
        parts.append(([key, *value, stop], False))
    for i in rng.sample(range(n_keys), min(4, n_keys)):
        parts += [([keys[i]], False), ([*values[i], stop], True)]
    return _join(parts)


def _copy_span(rng: random.Random, tokens: DrillTokens, longest: int) -> Row:
    """A user's text with a quoted span, and a call that holds the span."""
    g, of = tokens.glue, tokens.of
    span = tokens.words(rng, rng.randint(1, 10))
    if rng.random() < 0.5:  # words parted by spaces
        span = [t for word in span for t in (word, g[" "])][:-1]
    room = max(2, longest - 2 * len(span) - 24)
    before = tokens.words(rng, rng.randint(0, min(20, room // 2)))
    after = tokens.words(rng, rng.randint(0, min(12, room // 2)))
    name, key = tokens.words(rng, 2), tokens.words(rng, 1)
    quoted = [g['"'], *span, g['"']]
    tool = [of[SYSTEM], of[TOOL_MARKS[0]], *name, g["("], *key, g[")"], of[END]]
    call = [
        of[CALL],
        of[NAME_OPENS],
        *name,
        of[ARGUMENTS_OPEN],
        g['"'],
        *key,
        g['"'],
        g[":"],
        g[" "],
    ]
    asked = [of[USER], *before, *quoted, *after, of[END], of[ASSISTANT]]
    closing = [g["}"], g["}"], of[END]]
    return _join([([of[BOS], *tool, *asked], False), (call, True), (quoted, True), (closing, True)])


def _choose_tool(rng: random.Random, tokens: DrillTokens, longest: int) -> Row:
    """Tools with descriptions; a question holds words of one of them."""
    g, of = tokens.glue, tokens.of
    size = rng.randint(3, 10)
    n_tools = rng.randint(2, max(2, min(8, (longest - 40) // (size + 9))))
    common = tokens.words(rng, rng.randint(0, 3))
    names = _names(rng, tokens, n_tools)
    texts = [tokens.words(rng, size) for _ in names]
    ids = [of[BOS], of[SYSTEM]]
    for i, (name, text) in enumerate(zip(names, texts, strict=True)):
        shown = text + [w for w in common if rng.random() < 0.8]
        rng.shuffle(shown)
        spaced = [t for word in shown for t in (g[" "], word)] if rng.random() < 0.5 else shown
        ids += [of[TOOL_MARKS[i]], *name, g["("], g[")"], *spaced[: longest // n_tools]]
    right = rng.randrange(n_tools)
    cues = rng.sample(texts[right], min(rng.randint(1, 4), size))
    cues += common + tokens.words(rng, rng.randint(0, 4))
    rng.shuffle(cues)
    asked = [t for word in cues for t in (word, g[" "])][:-1] if rng.random() < 0.5 else cues
    ids += [of[END], of[USER], *asked, of[END], of[ASSISTANT], of[CALL], of[NAME_OPENS]]
    return _join([(ids, False), ([*names[right], of[ARGUMENTS_OPEN], g["}"], g["}"]], True)])


def _names(rng: random.Random, tokens: DrillTokens, count: int) -> list[list[int]]:
    """Names of one to five tokens; sometimes they begin alike."""
    shared = [*tokens.words(rng, 1), tokens.glue["_"]] if rng.random() < 0.4 else []
    firsts = rng.sample(tokens.plain, count)
    return [[*shared, first, *tokens.words(rng, rng.randint(0, 2))] for first in firsts]
