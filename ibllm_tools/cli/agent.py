"""`ibllm agent`: run one of the agents and see its steps as they happen."""

from __future__ import annotations

import asyncio
import shlex
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ibllm_tools.cli.files import read_media
from ibllm_tools.cli.options import JsonOption, print_json
from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langgraph.graph.state import CompiledStateGraph

    from ibllm_tools.attachments import AttachmentFiles

API_AGENT = "api_control"
_API = "for api_control: "

NameArgument = Annotated[
    str,
    typer.Argument(
        help="api_control, detection, dialog, modality_experts or perception.", show_default=False
    ),
]
PartsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="[FILE[:MODALITY][@WEIGHT]…] QUESTION",
        help="Media, and at last what to ask about them.",
        show_default=False,
    ),
]
ExpertOption = Annotated[
    str | None, typer.Option(help='A checkpoint; "none" for none.', show_default="what ships")
]


def agent(
    name: NameArgument,
    parts: PartsArgument,
    model: Annotated[
        str, typer.Option(help='"pocket", a model folder, a hub id, or "provider:model".')
    ] = "pocket",
    detector: ExpertOption = None,
    recognizer: ExpertOption = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the picture of what was found here (PNG).")
    ] = None,
    thread: Annotated[
        str | None, typer.Option(help="Go on in this conversation, and keep it.")
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            envvar="IBLLM_THREADS",
            help="Where conversations are kept: an SQLite file or a postgresql:// address.",
        ),
    ] = None,
    openapi: Annotated[
        list[str] | None, typer.Option(help=f"{_API}an OpenAPI document, file or address.")
    ] = None,
    host: Annotated[
        list[str] | None, typer.Option(help=f"{_API}a host that may be called.")
    ] = None,
    mcp: Annotated[
        list[str] | None, typer.Option(help=f"{_API}an MCP server, address or command line.")
    ] = None,
    ask_before: Annotated[
        str, typer.Option(help=f'{_API}"changes", "all", "none", or names with commas between.')
    ] = "changes",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Approve every call that a human is asked about.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run an agent on media; its steps are shown as they happen, then its answer."""
    files, question = _split(parts)
    media = read_media(files, [])
    settings: dict[str, Any] = {
        "model": model,
        "detector": _expert(detector),
        "recognizer": _expert(recognizer),
        **_api_settings(name, openapi, host, mcp, ask_before),
    }
    shown = _Shown(quiet=as_json)
    run = _Run(name, settings, thread, threads, yes or None, shown)
    state = asyncio.run(run.answer([question, *media]))
    answer = state["messages"][-1].text
    path = _save(state, save, run.files) if save is not None else None
    if as_json:
        told = {"agent": name, "question": question, "answer": answer, "model": model}
        kept = {id_: record["name"] for id_, record in state.get("attachments", {}).items()}
        told |= {"steps": shown.steps, "attachments": kept, "report": state.get("report") or {}}
        print_json({**told, "picture": str(path) if path else None})
    else:
        typer.echo(answer)
    if save is not None and path is None:
        raise ConfigurationError(
            "--save: found no picture to write; expected that the agent draws one, as it does "
            "where something was found in media; leave --save out"
        )


def _split(parts: Sequence[str]) -> tuple[list[str], str]:
    """The files, and the question, which comes last."""
    *files, question = parts
    if Path(question).is_file():
        raise typer.BadParameter(
            f"found the file {question} at the end; expected a question after the files, such as "
            '"What is in the picture?"'
        )
    return files, question


def _expert(given: str | None) -> str | bool | None:
    return False if given == "none" else given


def _api_settings(
    name: str,
    openapi: Sequence[str] | None,
    host: Sequence[str] | None,
    mcp: Sequence[str] | None,
    ask_before: str,
) -> dict[str, Any]:
    if name != API_AGENT:
        if openapi or host or mcp:
            raise typer.BadParameter(f"--openapi, --host and --mcp are for {API_AGENT}, not {name}")
        return {}
    if not openapi and not mcp:
        raise typer.BadParameter(f"{API_AGENT} needs --openapi DOCUMENT or --mcp SERVER")
    names = ask_before.split(",") if "," in ask_before else ask_before
    servers = [one if "://" in one else shlex.split(one) for one in mcp or ()]
    return {
        "apis": list(openapi or ()),
        "allowed_hosts": list(host or ()),
        "mcp_servers": servers,
        "ask_before": names,
    }


@dataclass
class _Shown:
    """The steps so far; shown on stderr, so that stdout holds the answer alone."""

    quiet: bool
    steps: list[dict[str, Any]] = field(default_factory=list)

    def show(self, step: Mapping[str, Any]) -> None:
        self.steps.append(dict(step))
        if self.quiet:
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        line = Table.grid(padding=(0, 2))
        line.add_column(width=10, justify="right", style="bold cyan")
        line.add_column(overflow="fold")
        line.add_row(str(step.get("step", "")), Text(str(step.get("text", ""))))
        Console(stderr=True, highlight=False).print(line)


class _Run:
    """One run of an agent, with the approvals of a human in between."""

    def __init__(
        self,
        name: str,
        settings: dict[str, Any],
        thread: str | None,
        threads: str | None,
        approved: bool | None,
        shown: _Shown,
    ) -> None:
        from ibllm_tools.attachments import AttachmentFiles
        from ibllm_tools.attachments.threads import data_folder

        self._name = name
        self._settings = settings
        self._thread = thread
        self._threads = threads
        self._approved = approved
        self._shown = shown
        folder = None if thread is None else data_folder() / "attachments"
        self.files: AttachmentFiles = AttachmentFiles(folder)

    async def answer(self, content: list[Any]) -> dict[str, Any]:
        """Run until the agent has answered; returns its last state."""
        from langchain_core.messages import HumanMessage
        from langgraph.types import Command

        from ibllm_tools.agent_graphs import open_graph

        async with AsyncExitStack() as opened:
            checkpointer = await self._checkpointer(opened)
            # Documents and servers of the person are read here, outside of the event loop.
            graph = await asyncio.to_thread(
                open_graph,
                self._name,
                checkpointer=checkpointer,
                attachments_dir=self.files.folder,
                **self._settings,
            )
            given: Any = {"messages": [HumanMessage(content)]}
            while True:
                state = await self._stream(graph, given)
                waiting = state.get("__interrupt__")
                if not waiting:
                    return state
                given = Command(resume=self._decided(waiting))

    async def _checkpointer(self, opened: AsyncExitStack) -> Any:
        if self._thread is None:
            from langgraph.checkpoint.memory import InMemorySaver

            return InMemorySaver()
        from ibllm_tools.attachments.threads import open_threads

        return await opened.enter_async_context(open_threads(self._threads, self.files))

    async def _stream(
        self, graph: CompiledStateGraph[Any, Any, Any, Any], given: Any
    ) -> dict[str, Any]:
        config: Any = {"configurable": {"thread_id": self._thread or "1"}}
        state: dict[str, Any] = {}
        stream: Any = graph.astream(given, config, stream_mode=["custom", "values"])
        async for kind, event in stream:
            if kind == "custom":
                self._shown.show(event)
            else:
                state = event
        return state

    def _decided(self, waiting: Sequence[Any]) -> dict[str, Any]:
        """What a human decides about the calls that wait."""
        from ibllm_tools.agent_graphs.telling import described

        value = waiting[0].value
        if not isinstance(value, dict) or "action_requests" not in value:
            raise ConfigurationError(
                f"{self._name} waits for an answer that a command line cannot give: "
                f"{str(value)[:200]}; run it with `langgraph dev`, or without that tool"
            )
        decisions = []
        for asked in value["action_requests"]:
            call = described(asked["name"], asked["args"])
            approved = self._may(call)
            self._shown.show(
                {"step": "approval", "text": f"{'approved' if approved else 'rejected'}: {call}"}
            )
            reason = "the user does not allow it; do not call it again"
            decisions.append(
                {"type": "approve"} if approved else {"type": "reject", "message": reason}
            )
        return {"decisions": decisions}

    def _may(self, call: str) -> bool:
        if self._approved is not None:
            return self._approved
        if not sys.stdin.isatty():
            return False
        return typer.confirm(f"May it call {call}?", err=True)


def _save(state: Mapping[str, Any], path: Path, files: AttachmentFiles) -> Path | None:
    """Write the picture of a run: the graph's, or else the last one that a tool drew."""
    from ibllm_tools.attachments.messages import drawn_since_asked

    drawn = state.get("picture") or next(iter(reversed(drawn_since_asked(state["messages"]))), "")
    record = state.get("attachments", {}).get(drawn)
    if record is None:
        return None
    path.write_bytes(files.get(record["sha256"]))
    return path
