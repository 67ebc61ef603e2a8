"""The scorecard's pictures: targets, cache grid, mixing curve, confusions. Needs matplotlib.

Colours are those of Okabe and Ito, which colour-blind people can tell apart; marks and texts
carry the same meaning. This file knows scorecards, not models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibllm_tools.errors import MissingExtraError
from ibllm_tools.evaluate.tables import aim, figure

if TYPE_CHECKING:
    from ibllm_tools.evaluate.results import Measure
    from ibllm_tools.evaluate.scorecard import Scorecard

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8a8a8a"
DPI = 130


def draw_all(card: Scorecard, folder: Path | str) -> list[Path]:
    """Draw what the scorecard has data for.

    Args:
        card: The scorecard.
        folder: Made if needed.

    Returns:
        The PNG files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [_draw_targets(card, folder / "scorecard.png")]
    cache, mixing, names = (card.section(name) for name in ("cache", "mixing", "names"))
    if cache is not None and any("grid" in _entry(cache.details, k) for k in cache.details):
        drawn.append(_draw_cache(cache.details, folder / "cache.png"))
    if mixing is not None and "curve" in mixing.details:
        drawn.append(_draw_curve(mixing.details["curve"], mixing.measures, folder / "mixing.png"))
    for kind in ("photos", "sounds", "shapes"):
        if names is not None and kind in names.details:
            matrix = names.details[kind]["matrix"]
            drawn.append(_draw_matrix(kind, matrix, folder / f"confusions-{kind}.png"))
    return [path for path in drawn if path is not None]


def _entry(details: dict[str, Any], key: str) -> dict[str, Any]:
    found = details[key]
    return found if isinstance(found, dict) else {}


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "demo") from error
    page = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(page)
    return page


