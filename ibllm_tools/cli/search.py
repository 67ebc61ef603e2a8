"""`ibllm search`: find media in a folder by a text, a photo, a sound, or any other medium."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ibllm_tools.cli.files import STDIN, read_media, split_file
from ibllm_tools.cli.options import DeviceOption, DtypeOption, JsonOption, ModelOption, print_json
from ibllm_tools.errors import ConfigurationError, MediaError

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from ibllm_tools.embeddings import ImageBindEmbeddings, Query
    from ibllm_tools.vectorstores import FolderReport, ImageBindVectorStore

SHOWN_UNREADABLE = 10


def search(
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY",
            help="A text, or a media file: FILE[:MODALITY]; - reads standard input.",
            show_default=False,
        ),
    ],
    where: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|STORE", help="A folder of media, or a saved store.", show_default=False
        ),
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many to show.")] = 10,
    only: Annotated[
        list[str] | None, typer.Option(help="Find this modality only; repeatable.")
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(help="Keep the folder's index here and not in the user's cache folder."),
    ] = None,
    model: ModelOption = "pocket",
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find media by a text or a medium: `ibllm search sound.wav photos/`.

    Prints a line for each: similarity, modality, file. The first search encodes the folder;
    later ones encode only what is new or has changed.
    """
    _check_modalities(only or [])
    wanted = _query(query)
    from ibllm_tools.embeddings import ImageBindEmbeddings
    from ibllm_tools.vectorstores import STORE_FILE, ImageBindVectorStore

    embeddings = ImageBindEmbeddings(model=model, device=device, dtype=dtype)
    report = None
    if index is None and (where / STORE_FILE).is_file():
        store = ImageBindVectorStore.load_local(where, embeddings)
    elif where.is_dir():
        store, report = _indexed(where, index, embeddings)
    else:
        raise ConfigurationError(
            f"{where}: found no folder; expected a folder of media, or one with {STORE_FILE} in it"
        )

    def fits(document: Document) -> bool:
        ours = report is None or report.holds(document)
        return ours and (not only or document.metadata.get("modality") in only)

    found = store.similarity_search_with_score(wanted, k, fits)
    if as_json:
        _print_results(query, model, found, report)
        return
    for document, score in found:
        modality = str(document.metadata.get("modality", "text"))
        typer.echo(f"{score:6.3f}  {modality:<8}  {_shown(document, where)}")
    _warn(report, n_found=len(found))


def _query(spec: str) -> Query:
    """The text, or the file that the query names.

    Raises:
        MediaError: It looks like a file, and there is none; or the file cannot be read.
    """
    from ibllm_tools.data.placing import modality_of_name

    path, modality, _ = split_file(spec)
    if spec == STDIN or Path(path).is_file():
        return read_media([spec], [])
    if len(spec.split()) == 1 and (modality or modality_of_name(path)):
        raise MediaError(
            f"{path}: found no such file; expected a media file or a text; "
            "check the path, or write the text with a space"
        )
    return spec


def _check_modalities(names: list[str]) -> None:
    from ibllm_tools.media import MODALITIES

    for name in names:
        if name not in MODALITIES:
            raise typer.BadParameter(f"--only: found {name!r}, expected one of {MODALITIES}")


def _indexed(
    folder: Path, index: Path | None, embeddings: ImageBindEmbeddings
) -> tuple[ImageBindVectorStore, FolderReport]:
    """Bring the index of a folder up to date."""
    from ibllm_tools.vectorstores import index_folder
    from ibllm_tools.vectorstores.indexes import index_place, open_index

    def say(line: str) -> None:
        typer.echo(f"ibllm: {line}", err=True)

    place = index or index_place(folder, embeddings.model)
    store = open_index(place, embeddings, renew=index is None, say=say)
    report = index_folder(store, folder, on_file=_progress, save=lambda: store.save_local(place))
    return store, report


def _progress(done: int, total: int) -> None:
    """Count on one line of a terminal; nothing where no one looks."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        typer.echo(f"\rencoding {done} of {total}{end}", err=True, nl=False)


def _shown(document: Document, where: Path) -> str:
    """A file as the user would name it from here; another document by its text."""
    source = document.metadata.get("source")
    if not isinstance(source, str):
        return document.page_content if source is None else " + ".join(map(str, source))
    root = where.resolve()
    if Path(source).is_relative_to(root):
        source = str(where / Path(source).relative_to(root))
    return _legible(source)


def _legible(name: str) -> str:
    """A file's name may hold bytes that are no Unicode, which no terminal shows."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _legible_source(source: object) -> object:
    return _legible(source) if isinstance(source, str) else source


def _warn(report: FolderReport | None, *, n_found: int) -> None:
    if report is not None and report.unreadable:
        count = len(report.unreadable)
        files = "1 file" if count == 1 else f"{count} files"
        typer.echo(f"ibllm: {files} cannot be read and cannot be found:", err=True)
        for name, reason in list(report.unreadable.items())[:SHOWN_UNREADABLE]:
            typer.echo(_legible(f"  {name}: {' '.join(reason.split())}"), err=True)
        if count > SHOWN_UNREADABLE:
            typer.echo(f"  and {count - SHOWN_UNREADABLE} more; --json names all", err=True)
    if not n_found:
        typer.echo("ibllm: found nothing; are there media, of that modality?", err=True)


def _print_results(
    query: str, model: str, found: list[tuple[Document, float]], report: FolderReport | None
) -> None:
    results = [
        {
            "score": round(score, 6),
            "modality": document.metadata.get("modality", "text"),
            "source": _legible_source(document.metadata.get("source")),
            "text": _legible(document.page_content),
            "id": _legible(str(document.id)),
        }
        for document, score in found
    ]
    answer: dict[str, Any] = {"query": query, "model": model, "results": results}
    if report is not None:
        answer["index"] = {
            "folder": _legible(str(report.folder)),
            "files": report.files,
            "encoded": report.encoded,
            "removed": report.removed,
            "unreadable": {_legible(k): _legible(v) for k, v in report.unreadable.items()},
        }
    print_json(answer)
