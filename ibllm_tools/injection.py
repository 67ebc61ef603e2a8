"""How a bound vector reaches the LLM: an attention function that adds to the stock one's result.

```
bound vector + prefix query -> value projection -> tanh(gate) -> injection (L, B, 1, H, D)
LLM layer: stock attention (B, T, H, D) + injection[layer] -> output projection
```

The values are computed once per request and travel as the call argument `injection`; no module
holds them, so neither threads nor rows of a batch can mix them up. `PerToken` gives the tokens of
one row different media. L counts the injected layers, which are the last ones of the LLM. Nothing
here knows media or how an LLM is loaded.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STOCK_ATTENTION = ("sdpa", "eager")
PREFIX = "imagebind_"


@dataclass(frozen=True)
class AdapterTokens:
    """Adapters of more than one token, over which every word token attends.

    Attributes:
        keys: (L, B, H, Q, D), neither normalised nor rotated.
        values: (L, B, H, Q, D).
        gates: (L, H), already through tanh; 0 for rows without media is in `open_rows`.
        open_rows: (B,) bool; a row that is False gets nothing.
    """

    keys: Tensor
    values: Tensor
    gates: Tensor
    open_rows: Tensor

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class WordOffsets:
    """The paper's Eq. 2: vectors that are added to the word tokens before each layer.

    Attributes:
        offsets: (L, B, 1, dim), gates applied.
    """

    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True)
class LateValues:
    """One-token adapters whose values each layer computes itself, with its own projection.

    The result is that of `gated_values`. Sharded training needs this form: a layer's weights are
    whole only while that layer runs.

    Attributes:
        tokens: (L, B, dim) bound vector plus prefix query of each injected layer.
        gates: (L, H), before tanh.
        open_rows: (B,) bool; a row that is False gets nothing. All rows when None.
    """

    tokens: Tensor
    gates: Tensor
    open_rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)


PerRow: TypeAlias = "Tensor | Sequence[Tensor] | AdapterTokens | WordOffsets | LateValues"


@dataclass(frozen=True)
class PerToken:
    """An injection that differs from token to token: which row of another one each token gets.

    It lets every turn of a conversation keep the media that it was said with. The values are
    still computed once per medium; a layer picks those of its tokens.

    Attributes:
        source: An injection of R rows, one per medium.
        rows: (B, T) int64, the row of `source` that a token gets. A call with one token gets the
            last column, and tokens beyond T get it too, so that an answer goes on with it.
    """

    source: PerRow
    rows: Tensor

    def __len__(self) -> int:
        return len(self.source)

    def rows_of(self, n_tokens: int) -> Tensor:
        """The row of each of `n_tokens` tokens that a layer sees, (B, n_tokens).

        Raises:
            ConfigurationError: Fewer tokens than rows, but more than one.
        """
        n_rows = self.rows.shape[1]
        if n_tokens == n_rows:
            return self.rows
        if n_tokens == 1:
            return self.rows[:, -1:]
        if n_tokens < n_rows:
            raise ConfigurationError(
                f"found {n_tokens} tokens and {n_rows} entries of media_index; expected as many, "
                "or one token that follows the prompt"
            )
        last = self.rows[:, -1:].expand(-1, n_tokens - n_rows)
        return torch.cat([self.rows, last], 1)


Injection: TypeAlias = "PerRow | PerToken"


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


def gated_values(
    tokens: Tensor,
    projections: Sequence[Callable[[Tensor], Tensor]],
    gates: Tensor,
    head_dim: int,
    open_rows: Tensor | None = None,
) -> Tensor:
    """Compute the values that one-token adapters add to every attention result.

    Args:
        tokens: (L, B, dim) bound vector plus prefix query of each injected layer.
        projections: L value projections without LoRA, each (..., dim) -> (..., H_kv * D).
        gates: (L, H), before tanh.
        head_dim: D.
        open_rows: (B,) bool; rows that are False get zeros. All rows when None.

    Returns:
        (L, B, 1, H, D). Heads of a key-value group share its value.
    """
    projected = _project(tokens, projections)  # (L, B, H_kv * D)
    values = _heads(projected, gates.shape[-1], head_dim)  # (L, B, H, D)
    values = torch.tanh(gates).to(values.device)[:, None, :, None] * values
    if open_rows is not None:
        values = torch.where(open_rows.to(values.device)[None, :, None, None], values, 0)
    return values[:, :, None]


def adapter_tokens(
    tokens: Tensor,
    keys: Sequence[Callable[[Tensor], Tensor]],
    values: Sequence[Callable[[Tensor], Tensor]],
    gates: Tensor,
    head_dim: int,
    open_rows: Tensor | None = None,
) -> AdapterTokens:
    """Compute keys and values of adapters of more than one token.

    Args:
        tokens: (L, B, Q, dim).
        keys: L key projections without LoRA.
        values: L value projections without LoRA.
        gates: (L, H), before tanh.
        head_dim: D.
        open_rows: (B,) bool; all rows when None.
    """
    n_heads = gates.shape[-1]
    if open_rows is None:
        open_rows = torch.ones(tokens.shape[1], dtype=torch.bool, device=tokens.device)
    return AdapterTokens(
        keys=_heads(_project(tokens, keys), n_heads, head_dim).transpose(2, 3),
        values=_heads(_project(tokens, values), n_heads, head_dim).transpose(2, 3),
        gates=torch.tanh(gates),
        open_rows=open_rows,
    )


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


def expand_rows(injection: Injection, n: int) -> Injection:
    """Repeat every row `n` times, for beams or several answers per request."""
    if isinstance(injection, PerToken):
        return PerToken(injection.source, injection.rows.repeat_interleave(n, 0))
    if isinstance(injection, AdapterTokens):
        return AdapterTokens(
            injection.keys.repeat_interleave(n, 1),
            injection.values.repeat_interleave(n, 1),
            injection.gates,
            injection.open_rows.repeat_interleave(n, 0),
        )
    if isinstance(injection, WordOffsets):
        return WordOffsets(injection.offsets.repeat_interleave(n, 1))
    if isinstance(injection, LateValues):
        rows = injection.open_rows
        return LateValues(
            injection.tokens.repeat_interleave(n, 1),
            injection.gates,
            None if rows is None else rows.repeat_interleave(n, 0),
        )
    if isinstance(injection, Tensor):
        return injection.repeat_interleave(n, 1)
    return [layer.repeat_interleave(n, 0) for layer in injection]


def _project(tokens: Tensor, projections: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    """Apply one projection per layer; the results are gathered on the tokens' device."""
    return torch.stack(
        [project(x).to(tokens.device) for project, x in zip(projections, tokens, strict=True)]
    )


def _heads(projected: Tensor, n_heads: int, head_dim: int) -> Tensor:
    """Split (..., H_kv * D) into (..., H, D), repeating each key-value head for its group."""
    heads = projected.reshape(*projected.shape[:-1], -1, head_dim)
    return heads.repeat_interleave(n_heads // heads.shape[-2], dim=-2)
