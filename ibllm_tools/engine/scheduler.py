"""The thread that computes the answers of one model, and the queue before it."""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch

from ibllm_tools.engine.batch import Batch
from ibllm_tools.errors import EngineClosedError, QueueFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ibllm_tools.engine.requests import Request

IDLE_S = 30.0
JOIN_S = 10.0


class Scheduler:
    """Computes answers together, in a thread that starts with the first one.

    The thread ends after half a minute without work, and with it the cache's memory; the next
    answer starts another one. A process that is forked begins anew without the parent's answers.

    Args:
        make_batch: Makes an empty batch.
        slots: Answers at a time.
        queue: Answers that may wait beside them.
    """

    def __init__(self, make_batch: Callable[[], Batch], slots: int, queue: int) -> None:
        self._make_batch = make_batch
        self._slots = slots
        self._limit = slots + queue
        self._begin()
        _watch().add(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Request] = deque()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._n_open = 0

    @property
    def n_open(self) -> int:
        """Answers that hold a place."""
        return self._n_open

    @contextmanager
    def ticket(self) -> Iterator[None]:
        """Hold a place for one answer, from before its media are read to its end.

        Raises:
            QueueFullError: All places are taken.
        """
        changed = self._changed
        with changed:
            if self._n_open >= self._limit:
                raise QueueFullError(
                    f"found {self._n_open} answers under way, of which {self._slots} are computed "
                    f"at a time; expected at most {self._limit}; try again later, or send fewer at "
                    "a time"
                )
            self._n_open += 1
        try:
            yield
        finally:
            if changed is self._changed:  # not so in a forked process, where the lock may be held
                with changed:
                    self._n_open -= 1

    def submit(self, request: Request) -> None:
        """Queue an answer; it is computed as soon as a slot is free."""
        with self._changed:
            self._waiting.append(request)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ibllm-engine", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """End all answers with an error, and the thread; the next answer starts it again."""
        with self._changed:
            thread = self._thread
            if thread is None:
                return
            self._closing = True
            self._changed.notify()
        if thread is not threading.current_thread():
            thread.join(JOIN_S)

    def forget(self) -> None:
        """Begin anew in a forked process, where the thread and its answers do not exist."""
        self._begin()

    def _run(self) -> None:
        batch = self._make_batch()
        try:
            with torch.inference_mode():
                while self._admit(batch):
                    batch.step()
        except Exception as error:  # noqa: BLE001  # nobody may wait for ever
            self._end(batch, error)
        else:
            self._end(batch, None)

    def _admit(self, batch: Batch) -> bool:
        """Wait for work and let it join; False where the thread should end."""
        with self._changed:
            while not (self._waiting or batch.rows or self._closing):
                if not self._changed.wait(IDLE_S):
                    self._thread = None
                    return False
            if self._closing:
                return False
            for request in list(self._waiting):
                if request.cancelled or request.expire():
                    self._waiting.remove(request)
            while self._waiting and batch.n_free:
                batch.join(self._waiting.popleft())
        return True

    def _end(self, batch: Batch, error: Exception | None) -> None:
        with self._changed:
            if self._thread is not threading.current_thread():
                return  # it went idle, and another one may have begun
            left = [*batch.rows, *self._waiting]
            self._waiting.clear()
            self._thread = None
            self._closing = False
        closed = EngineClosedError("the engine was closed before the answer ended; ask again")
        for request in left:
            request.fail(error or closed)


@cache
def _watch() -> WeakSet[Scheduler]:
    """All schedulers; at the first one, sees to the process's end and to forks."""
    schedulers: WeakSet[Scheduler] = WeakSet()

    def close_all() -> None:
        for scheduler in list(schedulers):
            scheduler.close()

    def forget_all() -> None:
        if schedulers:
            # OpenMP's threads do not survive a fork, and waiting for them would never end.
            torch.set_num_threads(1)
        for scheduler in list(schedulers):
            scheduler.forget()

    atexit.register(close_all)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget_all)
    return schedulers


def make_scheduler(model: Any, slots: int, queue: int, chunk: int, max_context: int) -> Scheduler:
    """Make the scheduler of a model; see `Batch` and `Scheduler`."""
    return Scheduler(lambda: Batch(model, slots, chunk, max_context), slots, queue)
