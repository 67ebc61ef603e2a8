"""The whole model as transformers has it: configuration, modelling, processing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ibllm_tools.model.configuration import ImageBindLLMConfig
    from ibllm_tools.model.modeling import ImageBindLLM
    from ibllm_tools.model.processing import ImageBindLLMProcessor

_HOME = {
    "ImageBindLLM": "modeling",
    "ImageBindLLMConfig": "configuration",
    "ImageBindLLMProcessor": "processing",
}

__all__ = ["ImageBindLLM", "ImageBindLLMConfig", "ImageBindLLMProcessor"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
