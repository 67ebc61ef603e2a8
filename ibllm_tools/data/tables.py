"""Tables of text: a path or URL and a caption a row, separated by tabs, commas or semicolons.

The released code's form is `url<TAB>caption` with these two names in the first line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ibllm_tools.data.columns import is_known_column
from ibllm_tools.data.rows import Fault, Row
from ibllm_tools.media.problems import shown

_SEPARATORS = "\t,;"
MAX_LINE_CHARS = 2**20


def read_table(path: Path, name: str, separator: str | None = None) -> Iterator[Row | Fault]:
    """Read a table with a first line of column names.

    Args:
        path: The file; UTF-8.
        name: What reports call it.
        separator: Between columns; by default, the first of tab, comma and semicolon that the
            first line has.
    """
    # A byte that is no UTF-8 becomes half a surrogate pair, which costs only its own row.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _bounded(iter(lambda: file.readline(MAX_LINE_CHARS), ""))
        first = next(lines, "")
        separator = separator or next((mark for mark in _SEPARATORS if mark in first), ",")
        names = [column.strip() for column in next(csv.reader([first], delimiter=separator), [])]
        if not any(is_known_column(column) for column in names):
            why = f"found columns {shown(', '.join(names))}, expected for example url and caption"
            yield Fault(f"{name}:1", "no known column names", why)
            return
        yield from _rows(csv.reader(lines, delimiter=separator), names, name)


def _bounded(lines: Iterator[str]) -> Iterator[str]:
    """Lines of bounded length; the tail of an overlong one is dropped, its head cannot parse."""
    inside = False
    for line in lines:
        ended = line.endswith("\n")
        if not inside:
            yield line if ended or len(line) < MAX_LINE_CHARS else line + "\n"
        inside = not ended


def _rows(reader: Iterator[list[str]], names: list[str], name: str) -> Iterator[Row | Fault]:
    previous = 1
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            yield Fault(f"{name}:{previous + 1}", "broken row", shown(str(error)))
            previous = 1 + _line(reader)
            continue
        if values is None:
            return
        where, previous = f"{name}:{previous + 1}", 1 + _line(reader)
        if not values:
            continue
        if len(values) != len(names):
            why = f"found {len(values)} columns, expected {len(names)}"
            yield Fault(where, "another number of columns", why)
        else:
            yield Row(where, dict(zip(names, values, strict=True)))


def _line(reader: Iterator[list[str]]) -> int:
    return int(getattr(reader, "line_num", 0))
