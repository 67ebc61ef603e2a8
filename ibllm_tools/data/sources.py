"""`open_source`: any accepted data file or folder as a stream of examples.

```
spec ─ files ─ reader of the format ─ rows ─ build_example ─ Example
                                       └ faults ─ SourceReport
```
A bad row is counted and skipped. A source of which nothing can be used is an error.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ibllm_tools.data.arrow import read_object, read_parquet, read_saved
from ibllm_tools.data.conversations import SHAPES, build_example
from ibllm_tools.data.examples import Example, MediaRef, SourceReport
from ibllm_tools.data.files import READERS, expand, reader_of
from ibllm_tools.data.folders import read_folder
from ibllm_tools.data.json_rows import read_json
from ibllm_tools.data.placing import Place, open_place
from ibllm_tools.data.rows import Fault, Row, RowError
from ibllm_tools.data.tables import read_table
from ibllm_tools.data.tars import read_tar
from ibllm_tools.errors import DataError
from ibllm_tools.media import MediaPolicy

__all__ = ["FORMATS", "Example", "MediaRef", "Source", "SourceReport", "open_source"]

FORMATS = (*SHAPES, *READERS)
Rows = Iterator[Row | Fault]


@dataclass(frozen=True)
class Part:
    """One file of a source: its rows, from the start at each call, and where its media may lie."""

    read: Callable[[], Rows]
    place: Place


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
        parts: Sequence[Part],
        *,
        shape: str | None = None,
        split: str | None = None,
        view: _View | None = None,
    ) -> None:
        """Use `open_source`, which finds the arguments from a file."""
        self.name = name
        self.report = SourceReport()
        self._parts = tuple(parts)
        self._shape = shape
        self._split = split
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
        if not report.kept and self._view.world == 1:  # one of several shards may be empty
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
        return Source(self.name, self._parts, shape=self._shape, split=self._split, view=view)

    def _rows(self) -> Iterator[tuple[Row | Fault, Place]]:
        """The rows of all files that are of this split and this shard."""
        index = -1
        for part in self._parts:
            for row in part.read():
                if self._split and isinstance(row, Row) and not _is_of(row, self._split):
                    continue
                index += 1
                if index % self._view.world == self._view.rank:
                    yield row, part.place

    def _examples(self, report: SourceReport) -> Iterator[Example]:
        for row, place in self._rows():
            report.read += 1
            if isinstance(row, Fault):
                report.skip(row.where, row.reason, row.why)
                continue
            try:
                example = build_example(row, place, report, self._shape)
            except RowError as error:
                report.skip(row.where, error.reason, error.why)
            else:
                yield example


def _is_of(row: Row, split: str) -> bool:
    """Whether a row is of a split; one that names none is of every split."""
    return bool(row.fields.get("split", split) == split)


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
    spec: str | Path | Any,
    *,
    format: str | None = None,  # noqa: A002 - the word that people know
    media_root: Path | None = None,
    policy: MediaPolicy | None = None,
    split: str | None = None,
) -> Source:
    """Open training data; no row is read before it is iterated.

    Args:
        spec: A file, a folder, a glob (`*.parquet`), a brace range (`{00000..00009}.tar`), or a
            `Dataset` object of Hugging Face's `datasets`.
        format: One of `FORMATS`: the shape of rows (such as "llava") or the kind of file (such
            as "csv"). Both are found from the data when None.
        media_root: The folder below which media must lie, and where relative paths begin; by
            default the folder of each data file, and the working folder for an object.
        policy: Limits on media, and the hosts whose URLs may be followed (none by default).
        split: Take only the rows whose column `split` says this, or this split of a saved
            dataset.

    Raises:
        DataError: There is no such file, or its format is not known.
    """
    if format is not None and format not in FORMATS:
        raise DataError(f"found format {format!r}, expected one of {', '.join(FORMATS)}")
    shape = format if format in SHAPES else None
    reader = format if format in READERS else None
    if not isinstance(spec, (str, Path)):
        name, parts = type(spec).__name__, [_object_part(spec, media_root, policy)]
        return Source(name, parts, shape=shape, split=split)
    found: list[tuple[str, Path]] = []
    for path in expand(str(spec)):
        kind, files = (reader, [path]) if reader else reader_of(path)
        found += [(kind, file) for file in files]
    names = _names([path for _, path in found])
    parts = []
    for (kind, path), name in zip(found, names, strict=True):
        root = media_root or (path if path.is_dir() else path.parent)
        place = open_place(root, policy)
        parts.append(Part(partial(_read, kind, path, name, place, split), place))
    return Source(str(spec), parts, shape=shape, split=split)


def _object_part(dataset: Any, media_root: Path | None, policy: MediaPolicy | None) -> Part:
    if not hasattr(dataset, "__iter__"):
        raise DataError(
            f"found a {type(dataset).__name__}, expected a path or a Dataset of `datasets`"
        )
    return Part(partial(read_object, dataset), open_place(media_root or Path(), policy))


def _names(paths: list[Path]) -> list[str]:
    """What reports and keys call the files: their names, or paths where names repeat."""
    if len({path.name for path in paths}) == len(paths):
        return [path.name for path in paths]
    top = Path(os.path.commonpath([path.parent for path in paths]))
    return [path.relative_to(top).as_posix() for path in paths]


def _read(kind: str, path: Path, name: str, place: Place, split: str | None) -> Rows:
    """The rows of one file; a file that cannot be opened costs only itself."""
    try:
        match kind:
            case "json":
                yield from read_json(path, name)
            case "csv" | "tsv":
                yield from read_table(path, name, "\t" if kind == "tsv" else None)
            case "webdataset":
                yield from read_tar(path, name, place.policy)
            case "parquet":
                yield from read_parquet(path, name)
            case "datasets":
                yield from read_saved(path, name, split)
            case _:
                yield from read_folder(path)
    except OSError as error:
        yield Fault(name, "file cannot be read", error.strerror or type(error).__name__)
