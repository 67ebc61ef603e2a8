"""What is compared with what, read from a question by rules, and the lines that say how alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from ibllm_tools.routing import (
    asked_nouns,
    ids_in,
    is_chinese,
    kind_of_id,
    noun_of,
    say_likeness,
    say_pair,
)

if TYPE_CHECKING:
    from ibllm_tools.attachments.records import Attachment

Vector = Sequence[float]
HIGH = 0.5
"""Cosine similarity from which two media are called alike."""

_KINDS = (
    ("image", re.compile(r"\b(?:picture|photo|photograph|image|snapshot)s?\b|图|照片|画面")),
    ("audio", re.compile(r"\b(?:sound|recording|audio|clip|noise)s?\b|声音|录音|音频|语音")),
    ("shape", re.compile(r"\b(?:shape|scan|point cloud|model)s?\b|形状|点云|模型")),
    ("video", re.compile(r"\b(?:video|film)s?\b|视频|短片")),
)
_BEST_PAIR = re.compile(
    r"\b(?:which|what|any|find|are any) (?:two|pair|of them (?:are|belong))|\bduplicate|\btwice\b|"
    r"\bwhich two\b|哪两|哪几|哪一对|重复"
)


@dataclass(frozen=True)
class Comparison:
    """What a question compares.

    Attributes:
        query: An id, or words; "" where every two are compared.
        others: Ids that are compared with it.
    """

    query: str
    others: tuple[str, ...]


def comparison_of(question: str, ids: Sequence[str], newest: Sequence[str] = ()) -> Comparison:
    """Read what is compared.

    Ids that the question names come first; then things that it names; then the one attachment of
    another kind than the rest; then the newest one.

    Args:
        question: Without tags.
        ids: Of all attachments, the oldest first.
        newest: Of those that came with the question.
    """
    named = ids_in(question, ids)
    if len(named) > 1:
        return Comparison(named[0], tuple(named[1:]))
    if not named and len(ids) > 2 and _BEST_PAIR.search(question.casefold()):
        return Comparison("", tuple(ids))
    if not named and len(ids) == 2 and not asked_nouns(question):
        return Comparison(ids[0], (ids[1],))
    things = asked_nouns(question)
    if not named and things:
        words = f"a {noun_of(things[0]).name}"
        return Comparison(words, tuple(_of_kind(question, ids)))
    query = named[0] if named else _lone(ids) or (newest[0] if len(newest) == 1 else ids[0])
    others = [id_ for id_ in ids if id_ != query]
    return Comparison(query, tuple(_of_kind(question, others)))


def _of_kind(question: str, ids: Sequence[str]) -> list[str]:
    """Those of the kind that the question is about, if it is about one of them."""
    text = question.casefold()
    found = [(match.start(), kind) for kind, words in _KINDS if (match := words.search(text))]
    for _, kind in sorted(found):
        kept = [id_ for id_ in ids if kind_of_id(id_) == kind]
        if kept:
            return kept
    return list(ids)


def _lone(ids: Sequence[str]) -> str:
    """The only attachment of its kind, where all others are of one other kind."""
    kinds = [kind_of_id(id_) for id_ in ids]
    lone = [id_ for id_, kind in zip(ids, kinds, strict=True) if kinds.count(kind) == 1]
    return lone[0] if len(set(kinds)) == 2 and len(lone) == 1 else ""


def compare(
    question: str,
    wanted: Comparison,
    vector_of: Callable[[str], Vector],
    held: Mapping[str, Attachment],
    *,
    high: float = HIGH,
) -> tuple[str, dict[str, float]]:
    """Compare, and say so in one line.

    Args:
        question: Its language is that of the line.
        wanted: What is compared.
        vector_of: The unit vector of an id or of words.
        held: The attachments.
        high: Similarity from which a pair is called alike.

    Returns:
        The line, and the similarities by id (of two ids: `"image-1 image-2"`).
    """
    chinese = is_chinese(question)
    ids = [id_ for id_ in (wanted.query, *wanted.others) if id_ in held or id_ == wanted.query]
    vectors = {id_: np.asarray(vector_of(id_)) for id_ in ids if id_}
    if not wanted.query:
        pairs = {
            pair: float(vectors[pair[0]] @ vectors[pair[1]]) for pair in combinations(ids[1:], 2)
        }
        best = max(pairs, key=lambda pair: pairs[pair])
        line = say_pair(*best, pairs[best], high=pairs[best] >= high, chinese=chinese)
        return line, {" ".join(pair): score for pair, score in pairs.items()}
    scores = {id_: float(vectors[wanted.query] @ vectors[id_]) for id_ in wanted.others}
    if len(scores) == 1 and wanted.query in held:
        [(other, score)] = scores.items()
        return say_pair(wanted.query, other, score, high=score >= high, chinese=chinese), scores
    told = wanted.query if wanted.query in held else f'"{wanted.query}"'
    return say_likeness(told, scores, chinese=chinese), scores
