"""The keyboard while an answer comes: Ctrl-C stops it, and what is typed ahead is not echoed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruptible(work: asyncio.Future[Any]) -> Iterator[None]:
    """While this lasts, Ctrl-C cancels `work` and ends nothing else."""
    loop = asyncio.get_running_loop()

    def stop(number: int, frame: Any) -> None:  # noqa: ARG001 - as signals call it
        loop.call_soon_threadsafe(work.cancel)

    try:
        before = signal.signal(signal.SIGINT, stop)
    except ValueError:  # not the main thread: whoever runs this takes Ctrl-C
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def without_echo() -> Iterator[None]:
    """Keep what is typed ahead off the screen; the next prompt shows it."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield
        return
    import termios

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)
