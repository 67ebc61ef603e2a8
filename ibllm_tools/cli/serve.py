"""`ibllm serve`: an OpenAI-compatible server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ibllm_tools.cli.options import DeviceOption, DtypeOption

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ibllm_tools.serving import ServeSettings

MIB = 2**20


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]MODEL",
            help='"pocket", a model folder, or a hub id; NAME is what clients call it. Repeatable.',
            show_default="pocket",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    recognizer: Annotated[
        str | None, typer.Option(help="Checkpoint of the speech recognizer.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Host whose media URLs are followed, such as *.example.com. Repeatable."),
    ] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(help="Name under which clients reach this server, beside localhost."),
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Origin of web pages that may use it. Repeatable.")
    ] = None,
    no_key: Annotated[
        bool, typer.Option("--no-key", help="Let others reach it without an API key.")
    ] = False,
    max_body: Annotated[int, typer.Option(min=1, help="MiB of one request at most.")] = 50,
    max_requests: Annotated[
        int, typer.Option(min=1, help="Requests under way at most; more get status 429.")
    ] = 256,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds for one answer at most.")
    ] = None,
    shutdown: Annotated[
        float, typer.Option(min=1, help="Seconds that running answers get at the end.")
    ] = 60.0,
    access_log: Annotated[bool, typer.Option("--access-log", help="A line a request.")] = False,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
) -> None:
    """Serve chat with media, embeddings and transcriptions to OpenAI's clients.

    API keys come from the environment: IBLLM_API_KEY, or IBLLM_API_KEYS with several between
    commas. Without one the server answers this machine alone.
    """
    from rich.console import Console

    from ibllm_tools.media import MediaPolicy
    from ibllm_tools.serving import ServeSettings, environment_keys, run_server

    settings = ServeSettings(
        models=dict(_named(entry) for entry in model or ["pocket"]),
        recognizer=recognizer,
        device=device,
        dtype=dtype,
        policy=MediaPolicy(allowed_hosts=tuple(allow_host or ())),
        host=host,
        port=port,
        api_keys=environment_keys(),
        is_forced=no_key,
        host_names=tuple(host_name or ()),
        cors_origins=tuple(cors_origin or ()),
        max_body_bytes=max_body * MIB,
        max_requests=max_requests,
        timeout_s=timeout,
        shutdown_s=shutdown,
        logs_access=access_log,
    )
    console = Console(stderr=True, highlight=False)
    console.print(f"loading {', '.join(settings.models)} …", style="dim")
    run_server(settings, tell=lambda address: console.print(_welcome(address, settings)))
    console.print("stopped", style="dim")


def _named(entry: str) -> tuple[str, str]:
    """Split `[NAME=]MODEL`; a folder is called by its last part."""
    name, mark, source = entry.partition("=")
    if mark and name and source:
        return name, source
    return entry.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or entry, entry


def _welcome(address: str, settings: ServeSettings) -> RenderableType:
    """What to do with a server that has just begun; without a frame, so that it can be copied."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_row("ibllm serve", f"{address}/v1")
    facts.add_row("models", ", ".join(settings.models))
    facts.add_row("API key", _key_line(settings))
    facts.add_row("media URLs", ", ".join(settings.policy.allowed_hosts) or "not followed")
    facts.add_row("also", "/health  /metrics  /openapi.json")
    facts.add_row("end", "Ctrl+C")
    name = next(iter(settings.models))
    key = "KEY" if settings.api_keys else "none"
    reached = address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    lines = (
        "from openai import OpenAI",
        f'client = OpenAI(base_url="{reached}/v1", api_key="{key}")',
        'question = {"role": "user", "content": "What is a dog?"}',
        f'answer = client.chat.completions.create(model="{name}", messages=[question])',
        "print(answer.choices[0].message.content)",
    )
    return Group(facts, "", Text("\n".join(lines), style="cyan"), "")


def _key_line(settings: ServeSettings) -> str:
    if settings.api_keys:
        return f"required ({len(settings.api_keys)} set)"
    return "none; " + ("open to the network!" if settings.is_forced else "this machine alone")
