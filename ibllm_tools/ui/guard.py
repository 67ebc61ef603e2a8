"""What stands before the page: no request of a browser makes this machine, or it, go elsewhere.

Gradio would fetch a URL that a request names as a file, and serve as a proxy. Media here are
uploads, so such requests end here; and a policy tells browsers to load from this page alone.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_JSON_BYTES = 4 * 2**20
_REMOTE = re.compile(r"\s*[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_FETCHES = re.compile(r"/(file=\s*[a-z][a-z0-9+.-]+:|proxy=)", re.IGNORECASE)
_SOURCES = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval' blob:",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self' data: blob:",
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'self'",
}
_POLICY = "; ".join(f"{kind} {where}" for kind, where in _SOURCES.items())
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


class Guard:
    """An ASGI middleware that refuses files by URL, and adds headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _FETCHES.search(scope["path"]):
            await _refuse(send, 403, "files are served from this machine alone")
            return
        if scope["method"] == "POST" and _is_json(scope):
            body = await _read(receive)
            if body is None:
                await _refuse(send, 413, f"found more than {MAX_JSON_BYTES:,} bytes of JSON")
                return
            if _names_remote_file(body):
                await _refuse(send, 403, "found a file by its URL; expected an upload")
                return
            receive = _again(body, receive)
        await self._app(scope, receive, _with_headers(send))


def _is_json(scope: Scope) -> bool:
    """Whatever is no form is read as JSON by the app."""
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    return not any(kind.lower().startswith(b"multipart/form-data") for kind in types)


async def _read(receive: Receive) -> bytes | None:
    """The body of a request; None if it is too long."""
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_JSON_BYTES:
            return None
        if not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already, then what comes after it."""
    left = [body]

    async def again() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return again


def _names_remote_file(body: bytes) -> bool:
    try:
        return _is_remote(json.loads(body)) if body else False
    except (ValueError, RecursionError):
        return False  # the app refuses it


def _is_remote(value: Any) -> bool:
    """Whether a file with a remote path stands anywhere in a JSON value."""
    waiting = [value]
    while waiting:
        held = waiting.pop()
        if isinstance(held, dict):
            path = held.get("path")
            if isinstance(path, str) and _REMOTE.match(path):
                return True
            waiting.extend(held.values())
        elif isinstance(held, list):
            waiting.extend(held)
    return False


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
        await send(message)

    return sending


async def _refuse(send: Send, status: int, why: str) -> None:
    body = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
