"""Media of tasks with what is in them: scenes, spoken digits, photos, sounds, shapes of a pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.media import Media
from ibllm_tools.routing import place_of
from ibllm_tools.train.data import Table, open_table, read_concepts
from ibllm_tools.train.detector_scenes import Scene, SceneMaker
from ibllm_tools.train.digits_sounds import DIGITS, RATE_HZ, Pauses, Recording, read_recordings, say

Box = tuple[float, float, float, float]
THINGS = (
    "dog", "cat", "bird", "frog", "cow", "sheep", "pig", "horse", "lion", "monkey", "car", "bus",
    "truck", "train", "motorcycle", "airplane", "boat", "clock", "bottle", "cup", "chair",
    "piano", "helicopter",
)  # fmt: skip
"""What scenes are made of, where the detector knows it."""
BEHIND = ("sea", "rain", "fire", "tree", "house")
SIDE_PX = 192
MOST_THINGS = 4
LEAST_SHARE = 0.22
_EDGE = 0.06  # of a ninth's border, within which a place is not asked for
_DRAWS = 400


@dataclass(frozen=True)
class Seen:
    """A scene and what is true of it.

    Attributes:
        media: The picture.
        places: For each thing its ninths of the picture, and whether they are beyond doubt.
        boxes: Each thing with its box in pixels, (x0, y0, x1, y1).
    """

    media: Media
    places: dict[str, list[tuple[str, bool]]]
    boxes: list[tuple[str, Box]]

    def count(self, name: str) -> int:
        """How many of a thing there are."""
        return len(self.places.get(name, ()))


@dataclass(frozen=True)
class Asked:
    """A scene and the thing in it that is asked about."""

    seen: Seen
    name: str


@dataclass(frozen=True)
class Said:
    """A recording and the digits that are said."""

    media: Media
    digits: tuple[str, ...]


class Pack:
    """Draws media from the validation split of a pack, with what is true of them."""

    def __init__(
        self,
        data_dir: Path,
        work_dir: Path,
        *,
        classes: Sequence[str] | None = None,
        speakers: Sequence[str] = (),
        split: str = "val",
    ) -> None:
        """Open the tables; scenes are made of `THINGS` that are in `classes`."""
        self.concepts = {c.name: c.id for c in read_concepts(data_dir)}
        self.names = {c.id: c.name for c in read_concepts(data_dir)}
        self._tables = {
            kind: open_table(data_dir, work_dir, kind, split)
            for kind in ("photos", "sounds", "shapes")
        }
        rows = self._rows("photos")
        things = [n for n in THINGS if n in rows and (classes is None or n in classes)] or sorted(
            rows
        )
        self.things = things
        self._behind = [n for n in BEHIND if n in rows and (classes is None or n not in classes)]
        heard = read_recordings(data_dir)
        own = [one for one in heard if not speakers or one.speaker in speakers]
        self._recordings: list[Recording] = own or heard

    def _rows(self, kind: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row, concept in enumerate(self._tables[kind].concept.tolist()):
            found.setdefault(self.names[concept], []).append(row)
        return found

    def kinds(self, kind: str, least: int = 1) -> list[str]:
        """Concepts with at least so many rows of a kind of media."""
        return sorted(name for name, rows in self._rows(kind).items() if len(rows) >= least)

    def scene(self, rng: np.random.Generator, count: int, *, sure: bool = False) -> Asked:
        """Compose a scene, and choose a thing that is there so many times.

        Args:
            rng: Random source.
            count: How often; 0 for a thing that is not there, while others are.
            sure: Each place of the thing must be beyond doubt.

        Raises:
            ConfigurationError: The pack has too few things for that.
        """
        for attempt in range(_DRAWS):
            if attempt % 20 == 0:
                maker, names = self._maker(rng)
            drawn = maker.make(rng, SIDE_PX, SIDE_PX)
            if not 0 < len(drawn.labels) <= MOST_THINGS or _shares(drawn) < LEAST_SHARE:
                continue
            seen = _seen(drawn, names)
            fitting = [name for name in names if seen.count(name) == count]
            if sure:
                fitting = [n for n in fitting if all(known for _, known in seen.places[n])]
            if fitting:
                return Asked(seen, fitting[int(rng.integers(len(fitting)))])
        raise ConfigurationError(
            f"found no scene with {count} of one thing in {_DRAWS} draws; expected a pack with "
            f"photos of several of {', '.join(THINGS[:6])}, …"
        )

    def _maker(self, rng: np.random.Generator) -> tuple[SceneMaker, list[str]]:
        """Make scenes of three things, and of nothing else that has a name."""
        n = min(3, len(self.things))
        names = [self.things[i] for i in rng.choice(len(self.things), n, replace=False)]
        rows = self._rows("photos")
        kept = sorted(row for name in (*names, *self._behind) for row in rows[name])
        photos = self._tables["photos"].take(np.asarray(kept, np.int64))
        ids, behind = ([self.concepts[n] for n in group] for group in (names, self._behind))
        return SceneMaker(photos, ids, behind, augment=False), names

    def spoken(self, rng: np.random.Generator, n: int) -> Said:
        """Digits in a row, by one of the speakers."""
        speaker = self._recordings[int(rng.integers(len(self._recordings)))].speaker
        own = [one for one in self._recordings if one.speaker == speaker]
        chosen = [own[i] for i in rng.integers(len(own), size=n)]
        wave, spoken = say(rng, chosen, (0.95, 1.05), Pauses((0.2, 0.5), (0.15, 0.4)))
        media = Media.from_array(wave, "audio", rate_hz=RATE_HZ, name="voice.wav")
        return Said(media, tuple(DIGITS[one.digit] for one in spoken))

    def photo(self, rng: np.random.Generator, name: str) -> Media:
        """A photo of a thing."""
        return self.photos(rng, name, 1)[0]

    def photos(self, rng: np.random.Generator, name: str, n: int) -> list[Media]:
        """So many different photos of a thing; fewer where the pack has fewer."""
        table, rows = self._tables["photos"], self._rows("photos")[name]
        chosen = rng.choice(rows, min(n, len(rows)), replace=False)
        pixels = [np.asarray(table.values[row]) for row in chosen]
        return [Media.from_array(one, "image", name="photo.png") for one in pixels]

    def sound(self, rng: np.random.Generator, name: str) -> Media:
        """A sound of a thing."""
        table, row = self._draw(rng, "sounds", name)
        wave = table.values[row, : int(table.length[row])].astype(np.float32) / 32768
        return Media.from_array(wave, "audio", rate_hz=RATE_HZ, name="sound.wav")

    def shape(self, rng: np.random.Generator, name: str) -> Media:
        """A shape of a thing."""
        table, row = self._draw(rng, "shapes", name)
        points = np.asarray(table.values[row], np.float32)
        return Media.from_array(points, "point", name="shape.ply")

    def _draw(self, rng: np.random.Generator, kind: str, name: str) -> tuple[Table, int]:
        rows = self._rows(kind)[name]
        return self._tables[kind], rows[int(rng.integers(len(rows)))]


def _shares(scene: Scene) -> float:
    """The smallest side of a thing, as a share of the picture."""
    return float(scene.boxes[:, 2:].min()) if len(scene.boxes) else 0.0


def _seen(scene: Scene, names: Sequence[str]) -> Seen:
    places: dict[str, list[tuple[str, bool]]] = {}
    boxes: list[tuple[str, Box]] = []
    for (x, y, w, h), label in zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True):
        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        boxes.append((names[label], _in_pixels(box)))
        sure = all(abs(c - edge) > _EDGE for c in (x, y) for edge in (1 / 3, 2 / 3))
        places.setdefault(names[label], []).append((place_of(box, 1, 1), sure))
    return Seen(Media.from_array(scene.pixels, "image", name="scene.png"), places, boxes)


def _in_pixels(box: Box) -> Box:
    x0, y0, x1, y1 = (edge * SIDE_PX for edge in box)
    return x0, y0, x1, y1
