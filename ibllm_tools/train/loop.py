"""The training loop of every stage: schedule, checkpoints, exact resume, progress, log lines.

All randomness of step n comes from the seed, the stage's name and n. A run that was killed
therefore continues exactly: its checkpoint holds weights, optimizer state and the step.
"""

from __future__ import annotations

import io
import random
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from ibllm_tools.train.data import write_atomic
from ibllm_tools.train.muon import Muon

StepFunction = Callable[[random.Random, float], Tensor]
"""Draws one batch with the given random source, at a share of the stage; returns its loss."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast one stage learns.

    Attributes:
        steps: Optimizer steps.
        lr: Peak learning rate, reached after `warmup` steps; it falls linearly from
            `decay_from` (a share of the steps) to one percent.
        weight_decay: Of matrices; vectors, norms and biases have none.
        clip: Largest gradient norm.
        save_every: Steps between checkpoints.
        muon_lr: Peak rate of Muon for what `is_matrix` chooses; 0 leaves all to AdamW.
    """

    steps: int
    lr: float
    warmup: int = 100
    decay_from: float = 0.4
    weight_decay: float = 0.05
    clip: float = 1.0
    save_every: int = 250
    muon_lr: float = 0.0

    def factor(self, step: int) -> float:
        """Return the share of the peak learning rate at a step."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        start = self.decay_from * self.steps
        fall = (self.steps - step) / max(1.0, self.steps - start)
        return rise * max(0.01, min(1.0, fall))


@dataclass
class Run:
    """Where a recipe keeps its checkpoints, its seed and its log."""

    work_dir: Path
    seed: int
    log: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Append one line with the time to `log.txt` of the work folder."""
        stamp = time.strftime("%H:%M:%S")
        self.log.append(line)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        with (self.work_dir / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {line}\n")

    def step_seed(self, stage: str, step: int) -> int:
        """Return the seed of one step of one stage."""
        return zlib.crc32(f"{self.seed}/{stage}/{step}".encode())


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    schedule: Schedule,
    lr_scale: Callable[[str], float] = lambda _name: 1.0,
) -> list[dict[str, object]]:
    """Group parameters for AdamW: no weight decay on vectors, a factor on the learning rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            decay = schedule.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((decay, lr_scale(name)), []).append(parameter)
    return [
        {"params": params, "weight_decay": decay, "lr": schedule.lr * scale, "peak": scale}
        for (decay, scale), params in groups.items()
    ]


class Optimizers:
    """AdamW for most parameters, Muon for matrices that a stage chooses.

    Args:
        named: Parameters by name; those that are frozen are left out.
        schedule: Rates.
        lr_scale: Factor on AdamW's rate by parameter name.
        is_matrix: Chooses what Muon trains, where the schedule has a rate for it.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, nn.Parameter]],
        schedule: Schedule,
        lr_scale: Callable[[str], float],
        is_matrix: Callable[[str, Tensor], bool],
    ) -> None:
        chosen = [(n, p) for n, p in named if schedule.muon_lr > 0 and is_matrix(n, p)]
        names = {n for n, _ in chosen}
        rest = [(n, p) for n, p in named if n not in names]
        groups = parameter_groups(rest, schedule, lr_scale)
        self.all: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.98), fused=True)
        ]
        matrices = [p for _, p in chosen if p.requires_grad]
        if matrices:
            group = {"params": matrices, "peak": schedule.muon_lr / schedule.lr}
            self.all.append(Muon([group], lr=schedule.muon_lr))

    def begin(self, rate: float) -> None:
        """Set the rate of AdamW's plain groups (others in proportion) and forget gradients."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["peak"]
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Take one step."""
        for optimizer in self.all:
            optimizer.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what a checkpoint needs."""
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        """Take over what a checkpoint held; the rates are those of the schedule."""
        for optimizer, part in zip(self.all, state, strict=True):
            peaks = [group["peak"] for group in optimizer.param_groups]
            optimizer.load_state_dict(part)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["peak"] = peak


def run_stage(
    run: Run,
    stage: str,
    modules: Mapping[str, nn.Module],
    schedule: Schedule,
    step_loss: StepFunction,
    *,
    lr_scale: Callable[[str], float] = lambda _name: 1.0,
    is_matrix: Callable[[str, Tensor], bool] = lambda _name, _weight: False,
    report: Callable[[], str] | None = None,
    report_every: int = 0,
) -> None:
    """Train the modules' trainable parameters for one stage, resuming where a run stopped.

    Args:
        run: Work folder, seed and log.
        stage: Name of the stage; names its checkpoint.
        modules: What is trained and saved, by name.
        schedule: Steps and rates.
        step_loss: Returns the loss of one batch.
        lr_scale: Factor on the learning rate by parameter name.
        is_matrix: What Muon trains, by name and weight.
        report: Called now and then; its text goes to the log.
        report_every: Steps between reports; 0 reports at the end only.
    """
    named = [(f"{m}.{n}", p) for m, module in modules.items() for n, p in module.named_parameters()]
    optimizer = Optimizers(named, schedule, lr_scale, is_matrix)
    trainable = [p for _, p in named if p.requires_grad]
    path = run.work_dir / f"{stage}.ckpt"
    first = _restore(path, modules, optimizer)
    if first >= schedule.steps:
        return
    run.say(f"{stage}: from step {first} of {schedule.steps}")
    mean_loss, started = 0.0, time.perf_counter()
    with _progress() as progress:
        bar = progress.add_task(stage, total=schedule.steps, completed=first, loss=0.0)
        for step in range(first, schedule.steps):
            loss = _step(run, stage, step, optimizer, trainable, schedule, step_loss)
            mean_loss = loss if step == first else 0.98 * mean_loss + 0.02 * loss
            progress.update(bar, advance=1, loss=mean_loss)
            done = step + 1
            if done % schedule.save_every == 0 or done == schedule.steps:
                _save(path, modules, optimizer, done)
            if done == schedule.steps or (report_every and done % report_every == 0):
                rate = (done - first) / (time.perf_counter() - started)
                text = _quietly(modules, report) if report else ""
                run.say(f"{stage}: step {done} loss {mean_loss:.3f} {rate:.2f} steps/s {text}")


def _step(
    run: Run,
    stage: str,
    step: int,
    optimizer: Optimizers,
    trainable: list[nn.Parameter],
    schedule: Schedule,
    step_loss: StepFunction,
) -> float:
    seed = run.step_seed(stage, step)
    torch.manual_seed(seed)
    optimizer.begin(schedule.lr * schedule.factor(step))
    loss = step_loss(random.Random(seed), step / schedule.steps)  # noqa: S311 (not for secrets)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(trainable, schedule.clip)
    optimizer.step()
    return float(loss.detach())


def _quietly(modules: Mapping[str, nn.Module], report: Callable[[], str]) -> str:
    training = {name: module.training for name, module in modules.items()}
    for module in modules.values():
        module.eval()
    with torch.no_grad():
        text = report()
    for name, module in modules.items():
        module.train(training[name])
    return text


def _save(path: Path, modules: Mapping[str, nn.Module], optimizer: Optimizers, step: int) -> None:
    buffer = io.BytesIO()
    state = {name: module.state_dict() for name, module in modules.items()}
    torch.save({"modules": state, "optimizer": optimizer.state_dict(), "step": step}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def _restore(path: Path, modules: Mapping[str, nn.Module], optimizer: Optimizers) -> int:
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns)
