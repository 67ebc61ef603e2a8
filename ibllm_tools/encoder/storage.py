"""A folder of trunks: `config.json` and one safetensors file per trunk.

Knows keys and files, not what the modules compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ibllm_tools.encoder.configuration import TRUNKS
from ibllm_tools.errors import CheckpointError

CONFIG_FILE = "config.json"
OPTIONAL_KEYS = ("mask", "log_logit_scale", "num_batches_tracked")  # last parts; fixed by design
SHOWN_KEYS = 8


def trunk_of_key(key: str) -> str | None:
    """Name the trunk that a released state-dict key belongs to; None if it is no encoder key."""
    part, _, rest = key.partition(".")
    if part == "point_trunk":
        return "point"
    name = rest.partition(".")[0]
    return name if part.startswith("modality_") and name in TRUNKS else None


def trunk_path(folder: Path, trunk: str) -> Path:
    """Name the file of a trunk."""
    return folder / f"{trunk}.safetensors"


def present_trunks(folder: Path) -> list[str]:
    """List the trunks whose files lie in a folder."""
    return [trunk for trunk in TRUNKS if trunk_path(folder, trunk).is_file()]


def read_trunk(folder: Path, trunk: str) -> dict[str, Tensor]:
    """Read the tensors of one trunk.

    Raises:
        CheckpointError: The file is missing or is not a whole safetensors file.
    """
    path = trunk_path(folder, trunk)
    if not path.is_file():
        present = ", ".join(present_trunks(folder)) or "none"
        raise CheckpointError(
            f"{folder} has no weights of the {trunk} trunk ({path.name}); present are: {present}. "
            f"Add the file, or use another modality"
        )
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); copy or convert it again"
        ) from error
    return tensors


def write_trunk(
    folder: Path, trunk: str, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> None:
    """Write one trunk's tensors; floating ones as `dtype` where it is given."""
    cast = {
        key: tensor.detach().to(dtype if tensor.is_floating_point() else None).contiguous().cpu()
        for key, tensor in tensors.items()
    }
    save_file(cast, trunk_path(folder, trunk), metadata={"format": "pt"})


def check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Compare names and shapes; keys that are fixed by design may be absent.

    Raises:
        CheckpointError: Names the missing, unexpected and misshapen keys.
    """
    missing = [k for k in expected if k not in found and not k.endswith(OPTIONAL_KEYS)]
    unexpected = [key for key in found if key not in expected]
    misshapen = [
        f"{key} {list(found[key].shape)} instead of {list(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    listed = [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
    if problems := [f"{kind}: {_shorten(keys)}" for kind, keys in listed if keys]:
        raise CheckpointError(
            f"{source} does not fit the config: {'; '.join(problems)}. "
            f"Use the config.json that belongs to these weights"
        )


def _shorten(keys: Iterable[str]) -> str:
    keys = sorted(keys)
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return ", ".join(keys[:SHOWN_KEYS]) + more
