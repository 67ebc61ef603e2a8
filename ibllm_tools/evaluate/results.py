"""What a scorecard is made of: measures with intervals and targets, by section.

A measure is a ratio of two sums over rows (a share, a difference, an F1), so that one bootstrap
serves all. This file does not know models or media.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_RESAMPLES = 1000
LEVEL = 0.95

Unit = Literal["share", "points", "MB", "s", "tokens/s", "words"]
Mark = Literal["met", "missed", "no target", "no data"]


@dataclass(frozen=True)
class Target:
    """What a measure shall reach: at least `low`, at most `high`, or between them."""

    low: float | None = None
    high: float | None = None

    def is_met(self, value: float) -> bool:
        """Tell whether a value reaches the target; bounds belong to it."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True)
class Measure:
    """One figure of the scorecard.

    Attributes:
        name: Stable key within its section, such as `photos.right`.
        label: What it is, in words.
        n: Rows that it was counted on.
        value: The figure; None where there was nothing to count.
        low: Lower end of the 95 % bootstrap interval; None without one.
        high: Upper end.
        target: What it shall reach, if anything.
        unit: "share" (0 to 1), "points" (a difference of shares), MB, s, tokens/s or words.
        note: What a reader must know beside the figure.
    """

    name: str
    label: str
    n: int
    value: float | None
    low: float | None = None
    high: float | None = None
    target: Target | None = None
    unit: Unit = "share"
    note: str = ""

    @property
    def mark(self) -> Mark:
        """Whether the target is met."""
        if self.value is None:
            return "no data"
        if self.target is None:
            return "no target"
        return "met" if self.target.is_met(self.value) else "missed"


@dataclass
class Section:
    """One part of the scorecard.

    Attributes:
        name: Its key, such as `names`.
        title: Its heading.
        measures: The figures.
        details: Tables behind the figures, as JSON values; the pictures are drawn from them.
        notes: Sentences about what could not be measured, and why.
        seconds: How long it took.
    """

    name: str
    title: str
    measures: list[Measure] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def find(self, name: str) -> Measure | None:
        """Return the measure of this name, or None."""
        return next((m for m in self.measures if m.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; a measure also carries its mark."""
        entry = asdict(self)
        for measure, values in zip(self.measures, entry["measures"], strict=True):
            values["mark"] = measure.mark
        return entry

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> Section:
        """Read what `to_dict` returned."""
        measures = []
        for values in entry["measures"]:
            given = {name: value for name, value in values.items() if name != "mark"}
            target = given.pop("target")
            measures.append(Measure(**given, target=Target(**target) if target else None))
        return cls(**{**entry, "measures": measures})


def share(
    name: str,
    label: str,
    flags: Sequence[bool] | NDArray[Any],
    *,
    groups: Sequence[object] | None = None,
    target: Target | None = None,
    note: str = "",
) -> Measure:
    """Measure how many of the flags are set."""
    return ratio(name, label, np.asarray(flags, float), groups=groups, target=target, note=note)


def ratio(
    name: str,
    label: str,
    numerators: ArrayLike,
    denominators: ArrayLike | None = None,
    *,
    groups: Sequence[object] | None = None,
    target: Target | None = None,
    unit: Unit = "share",
    note: str = "",
) -> Measure:
    """Measure sum(numerators) / sum(denominators) with a bootstrap interval.

    Args:
        name: See `Measure`.
        label: See `Measure`.
        numerators: (N,) one a row.
        denominators: (N,); ones by default. Rows with 0 are not counted in `n`.
        groups: (N,) rows of one group (cuts of one recording) are drawn together.
        target: See `Measure`.
        unit: See `Measure`.
        note: See `Measure`.

    Source: Efron, "Bootstrap methods: another look at the jackknife" (1979); percentiles.
    """
    above = np.asarray(numerators, float).reshape(-1)
    below = np.ones(len(above)) if denominators is None else np.asarray(denominators, float)
    n = int((below != 0).sum())
    if not n:
        return Measure(name, label, 0, None, target=target, unit=unit, note=note or "no rows")
    low, high = _interval(above, below, groups)
    value = float(above.sum() / below.sum())
    return Measure(name, label, n, value, low, high, target, unit, note)


def _interval(
    above: NDArray[Any], below: NDArray[Any], groups: Sequence[object] | None
) -> tuple[float, float]:
    """Ends of the percentile interval of sum(above) / sum(below), groups drawn with replacement."""
    if groups is not None:
        _, index = np.unique([str(g) for g in groups], return_inverse=True)
        above, below = np.bincount(index, above), np.bincount(index, below)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(len(above), np.full(len(above), 1 / len(above)), N_RESAMPLES)
    bottom = draws @ below
    found = (draws @ above)[bottom != 0] / bottom[bottom != 0]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    return float(low), float(high)
