"""Hold a model amid an answer, or let its time be over: tests of order and time without clocks."""

import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

from ibllm_tools.engine import requests

LONGEST_S = 100  # what never comes is an error, and no test that hangs


class Gate:
    """Forward calls of an engine's model: counted, and held from a number on until it is opened."""

    def __init__(self, engine, held_from):
        self.steps = 0
        self._held_from = held_from
        self._open = threading.Event()
        self._hook = engine.model.llm.register_forward_hook(self._count)

    def _count(self, *_):
        self.steps += 1
        if self.steps >= self._held_from:
            assert self._open.wait(LONGEST_S)

    def open(self):
        self._open.set()

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
