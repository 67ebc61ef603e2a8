"""Hold a model amid an answer, or let its time be over: tests of order and time without clocks."""

import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

from ibllm_tools.engine import requests

LONGEST_S = 100  # what never comes is an error, and no test that hangs


class Gate:
    """Forward calls of an engine's model: counted, and held from a number on."""

    def __init__(self, engine, held_from):
        self.steps = 0
        self._held_from = held_from
        self._changed = threading.Condition()
        self._hook = engine.model.llm.register_forward_hook(self._count)

    def _count(self, *_):
        self.steps += 1
        with self._changed:
            assert self._changed.wait_for(lambda: self.steps < self._held_from, LONGEST_S)

    def open(self, held_from=10**9):
        """Let the calls go on, up to another number."""
        with self._changed:
            self._held_from = held_from
            self._changed.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open()
        self._hook.remove()


@contextmanager
def time_over(engine, monkeypatch, after):
    """Every answer's time is over after some forward calls, however quick or slow they are."""
    steps = []
    hook = engine.model.llm.register_forward_hook(lambda *_: steps.append(1))
    own = time.monotonic
    clock = SimpleNamespace(monotonic=lambda: own() + (1e9 if len(steps) > after else 0))
    with monkeypatch.context() as patch:
        patch.setattr(requests, "time", clock)
        try:
            yield
        finally:
            hook.remove()


def wait_until(is_so):
    """Wait for what another thread does."""
    ends = time.monotonic() + LONGEST_S
    while not is_so():
        assert time.monotonic() < ends, "it did not come to be"
        time.sleep(0.005)
