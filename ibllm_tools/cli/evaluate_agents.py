"""`ibllm eval routing` and `ibllm eval tasks`: how well a model routes, and what comes of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ibllm_tools.cli.options import JsonOption

if TYPE_CHECKING:
    from ibllm_tools.evaluate import Scorecard

TABLE_WIDTH = 130  # where no terminal says how wide it is

BrainOption = Annotated[
    str, typer.Option("--model", help='"pocket", a model folder, a hub id, or "provider:model".')
]
WrongOption = Annotated[int, typer.Option("--wrong", min=0, help="Show so many that went wrong.")]


def eval_routing(
    model: BrainOption = "pocket",
    alone: Annotated[
        bool, typer.Option("--alone", help="Ask the model always, even where words alone tell.")
    ] = False,
    wrong: WrongOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Score routing: questions that no training row has, to the right experts."""
    from ibllm_tools.agent_graphs.brain import open_model
    from ibllm_tools.evaluate.routing import evaluate_routing

    _show(evaluate_routing(open_model(model), model, alone=alone), as_json, wrong)


def eval_tasks(
    data: Annotated[Path, typer.Option(help="Folder of the pack, with speech_digits.parquet.")],
    model: BrainOption = "pocket",
    detector: Annotated[
        str | None, typer.Option(help="A checkpoint.", show_default="what ships")
    ] = None,
    recognizer: Annotated[
        str | None, typer.Option(help="A checkpoint.", show_default="what ships")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Tasks of each kind.")] = None,
    split: Annotated[str, typer.Option(help="Of photos, sounds and shapes.")] = "val",
    seed: Annotated[int, typer.Option(help="Of how tasks are drawn.")] = 0,
    wrong: WrongOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Score whole tasks of the agent perception: routed, worked on, answered, checked."""
    from ibllm_tools.evaluate.tasks import evaluate_tasks

    card = evaluate_tasks(
        data,
        model,
        detector=detector,
        recognizer=recognizer,
        limit=limit,
        split=split,
        seed=seed,
    )
    _show(card, as_json, wrong)


def _show(card: Scorecard, as_json: bool, n_wrong: int) -> None:
    if as_json:
        typer.echo(card.to_json(), nl=False)
        return
    from rich.console import Console

    from ibllm_tools.evaluate import as_table

    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    console.print(as_table(card))
    for entry in card.sections[0].details["wrong"][:n_wrong]:
        console.print(entry)
