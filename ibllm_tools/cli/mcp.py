"""`ibllm mcp`: perception for clients of the Model Context Protocol."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from ibllm_tools.cli.options import DeviceOption, DtypeOption, ModelOption


def mcp(
    allow_dir: Annotated[
        list[Path] | None,
        typer.Option(help="A folder below which clients may read media; repeatable."),
    ] = None,
    client_roots: Annotated[
        bool | None,
        typer.Option(
            "--client-roots/--no-client-roots",
            help="Let clients read below their own roots; by default over stdio only.",
            show_default=False,
        ),
    ] = None,
    http: Annotated[
        bool, typer.Option("--http", help="Serve streamable HTTP, and not stdio.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name by which clients may call this server; repeatable."),
    ] = None,
    model: ModelOption = "pocket",
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    detector: Annotated[
        str | None, typer.Option(help="A detector: a folder, a hub id, or a .pt file.")
    ] = None,
    recognizer: Annotated[
        str | None, typer.Option(help="A speech recognizer: a folder, a hub id, or a .pt file.")
    ] = None,
) -> None:
    """Serve perception as tools to MCP clients, over stdio or HTTP.

    Clients pass media as base64, or as paths below --allow-dir folders and their own roots;
    nothing else is opened. IBLLM_API_KEY holds the key for HTTP, if clients must send one.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="ibllm mcp: %(message)s")
    from ibllm_tools.chat_models import ChatImageBindLLM
    from ibllm_tools.mcp_server import HttpSettings, McpSettings, serve_http, serve_stdio
    from ibllm_tools.serving import environment_keys

    for folder in allow_dir or ():
        if not folder.is_dir():
            raise typer.BadParameter(f"{folder}: found no folder", param_hint="--allow-dir")
    settings = McpSettings(
        chat=ChatImageBindLLM(model=model, device=device, dtype=dtype),
        detector=detector,
        recognizer=recognizer,
        allowed_dirs=tuple(allow_dir or ()),
        client_roots=not http if client_roots is None else client_roots,
    )
    if http:
        keys = tuple(key.get_secret_value() for key in environment_keys())
        serve_http(settings, HttpSettings(host, port, tuple(allow_host or ()), keys))
        return
    # A thread waits for the client's next line, and no exception would reach it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.stdin.isatty():
        typer.echo("ibllm mcp: waiting for an MCP client on standard input", err=True)
    import anyio

    anyio.run(serve_stdio, settings)
