"""Packages: which versions are here, what is required, and what extras lack."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import ibllm_tools

PACKAGE = "ibllm-tools"
_SOURCE = Path(ibllm_tools.__file__).parent.parent / "pyproject.toml"
_NOTES = {
    "detect": "brings ultralytics, which is AGPL-3.0, and so is a service built with it; and "
    "torchvision: beside a CPU build of torch, install it into another environment"
}


def required() -> dict[str, dict[str, Any]]:
    """The packages that this one cannot do without.

    Returns:
        By name: `version` (None where it is missing), `needs`, and whether it `fits`.
    """
    from packaging.requirements import Requirement

    found = {}
    for line in _requirements():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            found[wanted.name] = _compared(wanted)
    return found


def conflict() -> str | None:
    """A torchvision of another build than torch, which breaks transformers; None without."""
    try:
        builds = {name: metadata.version(name) for name in ("torch", "torchvision")}
    except metadata.PackageNotFoundError:
        return None
    if len({version.partition("+")[2] for version in builds.values()}) == 1:
        return None
    found = " beside ".join(f"{name} {builds[name]}" for name in ("torchvision", "torch"))
    return f"found {found}, which breaks transformers; run `pip uninstall torchvision`"


def extras() -> dict[str, dict[str, Any]]:
    """For each extra: what is `missing` of it, the `command` that adds it, and a `note`."""
    from packaging.requirements import Requirement

    direct: dict[str, list[Requirement]] = {name: [] for name in _extra_names()}
    for line in _requirements():
        wanted = Requirement(line)
        for extra, held in direct.items():
            in_it = wanted.marker is not None and wanted.marker.evaluate({"extra": extra})
            if in_it and not wanted.marker.evaluate({"extra": ""}):  # type: ignore[union-attr]
                held.append(wanted)
    return {
        extra: {
            "missing": sorted({w.name for w in _all(extra, direct) if not _compared(w)["fits"]}),
            "command": f"pip install '{PACKAGE}[{extra}]'",
            **({"note": _NOTES[extra]} if extra in _NOTES else {}),
        }
        for extra in direct
    }


def _all(extra: str, direct: dict[str, list[Any]]) -> Iterator[Any]:
    """What an extra needs, that of the extras in it included."""
    for wanted in direct.get(extra, ()):
        if wanted.name.lower() == PACKAGE:
            for inner in wanted.extras:
                yield from _all(inner, direct)
        else:
            yield wanted


def _compared(wanted: Any) -> dict[str, Any]:
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        version = None
    fits = version is not None and wanted.specifier.contains(version, prereleases=True)
    return {"version": version, "needs": str(wanted.specifier) or "any", "fits": fits}


def _requirements() -> list[str]:
    """What the installed package requires; that of its source where it is not installed."""
    try:
        return metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        project = _project()
    lines = list(project.get("dependencies", ()))
    for extra, held in project.get("optional-dependencies", {}).items():
        lines += [_with_marker(line, extra) for line in held]
    return lines


def _with_marker(line: str, extra: str) -> str:
    head, semicolon, marker = line.partition(";")
    own = f"({marker.strip()}) and " if semicolon else ""
    return f'{head.strip()} ; {own}extra == "{extra}"'


def _extra_names() -> list[str]:
    try:
        return metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return list(_project().get("optional-dependencies", {}))


def _project() -> dict[str, Any]:
    try:
        project: dict[str, Any] = tomllib.loads(_SOURCE.read_text("utf-8"))["project"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return {}
    return project
