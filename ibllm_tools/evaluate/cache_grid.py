"""Section `cache`: what the visual cache adds, off and on, over k, weight and temperature.

The best cell of a grid on the evaluated split is an upper bound, not a result: the settings
that ship were chosen on rows kept out of training.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ibllm_tools.cache import CacheSettings
from ibllm_tools.evaluate.names import QUESTIONS
from ibllm_tools.evaluate.results import Section, ratio
from ibllm_tools.evaluate.targets import target_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibllm_tools.evaluate.session import Session

KS = (5, 10, 30, 100)
WEIGHTS = (0.3, 0.5, 0.7, 0.9)
TEMPERATURES = (10.0, 20.0, 40.0)
ROWS = {"photos": 200, "sounds": 300, "shapes": 300}
ANSWER_TOKENS = 28


def measure_cache(session: Session) -> Section:
    """Measure right answers with the cache off, as shipped, and over the grid."""
    section = Section("cache", "Does the visual cache help?")
    if not session.ask.has_cache:
        section.notes.append("the model has no visual cache")
        return section
    shipped = session.ask.cache_settings(True)
    assert shipped is not None
    section.details["shipped"] = shipped.to_dict()
    section.details["on_by_default"] = session.ask.cache_settings() is not None
    for kind in ROWS:
        if session.gallery.rows.get(kind):
            _measure_kind(session, section, kind, shipped)
        else:
            section.notes.append(f"{kind}: no media")
    return section


def _measure_kind(session: Session, section: Section, kind: str, shipped: CacheSettings) -> None:
    pairs = session.pick(kind, ROWS[kind])
    groups = [exhibit.group for exhibit, _ in pairs]
    concepts = [exhibit.concept for exhibit, _ in pairs]
    seen = [shown for _, shown in pairs]

    def right(cache: CacheSettings | bool) -> NDArray[Any]:
        answers = session.ask.ask(
            QUESTIONS[kind], seen, cache=cache, max_tokens=ANSWER_TOKENS, task=f"{kind}: cache"
        )
        found = session.names.named_all(answers)
        return np.array([f == {c} for f, c in zip(found, concepts, strict=True)], float)

    off, on = right(False), right(shipped)
    cells = []
    for k, weight, temperature in product(KS, WEIGHTS, TEMPERATURES):
        flags = right(CacheSettings(k=k, temperature=temperature, weight=weight, form=shipped.form))
        cell = ratio("cell", "", flags, groups=groups)
        gain = ratio("gain", "", flags - off, groups=groups)
        cells.append(
            {"k": k, "weight": weight, "temperature": temperature}
            | {"right": cell.value, "low": cell.low, "high": cell.high}
            | {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
        )
    best = max(cells, key=lambda cell: cell["right"] or 0.0)
    section.measures += [
        ratio(f"{kind}.off", f"{kind}: right, cache off", off, groups=groups),
        ratio(f"{kind}.on", f"{kind}: right, cache on as shipped", on, groups=groups),
        ratio(
            f"{kind}.gain",
            f"{kind}: on minus off",
            on - off,
            groups=groups,
            unit="points",
            target=target_of("cache", f"{kind}.gain"),
            note=f"best cell of the grid {best['right']:.1%}: k {best['k']}, α {best['weight']}, "
            f"t {best['temperature']:g}",
        ),
    ]
    off_cell = section.measures[-3]
    section.details[kind] = {
        "n": len(pairs),
        "off": {"right": off_cell.value, "low": off_cell.low, "high": off_cell.high},
        "grid": cells,
    }
