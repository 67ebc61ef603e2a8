"""`ibllm convert`: released weights to a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibllm_tools.cli.options import DtypeOption


def convert(
    imagebind: Annotated[Path, typer.Option(help="imagebind_huge.pth, as released.")],
    llama: Annotated[Path, typer.Option(help="The folder of a released LLaMA.")],
    adapter: Annotated[Path, typer.Option(help="The released adapter, such as 7B.pth.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    knn: Annotated[Path | None, typer.Option(help="The released knn.index.")] = None,
    point: Annotated[Path | None, typer.Option(help="Point-Bind's 3D trunk.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Another tokenizer.model.")] = None,
    dtype: DtypeOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files in OUT.")] = False,
) -> None:
    """Turn released weights into a model folder; pickles are read as weights only."""
    from ibllm_tools.convert import convert as convert_files

    folder = convert_files(
        out,
        imagebind=imagebind,
        llama=llama,
        adapter=adapter,
        knn=knn,
        point=point,
        tokenizer=tokenizer,
        dtype=dtype,
        overwrite=overwrite,
        progress=lambda text: typer.echo(text, err=True),
    )
    typer.echo(f'{folder}: ready; try `ibllm ask "What is this?" FILE --model {folder}`')
