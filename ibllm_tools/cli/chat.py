"""`ibllm chat`: a conversation about media in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ibllm_tools.cli.files import read_media
from ibllm_tools.cli.options import DeviceOption, DtypeOption, FilesArgument, ModelOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ibllm_tools.media import Media


def chat(
    files: FilesArgument = None,
    thread: Annotated[str, typer.Option(help="The thread that goes on, or begins.")] = "main",
    threads: Annotated[
        str | None,
        typer.Option(
            envvar="IBLLM_THREADS",
            help="Where threads are kept: a SQLite file, or a postgresql:// address.",
            show_default=False,
        ),
    ] = None,
    agent: Annotated[
        str | None, typer.Option(help='"media", or the name of an agent, answers.')
    ] = None,
    model: ModelOption = "pocket",
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
) -> None:
    """Talk about media in the terminal; the talk is kept, and goes on next time.

    /help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves. Lines of a pipe are taken
    one by one, and answers alone go to standard output.
    """
    from ibllm_tools.terminal import ChatSettings, chat_in_terminal

    def read_files(given: Sequence[str]) -> list[Media]:
        return read_media(given, [])

    settings = ChatSettings(
        thread=thread,
        threads=threads,
        files=tuple(files or ()),
        agent=agent,
        model=model,
        device=device,
        dtype=dtype,
        temperature=temperature,
        max_tokens=max_tokens,
    )
    if not chat_in_terminal(settings, read_files):
        raise typer.Exit(1)
