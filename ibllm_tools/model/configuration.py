"""Sizes and choices of an ImageBind-LLM, kept in the `config.json` of its folder."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from transformers import AutoConfig, PretrainedConfig

from ibllm_tools.errors import ConfigurationError

_CHOICES = {
    "injection_form": ("values", "words"),
    "text_only": ("none", "zero_image"),
    "cache_form": ("code", "paper"),
}


class ImageBindLLMConfig(PretrainedConfig):  # type: ignore[misc]
    """Sizes and choices of an ImageBind-LLM.

    Attributes:
        text_config: Configuration of the base LLM (any class of transformers, or its dict).
        encoder_config: Configuration of the encoder; None for a model that is given features.
        joint_dim: Width of the encoder's joint space.
        n_bind_blocks: Residual blocks of the bind network.
        bind_hidden_dim: Inner width of a block; None is 4 x the LLM's width.
        legacy_bind: LayerNorm and biases in the bind network, as in the first released weights.
        n_injected_layers: How many of the LLM's last layers are injected; None is all.
        n_queries: Adapter tokens per layer. More than one are attended to by a softmax.
        injection_form: "values" adds gated value projections to the attention's result, per
            head, as in the released code; "words" adds the bound vector to the word tokens
            before each layer, the paper's Eq. 2.
        lora_rank: Rank of the LLM's low-rank deltas; 0 for none.
        added_bias: Whether biases are added to the LLM's maps.
        tuned_norms: Whether the LLM's norms belong to the adapter.
        text_only: What rows without media get: "none" (the bare LLM) or "zero_image" (the
            features of an all-zero image, as in the released training).
        use_cache_by_default: Whether a visual cache, if there is one, is used unless a call
            says otherwise.
        cache_k, cache_temperature, cache_weight, cache_form: Settings of the visual cache.
        cache_before_mixing: Whether the cache blends each medium before they are mixed, so that
            retrieval cannot pull a mix to one side. False blends the mix, as released.
        base_llm: Name or path of the base LLM, for a save of the adapter only.
        base_encoder: Name or path of a model folder to take the encoder from.
        base_adapter: Name or path of a model folder whose adapter has the weights that this
            folder's own leaves out, as in a checkpoint of training.
    """

    model_type = "imagebind_llm"
    sub_configs: ClassVar[dict[str, Any]] = {}
    has_no_defaults_at_init = True

    def __init__(
        self,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        encoder_config: PretrainedConfig | dict[str, Any] | None = None,
        *,
        joint_dim: int = 1024,
        n_bind_blocks: int = 3,
        bind_hidden_dim: int | None = None,
        legacy_bind: bool = False,
        n_injected_layers: int | None = None,
        n_queries: int = 1,
        injection_form: Literal["values", "words"] = "values",
        lora_rank: int = 0,
        added_bias: bool = False,
        tuned_norms: bool = False,
        text_only: Literal["none", "zero_image"] = "none",
        use_cache_by_default: bool = False,
        cache_k: int = 10,
        cache_temperature: float = 20.0,
        cache_weight: float = 0.5,
        cache_form: Literal["code", "paper"] = "code",
        cache_before_mixing: bool = False,
        base_llm: str | None = None,
        base_encoder: str | None = None,
        base_adapter: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.text_config = _read_llm_config(text_config)
        self.encoder_config = _read_encoder_config(encoder_config)
        self.joint_dim = joint_dim
        self.n_bind_blocks = n_bind_blocks
        self.bind_hidden_dim = bind_hidden_dim
        self.legacy_bind = legacy_bind
        self.n_injected_layers = n_injected_layers
        self.n_queries = n_queries
        self.injection_form = injection_form
        self.lora_rank = lora_rank
        self.added_bias = added_bias
        self.tuned_norms = tuned_norms
        self.text_only = text_only
        self.use_cache_by_default = use_cache_by_default
        self.cache_k = cache_k
        self.cache_temperature = cache_temperature
        self.cache_weight = cache_weight
        self.cache_form = cache_form
        self.cache_before_mixing = cache_before_mixing
        self.base_llm = base_llm
        self.base_encoder = base_encoder
        self.base_adapter = base_adapter
        super().__init__(**kwargs)
        self._check()

    def _check(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigurationError(
                    f"{name}={getattr(self, name)!r}, expected one of {', '.join(allowed)}"
                )
        if self.n_queries < 1 or (self.injection_form == "words" and self.n_queries > 1):
            raise ConfigurationError(
                f"n_queries={self.n_queries} with injection_form={self.injection_form!r}; use "
                'n_queries=1, or more with injection_form="values"'
            )


def _read_llm_config(config: PretrainedConfig | dict[str, Any] | None) -> PretrainedConfig | None:
    if not isinstance(config, dict):
        return config
    options = dict(config)
    return AutoConfig.for_model(options.pop("model_type", "llama"), **options)


def _read_encoder_config(
    config: PretrainedConfig | dict[str, Any] | None,
) -> PretrainedConfig | None:
    if not isinstance(config, dict):
        return config
    from ibllm_tools.encoder import ImageBindConfig

    return ImageBindConfig.from_dict(config)
