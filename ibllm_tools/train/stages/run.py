"""One stage from its settings to a model folder: resume, train, save, report."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibllm_tools.data.sources import open_source
from ibllm_tools.data.store import FeatureStore, identify_encoder
from ibllm_tools.errors import CheckpointError, ConfigurationError, MissingExtraError
from ibllm_tools.train.stages.checkpoints import list_checkpoints, newest_whole
from ibllm_tools.train.stages.collate import CUT, LEFT_OUT, Collator
from ibllm_tools.train.stages.config import (
    DataConfig,
    StageConfig,
    changed_settings,
    load_config,
)
from ibllm_tools.train.stages.finish import add_parts, complete_adapter
from ibllm_tools.train.stages.rows import ExampleRows, Rows, StoredRows, Stream
from ibllm_tools.train.stages.start import Start, open_start, uses_bf16, zero_image_feature

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from ibllm_tools.train.stages.trainer import StageTrainer

REPORT_FILE = "training.json"
LOOKED_AT = 64
_SCHEDULES = {
    "cosine": "cosine_with_min_lr",
    "linear": "linear",
    "constant": "constant_with_warmup",
}

Say = Callable[[str], None]


def train_stage(config: StageConfig, *, resume: bool = False, say: Say = print) -> Path:
    """Train one stage and write the model's folder.

    Under `accelerate launch` every process calls this with the same settings.

    Args:
        config: All settings.
        resume: Go on from the newest whole checkpoint in `config.out`, if there is one.
        say: Takes lines for people; called in the first process.

    Returns:
        The folder, which `ImageBindLLM.from_pretrained` opens.

    Raises:
        ConfigurationError: Settings that cannot work, or a folder that is in use.
        CheckpointError: A model, store or checkpoint that does not fit.
        DataError: A data file of which nothing can be used.
    """
    _require_extra()
    say = say if int(os.environ.get("RANK", "0")) == 0 else _say_nothing
    out = Path(config.out)
    if resume and (out / REPORT_FILE).is_file():
        say(f"{out}: is finished")
        return out
    checkpoint = _find_checkpoint(config, out, resume=resume, say=say)
    start = open_start(config)
    sets, reports = open_sets(config, start, say)
    steps = count_steps(config, sets)
    trainer = make_trainer(config, start, sets, steps)
    say(_plan(config, start, sets, steps))
    began = time.perf_counter()
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    seconds = time.perf_counter() - began
    counts = trainer.counts
    _finish(config, start, trainer)
    if trainer.args.should_save:
        report = {"steps": steps, "seconds": round(seconds, 2), "rows": counts, "sources": reports}
        report["log"] = trainer.state.log_history
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        (out / REPORT_FILE).write_text(text, encoding="utf-8")
        for line in describe_counts(counts):
            say(line)
    trainer.accelerator.wait_for_everyone()
    return out


def open_sets(config: StageConfig, start: Start, say: Say) -> tuple[list[Rows], list[Any]]:
    """Open all sets of rows, with a report of each.

    Raises:
        CheckpointError: A feature store of another encoder.
        DataError: A data file of which nothing can be used.
    """
    sets: list[Rows] = []
    reports: list[Any] = []
    for part in config.sets:
        rows, report = _open_stored(part, start) if part.features else _open_examples(part)
        _check_usable(config, part.name, rows)
        say(f"{part.name}: {len(rows):,} rows")
        sets.append(rows)
        reports.append({"name": part.name, "rows": len(rows), "report": report})
    return sets, reports


def _check_usable(config: StageConfig, name: str, rows: Rows) -> None:
    """Look at some rows, and refuse a set of which none could be used."""
    some = [rows[i].modalities for i in range(0, len(rows), max(1, len(rows) // LOOKED_AT))]
    if not some:
        raise ConfigurationError(f"{name}: found no rows")
    wanted = [set(found) <= set(config.modalities) for found in some]
    if config.stage == "bind" and not any(some):
        raise ConfigurationError(
            f"{name}: found rows of text only, expected rows with media; use it in "
            "`ibllm train instruct`"
        )
    if not any(wanted):
        found = sorted({modality for row in some for modality in row})
        raise ConfigurationError(
            f"{name}: its rows have {', '.join(found)}, expected {', '.join(config.modalities)}; "
            f"give --modality {' --modality '.join(found)} to train on these"
        )


def _open_stored(part: DataConfig, start: Start) -> tuple[Rows, Any]:
    store = FeatureStore.open(str(part.features))
    if start.encoder is not None:
        store.require(identify_encoder(start.encoder, start.processor.preprocess))
    elif store.joint_dim != start.model.config.joint_dim:
        raise CheckpointError(
            f"{part.features}: its features are {store.joint_dim} wide, expected "
            f"{start.model.config.joint_dim}"
        )
    return StoredRows(store), store.reports


def _open_examples(part: DataConfig) -> tuple[Rows, Any]:
    root = None if part.media_root is None else Path(part.media_root)
    source = open_source(str(part.data), format=part.format, media_root=root)
    examples = list(source)
    return ExampleRows(examples), source.report.as_dict()


def count_steps(config: StageConfig, sets: Sequence[Rows]) -> int:
    """Optimizer steps of a run in as many processes as there are."""
    if config.steps is not None:
        return config.steps
    rows = config.epochs * sum(map(len, sets))
    return max(1, math.ceil(rows / rows_per_step(config)))


def rows_per_step(config: StageConfig) -> int:
    """Rows per optimizer step over all processes."""
    return config.batch * config.accumulate * _processes()


def make_trainer(
    config: StageConfig, start: Start, sets: Sequence[Rows], steps: int
) -> StageTrainer:
    """Put a trainer together."""
    from ibllm_tools.train.stages.trainer import StageTrainer

    shares = [part.share for part in config.sets]
    given = None if None in shares else [float(share or 0) for share in shares]
    stream = Stream(sets, given, steps * rows_per_step(config), config.seed)
    zero = config.text_only == "zero_image" and config.stage == "instruct"
    collator = Collator(
        processor=start.processor,
        max_tokens=config.max_tokens,
        too_long=config.too_long,
        joint_dim=start.model.config.joint_dim,
        modalities=config.modalities,
        needs_media=config.stage == "bind",
        bare=zero_image_feature(start.encoder) if zero else None,
    )
    if config.activation_checkpointing:
        save_activations(start.model.llm)
    start.model._no_split_modules = start.model.llm._no_split_modules
    return StageTrainer(config, start, make_arguments(config, steps), stream, collator)


def save_activations(llm: Any) -> None:
    """Compute activations again in the backward pass, where the LLM can.

    Raises:
        ConfigurationError: It cannot.
    """
    if not llm.supports_gradient_checkpointing:
        raise ConfigurationError(
            f"{type(llm).__name__} cannot compute activations again; leave "
            "--activation-checkpointing out"
        )
    options = {"use_reentrant": False}
    if hasattr(llm, "activation_checkpointing_enable"):
        llm.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:  # transformers before 5.2x
        llm.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def make_arguments(config: StageConfig, steps: int) -> TrainingArguments:
    """Translate settings to those of transformers."""
    import torch
    from transformers import TrainingArguments

    schedule = {"min_lr": config.min_lr} if config.schedule == "cosine" else {}
    args = TrainingArguments(
        output_dir=config.out,
        max_steps=steps,
        per_device_train_batch_size=config.batch,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.peak_lr(rows_per_step(config)),
        lr_scheduler_type=_SCHEDULES[config.schedule],
        lr_scheduler_kwargs=schedule,
        warmup_steps=config.warmup_steps(steps),
        weight_decay=config.weight_decay,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        optim=config.optimizer,
        max_grad_norm=config.clip,
        bf16=uses_bf16(config),
        use_cpu=config.device == "cpu" or not torch.accelerator.is_available(),
        logging_steps=config.log_every,
        logging_first_step=True,
        save_strategy="steps",
        save_steps=config.save_every,
        report_to=list(config.report_to) or "none",
        dataloader_num_workers=config.workers,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        disable_tqdm=False,
        seed=config.seed,
    )
    args._n_gpu = min(1, args.n_gpu)  # several GPUs: one process each, by `accelerate launch`
    return args


def describe_counts(counts: dict[str, int]) -> list[str]:
    """Say in lines what became of the rows."""
    shown, targets = counts["rows with media"], counts["target tokens"]
    lines = [f"{counts['rows']:,} rows drawn, {shown:,} with media; {targets:,} target tokens"]
    for name in (CUT, *LEFT_OUT):
        if counts[name]:
            verb = "" if name == CUT else "left out: "
            lines.append(f"  {counts[name]:,} {verb}{name}")
    return lines


def _find_checkpoint(config: StageConfig, out: Path, *, resume: bool, say: Say) -> Path | None:
    if not resume:
        if list_checkpoints(out) or (out / "config.json").exists():
            raise ConfigurationError(
                f"{out} has a run in it; use --resume to go on with it, or another --out"
            )
        return None
    newest = newest_whole(out)
    if newest is None:
        say(f"{out}: has no whole checkpoint; beginning")
        return None
    if changed := changed_settings(load_config(newest), config):
        raise ConfigurationError(
            f"{newest} was made with other settings ({'; '.join(changed)}); resume with the same, "
            "or begin in another --out"
        )
    skipped = [path.name for path in list_checkpoints(out) if path != newest]
    halves = [name for name in skipped if int(name[11:]) > int(newest.name[11:])]
    say(f"going on from {newest}" + (f" (not whole: {', '.join(halves)})" if halves else ""))
    return newest


def _finish(config: StageConfig, start: Start, trainer: StageTrainer) -> None:
    """Write the final folder: the adapter, and the parts that it stands on if wanted."""
    trainer.save_model(config.out)  # collective under FSDP
    if trainer.args.should_save:
        complete_adapter(Path(config.out))
        if config.save == "whole":
            add_parts(Path(config.out), start)
        config.save_yaml(config.out)


def _plan(config: StageConfig, start: Start, sets: Sequence[Rows], steps: int) -> str:
    trained = sum(p.numel() for p in start.trainable.values())
    rows = rows_per_step(config)
    return (
        f"stage {config.stage}: {trained:,} weights, {steps:,} steps of {rows} rows "
        f"({steps * rows / sum(map(len, sets)):.2f} passes), peak learning rate "
        f"{config.peak_lr(rows):.2e}, {_processes()} process(es)"
    )


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _require_extra() -> None:
    try:
        import accelerate  # noqa: F401
        import yaml  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(str(error.name), "train") from error


def _say_nothing(_line: str) -> None:
    return
