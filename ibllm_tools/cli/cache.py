"""`ibllm cache`: builds a visual cache of image features, and says what one holds."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from ibllm_tools.cli.filling import (
    BatchOption,
    FormatOption,
    HostOption,
    MediaRootOption,
    fill_store,
    source_of,
)
from ibllm_tools.cli.options import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    print_json,
)
from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from ibllm_tools.cache import VisualCache
    from ibllm_tools.data.store import FeatureStore

RECALL_K = 10

app = typer.Typer(
    help="Build a visual cache, or look into one.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def build(
    source: Annotated[
        str,
        typer.Argument(help="A feature store, a folder of media, .tar shards, .parquet, .json…"),
    ],
    out: Annotated[Path, typer.Option(help="The cache's folder; made here.")],
    form: Annotated[
        str | None,
        typer.Option(help="exact or compressed (IVF, SQ8); by size when not given."),
    ] = None,
    n_lists: Annotated[int | None, typer.Option(min=1, help="Inverted lists.")] = None,
    n_probe: Annotated[int, typer.Option(min=1, help="Lists that a search looks into.")] = 16,
    modality: Annotated[str, typer.Option(help="Whose features the cache holds.")] = "image",
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many vectors, spread evenly.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Keep the features that were encoded for it here.")
    ] = None,
    format: FormatOption = None,  # noqa: A002 - the option's name
    media_root: MediaRootOption = None,
    host: HostOption = None,
    batch: BatchOption = 64,
    model: ModelOption = "pocket",
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build a visual cache from a feature store, or from media that are encoded first."""
    from ibllm_tools.media import MODALITIES

    if form not in {None, "exact", "compressed"}:
        raise typer.BadParameter(f"found --form {form}, expected exact or compressed")
    if modality not in MODALITIES:
        raise typer.BadParameter(f"found --modality {modality}, expected one of {MODALITIES}")
    if out.exists():
        raise ConfigurationError(f"{out} exists; choose another folder, or remove it")
    started = time.perf_counter()
    features = _open_store(source)
    place = store or out.with_name(f"{out.name}.features")
    if features is None:
        from ibllm_tools.data.media_files import OnlyModality
        from ibllm_tools.engine import open_senses

        media = OnlyModality(source_of(source, format, media_root, host), cast("Any", modality))
        senses = open_senses(model, device=device, dtype=dtype)
        features = fill_store([media], senses, place, name=model, batch=batch, limit=limit)
    built = _build(features, out, modality, limit, cast("Any", form), n_lists, n_probe)
    if store is None and _open_store(source) is None:
        shutil.rmtree(place)
    report = {**built, "seconds": round(time.perf_counter() - started, 1)}
    if as_json:
        print_json(report)
        return
    typer.echo(_described(report))
    typer.echo(
        f'use it: `ibllm ask "What is this?" FILE --cache-dir {out}`, or '
        f'ChatImageBindLLM(visual_cache={{"folder": "{out}"}})'
    )


@app.command()
def info(
    folder: Annotated[Path, typer.Argument(help="A cache's folder.")],
    as_json: JsonOption = False,
) -> None:
    """Say what a cache holds."""
    from ibllm_tools.cache import VisualCache

    report = _about(VisualCache.load(folder), folder)
    if as_json:
        print_json(report)
    else:
        typer.echo(_described(report))


def _open_store(source: str) -> FeatureStore | None:
    """The feature store of this name, or of its parts; None if it is something else."""
    from ibllm_tools.data.store import FeatureStore, is_store

    return FeatureStore.open(source) if is_store(source) else None


def _build(
    features: FeatureStore,
    out: Path,
    modality: str,
    limit: int | None,
    form: Literal["exact", "compressed"] | None,
    n_lists: int | None,
    n_probe: int,
) -> dict[str, Any]:
    from ibllm_tools.cache import build_cache, recall_at, spread_rows

    kind = cast("Any", modality)

    def blocks() -> Any:
        return features.vectors(kind)

    count = features.count(kind)
    if count == 0:
        raise ConfigurationError(
            f"found no {modality} features, expected at least one; the store holds "
            f"{features.about[0]['counts']['media'] or 'no media'}"
        )
    if limit is not None and limit < count:
        chosen = spread_rows(blocks, count, limit)

        def blocks() -> Any:
            return [chosen]

    cache = build_cache(blocks, out, form, n_lists=n_lists, n_probe=n_probe)
    report = {**_about(cache, out), "modality": modality, "encoder": features.encoder.name}
    if cache.kind == "compressed":
        report[f"recall_at_{RECALL_K}"] = round(recall_at(cache, blocks, RECALL_K), 4)
    return report


def _about(cache: VisualCache, folder: Path) -> dict[str, Any]:
    n_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    report = {"cache": str(folder), "form": cache.kind, "vectors": len(cache), "width": cache.dim}
    return {**report, **cache.lists, "bytes": n_bytes}


def _described(report: dict[str, Any]) -> str:
    size = report["bytes"]
    text = (
        f"{report['cache']}: {report['vectors']:,} vectors of {report['width']} values, "
        f"{report['form']}, {size / 2**20:,.1f} MiB ({size / report['vectors']:,.0f} bytes each)"
    )
    if "n_lists" in report:
        text += f", {report['n_lists']:,} lists, {report['n_probe']} looked into"
    if (recall := report.get(f"recall_at_{RECALL_K}")) is not None:
        text += f"; finds {recall:.1%} of the true {RECALL_K} nearest"
    return text
