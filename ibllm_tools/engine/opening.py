"""One loaded model per folder, device and dtype, shared by everything in the process."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from ibllm_tools.checkpoints import POCKET, find_folder, no_progress_bar
from ibllm_tools.engine.senses import Senses
from ibllm_tools.engine.serving import Engine
from ibllm_tools.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

    from ibllm_tools.preprocess import PreprocessConfig

Loaded = TypeVar("Loaded")


class Placement(NamedTuple):
    """Where a model runs, and in which precision."""

    device: torch.device
    dtype: torch.dtype | None

    @classmethod
    def choose(cls, device: str | None, dtype: str | None) -> Placement:
        """Choose what is not given: an accelerator in bfloat16 where there is one, else the CPU.

        On a CPU, a `dtype` of None means as stored, with float16 widened to float32.

        Raises:
            ConfigurationError: There is no such device or dtype.
        """
        found = _default_device() if device is None else _named_device(device)
        if dtype is None:
            return cls(found, None if found.type == "cpu" else torch.bfloat16)
        named = getattr(torch, dtype, None)
        if not isinstance(named, torch.dtype) or not named.is_floating_point:
            raise ConfigurationError(
                f'dtype is {dtype!r}; expected "float32", "bfloat16" or "float16"'
            )
        return cls(found, named)


def _default_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _named_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigurationError(
            f'device {name!r} cannot be used here; expected for example "cpu" or "cuda:0"'
        ) from error
    return device


class _Shelf:
    """Objects that are expensive to load, one per key; loading locks its own key alone."""

    def __init__(self) -> None:
        self._loaded: dict[Hashable, Any] = {}
        self._locks: dict[Hashable, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, key: Hashable, load: Callable[[], Loaded]) -> Loaded:
        """Return the object of `key`, calling `load` if there is none yet."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._loaded:
                self._loaded[key] = load()
            loaded: Loaded = self._loaded[key]
            return loaded

    def peek(self, key: Hashable) -> Any:
        """Return the object of `key`, or None if it is not loaded."""
        return self._loaded.get(key)


_engines = _Shelf()
_senses = _Shelf()


def open_engine(model: str = POCKET, device: str | None = None, dtype: str | None = None) -> Engine:
    """Return the engine of a model, loading it if this process has not yet.

    Args:
        model: "pocket", a folder, or a hub id.
        device: As in torch; by default an accelerator where there is one.
        dtype: "float32", "bfloat16" or "float16"; see `Placement.choose`.

    Raises:
        CheckpointError: There is no such model, or its files do not fit.
        ConfigurationError: There is no such device or dtype.
    """
    key = (_source(model), Placement.choose(device, dtype))
    return _engines.get(key, lambda: _load_engine(*key))


def open_senses(model: str = POCKET, device: str | None = None, dtype: str | None = None) -> Senses:
    """Return the encoder of a model without its LLM; arguments and errors as in `open_engine`.

    `model` may also be an encoder's own folder.
    """
    key = (_source(model), Placement.choose(device, dtype))
    return _senses.get(key, lambda: _load_senses(*key))


def _source(model: str) -> str:
    folder = find_folder(model)
    return model if folder is None else str(folder.resolve())


def _load_engine(source: str, placement: Placement) -> Engine:
    from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor

    with no_progress_bar():
        model = ImageBindLLM.from_pretrained(source, dtype=placement.dtype)
    shared = _senses.peek((source, placement))
    if shared is not None and shared.dtype == model.dtype:
        model.encoder = shared.encoder
    # Merged deltas cost no time per token; this model is never saved.
    model = model.merge().to(placement.device).eval()
    return Engine(model, ImageBindLLMProcessor.from_pretrained(source))


def _load_senses(source: str, placement: Placement) -> Senses:
    from ibllm_tools.encoder import ImageBind
    from ibllm_tools.model.loading import fetch_folder

    folder = fetch_folder(source, allow_patterns=["*.json", "encoder/*"])
    encoder = folder / "encoder"
    device, dtype = placement.device, placement.dtype or torch.float32
    shared = _engines.peek((source, placement))
    if shared is not None and shared.model.dtype == dtype:
        return Senses(shared.model.encoder, shared.processor.preprocess, device, dtype)
    opened = ImageBind.from_pretrained(
        encoder if encoder.is_dir() else folder, device=device, dtype=dtype
    )
    return Senses(opened, _preprocess_config(folder), device, dtype)


def _preprocess_config(folder: Path) -> PreprocessConfig:
    """The preprocessing of a model folder; that of `imagebind_huge` where none is named."""
    from ibllm_tools.preprocess import PreprocessConfig

    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return PreprocessConfig()
    try:
        return PreprocessConfig.from_dict(json.loads(path.read_text("utf-8"))["preprocess"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); save the model again, or copy the file again"
        ) from error
