"""A scorecard as text: the terminal's table, and how one figure is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ibllm_tools.evaluate.results import Measure, Target, Unit
    from ibllm_tools.evaluate.scorecard import Scorecard

MARKS = {"met": "✓", "missed": "✗", "no target": "", "no data": "–"}
COLOURS = {"met": "green", "missed": "red", "no target": "default", "no data": "bright_black"}


def figure(value: float | None, unit: Unit) -> str:
    """Write a value with its unit: `62.1 %`, `+1.4 pts`, `24.3 MB`."""
    if value is None:
        return "–"
    match unit:
        case "share":
            return f"{100 * value:.1f} %"
        case "points":
            return f"{100 * value:+.1f} pts"
        case "s":
            return f"{value:.2f} s" if value >= 0.1 else f"{1000 * value:.0f} ms"
        case "tokens/s":
            return f"{value:.0f} tokens/s"
    return f"{value:.1f} {unit}"


def interval(measure: Measure) -> str:
    """Write the 95 % interval, empty where there is none."""
    if measure.low is None or measure.high is None:
        return ""
    if measure.unit in ("share", "points"):
        sign = "+" if measure.unit == "points" else ""
        return f"{100 * measure.low:{sign}.1f} … {100 * measure.high:{sign}.1f}"
    return f"{measure.low:.2f} … {measure.high:.2f}"


def aim(target: Target | None, unit: Unit) -> str:
    """Write a target: `≥ 62.0 %`, `45.0 % … 55.0 %`."""
    if target is None:
        return ""
    if target.low is not None and target.high is not None:
        return f"{figure(target.low, unit)} … {figure(target.high, unit)}"
    if target.low is not None:
        return f"≥ {figure(target.low, unit)}"
    return f"≤ {figure(target.high, unit)}"


def as_table(card: Scorecard) -> Any:
    """Make a rich table of a scorecard: section, measure, n, value, interval, target, mark."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=_title(card), title_justify="left", row_styles=("", "dim"), pad_edge=False)
    for name in ("section", "measure"):
        table.add_column(name)
    for name in ("n", "value", "95 %", "target"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for section in card.sections:
        for i, m in enumerate(section.measures):
            label = Text(m.label)
            if m.note:
                label.append(f"  ({m.note})", "italic")
            value = Text(figure(m.value, m.unit), f"bold {COLOURS[m.mark]}")
            mark = Text(MARKS[m.mark], COLOURS[m.mark])
            name = section.name if i == 0 else ""
            cells = (str(m.n), value, interval(m), aim(m.target, m.unit), mark)
            table.add_row(name, label, *cells)
        for note in section.notes:
            table.add_row(section.name, Text(note, "yellow"))
        table.add_section()
    return table


def _title(card: Scorecard) -> str:
    media = ", ".join(f"{n} {kind}" for kind, n in card.media.items()) or "no media"
    marks = [m.mark for section in card.sections for m in section.measures if m.target]
    met = f"{marks.count('met')} of {len(marks)} targets met"
    return f"{card.model} on {card.data}, split {card.split} ({media}): {met}"
