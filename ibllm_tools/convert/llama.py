"""A LLaMA folder (`params.json`, `consolidated.*.pth`) → transformers' Llama, in shards.

Large models come in several files, each with a slice of every matrix. A released matrix is put
together, renamed and reordered only when its shard is written, so memory is bounded by a shard.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ibllm_tools.convert.files import read_json, read_weights, refuse_misfits
from ibllm_tools.errors import CheckpointError
from ibllm_tools.model.released import LINEARS, NORMS, TOP, llama_config, llama_state

if TYPE_CHECKING:
    from transformers import LlamaConfig

MAX_SHARD_BYTES = 2_000_000_000
POSITIONS = 2048  # LLaMA's own; the adapter was trained on 512
ROPE = "rope."  # tables that can be computed
SPLIT_BY_COLUMN = ("attention.wo.", "feed_forward.w2.", "tok_embeddings.")
PARAMS = ("dim", "n_heads", "n_layers", "norm_eps")


class LlamaFiles:
    """The weights of a LLaMA folder by their released names; read when they are used.

    Attributes:
        shapes: Every weight on the meta device, slices put together.

    Raises:
        CheckpointError: A file is missing, cannot be read, or the slices do not fit each other.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = sorted(folder.glob("consolidated.*.pth"))
        if not paths:
            raise CheckpointError(
                f"found no consolidated.*.pth in {folder}; expected a LLaMA folder as Meta "
                f"publishes it, with params.json and tokenizer.model"
            )
        self.params = read_json(folder / "params.json")
        if absent := [name for name in PARAMS if name not in self.params]:
            raise CheckpointError(f"{folder / 'params.json'} has no {', '.join(absent)}")
        self._slices = [_without_rope(read_weights(path)) for path in paths]
        for path, part in zip(paths, self._slices, strict=True):
            first = self._slices[0].keys()
            refuse_misfits(str(path), missing=first - part.keys(), unexpected=part.keys() - first)
        self.shapes = {key: self._join(key, "meta") for key in self._slices[0]}

    def tensor(self, key: str) -> Tensor:
        """Read one weight, slices put together."""
        return self._join(key, "cpu")

    def _join(self, key: str, device: str) -> Tensor:
        first = self._slices[0][key]
        if first.ndim == 1 or len(self._slices) == 1:  # norms are the same in all files
            return torch.empty_like(first, device="meta") if device == "meta" else first.clone()
        parts = [part[key] for part in self._slices]
        if device == "meta":
            parts = [torch.empty_like(part, device="meta") for part in parts]
        by_column = key.startswith(SPLIT_BY_COLUMN) or any(f".{n}" in key for n in SPLIT_BY_COLUMN)
        if key.startswith("tok_embeddings.") and first.shape[1] == self.params["dim"]:
            by_column = False  # later models split the vocabulary
        return torch.cat(parts, dim=1 if by_column else 0)


def read_config(files: LlamaFiles) -> LlamaConfig:
    """Read the sizes and check every name and shape; no weight is read.

    Raises:
        CheckpointError: Names the missing, unexpected and misshapen keys.
    """
    positions = files.params.get("max_seq_len", POSITIONS)
    config = llama_config(files.params, files.shapes, positions)
    expected = _expected_shapes(config)
    found = {key: tuple(value.shape) for key, value in files.shapes.items()}
    refuse_misfits(
        str(files.folder),
        missing=expected.keys() - found.keys(),
        unexpected=found.keys() - expected.keys(),
        misshapen=[
            f"{key} {list(found[key])} instead of {list(expected[key])}"
            for key in expected.keys() & found.keys()
            if found[key] != expected[key]
        ],
    )
    return config


def write_llama(
    files: LlamaFiles,
    config: LlamaConfig,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Iterator[str]:
    """Write shards one after another, then the index and the config; yields what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = _plan(files, dtype, max_shard_bytes)
    weight_map: dict[str, str] = {}
    for number, keys in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        state = llama_state({key: files.tensor(key) for key in keys}, config)
        state = {key: value.to(dtype or value.dtype).contiguous() for key, value in state.items()}
        save_file(state, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(state, name)
        yield f"{folder.name}/{name}"
    index = {"metadata": {"total_size": _total_bytes(files, dtype)}, "weight_map": weight_map}
    text = json.dumps(index, indent=2) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    config.dtype = dtype or files.shapes["output.weight"].dtype
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)


def _without_rope(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if ROPE not in key}


def _expected_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Released name and shape of every weight, from the shapes that transformers expects."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        ours = AutoModelForCausalLM.from_config(config).state_dict()
    names = dict(TOP)
    for layer in range(config.num_hidden_layers):
        for theirs, name in {**LINEARS, **NORMS}.items():
            names[f"layers.{layer}.{theirs}.weight"] = f"model.layers.{layer}.{name}.weight"
    return {theirs: tuple(ours[name].shape) for theirs, name in names.items()}


def _plan(files: LlamaFiles, dtype: torch.dtype | None, max_bytes: int) -> list[list[str]]:
    """Group the keys into shards of at most `max_bytes`, a larger tensor alone."""
    shards: list[list[str]] = [[]]
    used = 0
    for key, shape in files.shapes.items():
        size = shape.numel() * (dtype or shape.dtype).itemsize
        if used and used + size > max_bytes:
            shards.append([])
            used = 0
        shards[-1].append(key)
        used += size
    return shards


def _total_bytes(files: LlamaFiles, dtype: torch.dtype | None) -> int:
    return sum(x.numel() * (dtype or x.dtype).itemsize for x in files.shapes.values())
