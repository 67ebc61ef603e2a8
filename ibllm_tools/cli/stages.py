"""`ibllm train bind`, `train instruct` and their company: the paper's stages for any model.

Settings come from a preset, then a YAML file, then options; what comes later wins.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ibllm_tools.cli.options import JsonOption, print_json
from ibllm_tools.errors import ConfigurationError

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--features",
        metavar="STORE[@SHARE]",
        help="A feature store, as `ibllm embed --out` writes it. Several are mixed; @2 draws "
        "its rows twice as often as @1.",
    ),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="FILE[@SHARE]",
        help="A data file or folder, whose media are encoded on the way (slow; for small sets "
        "and rows of text only).",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="A recipe: settings as YAML."),
]
PresetOption = Annotated[
    str | None, typer.Option(help="Settings to begin with; `ibllm train presets` lists them.")
]
StartOption = Annotated[
    str | None,
    typer.Option(
        help='Where to start: "pocket", a model folder or hub id, or a plain causal LM of '
        "transformers with --encoder."
    ),
]
EncoderOption = Annotated[
    str | None,
    typer.Option(help="For a plain LM: the folder of an encoder, or of a model that has one."),
]
OutOption = Annotated[Path | None, typer.Option(help="The model folder to write.")]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on from the newest whole checkpoint in OUT.")
]
MediaRootOption = Annotated[
    Path | None, typer.Option(help="The folder below which the media of --data must lie.")
]
ReportOption = Annotated[
    list[str] | None, typer.Option("--report-to", help="A tracker, such as tensorboard.")
]
ModalityOption = Annotated[
    list[str] | None,
    typer.Option("--modality", help="Media to train on; image alone, as in the paper."),
]
OtherOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Any other setting of a recipe, such as clip=0.5."
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Optimizer steps; else by --epochs.")]
Epochs = Annotated[float | None, typer.Option(help="Passes over the rows.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Rows per process and forward pass.")]
Accumulate = Annotated[int | None, typer.Option(min=1, help="Forward passes per step.")]
Rate = Annotated[float | None, typer.Option(help="Peak learning rate.")]
Warmup = Annotated[float | None, typer.Option(help="Steps of warm-up; below 1 a share of all.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Longest row.")]
Precision = Annotated[str | None, typer.Option(help="auto, bf16 or fp32.")]
Activations = Annotated[
    bool | None,
    typer.Option(
        "--activation-checkpointing/--no-activation-checkpointing",
        help="Compute activations again in the backward pass, to save memory.",
    ),
]
SaveEvery = Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints.")]
Keep = Annotated[int | None, typer.Option(min=1, help="How many checkpoints are kept.")]
Save = Annotated[
    str | None, typer.Option(help="At the end: whole, or adapter (LLM and encoder are named).")
]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes that prepare rows.")]
Device = Annotated[str | None, typer.Option(help="auto or cpu.")]
Seed = Annotated[int | None, typer.Option(help="Seed of order and new weights.")]


def train_bind(
    config: ConfigOption = None,
    preset: PresetOption = None,
    model: StartOption = None,
    encoder: EncoderOption = None,
    features: SetOption = None,
    data: DataOption = None,
    media_root: MediaRootOption = None,
    modality: ModalityOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    steps: Steps = None,
    epochs: Epochs = None,
    batch: Batch = None,
    accumulate: Accumulate = None,
    lr: Rate = None,
    warmup: Warmup = None,
    max_tokens: MaxTokens = None,
    precision: Precision = None,
    activation_checkpointing: Activations = None,
    save_every: SaveEvery = None,
    keep: Keep = None,
    save: Save = None,
    report_to: ReportOption = None,
    workers: Workers = None,
    device: Device = None,
    seed: Seed = None,
    other: OtherOption = None,
) -> None:
    """Stage 1: train bind network, prefix queries and gates on image-text pairs.

    In several processes: `accelerate launch --num_processes 8 -m ibllm_tools.cli train bind ...`
    """
    _train("bind", resume, **_without(locals(), "resume"))


def train_instruct(
    config: ConfigOption = None,
    preset: PresetOption = None,
    model: StartOption = None,
    encoder: EncoderOption = None,
    features: SetOption = None,
    data: DataOption = None,
    media_root: MediaRootOption = None,
    modality: ModalityOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    text_only: Annotated[
        str | None,
        typer.Option(
            help="What rows without media get: none (the bare LLM), or zero_image (the features "
            "of an all-zero image, as in the paper)."
        ),
    ] = None,
    tune_bind: Annotated[
        bool | None,
        typer.Option("--tune-bind/--no-tune-bind", help="Train what stage 1 trains as well."),
    ] = None,
    lora_rank: Annotated[int | None, typer.Option(min=1, help="Rank of new products.")] = None,
    steps: Steps = None,
    epochs: Epochs = None,
    batch: Batch = None,
    accumulate: Accumulate = None,
    lr: Rate = None,
    warmup: Warmup = None,
    max_tokens: MaxTokens = None,
    precision: Precision = None,
    activation_checkpointing: Activations = None,
    save_every: SaveEvery = None,
    keep: Keep = None,
    save: Save = None,
    report_to: ReportOption = None,
    workers: Workers = None,
    device: Device = None,
    seed: Seed = None,
    other: OtherOption = None,
) -> None:
    """Stage 2: train low-rank products, biases and norms of the LLM on instructions.

    Every answer of a conversation is learned. For stage 2b start from the result, with a small
    set of high quality.
    """
    _train("instruct", resume, **_without(locals(), "resume"))


def list_presets(as_json: JsonOption = False) -> None:
    """List the presets of `train bind` and `train instruct`."""
    from ibllm_tools.train.stages.presets import PRESETS

    if as_json:
        print_json({name: {"about": p.about, **p.values} for name, p in PRESETS.items()})
        return
    for name, preset in PRESETS.items():
        typer.echo(f"{name}: {preset.about}")
        settings = (f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
                    for key, value in preset.values.items())  # fmt: skip
        typer.echo(f"    {', '.join(settings)}")


def export(
    checkpoint: Annotated[Path, typer.Argument(help="OUT/checkpoint-N of a run.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    save: Annotated[str, typer.Option(help="whole, or adapter.")] = "whole",
) -> None:
    """Turn a checkpoint of `train bind` or `train instruct` into a model folder."""
    from ibllm_tools.train.stages.finish import export_checkpoint

    if save not in ("whole", "adapter"):
        raise typer.BadParameter(f"found {save!r}, expected whole or adapter", param_hint="--save")
    typer.echo(f"{export_checkpoint(checkpoint, out, whole=save == 'whole')}: ready")


def to_peft(
    model: Annotated[Path, typer.Argument(help="A model folder with low-rank products.")],
    out: Annotated[Path, typer.Option(help="The PEFT adapter folder to write.")],
) -> None:
    """Write the LLM's low-rank products and norms as an adapter that PEFT and vLLM read."""
    from ibllm_tools.train.stages.peft_format import export_peft

    for line in export_peft(model, out):
        typer.echo(line)


