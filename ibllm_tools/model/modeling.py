"""`ImageBindLLM`: encoder, cache, bind network and base LLM as one transformers model.

```
media -> sense -> features (B, joint) -> bind -> injection (L, B, 1, H, D) -> base LLM
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel

from ibllm_tools.bind import BindNetwork
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.injection import Injection, add_word_offsets, expand_rows
from ibllm_tools.llm import (
    LORA_RANK,
    DeltaLinear,
    add_deltas,
    inspect_llm,
    merge_deltas,
    named_deltas,
    named_norms,
    use_injecting_attention,
)
from ibllm_tools.model import loading
from ibllm_tools.model.configuration import ImageBindLLMConfig
from ibllm_tools.model.senses import Senses

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers.modeling_outputs import CausalLMOutputWithPast

    from ibllm_tools.cache import CacheSettings, VisualCache
    from ibllm_tools.encoder import ImageBind
    from ibllm_tools.llm import LlmShape
    from ibllm_tools.preprocess import MediaBatch

Stage = Literal["bind", "instruct"]
IGNORED_LABEL = -100
QUERY_STD = 0.02


class ImageBindLLM(Senses, PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A causal LM with senses.

    Without media it computes exactly what its base LLM (with the LLM's deltas) computes.

    Args:
        config: Sizes and choices.
        llm: The base LLM; made from `config.text_config` with fresh weights when None.
        encoder: The encoder of media; made from `config.encoder_config` when None, and absent
            when that is None too: such a model takes `features`.
        cache: A visual cache.

    Source: ImageBind-LLM (arXiv 2309.03905), in the form of its released code by default.
    """

    config_class = ImageBindLLMConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(
        self,
        config: ImageBindLLMConfig,
        llm: PreTrainedModel | None = None,
        encoder: ImageBind | None = None,
        cache: VisualCache | None = None,
    ) -> None:
        if llm is None and config.text_config is None:
            raise ConfigurationError("text_config is None; give it, or pass llm=")
        super().__init__(config)
        self.llm = llm or AutoModelForCausalLM.from_config(config.text_config)
        config.text_config = self.llm.config
        use_injecting_attention(self.llm)
        shape = inspect_llm(self.llm)
        if encoder is None and config.encoder_config is not None:
            from ibllm_tools.encoder import ImageBind

            encoder = ImageBind(config.encoder_config)
        self.encoder = encoder
        config.encoder_config = encoder.config if encoder else None
        self._cache: VisualCache | Callable[[], VisualCache] | None = cache
        self.bind_network = BindNetwork(
            config.joint_dim,
            shape.dim,
            n_blocks=config.n_bind_blocks,
            hidden_dim=config.bind_hidden_dim,
            legacy=config.legacy_bind,
        )
        self._add_gates(shape)
        if config.lora_rank or config.added_bias:
            add_deltas(self.llm, config.lora_rank, bias=config.added_bias)
        self.generation_config = self.llm.generation_config
        self.post_init()

    def _add_gates(self, shape: LlmShape) -> None:
        """Make closed gates and the prefix queries, and for Eq. 2 the hooks that add offsets."""
        n_layers = self.n_injected_layers
        if not 0 < n_layers <= shape.n_layers:
            raise ConfigurationError(
                f"n_injected_layers={n_layers}, expected 1 to {shape.n_layers}, or None for all"
            )
        if self.config.injection_form == "words":
            self.gates = nn.Parameter(torch.zeros(n_layers, 1))
            self.prefix_query = None
            for layer in shape.layers[-n_layers:]:
                layer.register_forward_pre_hook(add_word_offsets, with_kwargs=True)
        else:
            self.gates = nn.Parameter(torch.zeros(n_layers, shape.n_heads))
            queries = torch.empty(n_layers, self.config.n_queries, shape.dim)
            self.prefix_query = nn.Parameter(queries.normal_(std=QUERY_STD))

    def init_weights(self) -> None:
        """Do nothing: every part has initialised its own weights."""

    @classmethod
    def from_llm(
        cls,
        llm: PreTrainedModel | str | Path,
        encoder: ImageBind | None = None,
        cache: VisualCache | None = None,
        *,
        llm_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Give an LLM untrained senses, with closed gates.

        Args:
            llm: A causal LM of transformers, or its folder or hub id.
            encoder: Its `config.joint_dim` sets that of the model.
            cache: A visual cache.
            llm_options: For loading the LLM: `dtype`, `device_map`, `quantization_config`...
            **options: Fields of `ImageBindLLMConfig`.
        """
        if not isinstance(llm, PreTrainedModel):
            options.setdefault("base_llm", str(llm))
            llm = loading.load_llm(llm, **(llm_options or {}))
        if encoder is not None:
            options.setdefault("joint_dim", encoder.config.joint_dim)
            options.setdefault("encoder_config", encoder.config)
        model = cls(ImageBindLLMConfig(llm.config, **options), llm, encoder, cache)
        model.bind_network.to(llm.device, llm.dtype)
        for parameter in (model.gates, model.prefix_query):
            if parameter is not None:
                parameter.data = parameter.to(llm.device, llm.dtype)
        return model

    @property
    def n_injected_layers(self) -> int:
        """How many of the last layers are injected."""
        n_layers: int | None = self.config.n_injected_layers
        return n_layers or self.config.get_text_config(decoder=True).num_hidden_layers

    # the language model

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        *,
        media: MediaBatch | None = None,
        features: Tensor | None = None,
        has_media: Tensor | None = None,
        media_index: Tensor | None = None,
        injection: Injection | None = None,
        cache: CacheSettings | bool | None = None,
        late: bool = False,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Run the LLM over tokens, with at most one of `media`, `features`, `injection`.

        Args:
            input_ids: (B, T).
            attention_mask: As in transformers, like the next four.
            position_ids: See there.
            past_key_values: See there.
            inputs_embeds: See there.
            use_cache: See there.
            logits_to_keep: See there.
            labels: (B, T); -100 is ignored. If all are, the loss is 0.
            media: Preprocessed media of each row.
            features: (B, joint) in place of media, or (B, M, joint) with media_index.
            has_media: (B,) or (B, M) bool, with features; what is False gives no injection.
            media_index: (B, T) int64 below M: which of its row's M features a token gets.
            injection: What `self.injection` returned, in place of both.
            cache: With media; see `sense`.
            late: With media or features; see `Senses.injection`.
            **kwargs: For the base LLM.

        Raises:
            ConfigurationError: Several of media, features and injection, or a wrong width.
        """
        injection = self._resolve(
            media, features, has_media, injection, cache, media_index=media_index, late=late
        )
        if injection is not None:
            kwargs["injection"] = injection
        output: CausalLMOutputWithPast = self.llm(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        if labels is not None and not (labels[:, 1:] != IGNORED_LABEL).any():
            output.loss = output.logits.sum() * 0.0
        return output

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        *,
        media: MediaBatch | None = None,
        features: Tensor | None = None,
        has_media: Tensor | None = None,
        media_index: Tensor | None = None,
        injection: Injection | None = None,
        cache: CacheSettings | bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generate as any model of transformers does; media are read once, before the first token.

        Args:
            inputs: (B, T) prompts, or pass `input_ids=`; pad on the left.
            media: Preprocessed media of each row.
            features: (B, joint) in place of media, or (B, M, joint) with media_index.
            has_media: (B,) or (B, M) bool, with features.
            media_index: (B, T) int64; see `forward`. New tokens get what the last one got.
            injection: In place of both.
            cache: With media; see `sense`.
            **kwargs: `attention_mask`, `max_new_tokens`, `num_beams`, `streamer`...
        """
        injection = self._resolve(
            media, features, has_media, injection, cache, media_index=media_index
        )
        if injection is not None:
            kwargs["injection"] = injection
        return super().generate(inputs, **kwargs)

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """Repeat each row for beams and several answers, the injection's rows as well."""
        injection = kwargs.pop("injection", None)
        ids, kwargs = super()._expand_inputs_for_generation(expand_size=expand_size, **kwargs)
        if injection is not None:
            kwargs["injection"] = (
                expand_rows(injection, expand_size) if expand_size > 1 else injection
            )
        return ids, kwargs

    def set_attn_implementation(self, attn_implementation: str, **_: Any) -> None:
        """Choose `sdpa` or `eager` for the base LLM, in its injecting form.

        Raises:
            ConfigurationError: Another implementation.
        """
        use_injecting_attention(self.llm, attn_implementation)

    def get_input_embeddings(self) -> nn.Module:
        """The base LLM's token embedding."""
        embeddings: nn.Module = self.llm.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> nn.Module | None:
        """The base LLM's output layer."""
        embeddings: nn.Module | None = self.llm.get_output_embeddings()
        return embeddings

    def get_decoder(self) -> nn.Module:
        """The base LLM without its output layer."""
        decoder: nn.Module = self.llm.get_decoder()
        return decoder

    # training

    def trainable_parameters(self, stage: Stage) -> dict[str, nn.Parameter]:
        """Name the weights that a stage trains.

        Args:
            stage: "bind" (bind network, gates, prefix queries) or "instruct" (the LLM's
                low-rank products, added biases and norms; they are added if absent).
        """
        if stage == "bind":
            heads = ("bind_network.", "gates", "prefix_query")
            return {n: p for n, p in self.named_parameters() if n.startswith(heads)}
        if stage != "instruct":
            raise ConfigurationError(f"stage {stage!r}, expected 'bind' or 'instruct'")
        self.add_deltas()
        found = [*named_deltas(self.llm), *named_norms(self.llm)]
        return {f"llm.{name}": parameter for name, parameter in found}

    def set_phase(self, stage: Stage) -> dict[str, nn.Parameter]:
        """Freeze all weights but those that the stage trains; returns these by name."""
        trainable = self.trainable_parameters(stage)
        self.requires_grad_(requires_grad=False)
        for parameter in trainable.values():
            parameter.requires_grad_()
        return trainable

    def add_deltas(self, rank: int = LORA_RANK) -> None:
        """Add low-rank products and biases, without effect yet, unless they are there."""
        if self.config.lora_rank or self.config.added_bias:
            return
        add_deltas(self.llm, rank, bias=True)
        self.config.lora_rank, self.config.added_bias = rank, True
        self.config.tuned_norms = True

    def merge(self) -> Self:
        """Fold the LLM's deltas into its weights, so that they cost no time; not to be saved."""
        merge_deltas(self.llm)
        return self

    @property
    def is_merged(self) -> bool:
        """Whether `merge` has changed the base LLM's weights."""
        return any(isinstance(m, DeltaLinear) and m.is_merged for m in self.llm.modules())

    # files

    def adapter_state_dict(self) -> dict[str, Tensor]:
        """The weights that a save of the adapter holds: bind network, gates, queries, deltas."""
        names = set(self.trainable_parameters("bind"))
        if self.config.lora_rank or self.config.added_bias:
            names |= {f"llm.{name}" for name, _ in named_deltas(self.llm)}
        if self.config.tuned_norms:
            names |= {f"llm.{name}" for name, _ in named_norms(self.llm)}
        return {name: x for name, x in self.state_dict().items() if name in names}

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        *,
        adapter_only: bool = False,
        **options: Any,
    ) -> None:
        """Write a folder that `from_pretrained` reads; see `ibllm_tools.model.loading`.

        Args:
            save_directory: The folder.
            is_main_process: Nothing is written when False.
            adapter_only: Leave LLM, encoder and cache out, and name where they are.
            **options: `max_shard_size` for the LLM; others of transformers are ignored.

        Raises:
            ConfigurationError: Deltas were merged, or a part that is left out has no name.
        """
        if is_main_process:
            loading.save(self, save_directory, adapter_only=adapter_only, **options)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Load a folder or hub id.

        Args:
            pretrained_model_name_or_path: What `save_pretrained` or `ibllm convert` wrote.
            **options: `dtype` (as saved when not given, float16 widened to float32 on CPU),
                `device_map`, `attn_implementation`, `quantization_config`; `revision`, `token`,
                `cache_dir`, `local_files_only` for the hub.

        Raises:
            CheckpointError: A file is missing, or keys do not fit; names them.
        """
        model: Self = loading.load(cls, pretrained_model_name_or_path, **options)
        return model
