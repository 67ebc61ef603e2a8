"""Rows: what every file format is brought to before examples are built, and how a row fails.

This module opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes:
        where: File and line (or member), for reports; also the id of a row without one.
        fields: Its values by column name.
    """

    where: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """A row, or the rest of a file, that cannot be read.

    Attributes:
        where: File and line.
        reason: Short and the same for all rows of this kind; the report counts by it.
        why: What was found here.
    """

    where: str
    reason: str
    why: str


class RowError(Exception):
    """A row cannot become an example; never leaves this package."""

    def __init__(self, reason: str, why: str) -> None:
        """Keep the reason, by which rows are counted, and what was found."""
        super().__init__(reason, why)
        self.reason = reason
        self.why = why
