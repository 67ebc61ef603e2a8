"""`StageTrainer`: transformers' Trainer for rows of features, with checkpoints of what is trained.

A checkpoint is a model folder that holds the trained weights alone and names the rest (base LLM,
encoder, the adapter that the run started from). It can be opened for use, and resumed exactly.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.model.loading import ADAPTER_FILE, read_adapter, save_part
from ibllm_tools.model.sensing import mixed_features
from ibllm_tools.train.stages import sharding
from ibllm_tools.train.stages.checkpoints import mark_done, prune
from ibllm_tools.train.stages.collate import COUNTED, Collator
from ibllm_tools.train.stages.config import StageConfig
from ibllm_tools.train.stages.rows import Stream
from ibllm_tools.train.stages.start import Start

ROWS_FILE = "rows.json"
OPTIMIZER_FILE, SCHEDULER_FILE = "optimizer.pt", "scheduler.pt"
_WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.", "module.")


class LossBar(ProgressCallback):  # type: ignore[misc]
    """A progress bar that shows the loss; nothing else is printed."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Put the newest loss beside the bar."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}")


class StageTrainer(Trainer):  # type: ignore[misc]
    """Trains one stage of an `ImageBindLLM`.

    Args:
        config: The run's settings.
        start: The model and what of it is trained.
        args: Settings of transformers, as `run.make_arguments` makes them from `config`.
        stream: The rows, in order.
        collator: Makes batches of them.
    """

    def __init__(
        self,
        config: StageConfig,
        start: Start,
        args: TrainingArguments,
        stream: Stream,
        collator: Collator,
    ) -> None:
        super().__init__(model=start.model, args=args, train_dataset=stream, data_collator=collator)
        self.remove_callback(ProgressCallback)
        self.add_callback(LossBar)
        self.config, self.start = config, start
        self.model_accepts_loss_kwargs = True  # the loss is per target token of all processes
        self._counts = torch.zeros(len(COUNTED), dtype=torch.int64)
        self._decay = {name for name, p in start.trainable.items() if p.ndim > 1}
        if start.encoder is not None:
            start.encoder.to(args.device)
        if self.is_fsdp_enabled and start.model.config.n_queries > 1:
            raise ConfigurationError(
                "a model with n_queries > 1 cannot be trained under FSDP; use n_queries=1, or "
                "several processes without FSDP"
            )

    # the loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Encode media that are still to be encoded, count rows, and run the model."""
        inputs = dict(inputs)
        self._counts += inputs.pop("counts").cpu()
        media = inputs.pop("media", None)
        if media is not None:
            shown = media.has_media.to(inputs["features"].device)
            inputs["features"] = torch.where(
                shown[:, None], self._encode(media).to(inputs["features"]), inputs["features"]
            )
        inputs |= {"late": True, "use_cache": False}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    @torch.no_grad()
    def _encode(self, media: Any) -> Tensor:
        encoder = self.start.encoder
        if encoder is None:
            raise ConfigurationError(
                "these rows have media and the model has no encoder; give --encoder, or encode "
                "the data first with `ibllm embed --out STORE`"
            )
        with torch.autocast(self.args.device.type, enabled=False):
            return mixed_features(media.to(self.args.device), encoder)

    def floating_point_ops(self, inputs: Any) -> int:  # noqa: ARG002 - not of interest
        """Count nothing; the parent walks through the whole model at every step."""
        return 0

    @property
    def counts(self) -> dict[str, int]:
        """What became of the rows so far, over all processes (all of them must ask)."""
        local = self._counts.to(self.args.device)
        total: Tensor = self.accelerator.reduce(local, "sum")
        return dict(zip(COUNTED, total.tolist(), strict=True))

    # order and optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        """The stream is in order already."""
        return SequentialSampler(train_dataset or self.train_dataset)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Group weights: no decay on biases and norms, a factor on the gates' rate."""
        made: torch.optim.Optimizer | None = getattr(self, "optimizer", None)
        if made is not None:
            return made
        subject = model or self.model
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in subject.named_parameters():
            if parameter.requires_grad:
                plain = plain_name(name)
                decay = self.config.weight_decay if plain in self._decay else 0.0
                scale = self.config.gate_lr_scale if plain == "gates" else 1.0
                groups.setdefault((decay, scale), []).append(parameter)
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, subject)
        made = self.optimizer = kind(
            [
                {"params": params, "weight_decay": decay, "lr": self.args.learning_rate * scale}
                for (decay, scale), params in groups.items()
            ],
            **options,
        )
        return made

    # checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write a folder with the trained weights, from the first process."""
        if self.is_fsdp_enabled:
            state = sharding.gather_trainable(self.model)
        else:
            state = {name: p.detach() for name, p in self.start.trainable.items()}
        if self.args.should_save:
            self._write(Path(output_dir or self.args.output_dir), state)

    def _write(self, folder: Path, state: dict[str, Tensor]) -> None:
        start = self.start
        save_part(start.model, folder, {**start.kept, **state}, start.base_adapter)
        self.start.processor.save_pretrained(folder)
        self.config.save_yaml(folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint, and mark it as whole when all processes are done."""
        counts = self.counts
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if not self.args.should_save:
            return
        out = Path(self.args.output_dir)
        folder = out / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        (folder / ROWS_FILE).write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
        mark_done(folder)
        prune(out, self.config.keep)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = sharding.gather_optimizer(self.model, self.optimizer.optimizer)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_FILE)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_FILE)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        """Fill the trained weights from a checkpoint."""
        folder = Path(resume_from_checkpoint)
        state = read_adapter(folder / ADAPTER_FILE)
        if missing := sorted(self.start.trainable.keys() - state.keys()):
            raise CheckpointError(
                f"{folder}: found no {missing[0]} ({len(missing)} missing), expected what stage "
                f"{self.config.stage!r} trains; resume with the settings that the run began with"
            )
        state = {name: state[name] for name in self.start.trainable}
        if self.is_fsdp_enabled:
            sharding.give_out_trainable(model or self.model, state)
        else:
            with torch.no_grad():
                for name, parameter in self.start.trainable.items():
                    parameter.copy_(state[name])
        self._recall_counts(folder)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        first = self.args.process_index == 0
        state = _load(Path(checkpoint) / OPTIMIZER_FILE) if first else {}
        sharding.give_out_optimizer(self.model, self.optimizer.optimizer, state)
        self.lr_scheduler.load_state_dict(_load(Path(checkpoint) / SCHEDULER_FILE))

    def _recall_counts(self, folder: Path) -> None:
        path = folder / ROWS_FILE
        if path.is_file() and self.args.process_index == 0:
            found = Counter(json.loads(path.read_text(encoding="utf-8")))
            self._counts = torch.tensor([found[name] for name in COUNTED])


def plain_name(name: str) -> str:
    """A parameter's name without what wrappers put into it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "") if wrapper != "module." else name.removeprefix(wrapper)
    return name


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)
