"""What `ibllm embed` and `ibllm cache build` share: from a source to a feature store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ibllm_tools.cli.options import print_json

if TYPE_CHECKING:
    from ibllm_tools.data.store import FeatureStore
    from ibllm_tools.engine import Senses

FormatOption = Annotated[
    str | None, typer.Option(help="Format of the data; found from the file by default.")
]
MediaRootOption = Annotated[
    Path | None, typer.Option(help="The folder below which the media of the data must lie.")
]
HostOption = Annotated[
    list[str] | None, typer.Option(help="A host whose URLs may be followed; repeatable.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Pictures encoded at once.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="At most so many examples.")]


def is_store_name(out: Path) -> bool:
    """Whether `out` names a folder and not a file."""
    return out.is_dir() or not out.suffix


def source_of(
    spec: str,
    format_: str | None = None,
    media_root: Path | None = None,
    hosts: Sequence[str] | None = None,
) -> Any:
    """Open training data, or a folder of media; hosts are those that a person named."""
    from ibllm_tools.data.media_files import open_media
    from ibllm_tools.media import MediaPolicy

    policy = MediaPolicy(allowed_hosts=tuple(hosts or ()))
    return open_media(spec, format=format_, media_root=media_root, policy=policy)


def fill_store(
    sources: Sequence[Any],
    senses: Senses,
    out: Path,
    *,
    name: str,
    batch: int = 64,
    limit: int | None = None,
    shard: str | None = None,
) -> FeatureStore:
    """Encode sources into a store with a progress bar; `shard` is "I/N" or None."""
    from ibllm_tools.data.store import part_name, write_store

    if shard is not None:
        rank, world = _split_shard(shard)
        sources = [source.shard(rank, world) for source in sources]
        out = out / part_name(rank, world)
    return write_store(
        sources,
        senses.encoder,
        senses.config,
        out,
        batch=batch,
        limit=limit,
        name=name,
        progress=True,
    )


def _split_shard(shard: str) -> tuple[int, int]:
    rank, slash, world = shard.partition("/")
    if not (slash and rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise typer.BadParameter(f"found --shard {shard}, expected I/N such as 0/4")
    return int(rank), int(world)


def print_store(store: FeatureStore, out: Path, *, as_json: bool) -> None:
    """Say what a store holds, and what was left out."""
    from ibllm_tools.data.examples import SourceReport

    media: dict[str, int] = {}
    for about in store.about:
        for modality, count in about["counts"]["media"].items():
            media[modality] = media.get(modality, 0) + count
    if as_json:
        counts = {"rows": len(store), "media": media, "joint_dim": store.joint_dim}
        print_json({"store": str(out), **counts, "reports": store.reports})
        return
    kinds = ", ".join(f"{count:,} {modality}" for modality, count in media.items()) or "no media"
    typer.echo(f"{out}: {len(store):,} examples ({kinds}), vectors of {store.joint_dim} values")
    for report in store.reports:
        if report["skipped"]:
            for line in SourceReport(**report).lines():
                typer.echo(line)
