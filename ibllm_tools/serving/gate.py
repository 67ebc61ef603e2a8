"""Before a request is read: who asks, by which name, and whether there is room for it.

```
Envelope: request id, security headers, metrics ─ Gate: host name, API key, places, body limits
```
Both are plain ASGI, so that a client that leaves is seen by what runs inside.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException

from ibllm_tools.serving.problems import ApiError, as_api_error, too_busy
from ibllm_tools.serving.replies import new_id
from ibllm_tools.serving.settings import LOOPBACK_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ibllm_tools.serving.metrics import Metrics
    from ibllm_tools.serving.settings import ServeSettings

OPEN_PATHS = frozenset({"/health"})
SECURITY = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Envelope:
    """Gives every response its id and security headers, and every request its place in metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics, endpoints: frozenset[str]) -> None:
        """Wrap an application; requests of other paths than `endpoints` count as one."""
        self._app = app
        self._metrics = metrics
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = self._metrics.begin(), 500

        async def send_dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = new_id("req_")
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        path = scope["path"]
        endpoint = path if path in self._endpoints else "other"
        try:
            await self._app(scope, receive, send_dressed)
        finally:
            self._metrics.end(endpoint, status, began)


class Places:
    """How many requests are under way, and how many bytes of them are held."""

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self.n_requests = 0
        self.n_bytes = 0

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Hold a place for one request.

        Raises:
            ApiError: All places are taken; status 429.
        """
        if self.n_requests >= self._max_requests:
            raise too_busy(
                f"found {self.n_requests} requests under way; expected at most "
                f"{self._max_requests}; try again a little later"
            )
        self.n_requests += 1
        held = Place(self)
        try:
            yield held
        finally:
            self.n_requests -= 1
            self.n_bytes -= held.n_bytes

    def take(self, n_bytes: int) -> None:
        """Count bytes that are held.

        Raises:
            ApiError: Requests hold too many together; status 429.
        """
        if self.n_bytes + n_bytes > self._max_bytes:
            raise too_busy("found requests that are too large together; try again a little later")
        self.n_bytes += n_bytes


class Place:
    """One request's share."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.n_bytes = 0

    def take(self, n_bytes: int) -> None:
        """Hold more bytes; see `Places.take`."""
        self._places.take(n_bytes)
        self.n_bytes += n_bytes


class Gate:
    """Lets in who may come, as many as there is room for, with bodies that are not too large."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, places: Places) -> None:
        """Guard an application."""
        self._app = app
        self._settings = settings
        self._places = places
        self._digests = [_digest(key.get_secret_value().encode()) for key in settings.api_keys]
        self._names = LOOPBACK_NAMES | {name.lower() for name in settings.host_names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it before its body is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_begun = False

        async def send_seen(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            await self._enter(scope, receive, send_seen)
        except Exception as error:
            if is_begun:
                raise
            await refuse(send, as_api_error(error))

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._check_name(headers)
        if scope["path"] not in OPEN_PATHS:
            self._check_key(headers)
        if scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            await self._app(scope, receive, send)
            return
        self._check_length(headers)
        with self._places.place() as place:
            await self._app(scope, self._counted(receive, place), send)

    def _check_name(self, headers: Headers) -> None:
        """Refuse names that are not ours: a web page could else make one of its own lead here."""
        if not self._settings.checks_host_names:
            return
        name = _without_port(headers.get("host", ""))
        if name.lower() not in self._names:
            raise ApiError(
                403,
                f"found the host name {name[:100]!r}; expected {', '.join(sorted(self._names))}; "
                "allow the name with --host-name, or set an API key",
                code="unknown_host",
            )

    def _check_key(self, headers: Headers) -> None:
        if not self._digests:
            return
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        found = _digest(sent.strip().encode("latin-1"))  # as it came
        # Every key is compared, whole: the time that this takes tells nothing.
        fits = [hmac.compare_digest(found, digest) for digest in self._digests]
        if scheme.lower() != "bearer" or not any(fits):
            raise ApiError(
                401,
                "found no valid API key; expected the header `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_length(self, headers: Headers) -> None:
        told = headers.get("content-length", "0")
        if told.isascii() and told.isdecimal() and int(told) > self._settings.max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"found a body of more than {self._settings.max_body_bytes:,} bytes; send smaller "
            "media, or start the server with a larger --max-body",
            code="request_too_large",
            headers={"Connection": "close"},
        )

    def _counted(self, receive: Receive, place: Place) -> Receive:
        """Count a body while it comes, however it is sent."""
        ends_at = asyncio.get_running_loop().time() + self._settings.body_timeout_s
        is_whole = False

        async def counted() -> Message:
            nonlocal is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout_at(ends_at):
                    message = await receive()
            except TimeoutError:
                raise RefusedError(_too_slow()) from None
            if message["type"] == "http.request":
                is_whole = not message.get("more_body", False)
                try:
                    place.take(len(message.get("body", b"")))
                except ApiError as error:
                    raise RefusedError(error) from None
                if place.n_bytes > self._settings.max_body_bytes:
                    raise RefusedError(self._too_large())
            return message

        return counted


class RefusedError(HTTPException):
    """A refusal while the body is read: frameworks let their own exceptions through alone."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.status, str(error))
        self.error = error


def _too_slow() -> ApiError:
    return ApiError(
        408,
        "found a body that does not arrive; send it at once",
        code="request_timeout",
        headers={"Connection": "close"},
    )


async def refuse(send: Send, error: ApiError) -> None:
    """Answer with an error."""
    body = json.dumps(error.body()).encode()
    headers: Mapping[str, str] = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **error.headers,
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _without_port(host: str) -> str:
    """The name in a Host header."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
