"""`examine`: puts the report together, and says what keeps a model from running."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from ibllm_tools import __version__
from ibllm_tools.attachments.files import default_folder
from ibllm_tools.attachments.threads import THREADS, data_folder
from ibllm_tools.doctor import machine, packages, weights
from ibllm_tools.media import MediaPolicy
from ibllm_tools.vectorstores.indexes import indexes_folder

Report = dict[str, Any]
PROGRAMS = "none are needed: Python packages decode media, and nothing is compiled"
_LIMITS = ("max_bytes", "max_pixels", "max_seconds", "max_points", "max_chars", "decode_timeout_s")


def examine(model: str = "pocket") -> Report:
    """Examine this installation for running `model`; nothing is loaded.

    Args:
        model: "pocket", a model folder, or a hub id.

    Returns:
        A report that JSON can hold; `problems` lists what keeps the model from running,
        each with the next step.
    """
    problems: list[str] = []
    required = packages.required()
    problems += [_misfit(name, found) for name, found in required.items() if not found["fits"]]
    problems += [clash] if (clash := packages.conflict()) else []
    has_torch = required.get("torch", {}).get("version") is not None
    devices = machine.devices() if has_torch else []
    measured = weights.of_model(model, problems)
    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found["version"] for name, found in required.items()},
        "required": required,
        "model": measured,
        "device": devices[0] if devices else {"device": "none", "kind": "cpu", "name": "none"},
        "devices": devices,
        "memory": _memory(measured, devices[0] if devices else None, problems),
        "experts": weights.of_experts() if has_torch else {},
        "programs": PROGRAMS,
        "extras": packages.extras(),
        "limits": limits(),
        "kept": _kept(),
        "problems": problems,
    }


def limits() -> Report:
    """What one medium may be, and what a message may open."""
    policy = MediaPolicy()
    told: Report = {name: getattr(policy, name) for name in _LIMITS}
    return {**told, "allowed_dirs": [], "allowed_hosts": []}


def _misfit(name: str, found: Report) -> str:
    if found["version"] is None:
        return f"{name} is not installed; run `pip install {packages.PACKAGE}`"
    return (
        f"{name}: found {found['version']}, expected {found['needs']}; "
        f"run `pip install '{name}{found['needs']}'`"
    )


def _memory(measured: Report, device: Report | None, problems: list[str]) -> Report:
    kind = device["kind"] if device else "cpu"
    needed = machine.needed_bytes(measured["values"], kind)
    free = device["free"] if device else None
    if device is not None and free is not None and needed > free:
        problems.append(
            f"{measured['name']} needs about {needed / machine.MIB:,.0f} MiB, but "
            f"{free / machine.MIB:,.0f} are free on {device['name']}; free memory, or choose "
            "another --device or --dtype"
        )
    return {"needed": needed, "free": free, "total": device["total"] if device else None}


def _kept() -> Report:
    """What this user's folders hold; a database elsewhere is named alone."""
    threads = os.environ.get(THREADS) or str(data_folder() / "threads.sqlite")
    local = "://" not in threads
    return {
        "threads": weights.size_of(Path(threads)) if local else {"place": _without_key(threads)},
        "chat attachments": weights.size_of(data_folder() / "attachments"),
        "agent attachments": weights.size_of(default_folder()),
        "search indexes": weights.size_of(indexes_folder()),
    }


def _without_key(address: str) -> str:
    """An address without the password in it."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
