"""A folder of media in a vector store: only what is new or has changed is encoded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibllm_tools.data.placing import modality_of_name
from ibllm_tools.embeddings import MediaFile
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.vectorstores.queries import media_embeddings
from ibllm_tools.vectorstores.records import Record

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from ibllm_tools.embeddings import Row
    from ibllm_tools.embeddings.batches import Embedded
    from ibllm_tools.media import Modality
    from ibllm_tools.vectorstores.store import ImageBindVectorStore

SAVE_EVERY_S = 60.0
_DECLARED = ("depth", "thermal", "imu")


@dataclass
class FolderReport:
    """What indexing a folder did.

    Attributes:
        folder: The folder, links resolved.
        files: Media files that were found.
        encoded: How many of them were new or changed, and were encoded.
        removed: Documents of files that are gone.
        unreadable: Path relative to the folder, and why it cannot be read.
    """

    folder: Path
    files: int = 0
    encoded: int = 0
    removed: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether the store is another than before."""
        return bool(self.encoded or self.removed)

    def holds(self, document: Document) -> bool:
        """Tell whether a document of the store is a file of this folder."""
        source = document.metadata.get("source")
        below = os.path.join(self.folder, "")  # noqa: PTH118 - with the separator at its end
        return isinstance(source, str) and source.startswith(below)


@dataclass(frozen=True)
class FoundFile:
    """A media file, and how to tell later that it has changed."""

    path: Path
    name: str
    stamp: dict[str, int]

    @property
    def row(self) -> MediaFile:
        """The file, with its modality where its name declares one, as `room.depth.png` does."""
        return MediaFile(self.path, self._declared)

    @property
    def confined_row(self) -> dict[str, Any]:
        """The file as a block, which the embeddings' media policy may refuse to open."""
        extras = {"modality": self._declared} if self._declared else {}
        return {"type": "file", "path": str(self.path), "extras": extras}

    @property
    def _declared(self) -> Modality | None:
        modality = modality_of_name(self.name)
        return modality if modality in _DECLARED else None


def index_folder(
    store: ImageBindVectorStore,
    folder: str | os.PathLike[str],
    *,
    on_file: Callable[[int, int], None] | None = None,
    save: Callable[[], None] | None = None,
    follow_links: bool = True,
) -> FolderReport:
    """Bring a store up to date with the media below a folder.

    A file is known by its path, size and time of change. Files and folders whose names begin
    with a dot are left out; links to folders are not followed.

    Args:
        store: Its documents of other folders stay as they are.
        folder: Looked through with all its folders.
        on_file: Called with the files done and the files to do.
        save: Called about once a minute and at the end, also after an interruption, if the
            store has changed since.
        follow_links: False leaves out files that are links, which may lead out of the folder, and
            reads no file that the media policy of the embeddings does not allow.

    Returns:
        What was done. Files that cannot be read are named there and are not in the store.

    Raises:
        ConfigurationError: There is no such folder, or the store's embeddings take texts only.
        CheckpointError: There is no such model.
    """
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise ConfigurationError(f"{folder}: found no folder, expected one with media")
    report = FolderReport(root)
    found = list(media_below(root, follow_links=follow_links))
    report.files = len(found)
    known = {str(d.id): d for d in store.documents(report.holds)}
    gone = sorted(set(known) - {str(file.path) for file in found})
    if gone:
        store.delete(gone)
        report.removed = len(gone)
    new = [file for file in found if not _is_known(known.get(str(file.path)), file)]
    rows = (file.row if follow_links else file.confined_row for file in new)
    _encode(store, new, rows, report, on_file, save)
    return report


def _encode(
    store: ImageBindVectorStore,
    files: list[FoundFile],
    rows: Iterator[Row],
    report: FolderReport,
    on_file: Callable[[int, int], None] | None,
    save: Callable[[], None] | None,
) -> None:
    saved_at, unsaved = time.monotonic(), report.removed > 0
    try:
        results = media_embeddings(store.embeddings).iter_rows(rows)
        for done, (file, result) in enumerate(zip(files, results, strict=True), start=1):
            unsaved |= _keep(store, file, result, report)
            if on_file is not None:
                on_file(done, len(files))
            if save is not None and unsaved and time.monotonic() - saved_at > SAVE_EVERY_S:
                save()
                saved_at, unsaved = time.monotonic(), False
    finally:
        if save is not None and unsaved:
            save()


def _keep(
    store: ImageBindVectorStore, file: FoundFile, result: Embedded | Exception, report: FolderReport
) -> bool:
    """Put one result into the store; tell whether that changed the store."""
    identity = str(file.path)
    if isinstance(result, Exception):
        report.unreadable[file.name] = str(result) or type(result).__name__
        outdated = bool(store.get_by_ids([identity]))
        store.delete([identity])
        report.removed += outdated
        return outdated
    metadata: dict[str, Any] = {"source": identity, "modality": result.modalities[0], **file.stamp}
    store._put([Record(identity, file.name, metadata)], [result.vector])
    report.encoded += 1
    return True


def _is_known(document: Document | None, file: FoundFile) -> bool:
    if document is None:
        return False
    return all(document.metadata.get(key) == value for key, value in file.stamp.items())


def media_below(root: Path, *, follow_links: bool = True) -> Iterator[FoundFile]:
    """Walk through the media files below a folder, in order of their names."""
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            is_media = modality_of_name(name) or name.lower().endswith(".npy")
            if is_media and not name.startswith("."):
                path = Path(parent, name)
                if not follow_links and path.is_symlink():
                    continue
                yield FoundFile(path, path.relative_to(root).as_posix(), _stamp(path))


def _stamp(path: Path) -> dict[str, int]:
    try:
        status = path.stat()
    except OSError:  # a broken link: reading it will say so
        return {"size_bytes": -1, "modified_ns": -1}
    return {"size_bytes": status.st_size, "modified_ns": status.st_mtime_ns}
