"""The half of `ImageBindLLM` before the LLM: media to features to injection."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.injection import (
    Injection,
    LateValues,
    PerRow,
    PerToken,
    WordOffsets,
    adapter_tokens,
    gated_values,
)
from ibllm_tools.llm import base_projection, injects, inspect_llm
from ibllm_tools.model.sensing import (
    cache_settings,
    mixed_features,
    mixed_heads,
    with_zero_images,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from ibllm_tools.bind import BindNetwork
    from ibllm_tools.cache import CacheSettings, VisualCache
    from ibllm_tools.encoder import ImageBind
    from ibllm_tools.llm import LlmShape
    from ibllm_tools.model.configuration import ImageBindLLMConfig
    from ibllm_tools.preprocess import MediaBatch


class Senses:
    """Methods of `ImageBindLLM` that read media and compute what is injected."""

    if TYPE_CHECKING:  # transformers evaluates the annotations of a model's classes
        config: ImageBindLLMConfig
        llm: Any
        encoder: ImageBind | None
        bind_network: BindNetwork
        gates: nn.Parameter
        prefix_query: nn.Parameter | None
        device: torch.device
        _cache: VisualCache | Callable[[], VisualCache] | None

    @cached_property
    def shape(self) -> LlmShape:
        """Sizes and layers of the base LLM."""
        return inspect_llm(self.llm)

    @property
    def cache(self) -> VisualCache | None:
        """The visual cache, read from its folder at first use; None if there is none."""
        if callable(self._cache):
            self._cache = self._cache()
        return self._cache

    @cache.setter
    def cache(self, cache: VisualCache | None) -> None:
        self._cache = cache

    # media -> features

    @torch.no_grad()
    def sense(
        self, batch: MediaBatch, cache: CacheSettings | bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Turn media into mixed features, one row per request.

        Args:
            batch: Preprocessed media with rows and weights.
            cache: Whether retrieval from the visual cache blends the features: True or
                settings (on), False (off), None (as `config.use_cache_by_default` says).

        Returns:
            Features (B, joint) and has_media (B,) bool.

        Raises:
            ConfigurationError: There is no encoder, or no cache where one is asked for.
        """
        if self.config.text_only == "zero_image":
            batch = with_zero_images(batch, self._encoder)
        has_media = batch.has_media.to(self.device)
        if not batch.inputs:
            return torch.zeros(batch.n_rows, self.config.joint_dim, device=self.device), has_media
        settings = self._cache_settings(cache)
        if settings is None:
            return mixed_features(batch, self._encoder).to(self.device), has_media
        blend = partial(self._cache_of(settings).blend, settings=settings)
        if self.config.cache_before_mixing:
            return mixed_features(batch, self._encoder, blend).to(self.device), has_media
        features = mixed_features(batch, self._encoder).to(self.device)
        return torch.where(has_media[:, None], blend(features), features), has_media

    @torch.no_grad()
    def image_embeds(self, batch: MediaBatch, cache: CacheSettings | bool | None = False) -> Tensor:
        """Mix media into the vector that an unCLIP image decoder takes.

        Args:
            batch: Preprocessed media with rows and weights; every row has media.
            cache: As for `sense`; the direction is blended, the length kept.

        Returns:
            (B, joint), in the scale of embeddings before normalisation.

        Source: the released ImageBind-LLM's image generation; points are divided by 5.
        """
        total = mixed_heads(batch, self._encoder).to(self.device)
        settings = self._cache_settings(cache)
        if settings is None:
            return total
        length = total.norm(dim=-1, keepdim=True)
        blended = self._cache_of(settings).blend(total / length, settings)
        rescaled: Tensor = blended * length
        return rescaled

    @property
    def _encoder(self) -> ImageBind:
        if self.encoder is None:
            raise ConfigurationError(
                "this model has no encoder; pass features= instead of media=, or load one with "
                "ImageBindLLM.from_llm(llm, encoder=ImageBind.from_pretrained(FOLDER))"
            )
        return self.encoder

    def _cache_of(self, settings: CacheSettings) -> VisualCache:
        """The model's own cache, or the one that the settings name."""
        if settings.folder is not None:
            from ibllm_tools.cache import open_cache

            return open_cache(settings.folder)
        if self.cache is None:
            raise ConfigurationError(
                "this model has no visual cache; set model.cache = VisualCache.load(FOLDER), "
                "or pass cache=False"
            )
        return self.cache

    def _cache_settings(self, cache: CacheSettings | bool | None) -> CacheSettings | None:
        if cache is None:
            cache = bool(self.config.use_cache_by_default and self._cache is not None)
        if isinstance(cache, bool):
            return cache_settings(self.config) if cache else None
        return cache

    # features -> injection

    def bind(self, features: Tensor) -> Tensor:
        """Bind features (B, joint) or (B, 1, joint); the result is (B, 1, dim)."""
        if features.shape[-1] != self.config.joint_dim:
            raise ConfigurationError(
                f"features have shape {tuple(features.shape)}, "
                f"expected (rows, {self.config.joint_dim})"
            )
        weight = self.bind_network.proj.weight
        bound: Tensor = self.bind_network(features.to(weight.device, weight.dtype))
        return bound[:, None] if bound.ndim == 2 else bound

    def injection(
        self,
        features: Tensor,
        has_media: Tensor | None = None,
        media_index: Tensor | None = None,
        *,
        late: bool = False,
    ) -> Injection | None:
        """Compute what is added in the LLM's layers; once per medium, not per token.

        Args:
            features: (B, joint), as from `sense`; (B, M, joint) with media_index.
            has_media: (B,) or (B, M) bool; what is False gives no injection. All when None.
            media_index: (B, T) int64 from 0 to M - 1: which of its row's M features a token
                gets, so that every turn of a conversation keeps its own media.
            late: Leave the value projections to the layers, and take part in the graph also
                where no row has media: what training in several processes needs.

        Returns:
            (L, B, 1, H, D) for the L injected layers; `AdapterTokens` or `WordOffsets` for the
            other forms, `LateValues` if late; `PerToken` with media_index; None if nothing has
            media and not late.

        Raises:
            ConfigurationError: A wrong width, or shapes that do not belong together.
        """
        if has_media is not None and not late and not has_media.any():
            return None
        if media_index is None:
            return self.inject_bound(self.bind(features), has_media, late=late)
        return self._injection_per_token(features, has_media, media_index, late=late)

    def _injection_per_token(
        self, features: Tensor, has_media: Tensor | None, media_index: Tensor, *, late: bool
    ) -> PerToken:
        if features.ndim != 3 or media_index.ndim != 2 or len(features) != len(media_index):
            raise ConfigurationError(
                f"found features {tuple(features.shape)} and media_index "
                f"{tuple(media_index.shape)}; expected (rows, media, {self.config.joint_dim}) and "
                "(rows, tokens)"
            )
        n_rows, n_media = features.shape[:2]
        if has_media is not None:
            has_media = has_media.flatten()
        source = self.inject_bound(self.bind(features.flatten(0, 1)), has_media, late=late)
        first = torch.arange(n_rows, device=media_index.device)[:, None] * n_media
        return PerToken(source, media_index + first)

    def _resolve(
        self,
        media: MediaBatch | None,
        features: Tensor | None,
        has_media: Tensor | None,
        injection: Injection | None,
        cache: CacheSettings | bool | None,
        *,
        media_index: Tensor | None = None,
        late: bool = False,
    ) -> Injection | None:
        """Take the one of media, features and injection that is given to an injection."""
        given = [x is not None for x in (media, features, injection)]
        if sum(given) > 1:
            raise ConfigurationError("pass one of media=, features= and injection=, not several")
        if media_index is not None and features is None:
            raise ConfigurationError("media_index= says which of features= a token gets; pass both")
        if media is not None:
            features, has_media = self.sense(media, cache)
        if features is not None:
            injection = self.injection(features, has_media, media_index, late=late)
        if injection is not None and not injects(self.llm):
            raise ConfigurationError(
                "the base LLM's attention was changed, so nothing would be injected; "
                "use model.set_attn_implementation('sdpa' or 'eager')"
            )
        return injection

    def inject_bound(
        self, bound: Tensor, has_media: Tensor | None = None, *, late: bool = False
    ) -> PerRow:
        """Compute the injection of bound vectors (B, 1, dim); see `injection`."""
        if self.prefix_query is None:
            return self._word_offsets(bound, has_media)
        tokens = bound[None] + self.prefix_query[:, None]  # (L, B, Q, dim)
        tokens = tokens.to(self.llm.dtype)
        if late and self.config.n_queries == 1:
            return LateValues(tokens[:, :, 0], self.gates, has_media)
        attentions = self.shape.attentions[-len(tokens) :]
        values = [base_projection(attention.v_proj) for attention in attentions]
        head_dim = self.shape.head_dim
        if self.config.n_queries == 1:
            return gated_values(tokens[:, :, 0], values, self.gates, head_dim, has_media)
        keys = [base_projection(attention.k_proj) for attention in attentions]
        return adapter_tokens(tokens, keys, values, self.gates, head_dim, has_media)

    def _word_offsets(self, bound: Tensor, has_media: Tensor | None) -> WordOffsets:
        offsets = self.gates[:, None, :, None] * bound[None]  # (L, B, 1, dim)
        if has_media is not None:
            offsets = torch.where(has_media.to(offsets.device)[None, :, None, None], offsets, 0)
        return WordOffsets(offsets)
