"""`ibllm embed`: vectors of media and texts, or a whole store of them for training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ibllm_tools.cli.files import read_media
from ibllm_tools.cli.filling import (
    BatchOption,
    FormatOption,
    HostOption,
    LimitOption,
    MediaRootOption,
    fill_store,
    is_store_name,
    print_store,
    source_of,
)
from ibllm_tools.cli.options import (
    DeviceOption,
    DtypeOption,
    FilesArgument,
    JsonOption,
    ModalityOption,
    ModelOption,
    print_json,
)


def embed(
    files: FilesArgument = None,
    text: Annotated[list[str] | None, typer.Option(help="A text to embed; repeatable.")] = None,
    mix: Annotated[bool, typer.Option("--mix", help="One vector for all files together.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write an array to a .npy or .safetensors file; or encode training data (a "
            "folder, .json, .csv, .tar, .parquet) once into a feature store, a folder."
        ),
    ] = None,
    model: ModelOption = "pocket",
    modality: ModalityOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
    format: FormatOption = None,  # noqa: A002 - the option's name
    media_root: MediaRootOption = None,
    host: HostOption = None,
    batch: BatchOption = 64,
    limit: LimitOption = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Be process I (from 0) of N that fill one store."),
    ] = None,
) -> None:
    """Embed media and texts in one space; prints a line per vector: name, tab, numbers.

    With a folder as --out, encodes training data into a feature store, which stages 1 and 2
    train from. A run that was stopped goes on where it was.
    """
    if not files and not text:
        raise typer.BadParameter("nothing to embed; give FILES or --text")
    if out is not None and files and not text and not mix and is_store_name(out):
        from ibllm_tools.engine import open_senses

        sources = [source_of(file, format, media_root, host) for file in files]
        store = fill_store(
            sources,
            open_senses(model, device=device, dtype=dtype),
            out,
            name=model,
            batch=batch,
            limit=limit,
            shard=shard,
        )
        print_store(store, out, as_json=as_json)
        return
    _check_out(out)
    media = read_media(files or [], modality or [])
    from ibllm_tools.embeddings import ImageBindEmbeddings

    embeddings = ImageBindEmbeddings(model=model, device=device, dtype=dtype)
    names = [medium.name for medium in media]
    rows: list[Any] = [media] if mix and media else list(media)
    names = [" + ".join(names), *(text or [])] if mix and media else [*names, *(text or [])]
    vectors = embeddings.embed_media(rows) + embeddings.embed_documents(list(text or []))
    if out is not None:
        _write_vectors(out, names, vectors)
        typer.echo(f"{out}: {len(vectors)} vectors of {len(vectors[0])} values")
    elif as_json:
        entries = [{"name": n, "vector": v} for n, v in zip(names, vectors, strict=True)]
        print_json({"model": model, "embeddings": entries})
    else:
        for name, vector in zip(names, vectors, strict=True):
            typer.echo(f"{name}\t{' '.join(f'{value:.6g}' for value in vector)}")


def _check_out(out: Path | None) -> None:
    if out is not None and out.suffix not in {".npy", ".safetensors"}:
        raise typer.BadParameter(
            f"{out}: expected a file name ending in .npy or .safetensors, or a folder for a store"
        )


def _write_vectors(out: Path, names: list[str], vectors: list[list[float]]) -> None:
    import numpy as np

    array = np.asarray(vectors, dtype=np.float32)
    if out.suffix == ".npy":
        np.save(out, array)
        return
    from safetensors.numpy import save_file

    save_file({"embeddings": array}, out, metadata={"names": json.dumps(names)})
