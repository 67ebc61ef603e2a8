"""Section `unknown`: media of things it never learnt, noise, and nothing at all.

By default the unknown things are cut out of the scenes of the pack: COCO objects that are no
concept, of the categories that training does not use as examples of the unknown. Any folder of
media may take their place.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibllm_tools.errors import MediaError
from ibllm_tools.evaluate.asking import user
from ibllm_tools.evaluate.gallery import KINDS
from ibllm_tools.evaluate.names import QUESTIONS
from ibllm_tools.evaluate.results import Measure, Section, ratio, share
from ibllm_tools.evaluate.targets import target_of
from ibllm_tools.media import Media

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibllm_tools.evaluate.session import Session

SCENES = "scenes.parquet"
SMALLEST_PX = 28
MARGIN = 0.1
N_NOISE = 20
N_THINGS = 200
N_KNOWN = 200
SEED = 10_000
RATE_HZ = 16_000
NOISE_S = 3
KIND_OF = {"image": "photos", "depth": "photos", "audio": "sounds", "point": "shapes"}

Thing = tuple[str, Media]
"""What it is, and the medium."""


def measure_unknown(session: Session) -> Section:
    """Measure how often it says that it does not know, where it cannot and where it could."""
    section = Section("unknown", "It knows what it does not know")
    groups = {
        "things": _things(session, section),
        "never": _never_learnt(session),
        "blank": list(blanks()),
        "pixels": list(noise_pictures(session.capped(N_NOISE))),
        "hiss": list(noise_sounds(session.capped(N_NOISE))),
        "clouds": list(noise_shapes(session.capped(N_NOISE))),
    }
    labels = {
        "things": "unknown things",
        "never": "concepts that its list lacks",
        "blank": "blank pictures and silence",
        "pixels": "pictures of noise",
        "hiss": "sounds of noise",
        "clouds": "random clouds of points",
    }
    unsure = {name: _ask(session, section, name, things) for name, things in groups.items()}
    for name, label in labels.items():
        if len(unsure[name]):
            section.measures.append(
                share(
                    name,
                    f"says it does not know: {label}",
                    unsure[name],
                    target=target_of("unknown", name),
                    note="steady noise is much like rain" if name == "hiss" else "",
                )
            )
    section.measures += _totals(unsure)
    section.measures += _known(session, section)
    return section


def _totals(unsure: dict[str, NDArray[Any]]) -> list[Measure]:
    """Noise of all sorts, and everything: each sort weighs the same."""
    noise = [unsure[name] for name in ("blank", "pixels", "hiss", "clouds") if len(unsure[name])]
    things = [unsure[name] for name in ("things", "never") if len(unsure[name])]
    rows = [
        ("noise", "noise and blanks together", noise),
        ("all", "everything unknown, things and noise half each", things + noise),
    ]
    measures = []
    for name, label, parts in rows:
        weights = _weights(things, noise) if name == "all" else _weights([], noise)
        if parts:
            below = np.concatenate(
                [np.full(len(p), w) for p, w in zip(parts, weights, strict=True)]
            )
            above = np.concatenate(parts) * below
            label = f"says it does not know: {label}"
            measures.append(ratio(name, label, above, below, target=target_of("unknown", name)))
    return measures


def _weights(things: Sequence[Any], noise: Sequence[Any]) -> list[float]:
    """A weight for each row of every part, so that things and noise count the same in all."""
    weights = [1 / (len(things) * len(part)) for part in things]
    return weights + [1 / (len(noise) * len(part)) for part in noise]


def _ask(session: Session, section: Section, name: str, things: Sequence[Thing]) -> NDArray[Any]:
    if not things:
        return np.zeros(0)
    shown = session.ask.show([medium for _, medium in things], f"unknown: {name}")
    talks = [user(QUESTIONS[KIND_OF.get(m.modality, "photos")]) for _, m in things]
    answers = session.ask.ask(talks, shown, task=f"unknown: {name}")
    section.details[name] = [
        {"shown": what, "answer": answer}
        for (what, _), answer in list(zip(things, answers, strict=True))[:20]
    ]
    return np.array([session.names.is_unsure(a) for a in answers], float)


def _known(session: Session, section: Section) -> list[Measure]:
    """How often it says so of things that it has learnt."""
    flags, kinds, groups = [], [], []
    for kind in KINDS:
        pairs = [p for p in session.pick(kind, N_KNOWN, seed=6) if session.gallery.is_known(p[0])]
        if pairs:
            answers = session.ask.ask(QUESTIONS[kind], [s for _, s in pairs], task="known things")
            flags += [session.names.is_unsure(a) for a in answers]
            kinds += [kind] * len(pairs)
            groups += [f"{kind}/{e.group}" for e, _ in pairs]
    if not flags:
        section.notes.append("no media of known concepts")
        return []
    label = "says it does not know: known things (fewer is better)"
    measures = [share("known", label, flags, groups=groups, target=target_of("unknown", "known"))]
    for kind in dict.fromkeys(kinds):
        chosen = np.array([k == kind for k in kinds], float)
        flagged = np.array(flags, float) * chosen
        measures.append(ratio(f"known.{kind}", f"the same, {kind}", flagged, chosen, groups=groups))
    return measures


# what is shown


def _things(session: Session, section: Section) -> list[Thing]:
    from ibllm_tools.evaluate.gallery import sample

    if session.unknown is not None:
        things = list(_files(session.unknown, section))
    else:
        things = list(crops(session.gallery.folder))
    if not things:
        source = session.unknown or session.gallery.folder / SCENES
        section.notes.append(f"{source}: found no unknown things; try --unknown FOLDER")
    return sample(things, session.capped(N_THINGS))


def _files(folder: Path, section: Section) -> Iterator[Thing]:
    bad = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            medium = Media.from_path(path)
        except MediaError:
            bad += 1
        else:
            if medium.modality in KIND_OF:
                yield path.stem, medium
    if bad:
        section.notes.append(f"{folder}: {bad} files are no media")


def _never_learnt(session: Session) -> list[Thing]:
    """Media of the gallery whose concept the model's own list lacks."""
    from ibllm_tools.evaluate.gallery import sample

    rows = [e for e in session.gallery.everything() if not session.gallery.is_known(e)]
    facts = session.gallery.facts
    rows = sample(rows, session.capped(N_THINGS))
    return [(facts[e.concept].name, e.medium) for e in rows]


