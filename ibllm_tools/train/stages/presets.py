"""Named settings to begin with, and where each comes from.

The paper's presets follow the launch scripts and documentation that were released with
ImageBind-LLM (OpenGVLab/LLaMA-Adapter, folder imagebind_LLM: `exps/pretrain.sh`,
`exps/finetune.sh`, defaults of the training script), read as numbers:

| | bind | instruct |
|---|---|---|
| learning rate for 256 rows | 1e-4 | 1e-3 |
| rows | 8 GPUs x 4 | 8 GPUs x 4 |
| peak learning rate at that | 1.25e-5 | 1.25e-4 |
| length | 150 sub-epochs of 1/50 of the data = 3 passes | 4 passes |
| warm-up | 5 of 150 sub-epochs | 1 of 4 passes |
| weight decay | 0.05 | 0.02 |
| AdamW betas | 0.9, 0.95 | 0.9, 0.95 |
| schedule | half cosine to 0 | half cosine to 0 |
| longest row | 512 | 512 |
| rows without media | - | an all-zero image |

Not verified: whether gradients were clipped (here at norm 1), and the text of the paper itself,
which names fewer numbers. Different here on purpose: bfloat16 in place of float16 with a loss
scaler, and the whole data in random order in place of shuffled sub-epochs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ibllm_tools.errors import ConfigurationError


@dataclass(frozen=True)
class Preset:
    """Settings under a name, and what they are for."""

    about: str
    values: dict[str, Any] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    "paper-bind": Preset(
        "stage 1 of the released 7B model (8 processes x 4 rows)",
        {
            "stage": "bind",
            "batch": 4,
            "epochs": 3.0,
            "warmup": 5 / 150,
            "lr_per_256": 1e-4,
            "weight_decay": 0.05,
            "max_tokens": 512,
        },
    ),
    "paper-instruct": Preset(
        "stage 2 of the released 7B model (8 processes x 4 rows)",
        {
            "stage": "instruct",
            "batch": 4,
            "epochs": 4.0,
            "warmup": 0.25,
            "lr_per_256": 1e-3,
            "weight_decay": 0.02,
            "max_tokens": 512,
            "lora_rank": 16,
            "text_only": "zero_image",
        },
    ),
    "paper-quality": Preset(
        "stage 2b: instruct continued on a small high-quality set; a tenth of stage 2's rate "
        "(the paper names the step, not its numbers: these are ours)",
        {
            "stage": "instruct",
            "batch": 4,
            "epochs": 2.0,
            "warmup": 0.1,
            "lr_per_256": 1e-4,
            "weight_decay": 0.02,
            "max_tokens": 512,
            "text_only": "zero_image",
        },
    ),
    "pocket-bind": Preset(
        "stage 1 at pocket size on a CPU, in minutes",
        {
            "stage": "bind",
            "batch": 32,
            "steps": 1500,
            "warmup": 100,
            "lr": 2e-3,
            "open_gates": 0.5,
            "gate_lr_scale": 5.0,
            "max_tokens": 256,
            "save_every": 250,
            "precision": "bf16",
        },
    ),
    "pocket-instruct": Preset(
        "stage 2 at pocket size on a CPU, in minutes",
        {
            "stage": "instruct",
            "batch": 32,
            "steps": 1500,
            "warmup": 100,
            "lr": 1e-3,
            "gate_lr_scale": 5.0,
            "tune_bind": True,
            "max_tokens": 256,
            "save_every": 250,
            "precision": "bf16",
        },
    ),
}


def preset_values(name: str, stage: str | None = None) -> dict[str, Any]:
    """The settings of a preset.

    Args:
        name: One of `PRESETS`.
        stage: The stage that it is wanted for.

    Raises:
        ConfigurationError: There is none of this name, or it is for the other stage.
    """
    if name not in PRESETS:
        raise ConfigurationError(f"preset {name!r}, expected one of {', '.join(PRESETS)}")
    values = PRESETS[name].values
    if stage is not None and values["stage"] != stage:
        fitting = [key for key, preset in PRESETS.items() if preset.values["stage"] == stage]
        raise ConfigurationError(
            f"preset {name!r} is for the stage {values['stage']!r}, expected one for {stage!r}: "
            f"{', '.join(fitting)}"
        )
    return {**values, "preset": name}
