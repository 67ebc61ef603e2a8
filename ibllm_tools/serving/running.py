"""Running the server: uvicorn on a socket of its own, ended gracefully."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

import uvicorn

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.serving.app import build_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from ibllm_tools.serving.settings import ServeSettings


class _Server(uvicorn.Server):
    """A uvicorn server that says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def make_server(
    settings: ServeSettings, tell: Callable[[str], None] | None = None
) -> tuple[uvicorn.Server, socket.socket]:
    """Make the server and the socket that it is to serve: `server.run(sockets=[socket])`.

    Args:
        settings: What to serve, and where.
        tell: Called with the server's address once it answers.

    Raises:
        ConfigurationError: Others could reach the server, and there is no key; or the address
            cannot be listened at.
    """
    settings.check_reach()
    bound = _listen(settings.host, settings.port)
    config = uvicorn.Config(
        build_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="info" if settings.logs_access else "warning",
        access_log=settings.logs_access,
        server_header=False,
        timeout_graceful_shutdown=int(settings.shutdown_s),
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{bound.getsockname()[1]}"
    return _Server(config, lambda: tell(address) if tell else None), bound


def run(settings: ServeSettings, tell: Callable[[str], None] | None = None) -> None:
    """Serve until the process is told to stop; what runs then is finished."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    server, bound = make_server(settings, tell)
    with bound:
        server.config.app.state.server.load()  # type: ignore[union-attr]  # what fails is told here
        server.run(sockets=[bound])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            f"port {port} at {host} cannot be listened at ({error.strerror}); expected a free one; "
            "choose another with --port, or 0 for any"
        ) from error
    return bound
