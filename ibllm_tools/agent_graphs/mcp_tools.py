"""Tools of MCP servers, through LangChain's MCP adapter.

A server is a person's choice: a command line to start, a Python script, or an address. What it
says of its tools is cut to what a small model can read. It is started once, and stopped with this
process.
"""

from __future__ import annotations

import asyncio
import re
import sys
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from langchain_core.tools import BaseTool, StructuredTool, ToolException

from ibllm_tools.agent_graphs.openapi import MAX_CHARS, READS
from ibllm_tools.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from langchain.mcp import MCPAdapter

McpServer = str | Path | Sequence[str]
"""An address, a Python script, or a command with its arguments."""
TIMEOUT_S = 60.0
_MAX_DESCRIPTION = 300


def mcp_tools(server: McpServer) -> list[BaseTool]:
    """The tools of a server, for use in any thread and event loop.

    Raises:
        ConfigurationError: The server does not start or does not answer.
        MissingExtraError: fastmcp is not installed.
    """
    adapter = _adapter(server)
    try:
        found: list[BaseTool] = _Loop.submit(adapter.list_tools()).result(TIMEOUT_S)
    except Exception as error:  # of the transport, whatever it is
        raise ConfigurationError(
            f"the MCP server {_shown(server)} gave no tools ({type(error).__name__}: "
            f"{str(error)[:200]}); expected a server that answers; start it by hand to see why"
        ) from error
    return [_bounded(tool) for tool in found]


def _adapter(server: McpServer) -> MCPAdapter:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its note that it is in beta
            from langchain.mcp import MCPAdapter
        from fastmcp.client.transports import StdioTransport
    except ImportError as error:
        raise MissingExtraError("fastmcp", "agents") from error
    if isinstance(server, str):
        if not server.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"found the MCP server {server!r}; expected an address with http:// or https://, "
                "a Path of a Python script, or a list of a command and its arguments"
            )
        return MCPAdapter(server)
    command = [sys.executable, str(server)] if isinstance(server, Path) else [*server]
    return MCPAdapter(StdioTransport(command[0], command[1:], keep_alive=True))


def _bounded(tool: BaseTool) -> BaseTool:
    """A tool that can be called from everywhere, and that answers in bounds."""
    assert isinstance(tool, StructuredTool)
    assert tool.coroutine is not None
    call: Callable[..., Awaitable[Any]] = tool.coroutine

    async def called(**arguments: Any) -> tuple[list[Any], Any]:
        try:
            blocks, artifact = await asyncio.wait_for(call(**arguments), TIMEOUT_S)
        except NotImplementedError as error:  # sounds, which the adapter does not convert
            raise ToolException(f"{tool.name} gave what cannot be read here") from error
        return [_cut(block) for block in blocks], artifact

    def run(**arguments: Any) -> tuple[list[Any], Any]:
        given: tuple[list[Any], Any] = _Loop.submit(called(**arguments)).result()
        return given

    async def acall(**arguments: Any) -> tuple[list[Any], Any]:
        given: tuple[list[Any], Any] = await asyncio.wrap_future(_Loop.submit(called(**arguments)))
        return given

    told = ((tool.metadata or {}).get("mcp", {}).get("tool", {})).get("annotations", {})
    description = " ".join(tool.description.split())[:_MAX_DESCRIPTION]
    return StructuredTool(
        name=re.sub(r"\W+", "_", tool.name)[:64],
        description=description or tool.name,
        args_schema=tool.args_schema,
        func=run,
        coroutine=acall,
        response_format="content_and_artifact",
        handle_tool_error=_told,
        metadata={READS: bool(told.get("read_only_hint") or told.get("readOnlyHint"))},
    )


def _told(error: ToolException) -> Any:
    return getattr(error, "tool_content", None) or str(error)


def _cut(block: Any) -> Any:
    if isinstance(block, dict) and block.get("type") == "text":
        text = str(block.get("text", ""))
        return {**block, "text": text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}… (cut)"}
    return block


class _Loop:
    """One event loop in a thread of its own, to which the connections of all servers belong.

    Sessions live as long as the process, whichever threads and loops call.
    """

    _lock = Lock()
    _loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def submit(cls, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run a coroutine there, with the context of the caller."""
        with cls._lock:
            if cls._loop is None:
                cls._loop = asyncio.new_event_loop()
                Thread(target=cls._loop.run_forever, daemon=True, name="ibllm-mcp").start()
        return asyncio.run_coroutine_threadsafe(work, cls._loop)


def _shown(server: McpServer) -> str:
    return str(server) if isinstance(server, (str, Path)) else " ".join(server)
