"""The base LLM: what is needed of its shape, and the small deltas that tuning adds to it.

Any decoder of the Llama shape will do: a list of layers, each with a `self_attn` of separate
`q_proj`, `k_proj`, `v_proj`, `o_proj`. Nothing here knows media.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.injection import STOCK_ATTENTION, attention_name, register_attention

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from transformers import PreTrainedModel

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
BIASED = ("q_proj", "o_proj", *FEED_FORWARD)
LORA_RANK = 16
EXPECTED = "expected a decoder whose layers have self_attn.{q_proj, k_proj, v_proj, o_proj}"
NEXT_STEP = "use a Llama, Qwen, Mistral or Gemma model"


@dataclass(frozen=True)
class LlmShape:
    """Sizes of a base LLM and its decoder layers, first to last."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    dim: int
    layers: tuple[nn.Module, ...]

    @property
    def attentions(self) -> list[Any]:
        """The attention module of every layer."""
        return [layer.self_attn for layer in self.layers]


class DeltaLinear(nn.Module):
    """A frozen linear map plus what tuning adds: `base(x) + B(A(x)) + bias`.

    The low-rank product has no scaling factor. The base may be quantised; deltas keep
    their own dtype.

    Args:
        base: The linear map of the LLM.
        rank: Rank of the product; 0 for none.
        bias: Whether to add a bias.

    Source: LoRA (arXiv 2106.09685) and LLaMA-Adapter V2's bias tuning (arXiv 2304.15010).
    """

    def __init__(self, base: nn.Module, rank: int, *, bias: bool) -> None:
        super().__init__()
        self.base = base
        self.is_merged = False
        self.lora_a: nn.Parameter | None = None
        self.lora_b: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        n_out, n_in = self.out_features, self.in_features
        like = _float_like(base)
        if rank:
            self.lora_a = nn.Parameter(torch.empty(rank, n_in, **like))
            self.lora_b = nn.Parameter(torch.zeros(n_out, rank, **like))
            nn.init.kaiming_uniform_(self.lora_a, a=5**0.5)
        if bias:
            self.bias = nn.Parameter(torch.zeros(n_out, **like))

    @property
    def in_features(self) -> int:
        """Width of the input."""
        return int(self.base.in_features)  # type: ignore[arg-type]

    @property
    def out_features(self) -> int:
        """Width of the output."""
        return int(self.base.out_features)  # type: ignore[arg-type]

    @property
    def weight(self) -> Tensor:
        """The base's weight; some models look at its dtype."""
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        return weight

    def delta(self, x: Tensor) -> Tensor | None:
        """What is added to the base's result for (..., in): (..., out), or None."""
        added: Tensor | None = self.bias
        if self.lora_a is not None and self.lora_b is not None:
            low = F.linear(x.to(self.lora_a.dtype), self.lora_a)
            added = F.linear(low, self.lora_b, self.bias)
        return added

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        y: Tensor = self.base(x)
        added = None if self.is_merged else self.delta(x)
        return y if added is None else y + added.to(y.dtype)

    def without_delta(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out) as the base LLM does, also after merging."""
        y: Tensor = self.base(x)
        added = self.delta(x) if self.is_merged else None
        return y if added is None else y - added.to(y.dtype)

    @torch.no_grad()
    def merge(self) -> bool:
        """Fold the deltas into the base's weight, so that they cost nothing; False if quantised."""
        weight = self.base.weight
        if self.is_merged or not isinstance(weight, Tensor) or not weight.is_floating_point():
            return self.is_merged
        if self.lora_a is not None and self.lora_b is not None:
            weight += (self.lora_b.float() @ self.lora_a.float()).to(weight.dtype)
        if self.bias is not None:
            _add_bias(self.base, self.bias)
        self.is_merged = True
        return True


def inspect_llm(llm: PreTrainedModel) -> LlmShape:
    """Read the shape of a base LLM.

    Raises:
        ConfigurationError: It has no separate q, k, v and o projections, or does not let
            its attention function be chosen.
    """
    decoder: Any = llm.get_decoder() if hasattr(llm, "get_decoder") else llm.base_model
    name = type(llm).__name__
    layers = tuple(getattr(decoder, "layers", ()))
    if not layers:
        raise ConfigurationError(f"{name}: found no `layers`; {EXPECTED}; {NEXT_STEP}")
    for index, layer in enumerate(layers):
        _check_layer(name, index, layer)
    if not getattr(decoder, "_supports_attention_backend", False):
        raise ConfigurationError(
            f"{name}: its attention function cannot be chosen, so nothing can be injected; "
            f"expected a model on transformers' AttentionInterface; {NEXT_STEP}"
        )
    config = decoder.config
    head_dim = layers[0].self_attn.head_dim
    shape = LlmShape(
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        n_kv_heads=layers[0].self_attn.v_proj.out_features // head_dim,
        head_dim=head_dim,
        dim=config.hidden_size,
        layers=layers,
    )
    _check_widths(name, shape)
    return shape


