"""`ibllm train`: pocket, and the two stages of any other model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibllm_tools.cli import stages

app = typer.Typer(help="Train a model.", no_args_is_help=True, rich_markup_mode=None)
app.command("bind")(stages.train_bind)
app.command("instruct")(stages.train_instruct)
app.command("presets")(stages.list_presets)
app.command("export")(stages.export)
app.command("to-peft")(stages.to_peft)
app.command("from-peft")(stages.from_peft)


@app.command("pocket")
def train_pocket(
    data: Annotated[Path, typer.Option(help="The folder of the training pack.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    work: Annotated[
        Path | None, typer.Option(help="Checkpoints, to resume from; OUT-work by default.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.0, help="About how long, on two cores.")] = 100.0,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
) -> None:
    """Train the miniature model that ships with the package; resumes where it was stopped."""
    from ibllm_tools.train.pocket import train_pocket as train

    folder = train(data, out, work or out.with_name(f"{out.name}-work"), minutes=minutes, seed=seed)
    typer.echo(f'{folder}: ready; try `ibllm ask "What is this?" FILE --model {folder}`')


@app.command("digits")
def train_digits(
    data: Annotated[Path, typer.Option(help="The folder of the training pack.")],
    out: Annotated[Path, typer.Option(help="The checkpoint folder to write.")],
    work: Annotated[
        Path | None, typer.Option(help="Checkpoints, to resume from; OUT-work by default.")
    ] = None,
    hold_out: Annotated[
        list[str] | None, typer.Option(help="A speaker not to hear; those of the card by default.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.0, help="About how long, on one core.")] = 9.0,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
) -> None:
    """Train the recognizer of spoken digits that ships; resumes where it was stopped."""
    from ibllm_tools.train.digits import HELD_OUT
    from ibllm_tools.train.digits import train_digits as train

    folder = train(
        data,
        out,
        work or out.with_name(f"{out.name}-work"),
        minutes=minutes,
        seed=seed,
        held_out=hold_out or HELD_OUT,
    )
    typer.echo(f"{folder}: ready; try `ibllm eval digits --data {data} --model {folder}`")


@app.command("detector")
def train_detector(
    data: Annotated[Path, typer.Option(help="The folder of the training pack.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    work: Annotated[
        Path | None, typer.Option(help="Checkpoints, to resume from; OUT-work by default.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.0, help="About how long, on one core.")] = 40.0,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
) -> None:
    """Train the object detector that ships; resumes where it was stopped."""
    from ibllm_tools.experts.naming_fit import N_SCENES, fit_namer
    from ibllm_tools.train.detector import MINUTES
    from ibllm_tools.train.detector import train_detector as train

    work = work or out.with_name(f"{out.name}-work")
    folder = train(data, out, work, minutes=minutes, seed=seed)
    fit_namer(data, folder, work, n_scenes=max(1, round(N_SCENES * min(1.0, minutes / MINUTES))))
    typer.echo(f"{folder}: ready; try `ibllm eval detector --data {data} --model {folder}`")
