"""`ibllm doctor` and `ibllm demo`: is everything there, and does it work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ibllm_tools.cli.options import JsonOption, ModelOption, print_json


def doctor(
    model: ModelOption = "pocket",
    trial: Annotated[
        bool | None,
        typer.Option(
            "--try/--no-try",
            help="Ask the model about a picture; by default pocket alone is asked.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is installed, whether the model fits here, and what is missing.

    The exit status is 1 if the model cannot answer.
    """
    from ibllm_tools.checkpoints import POCKET
    from ibllm_tools.doctor import describe, examine, try_out

    report = examine(model)
    wanted = model == POCKET if trial is None else trial
    if wanted and not report["problems"]:
        report["trial"], problems = try_out(model)
        report["problems"] += problems
    if as_json:
        print_json(report)
    else:
        typer.echo(describe(report))
    if report["problems"]:
        raise typer.Exit(1)


def demo(
    out: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("demo.png"),
    model: ModelOption = "pocket",
) -> None:
    """Ask about a photo, a sound, a 3D shape, a video and a mixture; write one picture."""
    from ibllm_tools.demo import run

    run(out, model=model)
