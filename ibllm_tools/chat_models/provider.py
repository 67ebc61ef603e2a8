"""`init_chat_model("imagebind:pocket")`: making this package known to LangChain's registries."""

from __future__ import annotations

from importlib import import_module

from ibllm_tools.errors import ConfigurationError

PROVIDER = "imagebind"
_REGISTRIES = (
    ("langchain.chat_models.base", "ibllm_tools.chat_models", "ChatImageBindLLM"),
    ("langchain.embeddings.base", "ibllm_tools.embeddings", "ImageBindEmbeddings"),
)


def register_provider() -> None:
    """Let `init_chat_model` and `init_embeddings` take "imagebind:pocket" and the like.

    LangChain's list of providers has no public entrance; call this once, before them. It may be
    called again.

    Raises:
        ConfigurationError: This release of LangChain keeps its list elsewhere.
    """
    for place, module, name in _REGISTRIES:
        registry = import_module(place)
        providers = getattr(registry, "_BUILTIN_PROVIDERS", None)
        creator = getattr(registry, "_call", None)
        if not isinstance(providers, dict) or creator is None:
            raise ConfigurationError(
                f"found no list of providers in {place}; expected LangChain 1.4 or a release "
                f"like it; make the object itself: `from ibllm_tools import {name}`"
            )
        providers[PROVIDER] = (module, name, creator)
