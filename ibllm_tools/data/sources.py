"""`open_source`: any accepted data file or folder as a stream of examples.

```
spec ─ files ─ reader of the format ─ rows ─ build_example ─ Example
                                       └ faults ─ SourceReport
```
A bad row is counted and skipped. A source of which nothing can be used is an error.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ibllm_tools.data.conversations import SHAPES, build_example
from ibllm_tools.data.examples import Example, MediaRef, SourceReport
from ibllm_tools.data.folders import read_folder
from ibllm_tools.data.json_rows import read_json
from ibllm_tools.data.placing import Place, open_place
from ibllm_tools.data.rows import Fault, Row, RowError
from ibllm_tools.errors import DataError
from ibllm_tools.media import MediaPolicy

__all__ = ["Example", "MediaRef", "Source", "SourceReport", "open_source"]

Rows = Iterator[Row | Fault]


@dataclass(frozen=True)
class _View:
    """Which part of the rows is given, and in which order."""

    rank: int = 0
    world: int = 1
    limit: int | None = None
    seed: int | None = None
    buffer: int = 1000


class Source:
    """A stream of examples that can be read again and again, in the same order.

    Attributes:
        name: What it was opened as.
        report: What became of the rows of the last pass; filled while it is iterated.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], Rows],
        place: Place,
        shape: str | None = None,
        view: _View | None = None,
    ) -> None:
        """Use `open_source`, which finds the arguments from a file."""
        self.name = name
        self.report = SourceReport()
        self._read = read
        self._place = place
        self._shape = shape
        self._view = view or _View()

    def __iter__(self) -> Iterator[Example]:
        """Read from the start; the report begins anew.

        Raises:
            DataError: The rows were read to the end and none could be used.
        """
        self.report = report = SourceReport()
        examples = self._examples(report)
        if self._view.seed is not None:
            examples = _shuffled(examples, self._view.seed, self._view.buffer)
        for example in examples:
            report.kept += 1
            yield example
            if report.kept == self._view.limit:
                return
        if not report.kept and (report.read or self._view.world == 1):
            raise DataError(_nothing_usable(self.name, report))

    def take(self, n: int) -> Source:
        """The same source, ending after `n` examples."""
        if n < 1:
            raise DataError(f"found take({n}), expected at least 1")
        return self._with(limit=n)

    def shard(self, rank: int, world: int) -> Source:
        """Every `world`-th row from row `rank` on, for one of several processes."""
        if not 0 <= rank < world:
            raise DataError(f"found rank {rank} of {world}, expected 0 to {world - 1}")
        return self._with(rank=rank, world=world)

    def shuffle(self, seed: int, buffer: int = 1000) -> Source:
        """Examples in an order drawn from a buffer of this many; the same for the same seed."""
        return self._with(seed=seed, buffer=max(1, buffer))

    def _with(self, **changes: Any) -> Source:
        view = replace(self._view, **changes)
        return Source(self.name, self._read, self._place, self._shape, view)

    def _examples(self, report: SourceReport) -> Iterator[Example]:
        for index, row in enumerate(self._read()):
            if index % self._view.world != self._view.rank:
                continue
            report.read += 1
            if isinstance(row, Fault):
                report.skip(row.where, row.reason, row.why)
                continue
            try:
                example = build_example(row, self._place, report, self._shape)
            except RowError as error:
                report.skip(row.where, error.reason, error.why)
            else:
                yield example


def _shuffled(examples: Iterator[Example], seed: int, size: int) -> Iterator[Example]:
    order = random.Random(seed)  # noqa: S311 - an order, not a secret
    held: list[Example] = []
    for example in examples:
        if len(held) < size:
            held.append(example)
            continue
        place = order.randrange(size)
        yield held[place]
        held[place] = example
    order.shuffle(held)
    yield from held


def _nothing_usable(name: str, report: SourceReport) -> str:
    if not report.read:
        return f"{name}: found no rows; expected at least one; check that it is the right file"
    reasons = sorted(report.skipped.items(), key=lambda item: -item[1])[:3]
    found = "; ".join(
        f"{count:,} × {reason} ({report.samples[reason][0]})" for reason, count in reasons
    )
    return (
        f"{name}: found {report.read:,} rows of which none can be used: {found}; expected rows as "
        f"docs/training-data.md shows them; correct the file, --format or --media-root"
    )


def open_source(
    spec: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the word that people know
    media_root: Path | None = None,
    policy: MediaPolicy | None = None,
) -> Source:
    """Open training data; nothing but its first bytes is read before it is iterated.

    Args:
        spec: A file or folder.
        format: One of `FORMATS`; found from the file when None.
        media_root: The folder below which its media must lie; by default the folder of the
            data file.
        policy: Limits on media, and the hosts whose URLs may be followed (none by default).

    Raises:
        DataError: There is no such file, or its format is not known.
    """
    path = Path(spec).expanduser()
    if not path.exists():
        raise DataError(f"{spec}: found no file or folder of this name; check the path")
    if path.is_dir():
        read: Callable[[], Rows] = lambda: read_folder(path)  # noqa: E731
    else:
        read = lambda: read_json(path)  # noqa: E731
    root = media_root or (path if path.is_dir() else path.parent)
    shape = format if format in SHAPES else None
    return Source(str(spec), read, open_place(root, policy), shape)
