"""The tables of a model card, from a scorecard: `python -m ibllm_tools.evaluate.card FILE`.

Every section is followed by the command that gives its figures again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ibllm_tools.evaluate.scorecard import Scorecard
from ibllm_tools.evaluate.tables import MARKS, aim, figure, interval

if TYPE_CHECKING:
    from ibllm_tools.evaluate.results import Measure, Section


def as_markdown(card: Scorecard) -> str:
    """Write all sections as markdown tables."""
    media = ", ".join(f"{n} {kind}" for kind, n in card.media.items()) or "no media"
    versions = ", ".join(f"{name} {number}" for name, number in card.versions.items())
    head = (
        f"Measured on the `{card.split}` split ({media}), greedy, in "
        f"{card.seconds / 60:.0f} minutes ({versions}). Intervals are 95 % bootstrap. "
        "✓ target met, ✗ missed.\n"
    )
    return "\n".join([head, *(_section(card, section) for section in card.sections)])


def _section(card: Scorecard, section: Section) -> str:
    lines = [f"### {section.title}"]
    if section.measures:
        lines += ["| measure | n | value | 95 % | target | |", "|---|---|---|---|---|---|"]
        lines += [_row(measure) for measure in section.measures]
    lines += [f"\n{note}" for note in section.notes]
    return "\n".join([*lines, "", f"    {card.command} --sections {section.name}", ""])


def _row(measure: Measure) -> str:
    label = measure.label + (f" ({measure.note})" if measure.note else "")
    cells = (
        label.replace("|", "\\|"),
        str(measure.n),
        figure(measure.value, measure.unit),
        interval(measure),
        aim(measure.target, measure.unit),
        MARKS[measure.mark],
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(as_markdown(Scorecard.from_json(Path(sys.argv[1]).read_text("utf-8"))))
