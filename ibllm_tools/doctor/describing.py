"""The report for people: a line for each thing, the next step where something is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ibllm_tools.doctor.machine import MIB

SHOWN_PACKAGES = (
    "torch",
    "transformers",
    "langchain",
    "langchain-core",
    "langgraph",
    "llguidance",
    "faiss-cpu",
    "av",
    "pillow",
)
FOR_DEVELOPERS = ("dev", "docs")
_WIDTH = 12


def describe(report: dict[str, Any]) -> str:
    """Write a report of `examine` for a person to read."""
    lines = [
        *_base(report),
        *_machine(report),
        *_experts(report),
        ("programs", report["programs"]),
        *_extras(report),
        *_limits(report["limits"]),
        *_kept(report["kept"]),
        *_result(report),
    ]
    return "\n".join(f"{name:<{_WIDTH}} {text}" for name, text in lines)


def _base(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        "ibllm-tools",
        f"{report['version']} on Python {report['python']}, {report['platform']}",
    )
    versions = {name: report["packages"].get(name) for name in SHOWN_PACKAGES}
    yield "packages", ", ".join(f"{name} {v or '(missing)'}" for name, v in versions.items())
    model = report["model"]
    yield "model", f"{model['name']}: {model['folder'] or model.get('note', 'not found')}"
    if model["files"]:
        n_bytes, n_values = sum(model["files"].values()), sum(model["values"].values())
        yield "weights", f"{len(model['files'])} files, {_mib(n_bytes)}, {n_values:,} values"
        yield "trunks", ", ".join(model["trunks"]) or "none here"
    else:
        yield "weights", "not here"


def _machine(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for place, device in enumerate(report["devices"]):
        used = " (used)" if place == 0 and len(report["devices"]) > 1 else ""
        memory = f"{_mib(device['free'])} free of {_mib(device['total'])}"
        yield "device", f"{device['device']}{used}: {device['name']}; {memory}"
    free, needed = _mib(report["memory"]["free"]), "not known what the model needs"
    if report["model"]["files"]:
        needed = f"about {_mib(report['memory']['needed'])} needed beside Python's own"
    yield "memory", f"{needed}, {free} free"


def _experts(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for kind, expert in report["experts"].items():
        name, tool = expert["name"], expert["tool"]
        told = f"{name} is here"
        if not expert["here"]:
            told = f"{name} is not here, so {tool} is not offered; see `ibllm mcp --{kind} NAME`"
        yield kind, told


def _extras(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, extra in report["extras"].items():
        if name in FOR_DEVELOPERS:
            continue
        note = f" ({extra['note']})" if "note" in extra else ""
        missing = ", ".join(extra["missing"])
        told = f"missing {missing}; run `{extra['command']}`" if missing else "installed"
        yield f"[{name}]", told + note


def _limits(limits: dict[str, Any]) -> Iterator[tuple[str, str]]:
    sizes = (
        f"one medium: {_mib(limits['max_bytes'])}, {limits['max_pixels']:,} pixels, "
        f"{limits['max_seconds']:g} s, {limits['max_points']:,} points, "
        f"{limits['max_chars']:,} characters; {limits['decode_timeout_s']:g} s to decode"
    )
    yield "limits", sizes
    yield "", "a message opens no file and no address, unless a MediaPolicy names folder or host"


def _kept(kept: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, held in kept.items():
        if "files" not in held:
            yield "kept", f"{name}: {held['place']}"
        elif held["files"]:
            yield "kept", f"{name}: {held['place']} ({held['files']} files, {_mib(held['bytes'])})"


def _result(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    trial = report.get("trial") or {}
    if "answer" in trial:
        peak = f"; {_mib(trial['peak_bytes'])} at most" if trial["peak_bytes"] else ""
        asked = f'"{trial["question"]}" about {trial["picture"]}: "{trial["answer"]}"'
        times = f"{trial['first_s']:.1f} s with loading, then {trial['second_s']:.2f} s{peak}"
        yield "trial", f"{asked} ({times})"
    for problem in report["problems"]:
        yield "problem", problem
    if not report["problems"]:
        here = "everything that this model needs is here"
        if not report["model"]["files"] and "answer" not in trial:
            here = "everything but the weights is here; --try fetches them and asks the model"
        yield "result", here


def _mib(n_bytes: int | None) -> str:
    return "unknown" if n_bytes is None else f"{n_bytes / MIB:,.0f} MiB"
