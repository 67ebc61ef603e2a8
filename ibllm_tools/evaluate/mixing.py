"""Section `mixing`: a photo and a sound of different concepts in one request; are both named?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.evaluate.asking import mixed
from ibllm_tools.evaluate.results import Section, ratio
from ibllm_tools.evaluate.targets import target_of

if TYPE_CHECKING:
    from ibllm_tools.evaluate.asking import Shown
    from ibllm_tools.evaluate.gallery import Exhibit
    from ibllm_tools.evaluate.session import Session

Pair = tuple[tuple["Exhibit", "Shown"], tuple["Exhibit", "Shown"]]

N_PAIRS = 300
RATIOS = tuple(i / 10 for i in range(11))
QUESTION = "What do you see and hear?"
OTHERS = ("What is this?", "What could be happening?")
SEED = 7


def draw_pairs(session: Session, count: int) -> list[Pair]:
    """Draw photos and sounds of different concepts; each concept is as likely as another."""
    rng = random.Random(SEED)  # noqa: S311
    photos, sounds = (_by_concept(session, kind) for kind in ("photos", "sounds"))
    if not photos or not sounds or len(photos.keys() | sounds.keys()) < 2:
        return []
    pairs: list[Pair] = []
    for _ in range(20 * count):
        seen, heard = rng.choice(sorted(photos)), rng.choice(sorted(sounds))
        if seen != heard:
            pairs.append((rng.choice(photos[seen]), rng.choice(sounds[heard])))
        if len(pairs) == count:
            break
    return pairs


def _by_concept(session: Session, kind: str) -> dict[int, list[tuple[Exhibit, Shown]]]:
    table: dict[int, list[tuple[Exhibit, Shown]]] = {}
    if session.gallery.rows.get(kind):
        rows = zip(session.gallery.shown(kind), session.shown(kind), strict=True)
        for exhibit, shown in rows:
            if session.gallery.is_known(exhibit):
                table.setdefault(exhibit.concept, []).append((exhibit, shown))
    return table


def measure_mixing(session: Session) -> Section:
    """Measure the pairs at 0.5/0.5, and the curve over the ratio."""
    section = Section("mixing", "A photo and a sound together")
    pairs = draw_pairs(session, session.capped(N_PAIRS))
    if not pairs:
        section.notes.append("needs photos and sounds of two concepts")
        return section
    named = {share: _named(session, pairs, share, QUESTION) for share in RATIOS}
    photo = np.array([p[0][0].concept for p in pairs])
    sound = np.array([p[1][0].concept for p in pairs])
    flags = {share: _flags(found, photo, sound) for share, found in named.items()}
    alone = _alone(session, pairs, photo, sound)
    both = flags[0.5]["both"]
    section.measures += [
        ratio(
            "both",
            "both named at 0.5/0.5, all pairs",
            both,
            target=target_of("mixing", "both"),
            note=f"“{QUESTION}”",
        ),
        ratio(
            "both.clean",
            "both named, pairs whose parts are each named alone",
            both * alone,
            alone,
            target=target_of("mixing", "both.clean"),
        ),
        ratio("either", "at least one named at 0.5/0.5", flags[0.5]["either"]),
        *(
            ratio(f"both.{i}", "both named at 0.5/0.5", _both(session, pairs, q), note=f"“{q}”")
            for i, q in enumerate(OTHERS, 1)
        ),
    ]
    section.details["curve"] = [_point(share, flags[share]) for share in RATIOS]
    section.details["examples"] = _examples(session, pairs[:8])
    return section


def _named(session: Session, pairs: Sequence[Pair], share: float, question: str) -> list[set[int]]:
    answers = session.ask.ask(question, _mixed(pairs, share), task=f"mixing, {share:g}")
    return session.names.named_all(answers)


def _mixed(pairs: Sequence[Pair], share: float) -> list[Shown]:
    return [mixed([(p[0][1], share), (p[1][1], 1 - share)]) for p in pairs]


def _flags(
    named: Sequence[set[int]], photo: NDArray[Any], sound: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """What is named: the photo's concept, the sound's, both and nothing else."""
    rows = list(zip(named, photo.tolist(), sound.tolist(), strict=True))
    return {
        "photo": np.array([p in found for found, p, _ in rows], float),
        "sound": np.array([s in found for found, _, s in rows], float),
        "both": np.array([found == {p, s} for found, p, s in rows], float),
        "either": np.array([bool(found & {p, s}) for found, p, s in rows], float),
    }


def _both(session: Session, pairs: Sequence[Pair], question: str) -> NDArray[Any]:
    concepts = [{p[0][0].concept, p[1][0].concept} for p in pairs]
    found = _named(session, pairs, 0.5, question)
    return np.array([f == c for f, c in zip(found, concepts, strict=True)], float)


def _alone(
    session: Session, pairs: Sequence[Pair], photo: NDArray[Any], sound: NDArray[Any]
) -> NDArray[Any]:
    """(N,) whether each member of a pair is named right by itself."""
    seen = session.ask.ask("What do you see?", [p[0][1] for p in pairs], task="photos alone")
    heard = session.ask.ask("What do you hear?", [p[1][1] for p in pairs], task="sounds alone")
    rows = zip(
        session.names.named_all(seen),
        session.names.named_all(heard),
        photo.tolist(),
        sound.tolist(),
        strict=True,
    )
    return np.array([a == {p} and b == {s} for a, b, p, s in rows], float)


def _point(share: float, flags: dict[str, NDArray[Any]]) -> dict[str, Any]:
    point: dict[str, Any] = {"photo_weight": share}
    for name in ("photo", "sound", "both"):
        measure = ratio(name, "", flags[name])
        point[name] = {"value": measure.value, "low": measure.low, "high": measure.high}
    return point


def _examples(session: Session, pairs: Sequence[Pair]) -> list[dict[str, str]]:
    facts = session.gallery.facts
    answers = session.ask.ask(QUESTION, _mixed(pairs, 0.5), task="mixing, examples")
    return [
        {"photo": facts[p[0][0].concept].name, "sound": facts[p[1][0].concept].name, "answer": a}
        for p, a in zip(pairs, answers, strict=True)
    ]
