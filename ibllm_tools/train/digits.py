"""The recipe of the pocket recognizer: a small Whisper that writes down spoken digits.

```
windows of 5 s -> log-mel -> encoder ── which digit sounds at each step (only in training)
                                └─ decoder ── tokens; two heads learn to look where a word is
```
`train_digits` trains it or continues a run that was stopped. Held-out speakers are never heard.
"""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.train.data import open_table
from ibllm_tools.train.digits_sounds import DIGITS, Recording, read_recordings
from ibllm_tools.train.digits_whisper import (
    ALIGNMENT_HEADS,
    WINDOW_S,
    Targets,
    WhisperSizes,
    build_model,
    build_tokenizer,
)
from ibllm_tools.train.digits_windows import Batch, Windows, make_batch, roughen
from ibllm_tools.train.loop import Run, Schedule, run_stage

DEFAULT_MINUTES = 9.0
HELD_OUT = ("theo",)
LIMITS = {"no_speech": 0.1, "logprob": -0.5}
"""How sure the model must be that somebody speaks; chosen on sounds of the training split."""


@dataclass(frozen=True)
class DigitsOptions:
    """Everything that shapes a run besides its folders.

    Attributes:
        seed: Seed of all randomness.
        held_out: Speakers that are not heard.
        sizes: Sizes of the model.
        schedule: Steps and rates; the defaults take about nine minutes on a free core.
        batch: Windows a step.
        nothing: Share of windows in which nobody speaks.
        frames, looks: Weights of the losses beside that of the tokens.
    """

    seed: int = 0
    held_out: Sequence[str] = HELD_OUT
    sizes: WhisperSizes = field(default_factory=WhisperSizes)
    schedule: Schedule = field(
        default_factory=lambda: Schedule(
            1000, 2e-3, 60, decay_from=0.3, weight_decay=0.05, save_every=100, muon_lr=0.02
        )
    )
    batch: int = 24
    nothing: float = 0.2
    frames: float = 1.0
    looks: float = 0.15


class Learner(nn.Module):
    """The model with the layer that tells digits step by step, which does not ship."""

    def __init__(self, model: Any, options: DigitsOptions, first_time: int) -> None:
        super().__init__()
        self.model = model
        # Only the decoder has to give the numbers of its attention; the encoder may be fast.
        fast = copy.copy(model.config)
        fast._attn_implementation = "sdpa"
        for layer in model.get_encoder().layers:
            layer.self_attn.config = fast
        self.frames = nn.Linear(options.sizes.d_model, len(DIGITS) + 1)
        self.options = options
        self.first_time = first_time

    def loss(self, batch: Batch) -> Tensor:
        """Tokens, digits at each step, and where the alignment heads look."""
        encoded = self.model.get_encoder()(batch.mels)
        answer = self.model(
            encoder_outputs=encoded, decoder_input_ids=batch.inputs, output_attentions=True
        )
        tokens = _token_loss(answer.logits, batch.labels, self.first_time)
        steps = self.frames(encoded.last_hidden_state)
        frames = F.cross_entropy(steps.flatten(0, 1), batch.frames.flatten(), ignore_index=-100)
        has_look = batch.looks.sum(-1)
        looks = sum(
            -(batch.looks * (answer.cross_attentions[layer][:, head] + 1e-6).log()).sum()
            for layer, head in ALIGNMENT_HEADS
        ) / (len(ALIGNMENT_HEADS) * has_look.sum().clamp(min=1))
        loss: Tensor = tokens + self.options.frames * frames + self.options.looks * looks
        return loss


def _token_loss(logits: Tensor, labels: Tensor, first_time: int) -> Tensor:
    """Cross entropy; times that lie within a few steps of the right one are nearly right."""
    kept = labels >= 0
    logits, labels = logits[kept], labels[kept]
    target = F.one_hot(labels, logits.shape[-1]).float()
    is_time = labels >= first_time
    times = torch.arange(logits.shape[-1] - first_time)
    distance = (labels[is_time] - first_time)[:, None] - times
    target[is_time, first_time:] = torch.softmax(-0.5 * (distance / 1.5) ** 2, dim=-1)
    return F.cross_entropy(logits, target)


