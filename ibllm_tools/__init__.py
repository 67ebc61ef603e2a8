"""Senses for any LLM inside LangChain: ImageBind-LLM (arXiv 2309.03905).

Names are imported on first use, so that `import ibllm_tools` stays fast and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ibllm_tools.attachments import AttachmentMiddleware, AttachmentStore
    from ibllm_tools.cache import VisualCache
    from ibllm_tools.chat_models import ChatImageBindLLM, count_text_tokens, register_provider
    from ibllm_tools.embeddings import ImageBindEmbeddings
    from ibllm_tools.errors import (
        CheckpointError,
        ConfigurationError,
        IbllmError,
        MediaError,
        MissingExtraError,
    )
    from ibllm_tools.media import Media, MediaPolicy
    from ibllm_tools.media_agent import create_media_agent
    from ibllm_tools.model import ImageBindLLM, ImageBindLLMConfig, ImageBindLLMProcessor
    from ibllm_tools.retrievers import ImageBindRetriever
    from ibllm_tools.toolkit import ImageBindLLMToolkit
    from ibllm_tools.vectorstores import ImageBindVectorStore

__version__ = "0.1.0"

_HOME = {
    "AttachmentMiddleware": "attachments",
    "AttachmentStore": "attachments",
    "ChatImageBindLLM": "chat_models",
    "CheckpointError": "errors",
    "ConfigurationError": "errors",
    "IbllmError": "errors",
    "ImageBindEmbeddings": "embeddings",
    "ImageBindLLM": "model",
    "ImageBindLLMConfig": "model",
    "ImageBindLLMProcessor": "model",
    "ImageBindLLMToolkit": "toolkit",
    "ImageBindRetriever": "retrievers",
    "ImageBindVectorStore": "vectorstores",
    "Media": "media",
    "MediaError": "errors",
    "MediaPolicy": "media",
    "MissingExtraError": "errors",
    "VisualCache": "cache",
    "count_text_tokens": "chat_models",
    "create_media_agent": "media_agent",
    "register_provider": "chat_models",
}

__all__ = [
    "AttachmentMiddleware",
    "AttachmentStore",
    "ChatImageBindLLM",
    "CheckpointError",
    "ConfigurationError",
    "IbllmError",
    "ImageBindEmbeddings",
    "ImageBindLLM",
    "ImageBindLLMConfig",
    "ImageBindLLMProcessor",
    "ImageBindLLMToolkit",
    "ImageBindRetriever",
    "ImageBindVectorStore",
    "Media",
    "MediaError",
    "MediaPolicy",
    "MissingExtraError",
    "VisualCache",
    "count_text_tokens",
    "create_media_agent",
    "register_provider",
]


def __getattr__(name: str) -> Any:  # PEP 562 hands out classes of any type
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
