"""Questions about two concepts: which is bigger, what sets them apart, which is of a kind.

The questions name both, or the media show both.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ibllm_tools.train.knowledge import KIND_PHRASES, KIND_PLURALS, KINDS, Fact, bigger
from ibllm_tools.train.phrasing import dress, upper_first
from ibllm_tools.train.seen_words import texts

Turn = tuple[str, str]


def two_turn(
    rng: random.Random, first: Fact, second: Fact, *, chinese: bool, both: bool = False
) -> Turn:
    """Ask about two concepts: a comparison, or their kinds.

    Args:
        rng: Random source.
        first: One concept.
        second: The other.
        chinese: The language.
        both: The question does not name them, since the media show both.
    """
    if rng.random() < 0.65:
        return compare_turn(rng, first, second, chinese=chinese, both=both)
    return _kinds_turn(rng, first, second, chinese=chinese, both=both)


def _kinds_turn(
    rng: random.Random, first: Fact, second: Fact, *, chinese: bool, both: bool
) -> Turn:
    """Ask which is of a kind, whether both are, or what they have in common."""
    topic = rng.choice(("which", "same", "common"))
    kind = rng.choice((first.kind, second.kind, rng.choice(sorted(KINDS))))
    called = {
        "x": first.name_zh if chinese else first.phrase,
        "y": second.name_zh if chinese else second.phrase,
        "k": KINDS[kind] if chinese else KIND_PHRASES[kind],
    }
    frames = texts(f"pair_{topic}" if both else f"named_{topic}", chinese=chinese)
    question = dress(rng, rng.choice(frames).format(**called), chinese=chinese)
    if topic == "which":
        return question, _tell_which(first, second, kind, chinese=chinese)
    alike = first.kind == second.kind
    told = _tell_kinds(first, second, chinese=chinese)
    if topic == "common":
        before = "" if alike else "共同点不多：" if chinese else "Not much: "
        return question, before + told
    if chinese:
        return question, ("是的，" if alike else "不是，") + told
    told = told if not alike else told[:1].lower() + told[1:]
    return question, ("Yes, " if alike else "No, ") + told


def _tell_which(first: Fact, second: Fact, kind: str, *, chinese: bool) -> str:
    found = [f for f in (first, second) if f.kind == kind]
    if len(found) == 2:
        return f"两个都属于{KINDS[kind]}。" if chinese else f"Both are {KIND_PLURALS[kind]}."
    if not found:
        return f"都不属于{KINDS[kind]}。" if chinese else f"Neither is {KIND_PHRASES[kind]}."
    if chinese:
        return f"{found[0].name_zh}属于{KINDS[kind]}。"
    return f"{upper_first(found[0].phrase)} is {KIND_PHRASES[kind]}."


def _tell_kinds(first: Fact, second: Fact, *, chinese: bool) -> str:
    if first.kind == second.kind:
        return (
            f"它们都属于{first.kind_zh}。" if chinese else f"Both are {KIND_PLURALS[first.kind]}."
        )
    if chinese:
        return f"{first.name_zh}属于{first.kind_zh}，{second.name_zh}属于{second.kind_zh}。"
    kinds = [KIND_PHRASES[f.kind] for f in (first, second)]
    return f"{first.phrase} is {kinds[0]}, and {second.phrase} is {kinds[1]}."


def compare_turn(
    rng: random.Random, first: Fact, second: Fact, *, chinese: bool, both: bool = False
) -> Turn:
    """Compare two concepts by size, or say what sets them apart.

    Args:
        rng: Random source.
        first: One concept.
        second: The other.
        chinese: The language.
        both: The question does not name them, since the media show both.
    """
    by_size = rng.random() < 0.6 and bool(first.size_m and second.size_m)
    names = [f.name_zh if chinese else f.phrase for f in (first, second)]
    question = _ask_comparison(rng, names, by_size=by_size, chinese=chinese, both=both)
    tell_it = _tell_size if by_size else _tell_difference
    return dress(rng, question, chinese=chinese), tell_it(first, second, chinese=chinese)


def _ask_comparison(
    rng: random.Random, names: Sequence[str], *, by_size: bool, chinese: bool, both: bool
) -> str:
    topic = "size" if by_size else "difference"
    frames = texts(f"pair_{topic}" if both else f"named_{topic}", chinese=chinese)
    return rng.choice(frames).format(x=names[0], y=names[1])


def _tell_size(first: Fact, second: Fact, *, chinese: bool) -> str:
    big = bigger(first, second)
    if big is None:
        if chinese:
            return f"{first.name_zh}和{second.name_zh}差不多大。"
        return f"{upper_first(first.phrase)} and {second.phrase} are about the same size."
    small = second if big is first else first
    if chinese:
        return f"{big.name_zh}比{small.name_zh}大。"
    return f"{upper_first(big.phrase)} is bigger than {small.phrase}."


def _tell_difference(first: Fact, second: Fact, *, chinese: bool) -> str:
    told = _tell_kinds(first, second, chinese=chinese)
    if chinese:
        return f"{told}{first.use_zh}{second.use_zh}"
    return f"{upper_first(told)} {first.use} {second.use}"
