"""Weights: of the model, from headers alone, and of the experts that stand beside it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ibllm_tools.checkpoints import find_folder, weight_files
from ibllm_tools.errors import IbllmError


def of_model(model: str, problems: list[str]) -> dict[str, Any]:
    """Measure the weights of a model; nothing is loaded.

    Args:
        model: "pocket", a folder, or a hub id.
        problems: What keeps it from running is added here.
    """
    report: dict[str, Any] = {"name": model, "folder": None, "files": {}, "trunks": [],
                              "values": {}}  # fmt: skip
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
        "trunks": sorted(f.path.stem for f in files if f.path.parent == folder / "encoder"),
        "values": dict(sum((Counter(file.n_values) for file in files), Counter())),
    }


def of_experts() -> dict[str, dict[str, Any]]:
    """The detector and the recognizer that are used where none is named."""
    from ibllm_tools.experts import (
        DEFAULT_DETECTOR,
        DEFAULT_RECOGNIZER,
        has_detector,
        has_recognizer,
    )

    return {
        "detector": {"name": DEFAULT_DETECTOR, "here": has_detector(), "tool": "detect_objects"},
        "recognizer": {
            "name": DEFAULT_RECOGNIZER,
            "here": has_recognizer(),
            "tool": "transcribe_speech",
        },
    }


def size_of(place: Path) -> dict[str, Any]:
    """How many files a folder or file holds, and how many bytes."""
    files = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
    return {"place": str(place), "files": len(files), "bytes": sum(map(_n_bytes, files))}


def _n_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # deleted meanwhile
        return 0
