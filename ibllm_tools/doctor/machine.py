"""Devices and memory of this machine or container."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

MIB = 2**20
# What a stored value takes when loaded: a CPU widens float16, an accelerator narrows float32.
LOADED_BYTES = {"cpu": {"F16": 4, "BF16": 2}, "accelerator": {"F32": 2, "F16": 2, "BF16": 2}}
# Activations, key/value cache and decoded media of one request, beside the weights.
WORKING_BYTES = 256 * MIB


def devices() -> list[dict[str, Any]]:
    """The devices that torch sees, the one that is used by default first."""
    import torch

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append(
            {"device": f"cuda:{index}", "kind": "cuda", "name": name, "free": free, "total": total}
        )
    free_here, total_here = host_memory()
    if torch.backends.mps.is_available():
        name = "Apple GPU, which shares the memory of the CPU"
        found.append({"device": "mps", "kind": "mps", "name": name, "free": free_here,
                      "total": total_here})  # fmt: skip
    name = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    name += f" on {usable_cores()} cores"
    found.append(
        {"device": "cpu", "kind": "cpu", "name": name, "free": free_here, "total": total_here}
    )
    return found


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def needed_bytes(n_values: dict[str, int], kind: str) -> int:
    """Memory that a model takes on a device, one request included.

    Args:
        n_values: Stored values by dtype, as safetensors names them.
        kind: Of the device.
    """
    width = LOADED_BYTES["cpu" if kind == "cpu" else "accelerator"]
    return sum(n * width.get(dtype, 4) for dtype, n in n_values.items()) + WORKING_BYTES


def host_memory() -> tuple[int | None, int | None]:
    """Bytes of memory (available, total) of this host or container; None where unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        available, total = found["MemAvailable"], found["MemTotal"]
    except (OSError, KeyError, ValueError, IndexError):
        return None, None
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit is not None and used is not None and limit < total:
        return min(available, max(limit - used, 0)), limit
    return available, total


def _cgroup(name: str) -> int | None:
    try:
        text = Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
