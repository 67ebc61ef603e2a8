"""The attention functions that add an injection to the stock one's result."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ibllm_tools.injection.forms import (
    AdapterTokens,
    Injection,
    LateValues,
    PerToken,
    WordOffsets,
)
from ibllm_tools.injection.values import gated_values

STOCK_ATTENTION = ("sdpa", "eager")
PREFIX = "imagebind_"


def attention_name(stock: str) -> str:
    """Name the injecting attention function that stands on a stock one (`sdpa` or `eager`)."""
    return stock if stock.startswith(PREFIX) else PREFIX + stock


def register_attention() -> None:
    """Make `imagebind_sdpa` and `imagebind_eager` known to transformers. Harmless if repeated."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask, sdpa_mask

    AttentionInterface.register(PREFIX + "sdpa", sdpa_attention)
    AttentionInterface.register(PREFIX + "eager", eager_attention)
    AttentionMaskInterface.register(PREFIX + "sdpa", sdpa_mask)
    AttentionMaskInterface.register(PREFIX + "eager", eager_mask)


def sdpa_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    injection: Injection | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Run stock scaled-dot-product attention, then add the injection of this layer.

    Args:
        module: The attention module; its `layer_idx` and `config` are read.
        query: (B, H, T, D), rotated.
        key: (B, H_kv, S, D).
        value: (B, H_kv, S, D).
        attention_mask: As for the stock function.
        injection: See `add_injection`; None leaves the stock result as it is.
        **options: Passed to the stock function.

    Returns:
        (B, T, H, D) and no attention weights.
    """
    out, weights = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if injection is None:
        return out, weights
    return add_injection(module, out, query, injection, options.get("scaling")), weights


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    injection: Injection | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Run the model's own eager attention, then add the injection of this layer.

    Arguments and result are those of `sdpa_attention`; the weights are (B, H, T, S).
    """
    stock = sys.modules[type(module).__module__].eager_attention_forward
    out, weights = stock(module, query, key, value, attention_mask, **options)
    if injection is None:
        return out, weights
    return add_injection(module, out, query, injection, options.get("scaling")), weights


def add_injection(
    module: Any,
    out: Tensor,
    query: Tensor,
    injection: Injection,
    scaling: float | None,
) -> Tensor:
    """Add what belongs to this layer to the attention's result.

    Args:
        module: The attention module.
        out: (B, T, H, D) result of the stock attention.
        query: (B, H, T, D), rotated.
        injection: One tensor (B, 1, H, D) per injected layer, or another form.
        scaling: Factor of the attention scores; 1/sqrt(D) when None.

    Returns:
        (B, T, H, D).
    """
    layer = module.layer_idx - (module.config.num_hidden_layers - len(injection))
    if layer < 0 or isinstance(injection, WordOffsets):
        return out
    if isinstance(injection, PerToken):
        return _add_per_token(module, out, query, injection, scaling)
    if isinstance(injection, AdapterTokens):
        return out + attend_to_adapter(query, injection, layer, scaling).to(out)
    if isinstance(injection, LateValues):
        return out + _late_values(module, injection, layer).to(out)
    values = injection[layer]
    if values.dtype != out.dtype or values.device != out.device:
        values = values.to(out)
    return out + values


def _add_per_token(
    module: Any, out: Tensor, query: Tensor, injection: PerToken, scaling: float | None
) -> Tensor:
    """Add to each token what its own medium gives; arguments as in `add_injection`."""
    source = injection.source
    layer = module.layer_idx - (module.config.num_hidden_layers - len(source))
    if isinstance(source, WordOffsets):
        return out
    rows = injection.rows_of(out.shape[1])
    if isinstance(source, AdapterTokens):
        picked = AdapterTokens(
            _pick(source.keys[layer], rows)[None],  # (1, B, T, H, Q, D)
            _pick(source.values[layer], rows)[None],
            source.gates[layer : layer + 1],
            _pick(source.open_rows, rows),
        )
        return out + _attend_per_token(query, picked, scaling).to(out)
    if isinstance(source, LateValues):
        values = _late_values(module, source, layer)  # (R, 1, H, D)
    else:
        values = source[layer]
    return out + _pick(values[:, 0], rows).to(out)


def _pick(entries: Tensor, rows: Tensor) -> Tensor:
    """Pick entries (R, ...) by row numbers (B, T): (B, T, ...)."""
    picked = entries.index_select(0, rows.flatten().to(entries.device))
    return picked.view(*rows.shape, *entries.shape[1:])


def _attend_per_token(query: Tensor, adapter: AdapterTokens, scaling: float | None) -> Tensor:
    """`attend_to_adapter` where every token has an adapter of its own, one layer: (B, T, H, D)."""
    alone = query.transpose(1, 2).flatten(0, 1)[:, :, None]  # (B * T, H, 1, D)
    flat = AdapterTokens(
        adapter.keys.flatten(1, 2),
        adapter.values.flatten(1, 2),
        adapter.gates,
        adapter.open_rows.flatten(),
    )
    result = attend_to_adapter(alone, flat, 0, scaling)  # (B * T, 1, H, D)
    return result.view(query.shape[0], query.shape[2], *result.shape[2:])


def _late_values(module: Any, injection: LateValues, layer: int) -> Tensor:
    """Compute the values of one layer, (B, 1, H, D), where that layer runs."""
    projection = getattr(module.v_proj, "without_delta", module.v_proj)
    values = gated_values(
        injection.tokens[layer : layer + 1],
        [projection],
        injection.gates[layer : layer + 1],
        module.head_dim,
        injection.open_rows,
    )
    return values[0]


def attend_to_adapter(
    query: Tensor, adapter: AdapterTokens, layer: int, scaling: float | None
) -> Tensor:
    """Attend from every word token to the adapter's tokens, in a softmax of its own.

    Args:
        query: (B, H, T, D), rotated.
        adapter: Keys, values and gates of all injected layers.
        layer: Which of them.
        scaling: Factor of the scores; 1/sqrt(D) when None.

    Returns:
        (B, T, H, D), gated.

    Source: LLaMA-Adapter V2's zero-initialised attention, as in the released ImageBind-LLM.
    """
    keys, values = adapter.keys[layer].to(query), adapter.values[layer].to(query)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ keys.transpose(-1, -2) * scale  # (B, H, T, Q)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    gate = adapter.gates[layer].to(query)[None, :, None, None]  # (1, H, 1, 1)
    result = gate * (weights @ values)
    result = torch.where(adapter.open_rows.to(query.device)[:, None, None, None], result, 0)
    return result.transpose(1, 2)


def add_word_offsets(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Add a layer's offset to its word tokens; a forward pre-hook that keeps no state.

    Source: ImageBind-LLM (arXiv 2309.03905), Eq. 2.
    """
    injection = kwargs.get("injection")
    offsets = injection.source if isinstance(injection, PerToken) else injection
    if not isinstance(offsets, WordOffsets):
        return None
    attention: Any = module.self_attn
    layer = attention.layer_idx - (attention.config.num_hidden_layers - len(offsets))
    if layer < 0:
        return None
    hidden = args[0] if args else kwargs["hidden_states"]
    added = offsets.offsets[layer]  # (B, 1, dim)
    if isinstance(injection, PerToken):
        added = _pick(added[:, 0], injection.rows_of(hidden.shape[1]))
    hidden = hidden + added.to(hidden)
    if args:
        return (hidden, *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": hidden}
