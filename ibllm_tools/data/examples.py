"""What a data source gives: examples, references to their media, and a report of what was skipped.

This module knows no file format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ibllm_tools.media import Media, Modality

MAX_SAMPLES = 3


@dataclass(frozen=True)
class MediaRef:
    """One medium of an example; nothing is read before `block` is called.

    Attributes:
        key: Where it is, the same from run to run: a path below the media root, a URL, or
            `<tar>/<member>`.
        modality: What it is sensed as.
        weight: Its weight in a mix; finite and above 0.
    """

    key: str
    modality: Modality
    weight: float = 1.0
    opener: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)

    def block(self) -> Media:
        """Read the medium under its source's policy.

        Raises:
            MediaError: It is missing, not allowed, too large, or not of its modality.
        """
        assert self.opener is not None, "a reference is made by a source"
        name = self.key.rsplit("/", 1)[-1]
        data = self.opener()
        return Media.from_bytes(data, modality=self.modality, weight=self.weight, name=name)


@dataclass(frozen=True)
class Example:
    """One conversation to learn from, and the media that it is about.

    Attributes:
        id: The row's own id, or its place in the file.
        messages: `{"role": "system" | "user" | "assistant", "content": text}` in order; the
            last one is the assistant's.
        media: The media of the whole conversation; () for text only.
    """

    id: str
    messages: tuple[dict[str, str], ...]
    media: tuple[MediaRef, ...] = ()


@dataclass
class SourceReport:
    """What became of the rows of one pass over a source.

    Attributes:
        read: Rows seen.
        kept: Examples given out.
        skipped: Rows left out, by reason.
        samples: For each reason the first few, as "where: why".
        notes: What was changed in rows that were kept, by kind.
    """

    read: int = 0
    kept: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def skip(self, where: str, reason: str, why: str) -> None:
        """Count one row that is left out."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        samples = self.samples.setdefault(reason, [])
        if len(samples) < MAX_SAMPLES:
            # A name of a file may hold bytes that are no text.
            samples.append(f"{where}: {why}".encode("utf-8", "backslashreplace").decode())

    def note(self, what: str) -> None:
        """Count a change to a row that is kept."""
        self.notes[what] = self.notes.get(what, 0) + 1

    def merge(self, other: SourceReport) -> None:
        """Add the counts of another source."""
        self.read += other.read
        self.kept += other.kept
        self.skipped = dict(Counter(self.skipped) + Counter(other.skipped))
        self.notes = dict(Counter(self.notes) + Counter(other.notes))
        for reason, samples in other.samples.items():
            self.samples[reason] = [*self.samples.get(reason, []), *samples][:MAX_SAMPLES]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "read": self.read,
            "kept": self.kept,
            "skipped": dict(self.skipped),
            "samples": {reason: list(samples) for reason, samples in self.samples.items()},
            "notes": dict(self.notes),
        }

    def lines(self) -> list[str]:
        """The report as lines of text; the most frequent reasons come first."""
        lines = [f"{self.read:,} rows read, {self.kept:,} kept"]
        for reason, count in sorted(self.skipped.items(), key=lambda item: -item[1]):
            lines.append(f"  {count:,} skipped: {reason}")
            lines += [f"    {sample}" for sample in self.samples.get(reason, [])]
        lines += [f"  {count:,} noted: {what}" for what, count in self.notes.items()]
        return lines