def use_injecting_attention(llm: PreTrainedModel, implementation: str | None = None) -> None:
    """Put the injecting attention function in the place of the stock one it stands on.

    Without an `injection` argument the LLM computes exactly what it did before.

    Args:
        llm: The base LLM.
        implementation: `sdpa` or `eager`; what the LLM has now when None.

    Raises:
        ConfigurationError: Another attention implementation.
    """
    register_attention()
    stock = implementation or llm.get_decoder().config._attn_implementation or "sdpa"
    stock = stock.removeprefix("imagebind_")
    if stock not in STOCK_ATTENTION:
        raise ConfigurationError(
            f"attention {stock!r} has no injecting form; load with attn_implementation="
            f"{' or '.join(map(repr, STOCK_ATTENTION))}"
        )
    llm.set_attn_implementation(attention_name(stock))
    if llm.get_decoder().config._attn_implementation != attention_name(stock):
        raise ConfigurationError(
            f"{type(llm).__name__}: its attention function cannot be chosen; {NEXT_STEP}"
        )


def injects(llm: PreTrainedModel) -> bool:
    """Say whether the LLM's attention would add an injection."""
    name = llm.get_decoder().config._attn_implementation
    return bool(name) and name.startswith("imagebind_")


def add_deltas(llm: PreTrainedModel, rank: int = LORA_RANK, *, bias: bool = True) -> None:
    """Wrap the projections and feed-forward maps of every layer, with no effect yet.

    Low-rank products go to all seven maps, biases to all but `k_proj` and `v_proj`.
    Maps that an LLM does not have (mixtures of experts) are left out.
    """
    for layer in inspect_llm(llm).layers:
        for owner, names in ((layer.self_attn, PROJECTIONS), (layer.mlp, FEED_FORWARD)):
            for name in names:
                base = getattr(owner, name, None)
                is_linear = isinstance(base, nn.Module) and hasattr(base, "in_features")
                if base is not None and is_linear and not isinstance(base, DeltaLinear):
                    wrapped = DeltaLinear(base, rank, bias=bias and name in BIASED)
                    setattr(owner, name, wrapped)


def named_deltas(llm: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield name and parameter of every low-rank product and added bias."""
    for prefix, module in llm.named_modules():
        if isinstance(module, DeltaLinear):
            yield from module.named_parameters(prefix, recurse=False)


def named_norms(llm: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield name and parameter of every normalisation layer."""
    for name, parameter in llm.named_parameters():
        if "norm" in name.split(".")[-2] and ".lora_" not in name:
            yield name, parameter


def merge_deltas(llm: nn.Module) -> None:
    """Fold all deltas into the LLM's weights, for faster decoding; cannot be undone.

    Value projections keep their wrapper, since the injection uses them without LoRA.
    """
    for module in list(llm.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, DeltaLinear) and child.merge() and name != "v_proj":
                setattr(module, name, child.base)


def without_deltas(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a tuned LLM's state dict to the names of the plain LLM, leaving the deltas out."""
    wrapped = {key.rsplit(".base.", 1)[0] for key in state if ".base." in key}
    plain = {}
    for key, value in state.items():
        owner, _, name = key.rpartition(".")
        if owner in wrapped:
            continue  # a delta of a wrapped map
        plain[f"{owner.removesuffix('.base')}.{name}" if owner else key] = value
    return plain


def base_projection(linear: nn.Module) -> Any:
    """The map without its LoRA and added bias, as a callable (..., in) -> (..., out)."""
    return linear.without_delta if isinstance(linear, DeltaLinear) else linear


def _check_layer(name: str, index: int, layer: nn.Module) -> None:
    attention = getattr(layer, "self_attn", None)
    missing = [p for p in PROJECTIONS if not hasattr(getattr(attention, p, None), "in_features")]
    if missing:
        found = [n for n, _ in (attention or layer).named_children()]
        raise ConfigurationError(
            f"{name}: layer {index} has no {', '.join(missing)} (found {', '.join(found)}); "
            f"{EXPECTED}; {NEXT_STEP}"
        )


def _check_widths(name: str, shape: LlmShape) -> None:
    width = shape.n_heads * shape.head_dim
    for index, attention in enumerate(shape.attentions):
        found = attention.q_proj.out_features, attention.o_proj.in_features
        if found != (width, width) or shape.n_heads % shape.n_kv_heads:
            raise ConfigurationError(
                f"{name}: layer {index} has q_proj, o_proj of widths {found}, expected {width} "
                f"({shape.n_heads} heads of {shape.head_dim}); {NEXT_STEP}"
            )


def _float_like(base: nn.Module) -> dict[str, Any]:
    """Device of the base, and its dtype if that is a float dtype, else float32 (quantised)."""
    weight: Any = base.weight
    return {
        "device": weight.device,
        "dtype": weight.dtype if weight.is_floating_point() else torch.float32,
    }


def _add_bias(base: Any, bias: Tensor) -> None:
    if base.bias is None:
        base.bias = nn.Parameter(bias.detach().to(base.weight.dtype).clone(), requires_grad=False)
    else:
        base.bias += bias.to(base.bias.dtype)
