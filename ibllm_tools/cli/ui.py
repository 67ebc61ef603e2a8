"""`ibllm ui`: the web page."""

from __future__ import annotations

from typing import Annotated

import typer

from ibllm_tools.cli.options import DeviceOption, DtypeOption, ModelOption

MIB = 2**20


def ui(
    model: ModelOption = "pocket",
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = False,
    detector: Annotated[
        str | None, typer.Option(help="Of the tools: a checkpoint of a detector.")
    ] = None,
    recognizer: Annotated[
        str | None, typer.Option(help="Of the tools: a checkpoint of a recognizer.")
    ] = None,
    max_mib: Annotated[int, typer.Option(min=1, help="Largest upload, in MiB.")] = 100,
    max_running: Annotated[int, typer.Option(min=1, help="Answers under way at once.")] = 4,
    max_waiting: Annotated[int, typer.Option(min=1, help="Questions that may wait.")] = 32,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
) -> None:
    """Serve a web page to chat with any mix of media; nothing leaves this machine."""
    from ibllm_tools.media import MediaPolicy
    from ibllm_tools.ui import UiSettings, serve

    experts = {"detector": detector, "recognizer": recognizer}
    settings = UiSettings(
        model=model,
        device=device,
        dtype=dtype,
        host=host,
        port=port,
        policy=MediaPolicy(max_bytes=max_mib * MIB),
        max_running=max_running,
        max_waiting=max_waiting,
        experts={name: given for name, given in experts.items() if given is not None},
    )
    serve(settings, on_ready=lambda address: _tell(address, host, open_browser=open_browser))


def _tell(address: str, host: str, *, open_browser: bool) -> None:
    typer.echo(f"The page is at {address} (Ctrl+C ends it)")
    if host not in {"127.0.0.1", "localhost", "::1"}:
        typer.echo(f"Whoever reaches {host} can use it: there is no password.", err=True)
    if open_browser:
        typer.launch(address)
