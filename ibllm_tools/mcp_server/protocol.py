"""A server of the official `mcp` package, of its version 1 or 2, from plain JSON.

Version 2 speaks both eras of the protocol: sessions that begin with a handshake, and requests
that each stand alone (2026-07-28 on), where a server asks for roots by answering with a request.
What differs is here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from ibllm_tools.errors import MissingExtraError

ROOTS_TIMEOUT_S = 20.0
_ROOTS = "roots"


class Peer(Protocol):
    """The client that called a tool."""

    async def roots(self) -> list[str]:
        """The URIs of its roots; none where it has no such notion or does not answer.

        Raises:
            RootsNeeded: They come with the request's next round.
        """
        ...

    async def progress(self, done: float, total: float | None, message: str) -> None:
        """Tell how far the call is; nothing where the client did not ask."""
        ...


class RootsNeeded(Exception):  # noqa: N818 - not an error: the answer to the first round
    """The client has roots, and has to be asked for them by the answer to its request."""


Handler = Callable[[str, Mapping[str, Any], Peer], Awaitable[dict[str, Any]]]
"""Tool name, arguments and client in; the JSON of a tool result out."""


def make_server(
    name: str, version: str, instructions: str, tools: Sequence[dict[str, Any]], call: Handler
) -> Any:
    """Make a low-level server of the installed `mcp` package.

    Args:
        name: Of the server.
        version: Of the server.
        instructions: What clients may tell their LLM.
        tools: The JSON of each tool.
        call: Answers a call.

    Raises:
        MissingExtraError: `mcp` is not installed.
    """
    try:
        server = import_module("mcp.server.lowlevel").Server
        types = import_module("mcp.types")
    except ImportError as error:
        raise MissingExtraError("mcp", "mcp") from error
    listed = types.ListToolsResult.model_validate({"tools": list(tools)})
    if hasattr(server, "list_tools"):
        return _first_version(server(name, version, instructions), types, listed, call)

    async def list_tools(ctx: Any, params: Any) -> Any:  # noqa: ARG001 - as mcp calls it
        return listed

    async def call_tool(ctx: Any, params: Any) -> Any:
        try:
            told = await call(params.name, params.arguments or {}, _Peer2(ctx, params, types))
        except RootsNeeded:
            asked = {"inputRequests": {_ROOTS: {"method": "roots/list"}}}
            return types.InputRequiredResult.model_validate(asked)
        return types.CallToolResult.model_validate(told)

    return server(
        name,
        version=version,
        instructions=instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _first_version(server: Any, types: Any, listed: Any, call: Handler) -> Any:
    async def list_tools(request: Any) -> Any:  # noqa: ARG001 - as mcp calls it
        return types.ServerResult(listed)

    async def call_tool(request: Any) -> Any:
        params = request.params
        told = await call(
            params.name, params.arguments or {}, _Peer1(server.request_context, types)
        )
        return types.ServerResult(types.CallToolResult.model_validate(told))

    # Set directly: the package's decorators check arguments in words that help no LLM.
    server.request_handlers[types.ListToolsRequest] = list_tools
    server.request_handlers[types.CallToolRequest] = call_tool
    return server


class _Peer1:
    """A client, seen through version 1 of the package."""

    def __init__(self, context: Any, types: Any) -> None:
        self._context = context
        self._types = types

    async def roots(self) -> list[str]:
        session, types = self._context.session, self._types
        params = session.client_params
        if params is None or params.capabilities.roots is None:
            return []
        request = types.ServerRequest(types.ListRootsRequest())
        return await _asked(lambda: session.send_request(request, types.ListRootsResult))

    async def progress(self, done: float, total: float | None, message: str) -> None:
        meta = self._context.meta
        if meta is not None and meta.progressToken is not None:
            await self._context.session.send_progress_notification(
                meta.progressToken, done, total, message, str(self._context.request_id)
            )


class _Peer2:
    """A client, seen through version 2 of the package."""

    def __init__(self, context: Any, params: Any, types: Any) -> None:
        self._context = context
        self._params = params
        self._types = types

    async def roots(self) -> list[str]:
        session, types = self._context.session, self._types
        given = (self._params.input_responses or {}).get(_ROOTS)
        if given is not None:
            return [str(root.uri) for root in getattr(given, "roots", ())]
        capabilities = session.client_capabilities
        if capabilities is None or capabilities.roots is None:
            return []
        if _stands_alone(session):
            raise RootsNeeded
        request = types.ListRootsRequest()
        return await _asked(lambda: session.send_request(request, types.ListRootsResult))

    async def progress(self, done: float, total: float | None, message: str) -> None:
        await self._context.session.report_progress(done, total, message)


def _stands_alone(session: Any) -> bool:
    """Whether this request belongs to no session, so that only its answer can ask back."""
    modern = import_module("mcp_types.version").MODERN_PROTOCOL_VERSIONS
    return session.protocol_version in modern


async def _asked(ask: Callable[[], Awaitable[Any]]) -> list[str]:
    """Ask for roots; a client that fails or takes too long has none."""
    import anyio

    error = getattr(import_module("mcp.shared.exceptions"), "McpError", None)
    failed: type[Exception] = error or import_module("mcp.shared.exceptions").MCPError
    with anyio.move_on_after(ROOTS_TIMEOUT_S):
        try:
            return [str(root.uri) for root in (await ask()).roots]
        except failed:
            return []
    return []
