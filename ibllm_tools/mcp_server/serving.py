"""Serving over standard input and output, and over streamable HTTP.

HTTP listens on loopback unless told otherwise. The Host and Origin headers are compared with a
list, so that a web page whose name was pointed at this machine reaches nothing; beyond loopback a
key is needed.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from ibllm_tools import __version__
from ibllm_tools.errors import ConfigurationError, MissingExtraError
from ibllm_tools.mcp_server.calls import Calls
from ibllm_tools.mcp_server.protocol import make_server
from ibllm_tools.serving.settings import API_KEYS, is_loopback

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Receive, Scope, Send

    from ibllm_tools.mcp_server.settings import McpSettings

NAME = "ibllm-tools"
PATH = "/mcp"
MIB = 2**20
_MAX_SESSIONS = 200
_SHUTDOWN_S = 5


@dataclass(frozen=True)
class HttpSettings:
    """How a server listens.

    Attributes:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        allowed_hosts: Further names by which clients may call this server, without ports.
        keys: Keys, one of which a client must send as `Authorization: Bearer KEY`; none asks
            for none, which is possible on loopback only.
        max_body_bytes: Largest request, base64 of media included.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    allowed_hosts: tuple[str, ...] = ()
    keys: tuple[str, ...] = field(default=(), repr=False)
    max_body_bytes: int = 64 * MIB

    def __post_init__(self) -> None:
        """Check that this is no open door.

        Raises:
            ConfigurationError: It listens beyond loopback without a key, or without the names
                by which it may be called.
        """
        if is_loopback(self.host):
            return
        if not self.keys:
            raise ConfigurationError(
                f"host {self.host}: found no key; expected one beyond loopback; set "
                f"{API_KEYS[0]} in the environment, or listen on 127.0.0.1"
            )
        if self.host in {"0.0.0.0", "::"} and not self.allowed_hosts:  # noqa: S104
            raise ConfigurationError(
                f"host {self.host}: found no name by which clients may call this server; "
                "give --allow-host NAME"
            )

    def names(self) -> list[str]:
        """All names by which clients may call."""
        if is_loopback(self.host):
            return ["127.0.0.1", "localhost", "[::1]", *self.allowed_hosts]
        return [self.shown_host, *self.allowed_hosts]

    @property
    def shown_host(self) -> str:
        """The host as it stands in an address."""
        return f"[{self.host}]" if ":" in self.host else self.host


def new_server(settings: McpSettings) -> Any:
    """A low-level server of the `mcp` package with the tools of the settings.

    Raises:
        MissingExtraError: `mcp` is not installed.
    """
    calls = Calls(settings)
    tools = [tool.described() for tool in calls.tools.values()]
    return make_server(NAME, __version__, calls.instructions(), tools, calls)


async def serve_stdio(settings: McpSettings) -> None:
    """Serve the client at the other end of standard input and output, until it goes.

    Whatever else writes to standard output meanwhile, also from C, goes to standard error.

    Raises:
        MissingExtraError: `mcp` is not installed.
    """
    import anyio

    server = new_server(settings)
    from mcp.server.stdio import stdio_server

    with _private_stdio() as (stdin, stdout):
        wrapped = anyio.wrap_file(stdin), anyio.wrap_file(stdout)
        async with stdio_server(*wrapped) as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())


@contextlib.contextmanager
def _private_stdio() -> Iterator[tuple[TextIOWrapper, TextIOWrapper]]:
    """Take descriptors 0 and 1 away from everybody else, and give them back at the end."""
    sys.stdout.flush()
    kept = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    stdin = TextIOWrapper(os.fdopen(kept[0], "rb", closefd=False), "utf-8", errors="replace")
    stdout = TextIOWrapper(os.fdopen(kept[1], "wb", closefd=False), "utf-8")
    try:
        yield stdin, stdout
    finally:
        sys.stdout.flush()
        os.dup2(kept[0], 0)
        os.dup2(kept[1], 1)


def http_app(settings: McpSettings, http: HttpSettings) -> Starlette:
    """The ASGI application that serves `/mcp`.

    Raises:
        MissingExtraError: `mcp` is not installed.
    """
    server = new_server(settings)
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings
    from starlette.applications import Starlette
    from starlette.routing import Route

    names = http.names()
    manager = StreamableHTTPSessionManager(
        server,
        security_settings=TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=[form for name in names for form in (name, f"{name}:*")],
            allowed_origins=[
                f"{scheme}://{form}"
                for scheme in ("http", "https")
                for name in names
                for form in (name, f"{name}:*")
            ],
        ),
        max_request_body_size=http.max_body_bytes,
        max_sessions=_MAX_SESSIONS,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001 - as asked for
        async with manager.run():
            yield

    endpoint = _Keyed(manager.handle_request, http.keys)
    return Starlette(routes=[Route(PATH, endpoint=endpoint)], lifespan=lifespan)


class _Keyed:
    """Lets requests through that bring a key, if there are keys."""

    def __init__(self, inner: ASGIApp, keys: Sequence[str]) -> None:
        self._inner = inner
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._keys and not self._allows(scope):
            from starlette.responses import JSONResponse

            said = {"error": "found no valid key; send Authorization: Bearer KEY"}
            refusal = JSONResponse(said, 401, headers={"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        await self._inner(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        sent = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = sent.partition(b" ")
        # Every key is compared, each in constant time.
        fits = [hmac.compare_digest(key.strip(), known) for known in self._keys]
        return scheme.lower() == b"bearer" and any(fits)


def serve_http(settings: McpSettings, http: HttpSettings) -> None:
    """Serve over streamable HTTP until the process is told to end.

    Raises:
        MissingExtraError: `mcp` is not installed.
        ConfigurationError: The port is taken, or the host is none of this machine.
    """
    app = http_app(settings, http)
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("uvicorn", "mcp") from error
    listening = _listen(http)
    port = listening.getsockname()[1]
    print(f"ibllm mcp: http://{http.shown_host}:{port}{PATH}", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _listen(http: HttpSettings) -> Any:
    import socket

    family = socket.AF_INET6 if ":" in http.host else socket.AF_INET
    try:
        return socket.create_server((http.host, http.port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {http.host} port {http.port} ({error.strerror}); expected a free "
            "port of this machine; give another --port"
        ) from error
