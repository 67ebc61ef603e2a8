"""The way of pieces from the scheduler's thread to a consumer: a thread, or a task of asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ibllm_tools.engine.answers import Piece

Entry: TypeAlias = "Piece | Exception"


class Channel(Protocol):
    """Takes the pieces of one answer; the last entry has `finish`, or is an exception."""

    def put(self, entry: Entry) -> bool:
        """Hand over an entry without waiting; False if nobody can ever take it."""


class ThreadChannel:
    """Pieces for a consumer that waits in its own thread."""

    def __init__(self) -> None:
        self._entries: SimpleQueue[Entry] = SimpleQueue()

    def put(self, entry: Entry) -> bool:
        """Hand over an entry without waiting."""
        self._entries.put(entry)
        return True

    def pieces(self) -> Iterator[Piece]:
        """Yield pieces up to the last one; raises what the answer failed with."""
        while True:
            entry = self._entries.get()
            if isinstance(entry, Exception):
                raise entry
            yield entry
            if entry.finish is not None:
                return


class LoopChannel:
    """Pieces for a task; made inside of the loop that the task runs in."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._entries: deque[Entry] = deque()

    def put(self, entry: Entry) -> bool:
        """Hand over an entry without waiting; False if the loop is closed."""
        self._entries.append(entry)
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:
            return False
        return True

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield pieces up to the last one; raises what the answer failed with."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._entries:
                entry = self._entries.popleft()
                if isinstance(entry, Exception):
                    raise entry
                yield entry
                if entry.finish is not None:
                    return
