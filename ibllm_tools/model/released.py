"""Names and layouts of the released ImageBind-LLM files, mapped to this package's.

The released files follow Meta's LLaMA: `layers.0.attention.wq.weight`, with rotary pairs in
neighbouring channels, where transformers has them half a head apart. An adapter file holds the
bridge (`image_bind_*`), `prefix_query`, and every `llama.` key with bias, gate, lora or norm in it.
Nothing here opens a file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ibllm_tools.errors import CheckpointError
from ibllm_tools.model.configuration import ImageBindLLMConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import LlamaConfig

RELEASED_POSITIONS = 512
IGNORED_BASE_KEYS = ("rope.freqs",)
LINEARS = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}
NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
TOP = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
BRIDGE = {"norm": "norm", "f1": "gate", "f2": "down", "f3": "up"}
DELTAS = {"l1.weight": "lora_a", "l2.weight": "lora_b"}

_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
_BRIDGE = re.compile(r"image_bind_(norm|f1|f2|f3)_(\d+)\.(weight|bias)")
_LORA = re.compile(r"(attention|feed_forward)\.lora_(w\w)_(l[12]\.weight)")
_GATE = re.compile(r"llama\.layers\.(\d+)\.attention\.gate")


def llama_config(
    params: Mapping[str, Any], base: Mapping[str, Tensor], max_positions: int = RELEASED_POSITIONS
) -> LlamaConfig:
    """Read the sizes of a LLaMA folder.

    Args:
        params: Its `params.json`: `dim`, `n_heads`, `n_layers`, `norm_eps`, perhaps `n_kv_heads`.
        base: Its weights, by their released names.
        max_positions: Longest sequence.

    Raises:
        CheckpointError: A weight from which a size is read is missing.
    """
    from transformers import LlamaConfig

    for name in ("tok_embeddings.weight", "layers.0.feed_forward.w1.weight"):
        if name not in base:
            raise CheckpointError(f"found no {name}; expected the weights of a LLaMA folder")
    return LlamaConfig(
        vocab_size=base["tok_embeddings.weight"].shape[0],
        hidden_size=params["dim"],
        intermediate_size=base["layers.0.feed_forward.w1.weight"].shape[0],
        num_hidden_layers=params["n_layers"],
        num_attention_heads=params["n_heads"],
        num_key_value_heads=params.get("n_kv_heads") or params["n_heads"],
        rms_norm_eps=params["norm_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": params.get("rope_theta", 10000.0)},
        max_position_embeddings=max_positions,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


def llama_state(base: Mapping[str, Tensor], config: LlamaConfig) -> dict[str, Tensor]:
    """Rename a LLaMA file's weights for transformers' Llama, and reorder rotary channels.

    Raises:
        CheckpointError: A key has no counterpart; names it.
    """
    state = {}
    for key, value in base.items():
        if key.startswith(IGNORED_BASE_KEYS):
            continue
        state[llama_name(key)] = reorder(key, value, config)
    return state


def adapter_config(
    adapter: Mapping[str, Tensor], text_config: LlamaConfig, **options: Any
) -> ImageBindLLMConfig:
    """Read an adapter file's sizes: which bridge, how many layers, which deltas.

    Raises:
        CheckpointError: The file is not an adapter of ImageBind-LLM.
    """
    for name in ("image_bind_proj.weight", "prefix_query.weight"):
        if name not in adapter:
            raise CheckpointError(f"found no {name}; expected an adapter such as 7B.pth")
    ranks = {v.shape[0] for k, v in adapter.items() if k.endswith("_l1.weight")}
    return ImageBindLLMConfig(
        text_config,
        joint_dim=adapter["image_bind_proj.weight"].shape[1],
        legacy_bind="image_bind_norm_1.bias" in adapter,
        n_bind_blocks=sum(key.startswith("image_bind_f1_") for key in adapter if "weight" in key),
        bind_hidden_dim=adapter["image_bind_f1_1.weight"].shape[0],
        n_injected_layers=adapter["prefix_query.weight"].shape[0],
        lora_rank=ranks.pop() if ranks else 0,
        added_bias=any(key.endswith("wq.bias") for key in adapter),
        tuned_norms="llama.norm.weight" in adapter,
        **options,
    )


def adapter_state(adapter: Mapping[str, Tensor], config: ImageBindLLMConfig) -> dict[str, Tensor]:
    """Rename an adapter file's weights to those of `ImageBindLLM.adapter_state_dict`.

    Also works on a part of the file, and on gradients by the same names. Gates of layers that
    are not injected are left out; they have no influence.

    Raises:
        CheckpointError: A key has no counterpart; names it.
    """
    llama: Any = config.text_config
    state: dict[str, Tensor] = {}
    gates: dict[int, Tensor] = {}
    for key, value in adapter.items():
        if match := _GATE.fullmatch(key):
            gates[int(match[1])] = value.flatten()
        elif key == "prefix_query.weight":
            state["prefix_query"] = value.reshape(-1, config.n_queries, value.shape[-1])
        elif key.startswith("llama."):
            official = key.removeprefix("llama.")
            state[f"llm.{llama_name(official)}"] = reorder(official, value, llama)
        else:
            state[_bridge_name(key)] = value
    if gates:
        first = llama.num_hidden_layers - (config.n_injected_layers or llama.num_hidden_layers)
        injected = range(first, llama.num_hidden_layers)
        if missing := [f"llama.layers.{i}.attention.gate" for i in injected if i not in gates]:
            raise CheckpointError(f"found some gates, but not {', '.join(missing)}")
        state["gates"] = torch.stack([gates[i] for i in injected])
    return state


def rotary_to_halves(rows: Tensor, n_heads: int) -> Tensor:
    """Reorder output channels from neighbouring rotary pairs to pairs half a head apart.

    Args:
        rows: (H * D, ...), a weight, bias or low-rank factor of `wq` or `wk`.
        n_heads: H.
    """
    pairs = rows.reshape(n_heads, -1, 2, *rows.shape[1:])  # (H, D / 2, 2, ...)
    return pairs.transpose(1, 2).reshape(rows.shape)


def llama_name(key: str) -> str:
    """The counterpart of a key without `llama.` in an LLM with or without deltas."""
    if key in TOP:
        return TOP[key]
    layer = _LAYER.fullmatch(key)
    if layer is None:
        raise CheckpointError(f"unknown key {key}; expected those of a LLaMA file")
    prefix, rest = f"model.layers.{layer[1]}.", layer[2]
    if match := _LORA.fullmatch(rest):
        return f"{prefix}{LINEARS[f'{match[1]}.{match[2]}']}.{DELTAS[match[3]]}"
    owner, _, name = rest.rpartition(".")
    owner = LINEARS.get(owner) or NORMS.get(owner, "")
    if not owner or name not in ("weight", "bias"):
        raise CheckpointError(f"unknown key {key}; expected those of a LLaMA file")
    return f"{prefix}{owner}.{name}"


def _bridge_name(key: str) -> str:
    if key.startswith("image_bind_proj."):
        return key.replace("image_bind_proj", "bind_network.proj")
    match = _BRIDGE.fullmatch(key)
    if match is None:
        raise CheckpointError(f"unknown key {key}; expected those of an ImageBind-LLM adapter")
    return f"bind_network.blocks.{int(match[2]) - 1}.{BRIDGE[match[1]]}.{match[3]}"


def reorder(key: str, value: Tensor, config: Any) -> Tensor:
    """Reorder the channels of what `wq` and `wk` give; leave everything else as it is."""
    if key.endswith("_l1.weight"):
        return value
    if "wq" in key:
        return rotary_to_halves(value, config.num_attention_heads)
    if "wk" in key:
        return rotary_to_halves(value, config.num_key_value_heads)
    return value