def train_digits(
    data_dir: Path | str,
    out_dir: Path | str,
    work_dir: Path | str,
    *,
    minutes: float = DEFAULT_MINUTES,
    seed: int = 0,
    held_out: Sequence[str] = HELD_OUT,
    options: DigitsOptions | None = None,
) -> Path:
    """Train the recognizer from a data pack, or continue where a stopped run was.

    Args:
        data_dir: Folder with `speech_digits.parquet` and `sounds.parquet`.
        out_dir: Where the checkpoint folder is written.
        work_dir: Where decoded arrays, checkpoints and `log.txt` are kept. A run with the same
            folder, seed and options continues exactly; delete it to begin anew.
        minutes: About how long to train on one core.
        seed: Seed of all randomness.
        held_out: Speakers that are not heard.
        options: Sizes and steps; overrides what stands before it.

    Returns:
        `out_dir`.

    Raises:
        ConfigurationError: The pack is incomplete, or a held-out speaker is none of it.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    from transformers import WhisperFeatureExtractor

    options = options or scaled(
        DigitsOptions(seed=seed, held_out=tuple(held_out)), minutes / DEFAULT_MINUTES
    )
    data_dir, out_dir, run = Path(data_dir), Path(out_dir), Run(Path(work_dir), options.seed)
    torch.set_flush_denormal(True)
    sounds = open_table(data_dir, run.work_dir, "sounds", "train")
    windows = Windows(_heard(data_dir, options.held_out), sounds, options.seed)
    torch.manual_seed(run.step_seed("digits", -1))
    tokenizer = build_tokenizer()
    extract = WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW_S)
    model = build_model(tokenizer, options.sizes)
    targets = Targets(tokenizer)
    learner = Learner(model, options, targets.zero)
    draw = partial(_draw, windows=windows, extract=extract, targets=targets, options=options)
    learner.train()
    run_stage(
        run, "digits", {"digits": learner}, options.schedule,
        lambda rng, done: learner.loss(draw(rng, done)),
        is_matrix=lambda name, weight: weight.ndim == 2 and ".layers." in name,
        report=lambda: _report(learner, draw), report_every=100,
    )  # fmt: skip
    model.config.held_out_speakers = list(options.held_out)
    model.config.speech_limits = LIMITS
    save(out_dir, model, extract, tokenizer)
    run.say(f"saved {out_dir}")
    return out_dir


def scaled(options: DigitsOptions, factor: float) -> DigitsOptions:
    """Make a run longer or shorter."""
    steps = max(1, round(options.schedule.steps * factor))
    return dataclasses.replace(options, schedule=dataclasses.replace(options.schedule, steps=steps))


def _heard(data_dir: Path, held_out: Sequence[str]) -> list[Recording]:
    recordings = read_recordings(data_dir)
    speakers = {recording.speaker for recording in recordings}
    strangers = set(held_out) - speakers
    if strangers or speakers <= set(held_out):
        raise ConfigurationError(
            f"held-out speakers: found {', '.join(held_out)}, expected some but not all of "
            f"{', '.join(sorted(speakers))}"
        )
    return [recording for recording in recordings if recording.speaker not in held_out]


def _draw(
    rng: random.Random,
    done: float,
    windows: Windows,
    extract: Any,
    targets: Targets,
    options: DigitsOptions,
) -> Batch:
    """Draw a batch at a share of the run: voices and noise get wilder until half of it."""
    rough = min(1.0, 0.2 + 1.6 * done)
    numbers = np.random.default_rng(rng.getrandbits(64))
    n_nothing = round(options.nothing * options.batch)
    drawn = [windows.nothing(numbers) for _ in range(n_nothing)]
    drawn += [windows.speech(numbers, rough) for _ in range(options.batch - n_nothing)]
    batch = make_batch(drawn, extract, targets, rng)
    return Batch(roughen(batch.mels, rough), batch.inputs, batch.labels, batch.looks, batch.frames)


def _report(learner: Learner, draw: Any) -> str:
    """How many tokens are right on a batch of the training kind."""
    batch = draw(random.Random(0), 0.0)  # noqa: S311 (not for secrets)
    answer = learner.model(input_features=batch.mels, decoder_input_ids=batch.inputs)
    is_word = (batch.labels >= 0) & (batch.labels < learner.first_time - 1)
    right = answer.logits.argmax(-1) == batch.labels
    return f"words {right[is_word].float().mean():.3f}"


def save(folder: Path, model: Any, extract: Any, tokenizer: Any) -> None:
    """Write a checkpoint folder in half precision, as transformers reads it."""
    from transformers import WhisperProcessor

    model.half().save_pretrained(folder)
    WhisperProcessor(extract, tokenizer).save_pretrained(folder)
    model.float()
