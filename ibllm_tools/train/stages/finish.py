"""From a checkpoint to a folder that stands alone: the files of LLM and encoder are copied.

Frozen weights are copied as files, so that they stay what they were, whatever the precision of
the training.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ibllm_tools.encoder import ImageBind
from ibllm_tools.errors import CheckpointError
from ibllm_tools.model.loading import (
    ADAPTER_FILE,
    CACHE_FOLDER,
    ENCODER_FOLDER,
    LLM_FOLDER,
    fetch_folder,
    read_adapter,
)
from ibllm_tools.train.stages.checkpoints import is_whole
from ibllm_tools.train.stages.start import Start

_LLM_SUFFIXES = (".safetensors", ".bin", ".json")
_TOKENIZER_PARTS = ("token", "vocab", "special", "preprocessor")
_ALONGSIDE = ("concepts.json",)


def complete_adapter(folder: Path) -> None:
    """Fill in the weights of the adapter that a checkpoint leaves to the folder it names."""
    settings = _read_config(folder)
    if base := settings.get("base_adapter"):
        state = {
            **read_adapter(fetch_folder(base) / ADAPTER_FILE),
            **read_adapter(folder / ADAPTER_FILE),
        }
        save_file(state, folder / ADAPTER_FILE, metadata={"format": "pt"})
        _write_config(folder, settings | {"base_adapter": None})


def add_parts(folder: Path, start: Start | None = None) -> None:
    """Copy LLM, encoder and visual cache into a folder that names them.

    Args:
        folder: A folder with the whole adapter.
        start: Where the run started, for its visual cache and concepts.
    """
    settings = _read_config(folder)
    if settings.get("base_llm"):
        _copy_llm(fetch_folder(settings["base_llm"]), folder / LLM_FOLDER)
    if settings.get("base_encoder"):
        place = fetch_folder(settings["base_encoder"])
        inner = place / ENCODER_FOLDER
        ImageBind.from_pretrained(inner if inner.is_dir() else place).save_pretrained(
            folder / ENCODER_FOLDER
        )
    if start is not None and start.folder is not None:
        if (start.folder / CACHE_FOLDER).is_dir():
            shutil.copytree(start.folder / CACHE_FOLDER, folder / CACHE_FOLDER, dirs_exist_ok=True)
        for name in _ALONGSIDE:
            if (start.folder / name).is_file():
                shutil.copyfile(start.folder / name, folder / name)
    _write_config(folder, settings | {"base_llm": None, "base_encoder": None})


def export_checkpoint(checkpoint: Path, out: Path, *, whole: bool = True) -> Path:
    """Turn a checkpoint of training into a model folder.

    Args:
        checkpoint: `OUT/checkpoint-N`.
        out: The folder to write.
        whole: Copy LLM and encoder, in place of naming them.

    Raises:
        CheckpointError: The checkpoint is not whole.
    """
    if not is_whole(checkpoint):
        raise CheckpointError(f"{checkpoint} is no whole checkpoint; use another one of its run")
    out.mkdir(parents=True, exist_ok=True)
    for path in checkpoint.iterdir():
        if path.is_file() and path.suffix not in (".pt", ".pth") and path.name not in _RUN_FILES:
            shutil.copyfile(path, out / path.name)
    complete_adapter(out)
    if whole:
        add_parts(out)
    return out


_RUN_FILES = ("done.json", "rows.json", "trainer_state.json")


def _copy_llm(source: Path, folder: Path) -> None:
    inner = source / LLM_FOLDER
    source = inner if inner.is_dir() else source
    folder.mkdir(parents=True, exist_ok=True)
    has_safe = any(source.glob("*.safetensors"))
    for path in sorted(source.iterdir()):
        is_text = path.name.startswith(_TOKENIZER_PARTS)
        is_double = has_safe and ".bin" in path.name
        if path.suffix in _LLM_SUFFIXES and not is_text and not is_double:
            shutil.copyfile(path, folder / path.name)


def _read_config(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return settings


def _write_config(folder: Path, settings: dict[str, Any]) -> None:
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
