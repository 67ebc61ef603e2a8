"""What the toolkit's tools answer: at first a line that an LLM can repeat, then the details.

```
detector, image-1: 2 dogs (left, middle)
boxes (pixels of 640 x 480): dog 0.91 (10, 40, 200, 300); dog 0.75 (260, 50, 400, 310)
```
Training draws its rows from the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ibllm_tools.routing.results import (
    Box,
    place_of,
    say_likeness,
    say_objects,
    say_pair,
    say_speech,
)
from ibllm_tools.routing.words import noun_of

Thing = tuple[str, float, Box]
"""A label, its score, its box in pixels."""
Part = tuple[float, float, str]
"""When words begin and end in seconds, and the words."""
_MOST_LISTED = 30
ALIKE = 0.5
"""Cosine similarity from which two media are called alike."""


def places_of(
    things: Sequence[Thing], size: tuple[int, int], *, chinese: bool = False
) -> dict[str, list[str]]:
    """Where each thing is, from left to right, by label.

    Args:
        things: What was found.
        size: Width and height of the picture in pixels.
        chinese: The language.
    """
    places: dict[str, list[str]] = {label: [] for label, _, _ in things}
    for label, _, box in sorted(things, key=lambda thing: thing[2][0] + thing[2][2]):
        places[label].append(place_of(box, *size, chinese=chinese))
    return dict(sorted(places.items(), key=lambda pair: -len(pair[1])))


def of_kinds(
    places: Mapping[str, list[str]], kinds: Sequence[str], asked: Sequence[str]
) -> dict[str, list[str]]:
    """Only things of the kinds that a question is about, where it names no thing itself.

    Args:
        places: Where each thing is, by label.
        kinds: Of `asked_kinds`.
        asked: Things that the question names.
    """
    if not kinds or asked:
        return dict(places)
    return {name: held for name, held in places.items() if noun_of(name).kind in kinds}


def objects_text(
    id_: str,
    things: Sequence[Thing],
    size: tuple[int, int],
    asked: Sequence[str] = (),
    *,
    kinds: Sequence[str] = (),
    chinese: bool = False,
    so: str = "",
) -> str:
    """What is in a picture.

    Args:
        id_: Of the picture.
        things: What was found, the surest first.
        size: Width and height of the picture in pixels.
        asked: Things that were asked about; the first line is about these alone.
        kinds: Kinds that were asked about, likewise; see `of_kinds`.
        chinese: The language of the first line.
        so: What follows for the question; see `conclude`.
    """
    places = of_kinds(places_of(things, size, chinese=chinese), kinds, asked)
    told = say_objects(id_, places, asked, chinese=chinese, so=so)
    return "\n".join(filter(None, [told, boxes_text(things, size)]))


def boxes_text(things: Sequence[Thing], size: tuple[int, int]) -> str:
    """Where things are in pixels; "" for none. Arguments as of `objects_text`."""
    boxes = [
        f"{label} {score:.2f} ({', '.join(f'{edge:.0f}' for edge in box)})"
        for label, score, box in things[:_MOST_LISTED]
    ]
    return f"boxes (pixels of {size[0]} x {size[1]}): {'; '.join(boxes)}" if boxes else ""


def speech_text(
    id_: str,
    text: str,
    language: str | None = None,
    parts: Sequence[Part] = (),
    *,
    chinese: bool = False,
    so: str = "",
) -> str:
    """What is said in a recording.

    Args:
        id_: Of the recording.
        text: The words; "" where nobody speaks.
        language: Its code.
        parts: Told where there are several.
        chinese: The language of the first line.
        so: What follows for the question; see `conclude_speech`.
    """
    told = say_speech(id_, text, chinese=chinese, so=so)
    times = times_text(language, parts) if text else ""
    return "\n".join(filter(None, [told, times]))


def times_text(language: str | None, parts: Sequence[Part]) -> str:
    """The language of what is said, and when, where there are several parts."""
    lines = [f"language: {language}"] if language else []
    if len(parts) > 1:
        lines += [f"{start:.1f}-{end:.1f} s: {said}" for start, end, said in parts[:_MOST_LISTED]]
    return "\n".join(lines)


def likeness_text(
    query: str,
    results: Sequence[Mapping[str, Any]],
    asked: Sequence[str] = (),
    *,
    chinese: bool = False,
) -> str:
    """How alike attachments are to one of them, or to words.

    Args:
        query: An id, or words in quotation marks.
        results: `{"id", "score", "name"}`; the score is None where it cannot be compared.
        asked: Ids that the question names; where these are two, the first line is about them.
        chinese: The language of the first line.
    """
    scores = {r["id"]: r["score"] for r in results if r["score"] is not None}
    names = [f"{r['id']} {r['name']}" for r in results if r.get("name")]
    ranked = [say_likeness(query, scores, chinese=chinese)] if scores else []
    pair = [id_ for id_ in asked if id_ in scores] if query in asked else []
    if len(results) == 1 and not query.startswith('"'):
        pair = list(scores)
    if len(pair) == 1:
        [other] = pair
        high = scores[other] >= ALIKE
        told = say_pair(query, other, scores[other], high=high, chinese=chinese)
        ranked = [told, *ranked[: len(scores) - 1]]
    lines = [*ranked[:1], *([f"names: {', '.join(names)}"] if names else []), *ranked[1:]]
    lines += [f"{r['id']}: cannot be compared" for r in results if r["score"] is None]
    return "\n".join(lines)


def context_of(facts: Mapping[str, Any]) -> str:
    """What experts found in a video, in words.

    Args:
        facts: `seen`, a list of `{"start_s", "objects"}` with counts by label, and `transcript`,
            `{"is_speech", "text"}`; both may be missing.
    """
    lines = []
    seen = [entry for entry in facts.get("seen", ()) if entry["objects"]]
    if seen:
        told = [f"{entry['start_s']:g} s: {counted(entry['objects'])}" for entry in seen]
        lines.append(f"Objects by time: {'; '.join(told)}.")
    transcript = facts.get("transcript")
    if transcript is not None and transcript["is_speech"]:
        lines.append(f'Speech: "{transcript["text"]}"')
    return "\n".join(lines)


def video_text(id_: str, duration_s: float, answer: str, facts: Mapping[str, Any]) -> str:
    """What is in a video: its length, what was perceived, and what experts found."""
    told = [f"{id_} lasts {duration_s:.1f} s.", answer, context_of(facts)]
    return "\n".join(filter(None, told))


def counted(objects: Mapping[str, int]) -> str:
    """Counts by label in words: `2 dogs, 1 boat`."""
    nouns = [(n, noun_of(label)) for label, n in objects.items()]
    return ", ".join(f"{n} {noun.name if n == 1 else noun.plural}" for n, noun in nouns)
