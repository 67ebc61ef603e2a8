"""Loaded experts of this process: one per key, within a memory budget, one caller at a time.

```
use(key) ── loaded? ── no ── make room: unload the least recently used idle ones ── load
              └─ yes ─────────── the model's lock ── the caller works ── leave
```
This module knows no model library; it keeps whatever is loaded, and its size.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ibllm_tools.errors import ConfigurationError, QueueFullError

GIB = 2**30
SHARE = 0.5  # of a device's memory, where no budget is set
PATIENCE_S = 120.0


class ExpertKey(NamedTuple):
    """What makes one loaded expert differ from another."""

    checkpoint: str
    device: str
    dtype: str | None = None
    backend: str = "transformers"


class Loaded(NamedTuple):
    """A loaded expert and what it holds of its device's memory."""

    expert: Any
    n_bytes: int


@dataclass(eq=False)
class _Entry:
    device: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    expert: Any = None
    n_bytes: int = 0  # held, or set aside while it is being loaded
    n_users: int = 0  # callers that work with it or wait for it
    last_used: int = 0


class Registry:
    """Keeps experts loaded within a budget of bytes for each device.

    An expert that is at work is never unloaded. Where experts at work leave no room, a load
    waits for them; only a caller that itself holds another expert does not wait, since two such
    callers could wait for each other.

    Args:
        budget_bytes: Most bytes of weights for each device; by default half of its memory.
        patience_s: Longest wait for room.
    """

    def __init__(self, budget_bytes: int | None = None, patience_s: float = PATIENCE_S) -> None:
        self._budget_bytes = _check_budget(budget_bytes)
        self._patience_s = patience_s
        self._entries: dict[ExpertKey, _Entry] = {}
        self._changed = threading.Condition()
        self._held = threading.local()
        self._clock = 0

    @contextmanager
    def use(
        self, key: ExpertKey, load: Callable[[], Loaded], expected_bytes: int = 0
    ) -> Iterator[Any]:
        """Hand out the expert of `key`, alone, loading it if it is not loaded.

        Args:
            key: Which expert.
            load: Loads it; called at most once at a time for a key.
            expected_bytes: What it will hold, where that is known before.

        Raises:
            ConfigurationError: It alone is larger than the budget.
            QueueFullError: Experts at work left no room for too long.
        """
        entry = self._join(key)
        try:
            with entry.lock:
                if entry.expert is None:
                    self._load(key, entry, load, expected_bytes)
                self._held.n = self._n_held() + 1
                try:
                    yield entry.expert
                finally:
                    self._held.n -= 1
        finally:
            self._leave(entry)

    def loaded(self) -> list[ExpertKey]:
        """Return the keys of what is loaded, the least recently used first."""
        with self._changed:
            found = [(key, e) for key, e in self._entries.items() if e.expert is not None]
        return [key for key, _ in sorted(found, key=lambda pair: pair[1].last_used)]

    def n_bytes(self, device: str) -> int:
        """Return how many bytes the experts of a device hold."""
        with self._changed:
            return self._sum(device)

    def set_budget(self, budget_bytes: int | None) -> None:
        """Change the budget for each device, and unload what no longer fits."""
        checked = _check_budget(budget_bytes)
        with self._changed:
            self._budget_bytes = checked
            for device in {entry.device for entry in self._entries.values()}:
                self._evict(device, 0)
            self._changed.notify_all()

    def unload(self) -> None:
        """Unload every expert that is not at work."""
        with self._changed:
            for entry in list(self._entries.values()):
                if not entry.n_users:
                    self._drop(entry)
            self._changed.notify_all()

    def budget_bytes(self, device: str) -> int:
        """Return the most bytes that experts of a device may hold."""
        return (
            int(SHARE * _memory_bytes(device))
            if self._budget_bytes is None
            else (self._budget_bytes)
        )

    def _n_held(self) -> int:
        return int(getattr(self._held, "n", 0))

    def _join(self, key: ExpertKey) -> _Entry:
        with self._changed:
            entry = self._entries.setdefault(key, _Entry(key.device))
            entry.n_users += 1
            return entry

    def _leave(self, entry: _Entry) -> None:
        with self._changed:
            self._clock += 1
            entry.last_used = self._clock
            entry.n_users -= 1
            self._evict(entry.device, 0)
            self._changed.notify_all()

    def _load(
        self, key: ExpertKey, entry: _Entry, load: Callable[[], Loaded], expected_bytes: int
    ) -> None:
        self._check_fits(key, expected_bytes)
        with self._changed:
            self._wait_for_room(key, expected_bytes)
            entry.n_bytes = expected_bytes
        try:
            loaded = load()
            self._check_fits(key, loaded.n_bytes)
        except BaseException:
            with self._changed:
                entry.n_bytes = 0
                self._changed.notify_all()
            raise
        with self._changed:
            entry.n_bytes = loaded.n_bytes
            entry.expert = loaded.expert
            self._evict(key.device, 0)

    def _check_fits(self, key: ExpertKey, n_bytes: int) -> None:
        budget = self.budget_bytes(key.device)
        if n_bytes > budget:
            raise ConfigurationError(
                f"{key.checkpoint} needs {n_bytes / GIB:.2f} GiB on {key.device}, the budget for "
                f"experts is {budget / GIB:.2f} GiB; take a smaller model or another dtype, or "
                "raise it with ibllm_tools.experts.set_memory_budget"
            )

    def _wait_for_room(self, key: ExpertKey, n_bytes: int) -> None:
        deadline = time.monotonic() + self._patience_s
        while not self._evict(key.device, n_bytes) and not self._n_held():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise QueueFullError(
                    f"{key.checkpoint} found no room on {key.device} for {self._patience_s:g} s: "
                    "other experts are at work; try again later, or raise the budget with "
                    "ibllm_tools.experts.set_memory_budget"
                )
            self._changed.wait(left_s)

    def _evict(self, device: str, n_bytes: int) -> bool:
        """Unload idle experts, the least recently used first, until `n_bytes` more fit."""
        room = self.budget_bytes(device) - n_bytes
        idle = [e for e in self._entries.values() if e.device == device and not e.n_users]
        for entry in sorted(idle, key=lambda entry: entry.last_used):
            if self._sum(device) <= room:
                break
            self._drop(entry)
        return self._sum(device) <= room

    def _drop(self, entry: _Entry) -> None:
        entry.expert, entry.n_bytes = None, 0
        if entry.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    def _sum(self, device: str) -> int:
        return sum(entry.n_bytes for entry in self._entries.values() if entry.device == device)


def _check_budget(budget_bytes: int | None) -> int | None:
    if budget_bytes is not None and budget_bytes <= 0:
        raise ConfigurationError(
            f"memory budget: found {budget_bytes} bytes, expected more than 0, or None for half "
            "of the device's memory"
        )
    return budget_bytes


def _memory_bytes(device: str) -> int:
    """All memory of a device; that of the machine for CPUs and shared-memory accelerators."""
    import os

    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # no such question on this system
        return 8 * GIB


REGISTRY = Registry()