def _bare(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_targets(card: Scorecard, path: Path) -> Path | None:
    """Bars of all shares that have a target, each with its interval and target."""
    rows = [
        (section.name, m)
        for section in card.sections
        for m in section.measures
        if m.target is not None and m.value is not None and m.unit == "share"
    ]
    if not rows:
        return None
    page = _figure(9.6, 1.4 + 0.27 * len(rows))
    axes = page.add_subplot()
    for place, (_, measure) in enumerate(rows):
        _draw_bar(axes, place, measure)
    labels = [f"{name}: {_short(m.label)}" for name, m in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.14)
    axes.set_xticks(np.linspace(0, 1, 6), [f"{p} %" for p in range(0, 101, 20)])
    axes.grid(axis="x", color="#e6e6e6")
    axes.set_axisbelow(True)
    _bare(axes)
    met = sum(m.mark == "met" for _, m in rows)
    axes.set_title(
        f"{card.model}, {card.split}: {met} of {len(rows)} shares reach their target\n"
        "black: 95 % bootstrap interval · orange: target",
        fontsize=10,
        loc="left",
    )
    page.savefig(path)
    return path


def _draw_bar(axes: Any, place: int, measure: Measure) -> None:
    value, target = measure.value or 0.0, measure.target
    assert target is not None
    met = measure.mark == "met"
    axes.barh(place, value, 0.68, color=BLUE if met else "#c8d3da", edgecolor=BLUE, linewidth=0.8)
    if measure.low is not None and measure.high is not None:
        axes.plot([measure.low, measure.high], [place, place], color="black", linewidth=1.2)
    for bound in (target.low, target.high):
        if bound is not None:
            axes.plot([bound] * 2, [place - 0.46, place + 0.46], color=ORANGE, linewidth=2.6)
    mark = "✓" if met else "✗"
    axes.text(1.01, place, f"{mark} {figure(value, 'share')}", va="center", fontsize=8)


def _short(label: str, longest: int = 62) -> str:
    label = label.removeprefix("says it does not know: ")
    return label if len(label) <= longest else label[: longest - 1] + "…"


def _draw_cache(details: dict[str, Any], path: Path) -> Path:
    """Heat maps of the gain over the cache being off: weight by k, a row for each temperature."""
    kinds = [k for k in ("photos", "sounds", "shapes") if k in details]
    grids = {kind: details[kind]["grid"] for kind in kinds}
    axes_of = {
        name: sorted({cell[name] for grid in grids.values() for cell in grid})
        for name in ("k", "weight", "temperature")
    }
    temperatures = axes_of["temperature"]
    page = _figure(3.5 * len(kinds) + 1, 2.5 * len(temperatures) + 0.7)
    panels = page.subplots(len(temperatures), len(kinds), squeeze=False)
    gains = [cell["gain"] for grid in grids.values() for cell in grid]
    top = max(0.01, *map(abs, gains))
    image = None
    for column, kind in enumerate(kinds):
        for row, temperature in enumerate(temperatures):
            cells = [c for c in grids[kind] if c["temperature"] == temperature]
            axes = panels[row, column]
            image = _heat_map(axes, cells, axes_of, top)
            off = details[kind]["off"]["right"]
            head = (
                f"{kind}, n {details[kind]['n']}, off {figure(off, 'share')}\n" if not row else ""
            )
            axes.set_title(f"{head}t = {temperature:g}", fontsize=9)
            axes.set_xlabel("k" if row == len(temperatures) - 1 else "", fontsize=9)
            axes.set_ylabel("α (weight)" if not column else "", fontsize=9)
    bar = page.colorbar(image, ax=panels, shrink=0.6)
    bar.set_label("right answers, cache on minus off (points)")
    page.suptitle("Visual cache: gain in points; bold where the 95 % interval excludes 0")
    page.savefig(path)
    return path


def _heat_map(
    axes: Any, cells: Sequence[dict[str, Any]], axes_of: dict[str, list[Any]], top: float
) -> Any:
    ks, weights = axes_of["k"], axes_of["weight"]
    table = np.full((len(weights), len(ks)), np.nan)
    for cell in cells:
        y, x = weights.index(cell["weight"]), ks.index(cell["k"])
        table[y, x] = 100 * cell["gain"]
        sure = cell["gain_low"] > 0 or cell["gain_high"] < 0
        dark = abs(cell["gain"]) > 0.65 * top
        axes.text(
            x,
            y,
            f"{100 * cell['gain']:+.1f}",
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold" if sure else "normal",
            color="white" if dark else "black",
        )
    image = axes.imshow(
        table, cmap="PuOr_r", vmin=-100 * top, vmax=100 * top, origin="lower", aspect="auto"
    )
    axes.set_xticks(range(len(ks)), [str(k) for k in ks], fontsize=8)
    axes.set_yticks(range(len(weights)), [f"{w:g}" for w in weights], fontsize=8)
    return image


def _draw_curve(curve: Sequence[dict[str, Any]], measures: Sequence[Measure], path: Path) -> Path:
    """What is named over the ratio of photo and sound, with intervals."""
    page = _figure(7.4, 4.6)
    axes = page.add_subplot()
    x = [point["photo_weight"] for point in curve]
    for name, label, colour, marker in (
        ("photo", "the photo's concept", BLUE, "o"),
        ("sound", "the sound's concept", VERMILION, "s"),
        ("both", "both, and nothing else", GREEN, "D"),
    ):
        low, value, high = (
            [100 * point[name][key] for point in curve] for key in ("low", "value", "high")
        )
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, value, color=colour, marker=marker, markersize=5, label=label)
    both = next(m for m in measures if m.name == "both")
    goal = both.target.low if both.target else None
    if goal is not None:
        axes.plot(0.5, 100 * goal, marker="*", color=ORANGE, markersize=15, linestyle="none",
                  label=f"target for both, {aim(both.target, 'share')}")  # fmt: skip
    axes.set_xlabel("weight of the photo (the sound has the rest)")
    axes.set_ylabel("answers that name it (%)")
    axes.set_ylim(0, 100)
    axes.grid(color="#e6e6e6")
    axes.set_title(f"A photo and a sound of different concepts, {both.n} pairs", loc="left")
    axes.legend(frameon=False, fontsize=9)
    _bare(axes)
    page.savefig(path)
    return path


def _draw_matrix(kind: str, matrix: dict[str, Any], path: Path) -> Path:
    """Which concept is named for which, as shares of each row."""
    names, counts = matrix["names"], np.array(matrix["counts"], float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    size = 2.6 + 0.19 * len(names)
    page = _figure(size + 1.2, size)
    axes = page.add_subplot()
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(names) + 1), [*names, "(none or several)"], rotation=90, fontsize=7)
    labels = [f"{n} ({int(t)})" for n, t in zip(names, totals[:, 0], strict=True)]
    axes.set_yticks(range(len(names)), labels, fontsize=7)
    axes.set_xlabel("named")
    axes.set_ylabel("shown (how many)")
    axes.set_title(f"{kind}: what is named for what, % of each row", loc="left", fontsize=10)
    page.colorbar(image, ax=axes, shrink=0.7)
    page.savefig(path)
    return path