def from_peft(
    adapter: Annotated[str, typer.Argument(help="A PEFT LoRA adapter: a folder or hub id.")],
    model: Annotated[Path, typer.Option(help="The model folder that gets it.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
) -> None:
    """Put a LoRA adapter that PEFT trained into a model's LLM."""
    from ibllm_tools.train.stages.peft_format import import_peft

    typer.echo(f"{import_peft(adapter, model, out)}: ready")


def _without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _train(stage: str, resume: bool, **options: Any) -> None:
    from ibllm_tools.train.stages.config import make_config
    from ibllm_tools.train.stages.run import train_stage

    values = settings(stage, **options)
    config = make_config(values, str(options["config"] or "settings"))
    folder = train_stage(config, resume=resume, say=lambda line: typer.echo(line, err=True))
    if os.environ.get("RANK", "0") == "0":  # one line, also where several processes train
        typer.echo(f'{folder}: ready; try `ibllm ask "What is this?" FILE --model {folder}`')


def settings(
    stage: str,
    *,
    config: Path | None = None,
    preset: str | None = None,
    features: list[str] | None = None,
    data: list[str] | None = None,
    media_root: Path | None = None,
    modality: list[str] | None = None,
    other: list[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Put settings together: a preset, then a recipe, then options.

    Raises:
        ConfigurationError: An unknown preset, a recipe of the other stage, or `--set` without =.
    """
    from ibllm_tools.train.stages.config import read_yaml
    from ibllm_tools.train.stages.presets import preset_values

    recipe = {} if config is None else read_yaml(config)
    if recipe.get("stage", stage) != stage:
        raise ConfigurationError(
            f"{config} is a recipe for stage {recipe['stage']!r}; use `ibllm train "
            f"{recipe['stage']}`"
        )
    named = preset or recipe.get("preset")
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if features or data:
        sets = [_as_set("features", text) for text in features or ()]
        sets += [_as_set("data", text, media_root) for text in data or ()]
        given["sets"] = sets
    if modality:
        given["modalities"] = modality
    given |= dict(_named_value(text) for text in other or ())
    given = {name: str(v) if isinstance(v, Path) else v for name, v in given.items()}
    values = preset_values(named, stage) if named else {}
    for layer in (recipe, given):
        values = _over(values, layer)
    missing = [name for name in ("model", "out") if name not in values]
    if missing:
        raise ConfigurationError(
            f"found no {missing[0]}; give --{missing[0]}, or put it into a recipe"
        )
    return {**values, "stage": stage}


def _over(values: dict[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    """Settings of a layer take the place of those below, also those that exclude each other."""
    merged = {**values, **layer}
    for one, other in (("lr", "lr_per_256"), ("lr_per_256", "lr"), ("epochs", "steps")):
        if layer.get(one) is not None and layer.get(other) is None:
            merged.pop(other, None)
    return merged


def _as_set(kind: str, text: str, media_root: Path | None = None) -> dict[str, Any]:
    """Read `PLACE@SHARE`; an @ that no number follows belongs to the place."""
    place, at, share = text.rpartition("@")
    part: dict[str, Any] = {kind: text}
    if at:
        try:
            part = {kind: place, "share": float(share)}
        except ValueError:
            part = {kind: text}
    if media_root is not None:
        part["media_root"] = str(media_root)
    return part


def _named_value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--set {text}: found no =, expected NAME=VALUE")
    return name.replace("-", "_"), None if value == "null" else value
