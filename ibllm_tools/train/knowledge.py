"""What the pocket language model can say about the concepts: plain facts in two languages.

The facts are written for this project and lie in `facts.psv`. A concept that is not in the
table (another pack) gets neutral sentences, so that the recipe still runs. This file does not
know tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ibllm_tools.train.data import Concept

CLEARLY_BIGGER = 1.5


@dataclass(frozen=True)
class Fact:
    """What is said about one concept, in English and Chinese.

    Attributes:
        name: English name. `phrase` is the name with its article, `plural` many of it.
        name_zh: Chinese name.
        kind: English category; `kind_zh` the Chinese one.
        size_m: Typical greatest length in metres; None where there is none, as of rain.
        place: Where it is found, ready for "You can find it ...".
        sound: A full sentence about its sound; `use` one about what it is for or does.
        scene: A verb phrase for "... could be happening".
        synonyms: Other English words that name the same concept.
        synonyms_zh: Other Chinese words that do.
    """

    name: str
    phrase: str
    plural: str
    name_zh: str
    kind: str
    kind_zh: str
    size_m: float | None
    place: str
    place_zh: str
    sound: str
    sound_zh: str
    use: str
    use_zh: str
    scene: str
    scene_zh: str
    synonyms: tuple[str, ...] = field(default=())
    synonyms_zh: tuple[str, ...] = field(default=())


KINDS = {
    "animal": "动物",
    "human": "人类",
    "vehicle": "交通工具",
    "device": "设备",
    "furniture": "家具",
    "household object": "家居用品",
    "musical instrument": "乐器",
    "part of nature": "自然事物",
    "plant": "植物",
    "building": "建筑",
}
KIND_PHRASES = {
    "animal": "an animal",
    "human": "a human",
    "vehicle": "a vehicle",
    "device": "a device",
    "furniture": "a piece of furniture",
    "household object": "a household object",
    "musical instrument": "a musical instrument",
    "part of nature": "a part of nature",
    "plant": "a plant",
    "building": "a building",
}
KIND_PLURALS = {
    "furniture": "pieces of furniture",
    "part of nature": "parts of nature",
} | {kind: f"{kind}s" for kind in KINDS if kind not in ("furniture", "part of nature")}
_NEIGHBOURS = (
    {"animal", "human", "plant", "part of nature"},
    {"device", "furniture", "household object", "musical instrument"},
    {"building", "household object"},
)


def are_alien(kind: str, other: str) -> bool:
    """Tell whether nothing can be of both kinds, so that "is a dog a vehicle?" is a plain no."""
    return kind != other and not any({kind, other} <= near for near in _NEIGHBOURS)


def bigger(first: Fact, second: Fact) -> Fact | None:
    """Return the one that is clearly bigger; None where they are alike or have no size."""
    if first.size_m is None or second.size_m is None:
        return None
    ratio = first.size_m / second.size_m
    if max(ratio, 1 / ratio) < CLEARLY_BIGGER:
        return None
    return first if ratio > 1 else second


def _read_table() -> dict[str, dict[str, str]]:
    text = (Path(__file__).parent / "facts.psv").read_text(encoding="utf-8")
    head, *lines = (line.split("|") for line in text.splitlines())
    return {row[0]: dict(zip(head, row, strict=True)) for row in lines}


def facts_for(concepts: Sequence[Concept]) -> list[Fact]:
    """Return one fact a concept, in the order of the concept list."""
    table = _read_table()
    return [_fact(c, table.get(c.name) or _neutral_row(c)) for c in concepts]


def _neutral_row(concept: Concept) -> dict[str, str]:
    article = "an" if concept.name[:1] in "aeiou" else "a"
    phrase, zh = f"{article} {concept.name}", concept.name_zh
    return {
        "phrase": phrase,
        "plural": f"{concept.name}s",
        "kind": "household object",
        "size_m": "",
        "place": "in many places",
        "place_zh": "很多地方",
        "sound": f"I do not know the sound of {phrase}.",
        "sound_zh": f"我不知道{zh}的声音。",
        "use": f"I know little about {phrase}.",
        "use_zh": f"我不太了解{zh}。",
        "scene": "is here",
        "scene_zh": "在这里",
        "synonyms": "",
        "synonyms_zh": "",
    }


def _fact(concept: Concept, row: dict[str, str]) -> Fact:
    def words(column: str) -> tuple[str, ...]:
        return tuple(word for word in row[column].split(",") if word)

    return Fact(
        name=concept.name,
        phrase=row["phrase"],
        plural=row["plural"],
        name_zh=concept.name_zh,
        kind=row["kind"],
        kind_zh=KINDS[row["kind"]],
        size_m=float(row["size_m"]) if row["size_m"] else None,
        place=row["place"],
        place_zh=row["place_zh"],
        sound=row["sound"],
        sound_zh=row["sound_zh"],
        use=row["use"],
        use_zh=row["use_zh"],
        scene=row["scene"],
        scene_zh=row["scene_zh"],
        synonyms=words("synonyms"),
        synonyms_zh=words("synonyms_zh"),
    )
