"""What `ibllm doctor` reports: versions, weights, device, memory and extras.

Nothing is loaded; weights are measured by their headers.
"""

from __future__ import annotations

import platform
import re
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from ibllm_tools import __version__
from ibllm_tools.checkpoints import find_folder, weight_files
from ibllm_tools.errors import IbllmError

PACKAGE = "ibllm-tools"
SHOWN_PACKAGES = ("torch", "transformers", "langchain", "langchain-core", "faiss-cpu", "av")
MIB = 2**20
# What a stored value takes when loaded: a CPU widens float16, an accelerator narrows float32.
LOADED_BYTES = {"cpu": {"F16": 4, "BF16": 2}, "accelerator": {"F32": 2, "F16": 2, "BF16": 2}}
# Activations, key/value cache and decoded media of one request, beside the weights.
WORKING_BYTES = 256 * MIB

Report = dict[str, Any]


def examine(model: str = "pocket") -> Report:
    """Examine this installation for running `model`.

    Args:
        model: "pocket", a model folder, or a hub id.

    Returns:
        A report that JSON can hold; `problems` lists what keeps the model from running,
        each with the next step.
    """
    problems: list[str] = []
    packages = {name: _version(name) for name in SHOWN_PACKAGES}
    problems += [
        f"{name} is not installed; run `pip install {PACKAGE}`"
        for name, found in packages.items()
        if found is None
    ]
    device = _device() if packages["torch"] else {"name": "none", "kind": "cpu"}
    weights = _weights(model, problems)
    memory = _memory(weights, device, problems)
    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "model": weights,
        "device": device,
        "memory": memory,
        "extras": _extras(),
        "problems": problems,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _weights(model: str, problems: list[str]) -> Report:
    report: Report = {"name": model, "folder": None, "files": {}, "trunks": [], "values": {}}
    try:
        folder = find_folder(model)
        if folder is None:
            return {**report, "note": "a hub id; its files are fetched at the first use"}
        files = weight_files(folder)
    except IbllmError as error:
        problems.append(str(error))
        return report
    if not files:
        problems.append(f"{folder} holds no weights (*.safetensors); fetch or convert them again")
    return {
        **report,
        "folder": str(folder),
        "files": {str(file.path.relative_to(folder)): file.n_bytes for file in files},
        "trunks": _trunks(folder, [file.path for file in files]),
        "values": dict(sum((Counter(file.n_values) for file in files), Counter())),
    }


def _trunks(folder: Path, files: list[Path]) -> list[str]:
    """The encoder's trunks whose files are there."""
    return sorted(path.stem for path in files if path.parent == folder / "encoder")


def _device() -> Report:
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return {"name": name, "kind": "cuda", "free": memory[0], "total": memory[1]}
    kind = "mps" if torch.backends.mps.is_available() else "cpu"
    free, total = host_memory()
    name = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    return {"name": name, "kind": kind, "free": free, "total": total}


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


def _memory(weights: Report, device: Report, problems: list[str]) -> Report:
    width = LOADED_BYTES["cpu" if device["kind"] == "cpu" else "accelerator"]
    loaded = sum(n * width.get(dtype, 4) for dtype, n in weights["values"].items())
    needed = loaded + WORKING_BYTES
    free = device.get("free")
    if free is not None and needed > free:
        problems.append(
            f"{weights['name']} needs about {_mib(needed)}, but {_mib(free)} are free on "
            f"{device['name']}; free memory, or choose another --device or --dtype"
        )
    return {"needed": needed, "free": free, "total": device.get("total")}


def _extras() -> dict[str, Report]:
    """For each extra of this package, which of its packages are missing."""
    try:
        required = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return {}
    extras: dict[str, Report] = {}
    for line in required:
        name, extra = re.match(r"[\w.-]+", line), re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if name and extra and name[0].lower() != PACKAGE:
            entry = extras.setdefault(
                extra[1],
                {"missing": [], "command": f"pip install '{PACKAGE}[{extra[1]}]'"},
            )
            if _version(name[0]) is None:
                entry["missing"].append(name[0])
    return extras


def _mib(n_bytes: int | None) -> str:
    return "unknown" if n_bytes is None else f"{n_bytes / MIB:,.0f} MiB"


def describe(report: Report) -> str:
    """Write a report of `examine` for a person to read."""
    model, memory = report["model"], report["memory"]
    n_bytes = sum(model["files"].values())
    n_values = sum(model["values"].values())
    packages = ", ".join(
        f"{name} {found or '(missing)'}" for name, found in report["packages"].items()
    )
    lines = [
        ("ibllm-tools", f"{report['version']} on Python {report['python']}, {report['platform']}"),
        ("packages", packages),
        ("model", f"{model['name']}: {model['folder'] or model.get('note', 'not found')}"),
        (
            "weights",
            f"{len(model['files'])} files, {_mib(n_bytes)}, {n_values:,} values",
        ),
        ("trunks", ", ".join(model["trunks"]) or "none here"),
        ("device", f"{report['device']['kind']}: {report['device']['name']}"),
        ("memory", f"about {_mib(memory['needed'])} needed, {_mib(memory['free'])} free"),
    ]
    for name, extra in report["extras"].items():
        missing = ", ".join(extra["missing"])
        lines.append(
            (
                f"[{name}]",
                f"missing {missing}; run `{extra['command']}`" if missing else "installed",
            )
        )
    lines += [("problem", problem) for problem in report["problems"]]
    if not report["problems"]:
        lines.append(("result", "everything that this model needs is here"))
    return "\n".join(f"{name:<12} {text}" for name, text in lines)