def crops(folder: Path) -> Iterator[Thing]:
    """Cut objects that are no concept out of the scenes of a pack; none if it has no scenes."""
    if not (folder / SCENES).is_file():
        return
    import pandas as pd
    from PIL import Image

    from ibllm_tools.train.photo_features import is_for_evaluation

    frame = pd.read_parquet(folder / SCENES)
    rows = [(blob, json.loads(text)) for blob, text in zip(frame.jpeg, frame.objects, strict=True)]
    for blob, objects in rows:
        chosen = [o for o in objects if o.get("concept") is None and is_for_evaluation(o["coco"])]
        if chosen:
            picture = Image.open(io.BytesIO(blob)).convert("RGB")
            for entry in chosen:
                pixels = _crop(picture, entry["cxcywh"])
                if pixels is not None:
                    yield entry["coco"], Media.from_array(pixels, "image")


def _crop(picture: Any, box: Sequence[float]) -> NDArray[Any] | None:
    """The square around a box (cx, cy, w, h in 0..1); None where it is too small."""
    width, height = picture.size
    w, h = box[2] * width, box[3] * height
    if min(w, h) < SMALLEST_PX:
        return None
    half = max(w, h) * (1 + MARGIN) / 2
    half = min(half, width / 2, height / 2)
    x = min(max(box[0] * width, half), width - half)
    y = min(max(box[1] * height, half), height - half)
    found: NDArray[Any] = np.asarray(
        picture.crop((round(x - half), round(y - half), round(x + half), round(y + half)))
    )
    return found


def blanks() -> Iterator[Thing]:
    """Pictures of one colour, and silence."""
    for name, colour in {
        "black": (0, 0, 0),
        "grey": (128, 128, 128),
        "white": (255, 255, 255),
        "red": (200, 30, 30),
        "green": (30, 160, 60),
        "blue": (40, 60, 200),
    }.items():
        pixels = np.full((64, 64, 3), colour, np.uint8)
        yield f"{name} picture", Media.from_array(pixels, "image")
    for seconds in (1, 3, 5):
        silence = np.zeros(seconds * RATE_HZ, np.float32)
        yield f"{seconds} s of silence", Media.from_array(silence, "audio", rate_hz=RATE_HZ)


def noise_pictures(count: int) -> Iterator[Thing]:
    """Pictures of noise: fine, coarse, grey."""
    rng = np.random.default_rng(SEED)
    for i in range(count):
        cells = (64, 64, 16, 8)[i % 4]
        channels = 1 if i % 4 == 1 else 3
        pixels = rng.integers(0, 256, (cells, cells, channels)).repeat(64 // cells, 0)
        pixels = pixels.repeat(64 // cells, 1).repeat(3 // channels, 2).astype(np.uint8)
        yield f"noise, {cells} cells", Media.from_array(pixels, "image")


def noise_sounds(count: int) -> Iterator[Thing]:
    """White noise at several levels, steady and in bursts."""
    rng = np.random.default_rng(SEED + 1)
    for i in range(count):
        wave = rng.normal(0, 0.02 * 2 ** (i % 4), NOISE_S * RATE_HZ).astype(np.float32)
        if i % 2:
            wave *= np.repeat(rng.random(NOISE_S * 10) < 0.5, RATE_HZ // 10)
        medium = Media.from_array(wave.clip(-1, 1), "audio", rate_hz=RATE_HZ)
        yield "bursts of white noise" if i % 2 else "white noise", medium


def noise_shapes(count: int) -> Iterator[Thing]:
    """Points scattered in a ball, a cube, and a bell curve."""
    rng = np.random.default_rng(SEED + 2)
    for i in range(count):
        points = rng.normal(size=(2048, 3))
        if i % 3 == 0:
            points /= np.linalg.norm(points, axis=1, keepdims=True)
            points *= rng.random((2048, 1)) ** (1 / 3)
        elif i % 3 == 1:
            points = rng.uniform(-1, 1, (2048, 3))
        points /= np.linalg.norm(points, axis=1).max()
        name = ("points in a ball", "points in a cube", "points in a bell curve")[i % 3]
        yield name, Media.from_array(points.astype(np.float32), "point")
