"""Reading released files: pickles without running what they hold, and without their whole size.

Tensors are mapped from the file where its format allows it, and read when they are used.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ibllm_tools.errors import CheckpointError

WRAPPERS = ("model", "state_dict", "module")
SHOWN_KEYS = 8


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a `.pth` file, by name.

    A dict that holds the weights under `model`, `state_dict` or `module`, beside an optimiser's
    state for example, is unwrapped.

    Raises:
        CheckpointError: The file is missing, damaged, holds more than plain data, or no weights.
    """
    loaded = _load(Path(path))
    for name in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, expected named tensors")
    tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors, expected a model's weights")
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file is missing or is no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, expected a JSON object")
    return values


def on_meta(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Shapes and dtypes without values, to check a mapping before anything is read."""
    return {key: torch.empty_like(value, device="meta") for key, value in tensors.items()}


def refuse_misfits(
    source: str,
    *,
    missing: Iterable[str] = (),
    unexpected: Iterable[str] = (),
    misshapen: Iterable[str] = (),
) -> None:
    """Raise if any key does not fit.

    Raises:
        CheckpointError: Names the keys of each kind.
    """
    listed = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    sorted_keys = {kind: sorted(keys) for kind, keys in listed.items()}
    if problems := [f"{kind}: {_shorten(keys)}" for kind, keys in sorted_keys.items() if keys]:
        raise CheckpointError(
            f"{source} does not fit; {'; '.join(problems)}. "
            f"Check that the file is whole and belongs to the others"
        )


def _load(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"found no file {path}; check the path")
    # A training run's options lie beside its weights as a Namespace, which is plain data.
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{path} holds more than tensors and plain data, or is damaged; nothing in it was "
                f"run. Get the file from its publisher again ({_first_line(error)})"
            ) from error
        except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({_first_line(error)}); download it again"
            ) from error


def _is_zip(path: Path) -> bool:
    """Files of torch before 1.6 are no zip archives and cannot be mapped."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _shorten(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return ", ".join(keys[:SHOWN_KEYS]) + more
