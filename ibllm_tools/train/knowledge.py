"""What the pocket language model can say about the concepts: plain facts in two languages.

The facts are written for this project. A concept that is not in the table (another pack)
gets neutral sentences, so that the recipe still runs. The table lies in `facts.psv`. This file does
not know tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ibllm_tools.train.data import Concept


@dataclass(frozen=True)
class Fact:
    """What is said about one concept, in English and Chinese.

    Attributes:
        name: English name. `phrase` is the name with its article.
        name_zh: Chinese name.
        kind: English category; `kind_zh` the Chinese one.
        place: Where it is found, ready for "You can find it ...".
        does: A full sentence about its sound or its use.
        scene: A verb phrase for "... could be happening".
        synonyms: Other English words that name the same concept.
    """

    name: str
    phrase: str
    name_zh: str
    kind: str
    kind_zh: str
    place: str
    place_zh: str
    does: str
    does_zh: str
    scene: str
    scene_zh: str
    synonyms: tuple[str, ...] = field(default=())


KINDS = {
    "animal": "动物",
    "human": "人类",
    "vehicle": "交通工具",
    "device": "设备",
    "furniture": "家具",
    "household object": "家居用品",
    "musical instrument": "乐器",
    "part of nature": "自然现象",
    "plant": "植物",
    "building": "建筑",
}


def _read_table() -> dict[str, tuple[str, ...]]:
    text = (Path(__file__).parent / "facts.psv").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines()[1:]]
    return {row[0]: tuple(row[1:]) for row in rows}


def facts_for(concepts: Sequence[Concept]) -> list[Fact]:
    """Return one fact a concept, in the order of the concept list."""
    table = _read_table()
    return [_fact(c, table.get(c.name)) for c in concepts]


def _fact(concept: Concept, row: tuple[str, ...] | None) -> Fact:
    if row is None:
        article = "an" if concept.name[:1] in "aeiou" else "a"
        phrase, zh = f"{article} {concept.name}", concept.name_zh
        does, does_zh = f"I know little about {phrase}.", f"我不太了解{zh}。"
        row = (
            *(phrase, "household object", "in many places", "很多地方"),
            *(does, does_zh, "is here", "在这里", ""),
        )
    phrase, kind, place, place_zh, does, does_zh, scene, scene_zh, synonyms = row
    return Fact(
        name=concept.name,
        phrase=phrase,
        name_zh=concept.name_zh,
        kind=kind,
        kind_zh=KINDS[kind],
        place=place,
        place_zh=place_zh,
        does=does,
        does_zh=does_zh,
        scene=scene,
        scene_zh=scene_zh,
        synonyms=tuple(s for s in synonyms.split(",") if s),
    )
