"""Low-rank products to and from PEFT's format, so that other tools read what we train.

PEFT's products are scaled by alpha / rank; ours have no factor, so they are written with
alpha = rank, and a factor that is read goes into the second matrix. Biases that stage 2 adds to
maps without one have no place in PEFT's format; the export says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ibllm_tools.errors import CheckpointError, ConfigurationError, MissingExtraError
from ibllm_tools.llm import FEED_FORWARD, PROJECTIONS, DeltaLinear, named_deltas, named_norms
from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor

PREFIX = "base_model.model."
WEIGHTS_FILE = "adapter_model.safetensors"
MAPS = (*PROJECTIONS, *FEED_FORWARD)


def export_peft(model: str | Path | ImageBindLLM, folder: str | Path) -> list[str]:
    """Write the LLM's low-rank products, and its tuned norms, as a PEFT adapter.

    Args:
        model: A model with products, or its folder.
        folder: Where to; gets `adapter_config.json` and `adapter_model.safetensors`.

    Returns:
        Lines for people: what was written, and what PEFT's format cannot hold.

    Raises:
        ConfigurationError: The model has no low-rank products.
        MissingExtraError: PEFT is not installed.
    """
    peft = _peft()
    if not isinstance(model, ImageBindLLM):
        model = ImageBindLLM.from_pretrained(model)
    if not model.config.lora_rank:
        raise ConfigurationError(
            "found no low-rank products; train them with `ibllm train instruct`"
        )
    state = {
        f"{PREFIX}{name}.weight".replace("lora_a", "lora_A").replace("lora_b", "lora_B"): x
        for name, x in named_deltas(model.llm)
        if not name.endswith("bias")
    }
    norms = dict(named_norms(model.llm)) if model.config.tuned_norms else {}
    state |= {f"{PREFIX}{name}": x for name, x in norms.items()}
    biases = [x for name, x in named_deltas(model.llm) if name.endswith("bias")]
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=model.config.lora_rank,
        lora_alpha=model.config.lora_rank,
        target_modules=sorted({name.split(".")[-2] for name, _ in named_deltas(model.llm)}),
        modules_to_save=sorted({name.split(".")[-2] for name in norms}) or None,
        base_model_name_or_path=model.config.base_llm or model.llm.config.name_or_path,
        inference_mode=True,
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    plain = {name: x.detach().cpu().contiguous() for name, x in state.items()}
    save_file(plain, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    return _describe(folder, len(state) - len(norms), len(norms), biases)


def _describe(folder: Path, n_products: int, n_norms: int, biases: list[Any]) -> list[str]:
    lines = [f"{folder}: {n_products // 2} low-rank products and {n_norms} norms"]
    if largest := max((float(x.detach().abs().max()) for x in biases), default=0.0):
        lines.append(
            f"left out: {len(biases)} added biases (largest value {largest:.3g}), which PEFT's "
            "format cannot hold; the adapter differs from the model by these"
        )
    return lines


def import_peft(adapter: str | Path, model: str | Path, out: str | Path) -> Path:
    """Put a LoRA adapter of PEFT into a model's LLM, and write the model.

    Args:
        adapter: A PEFT adapter's folder or hub id.
        model: A model folder whose LLM has no low-rank products yet.
        out: The folder to write.

    Raises:
        CheckpointError: The adapter does not fit the LLM.
        ConfigurationError: An adapter of another kind, or a model that has products.
        MissingExtraError: PEFT is not installed.
    """
    peft = _peft()
    config = peft.PeftConfig.from_pretrained(str(adapter))
    _check_kind(str(adapter), config)
    loaded = ImageBindLLM.from_pretrained(model)
    if loaded.config.lora_rank:
        raise ConfigurationError(f"{model} has low-rank products already; start from one without")
    loaded.add_deltas(config.r)
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    weights = peft.utils.load_peft_weights(str(adapter), device="cpu")
    _fill(loaded, weights, scale, str(adapter))
    loaded.save_pretrained(out)
    ImageBindLLMProcessor.from_pretrained(model).save_pretrained(out)
    return Path(out)


def _check_kind(name: str, config: Any) -> None:
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    odd = [
        option
        for option in ("use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
        if getattr(config, option, None)
    ]
    if kind != "LORA" or odd or getattr(config, "bias", "none") != "none":
        raise ConfigurationError(
            f"{name} is an adapter of type {kind} with {', '.join(odd) or 'biases'}; expected "
            "plain LoRA of one rank"
        )


@torch.no_grad()
def _fill(model: ImageBindLLM, weights: dict[str, Tensor], scale: float, name: str) -> None:
    maps = {key: m for key, m in model.llm.named_modules() if isinstance(m, DeltaLinear)}
    for key, value in weights.items():
        owner, _, part = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        wrapped = maps.get(owner)
        target = getattr(wrapped, part.lower(), None) if wrapped else None
        if target is None or target.shape != value.shape:
            expected = f"{', '.join(MAPS)} of {len(model.shape.layers)} layers"
            raise CheckpointError(
                f"{name}: {key} {list(value.shape)} does not fit; expected {expected}"
            )
        target.copy_(value * scale if part == "lora_B" else value)
    for wrapped in maps.values():
        given = wrapped.lora_b
        if given is not None and not given.any() and wrapped.lora_a is not None:
            wrapped.lora_a.zero_()  # a map that the adapter leaves as it is


def _peft() -> Any:
    try:
        import peft
        import peft.utils
    except ImportError as error:
        raise MissingExtraError("peft", "train") from error
    return peft
