"""Media to be encoded: training data as `open_source` reads it, or a folder without captions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from ibllm_tools.data.examples import Example, MediaRef, SourceReport
from ibllm_tools.data.placing import modality_of_name, open_place
from ibllm_tools.data.rows import RowError
from ibllm_tools.data.sources import Source, open_source
from ibllm_tools.errors import DataError
from ibllm_tools.media import MediaPolicy, Modality


class MediaFolder:
    """Every medium below a folder, in the order of names; a source for `write_store`.

    Attributes:
        name: The folder.
        report: What was found in the last pass.
    """

    def __init__(
        self, folder: str | Path, policy: MediaPolicy | None = None, rank: int = 0, world: int = 1
    ) -> None:
        """List `folder` when iterated; files stay below it, links resolved.

        With `world` processes, each takes every `world`-th medium from its `rank` on.
        """
        self.name = str(folder)
        self.report = SourceReport()
        self._place = open_place(Path(folder), policy)
        self._policy, self._rank, self._world = policy, rank, world

    def shard(self, rank: int, world: int) -> MediaFolder:
        """Every `world`-th medium from `rank` on, for one of several processes."""
        return MediaFolder(self.name, self._policy, rank, world)

    def __iter__(self) -> Iterator[Example]:
        """Give one example without messages for each file that is a medium by its name."""
        self.report = report = SourceReport()
        for example in islice(self._examples(report), self._rank, None, self._world):
            report.kept += 1
            yield example

    def _examples(self, report: SourceReport) -> Iterator[Example]:
        for parent, folders, files in os.walk(self._place.root):
            folders.sort()
            for name in sorted(files):
                modality = modality_of_name(name)
                if modality is None:
                    continue
                report.read += 1
                path = Path(parent, name).relative_to(self._place.root)
                try:
                    key, opener = self._place.locate(path.as_posix())
                except RowError as error:
                    report.skip(path.as_posix(), error.reason, error.why)
                    continue
                yield Example(key, (), (MediaRef(key, modality, 1.0, opener),))


class OnlyModality:
    """A source's media of one modality; examples without any are left out.

    Attributes:
        name: The source's and the modality.
    """

    def __init__(self, source: Iterable[Example], modality: Modality) -> None:
        """View `source`."""
        self.name = f"{getattr(source, 'name', 'source')} ({modality})"
        self._source, self._modality = source, modality

    @property
    def report(self) -> SourceReport:
        """The source's report."""
        found: SourceReport = getattr(self._source, "report", SourceReport())
        return found

    def __iter__(self) -> Iterator[Example]:
        """Give the examples that have such media."""
        for example in self._source:
            media = tuple(ref for ref in example.media if ref.modality == self._modality)
            if media:
                yield replace(example, media=media)


def open_media(
    spec: str,
    *,
    format: str | None = None,  # noqa: A002 - the word that people know
    media_root: Path | None = None,
    policy: MediaPolicy | None = None,
) -> Source | MediaFolder:
    """Open training data; a folder in which no medium has a caption is listed without.

    Args:
        spec: As for `open_source`, like the others.
        format: See there.
        media_root: See there.
        policy: See there.

    Raises:
        DataError: There is no such file or folder, or its format is not known.
    """
    source = open_source(spec, format=format, media_root=media_root, policy=policy)
    if format is None and Path(spec).expanduser().is_dir():
        try:
            next(iter(source), None)
        except DataError:
            return MediaFolder(spec, policy)
    return source
