"""`ibllm eval`: how good a model is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibllm_tools.cli.options import JsonOption, ModelOption

app = typer.Typer(help="Score a model.", no_args_is_help=True, rich_markup_mode=None)


@app.command("pocket")
def eval_pocket(
    data: Annotated[Path, typer.Option(help="The folder of the pack.")],
    split: Annotated[str, typer.Option(help="val, train or heldout.")] = "val",
    limit: Annotated[int | None, typer.Option(min=1, help="Media per kind.")] = None,
    model: ModelOption = "pocket",
    as_json: JsonOption = False,
) -> None:
    """Count how often a model names the right thing in photos, sounds and shapes."""
    from rich.console import Console

    from ibllm_tools.evaluate import evaluate, scores_as_json, scores_as_table

    scores = evaluate(data, split=split, model=model, limit=limit)
    if as_json:
        typer.echo(scores_as_json(scores))
    else:
        Console().print(scores_as_table(scores))
