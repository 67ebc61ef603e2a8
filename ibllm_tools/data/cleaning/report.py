"""What a cleaning took out and why: counts, shares, examples, histograms; as JSON and a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

MAX_EXAMPLES = 5
MAX_SHOWN_CHARS = 80
BINS = 60

# In the order in which a row is judged; the first that fits is its reason.
REASONS = (
    "language",
    "too short",
    "too long",
    "duplicate row",
    "duplicate medium",
    "repeated caption",
    "low similarity",
    "near-duplicate",
)


@dataclass(frozen=True)
class Gone:
    """One row that was taken out, as an example.

    Attributes:
        id: Its id.
        text: The start of its text.
        why: The value that decided, such as "similarity 0.12".
        instead_of: The id of the row that stays in its place; "" if none does.
    """

    id: str
    text: str
    why: str
    instead_of: str = ""

    def as_dict(self) -> dict[str, str]:
        """The example as JSON values."""
        found = {"id": self.id, "text": self.text, "why": self.why}
        return {**found, "instead_of": self.instead_of} if self.instead_of else found


@dataclass
class CleaningReport:
    """The result of one cleaning.

    Attributes:
        rows: Rows of the store.
        kept: Rows that stay.
        removed: Rows that go, by reason.
        examples: For each reason the first few.
        languages: Rows by language.
        judged: Rows whose similarity was measured.
        threshold: Least similarity that stays; None if no row was judged by it.
        histogram: Rows of each of `BINS` equal steps of similarity from -1 to 1, before
            similarity removed any.
        mean_similarity: Of the judged rows, before and after.
        groups: Sizes of near-duplicate groups (the row that stays included) and how often.
        settings: The options.
    """

    rows: int = 0
    kept: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Gone]] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    judged: int = 0
    threshold: float | None = None
    histogram: list[int] = field(default_factory=list)
    mean_similarity: tuple[float, float] | None = None
    groups: dict[int, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        removed = {reason: self.removed[reason] for reason in REASONS if reason in self.removed}
        similarity = {
            "judged": self.judged,
            "threshold": self.threshold,
            "mean_before": self.mean_similarity[0] if self.mean_similarity else None,
            "mean_after": self.mean_similarity[1] if self.mean_similarity else None,
            "histogram": {"from": -1.0, "to": 1.0, "counts": self.histogram},
        }
        return {
            "rows": self.rows,
            "kept": self.kept,
            "removed": removed,
            "shares": {reason: n / max(self.rows, 1) for reason, n in removed.items()},
            "languages": self.languages,
            "similarity": similarity,
            "near_duplicate_groups": {str(size): n for size, n in sorted(self.groups.items())},
            "examples": {r: [gone.as_dict() for gone in self.examples.get(r, [])] for r in removed},
            "settings": self.settings,
        }

    def as_table(self) -> RenderableType:
        """The report for a terminal."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        table = Table(title="What stays and what goes", title_justify="left")
        table.add_column("rows")
        table.add_column("count", justify="right")
        table.add_column("share", justify="right")
        table.add_column("for example", overflow="fold")
        table.add_row("read", f"{self.rows:,}", "", "", end_section=True)
        for reason in (reason for reason in REASONS if reason in self.removed):
            shown = "\n".join(escape(_line(gone)) for gone in self.examples[reason][:3])
            table.add_row(reason, f"{self.removed[reason]:,}", self._share(reason), shown)
        table.add_section()
        share = f"{self.kept / max(self.rows, 1):.1%}"
        table.add_row("kept", f"{self.kept:,}", share, "", style="bold")
        return Group(table, *self._notes())

    def _share(self, reason: str) -> str:
        return f"{self.removed[reason] / max(self.rows, 1):.1%}"

    def _notes(self) -> list[str]:
        notes = []
        if self.mean_similarity is not None:
            before, after = self.mean_similarity
            least = "" if self.threshold is None else f", least allowed {self.threshold:.3f}"
            notes.append(
                f"similarity of medium and text: mean {before:.3f} before, {after:.3f} after{least}"
                f" ({self.judged:,} rows judged)"
            )
        if self.groups:
            largest, n = max(self.groups), sum(self.groups.values())
            notes.append(f"near-duplicates: {n:,} groups, the largest of {largest:,} rows")
        if self.languages:
            found = ", ".join(f"{name} {n:,}" for name, n in self.languages.items())
            notes.append(f"languages: {found}")
        return notes


def shortened(text: str) -> str:
    """The start of a text, on one line."""
    line = " ".join(text[: 4 * MAX_SHOWN_CHARS].split())
    return line if len(line) <= MAX_SHOWN_CHARS else line[: MAX_SHOWN_CHARS - 1] + "…"


def _line(gone: Gone) -> str:
    instead = f", {gone.instead_of} stays" if gone.instead_of else ""
    return f"{gone.id}: {gone.text} ({gone.why}{instead})"
