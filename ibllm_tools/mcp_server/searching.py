"""`find_similar` and `list_media`: the media files of folders that a client may read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from langchain_core.runnables.config import run_in_executor

from ibllm_tools.data.placing import modality_of_name
from ibllm_tools.mcp_server import answers, arguments
from ibllm_tools.mcp_server.answers import Answer, Listed, Listing, Match, Matches
from ibllm_tools.mcp_server.folders import FolderError, Folders
from ibllm_tools.mcp_server.settings import McpSettings
from ibllm_tools.mcp_server.tools import Call, Tool, ToolProblemError
from ibllm_tools.vectorstores import index_folder
from ibllm_tools.vectorstores.folders import media_below
from ibllm_tools.vectorstores.indexes import index_place, open_index

if TYPE_CHECKING:
    from ibllm_tools.embeddings import ImageBindEmbeddings
    from ibllm_tools.vectorstores import FolderReport, ImageBindVectorStore

MAX_LISTED = 200
_UNREADABLE_SHOWN = 20


class FolderTools:
    """Searches and lists folders; an index is brought up to date by each search."""

    def __init__(self, settings: McpSettings) -> None:
        """Hold the encoder; nothing is loaded before the first search."""
        self._settings = settings
        self._embeddings = settings.comparer()
        self._locks: dict[Path, Lock] = {}
        self._lock = Lock()

    def tools(self) -> list[Tool]:
        """The two tools."""
        return [
            Tool(
                "find_similar",
                "Find media in a folder",
                "Find the media files of a folder that are most like given media, or that fit "
                "some words best; pictures, sounds, videos and shapes compare with each other. "
                "The first search of a folder takes long, because every file is encoded.",
                arguments.SimilarArgs,
                answers.Matches,
                self.find_similar,
            ),
            Tool(
                "list_media",
                "List media files",
                "List the media files that may be read, by the paths that other tools take.",
                arguments.ListArgs,
                answers.Listing,
                self.list_media,
            ),
        ]

    async def find_similar(self, given: arguments.SimilarArgs, call: Call) -> Answer:
        """Bring the index of a folder up to date, and search it."""
        stop = Event()
        try:
            return await run_in_executor(None, self._search, given, call, stop)
        finally:
            stop.set()  # also where the call was cancelled: the thread ends at its next file

    async def list_media(self, given: arguments.ListArgs, call: Call) -> Answer:
        """List files."""
        return await run_in_executor(None, self._list, given, call.folders)

    def _search(self, given: arguments.SimilarArgs, call: Call, stop: Event) -> Answer:
        folder = call.folders.folder(given.folder)
        query: Any = given.text
        if given.media is not None:
            query = [medium.read(call.folders, self._settings.limits) for medium in given.media]
        self._check_size(folder)

        def told(done: int, total: int) -> None:
            if stop.is_set():
                raise ToolProblemError("cancelled")
            call.tell_soon(done, total, f"encoded {done} of {total} files")

        store, report = self._indexed(folder, told)

        def fits(document: Any) -> bool:
            wanted = given.modality in {None, document.metadata.get("modality")}
            return wanted and report.holds(document)

        found = store.similarity_search_with_score(query, given.k, fits)
        results = [
            Match(
                path=call.folders.name_of(Path(document.metadata["source"])),
                modality=document.metadata["modality"],
                score=round(score, 4),
            )
            for document, score in found
        ]
        return _matches(folder, results, report)

    def _indexed(
        self, folder: Path, told: Callable[[int, int], None]
    ) -> tuple[ImageBindVectorStore, FolderReport]:
        base = self._settings.index_dir
        place = index_place(folder, self._embeddings.model, base)
        with self._lock:
            lock = self._locks.setdefault(place, Lock())
        with lock:  # two searches of one folder must not both encode it
            store = open_index(place, self._confined(folder), renew=True)
            report = index_folder(
                store,
                folder,
                on_file=told,
                save=lambda: store.save_local(place),
                follow_links=False,
            )
        return store, report

    def _confined(self, folder: Path) -> ImageBindEmbeddings:
        """Embeddings that open files below a folder alone, whatever happens to it meanwhile."""
        policy = self._settings.limits.model_copy(
            update={"allowed_dirs": (folder,), "allowed_hosts": ()}
        )
        return self._embeddings.model_copy(update={"media_policy": policy})

    def _check_size(self, folder: Path) -> None:
        limit = self._settings.max_files
        n = sum(1 for _ in islice(media_below(folder, follow_links=False), limit + 1))
        if n > limit:
            raise FolderError(
                f"{folder}: found more than {limit:,} media files; expected at most so many; "
                "name a folder further down"
            )

    def _list(self, given: arguments.ListArgs, folders: Folders) -> Answer:
        wanted = list(folders.allowed) if given.folder is None else [folders.folder(given.folder)]
        if not wanted:
            folders.folder(None)  # says what to do
        listed: list[Listed] = []
        left_out = 0
        for path in _files_in(wanted, self._settings.max_files):
            modality = modality_of_name(path.name)
            if given.modality not in {None, modality}:
                continue
            if len(listed) < MAX_LISTED:
                size = _size(path)
                listed.append(Listed(path=folders.name_of(path), modality=modality, n_bytes=size))
            else:
                left_out += 1
        values = Listing(folders=[str(path) for path in wanted], files=listed, n_left_out=left_out)
        lines = [f"{file.path} ({file.modality or 'array'})" for file in listed]
        if left_out:
            lines.append(f"and {left_out} more; name a folder further down, or a modality")
        return Answer("\n".join(lines) or "There are no media files.", values)


def _files_in(places: Sequence[Path], limit: int) -> Iterator[Path]:
    """Media files below folders; a root may also be a single file."""
    for place in places:
        if place.is_file():
            yield place
        else:
            yield from islice((found.path for found in media_below(place, follow_links=False)),
                              limit)  # fmt: skip


def _size(path: Path) -> int:
    try:
        return path.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def _matches(folder: Path, results: list[Match], report: FolderReport) -> Answer:
    unreadable = dict(list(report.unreadable.items())[:_UNREADABLE_SHOWN])
    values = Matches(
        folder=str(folder),
        results=results,
        n_searched=report.files - len(report.unreadable),
        unreadable=unreadable,
    )
    lines = [f"{found.score:.2f} {found.modality} {found.path}" for found in results]
    if not lines:
        lines.append(f"Nothing was found among {values.n_searched} files of {folder}.")
    if report.unreadable:
        lines.append(f"{len(report.unreadable)} files cannot be read.")
    return Answer("\n".join(lines), values)
