"""The command line `ibllm`: thin layers that parse, call the package, and print.

One module a group of commands; heavy packages are imported inside the commands, so that
`ibllm --help` answers at once. Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ibllm_tools import __version__
from ibllm_tools.cli import cache, evaluate, evaluate_agents, train
from ibllm_tools.cli.agent import agent
from ibllm_tools.cli.ask import ask
from ibllm_tools.cli.chat import chat
from ibllm_tools.cli.convert import convert
from ibllm_tools.cli.data import clean
from ibllm_tools.cli.doctor import demo, doctor
from ibllm_tools.cli.embed import embed
from ibllm_tools.cli.mcp import mcp
from ibllm_tools.cli.search import search
from ibllm_tools.cli.serve import serve
from ibllm_tools.cli.ui import ui
from ibllm_tools.errors import IbllmError

DEBUG = "IBLLM_DEBUG"

app = typer.Typer(
    name="ibllm",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
for command in (ask, chat, agent, embed, search, serve, ui, mcp, clean, convert, doctor, demo):
    app.command()(command)
app.add_typer(cache.app, name="cache")
app.add_typer(train.app, name="train")
evaluate.app.command("routing")(evaluate_agents.eval_routing)
evaluate.app.command("tasks")(evaluate_agents.eval_tasks)
app.add_typer(evaluate.app, name="eval")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Ask an LLM about photos, sounds, 3D shapes, videos, and mixtures of them."""


def main() -> None:
    """Run the command line; errors are one line on stderr."""
    # Set before transformers is imported: its notes are not for the user of a command line.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except BrokenPipeError:
        # The reader went away; keep Python from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        typer.echo(f"ibllm: {_one_line(error)}", err=True)
        sys.exit(1)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, IbllmError):
        return text
    return f"{type(error).__name__}: {text} (set {DEBUG}=1 to see where)"
