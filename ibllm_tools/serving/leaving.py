"""Clients that go away: what was done for them ends at once."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import Response

from ibllm_tools.serving.problems import ClientGoneError, as_api_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from starlette.types import Receive, Scope, Send

Result = TypeVar("Result")

GONE = 499  # what nginx calls "client closed request"; nobody reads it
DONE = b"data: [DONE]\n\n"


async def unless_gone(receive: Receive, work: Awaitable[Result]) -> Result:
    """Do some work while the client waits for it; call it after the request's body is read.

    Raises:
        ClientGoneError: The client is gone; the work was cancelled.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_leave(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGoneError
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _leave(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, each one JSON object, with `[DONE]` at the end.

    An error amid the events becomes the last of them, since the status is sent by then.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        first: dict[str, Any],
        events: AsyncGenerator[dict[str, Any]],
        tell_left: Callable[[], None],
    ) -> None:
        """Send `first` and then `events`, which are closed in any case.

        `tell_left` is called where the client leaves before the end.
        """
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._events = events
        self._tell_left = tell_left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the events; a client that leaves closes them."""
        async with aclosing(self._events):
            try:
                await unless_gone(receive, self._send(send))
            except ClientGoneError:
                self._tell_left()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await send(_part(_event(self._first)))
        try:
            async for event in self._events:
                await send(_part(_event(event)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
            await send(_part(_event(as_api_error(error, "messages").body())))
        else:
            await send(_part(DONE))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def _part(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": True}
