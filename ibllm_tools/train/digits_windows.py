"""Windows of sound to learn the digits from, and the batches that the model takes.

```
words with pauses, or other sounds -> room, noise, loudness -> window -> log-mel, roughened ┐
                                                   what is said, when -> tokens, looks ─────┴> batch
```
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ibllm_tools.train.data import Table
from ibllm_tools.train.digits_sounds import (
    DIGITS,
    RATE_HZ,
    Noise,
    Pauses,
    Recording,
    Spoken,
    Wave,
    chords,
    cut,
    echo,
    say,
)
from ibllm_tools.train.digits_whisper import N_STEPS, STEPS_PER_S, WINDOW_S, Target, Targets

N_WINDOW = RATE_HZ * WINDOW_S


@dataclass(frozen=True)
class Window:
    """A window of sound and what is said in it.

    Attributes:
        wave: (80000,) float32 at 16 kHz.
        spoken: Words that lie wholly in it; none for a window without speech.
        cut_s: When a word begins that its end cuts.
    """

    wave: Wave
    spoken: list[Spoken]
    cut_s: float | None = None

    @property
    def is_speech(self) -> bool:
        """Whether a word is heard, be it cut."""
        return bool(self.spoken) or self.cut_s is not None


class Windows:
    """Draws windows: digits of some speakers, and other sounds of the pack."""

    def __init__(self, recordings: Sequence[Recording], sounds: Table, seed: int) -> None:
        self.by_speaker: dict[str, list[Recording]] = {}
        for recording in recordings:
            self.by_speaker.setdefault(recording.speaker, []).append(recording)
        self.sounds = sounds
        self.noise = Noise(seed)

    def speech(self, rng: np.random.Generator, rough: float = 1.0) -> Window:
        """One to ten digits of one speaker, cut where the window ends, with noise or sounds.

        Args:
            rng: Draws everything.
            rough: 0 for plain recordings, 1 for all that can be done to them.
        """
        recordings = self.by_speaker[str(rng.choice(sorted(self.by_speaker)))]
        chosen = [recordings[i] for i in rng.integers(len(recordings), size=rng.integers(1, 11))]
        longest_s = float(rng.choice([0.15, 0.4, 0.9]))
        pauses = Pauses((0.0, float(rng.choice([0.2, 0.8, 2.5]))), (0.02, longest_s))
        stream, spoken = say(rng, chosen, (1 - 0.22 * rough, 1 + 0.3 * rough), pauses)
        wave = np.zeros(N_WINDOW, np.float32)
        wave[: stream.size] = stream[:N_WINDOW]
        inside = [word for word in spoken if word.end_s <= WINDOW_S]
        over = [w.start_s for w in spoken if w.start_s < WINDOW_S - 0.04 and w.end_s > WINDOW_S]
        length = N_WINDOW if rng.random() < 0.6 else min(N_WINDOW, stream.size)
        wave = self._dirty(rng, wave, length, rough)
        return Window(wave, inside, over[0] if over else None)

    def _dirty(self, rng: np.random.Generator, wave: Wave, length: int, rough: float) -> Wave:
        """A room, noise or another sound behind, and any loudness."""
        if rng.random() < 0.35 * rough:
            wave = echo(rng, wave)
        if rng.random() < 0.15 * rough:
            # The lower band mirrored into the upper one, as poor resampling leaves it.
            mirrored = wave * np.cos(np.pi * np.arange(wave.size))
            wave = wave + float(rng.uniform(0.05, 0.5)) * mirrored
        speech = float(np.sqrt((wave[np.abs(wave) > 0.01] ** 2).mean())) if wave.any() else 0.1
        below_db = rng.uniform(40 - 32 * rough, 45)
        wave[:length] += self.noise.draw(rng, length) * speech * 10 ** (-below_db / 20)
        if rng.random() < 0.2 * rough:
            below_db = rng.uniform(8, 25)
            wave[:length] += cut(rng, self.sounds, length) * speech * 10 ** (-below_db / 20)
        wave[length:] = 0
        gain = 10 ** (rng.uniform(-26, 3) / 20)
        return np.asarray(np.clip(wave * gain, -1, 1), np.float32)

    def nothing(self, rng: np.random.Generator) -> Window:
        """A window in which nobody speaks: sounds of the pack, music, noise, near silence."""
        length = N_WINDOW if rng.random() < 0.6 else int(rng.uniform(0.1, 1) * N_WINDOW)
        kind = rng.random()
        if kind < 0.7:
            part = cut(rng, self.sounds, length)
            if rng.random() < 0.2:
                part = part + cut(rng, self.sounds, length) * float(rng.uniform(0.2, 1))
        elif kind < 0.85:
            first, last = rng.uniform(0, 1, 2)
            part = self.noise.draw(rng, length) * np.linspace(first, last, length, dtype=np.float32)
        else:
            part = chords(rng, length)
        wave = np.zeros(N_WINDOW, np.float32)
        wave[:length] = part * 10 ** (rng.uniform(-50, -12) / 20)
        wave[:length] += self.noise.draw(rng, length) * 10 ** (rng.uniform(-80, -45) / 20)
        return Window(np.clip(wave, -1, 1), [])


@dataclass(frozen=True)
class Batch:
    """B windows as the model takes them, L tokens long.

    Attributes:
        mels: (B, 80, 500).
        inputs, labels: (B, L) token ids; labels are -100 where nothing is to be said.
        looks: (B, L, 250) what alignment heads should look at, sums to 1, or all 0.
        frames: (B, 250) digit that sounds at each step of the encoder, 10 for none.
    """

    mels: Tensor
    inputs: Tensor
    labels: Tensor
    looks: Tensor
    frames: Tensor


def make_batch(
    windows: Sequence[Window], extract: Any, targets: Targets, rng: random.Random
) -> Batch:
    """Bring windows into the form that the model takes; half of them with times."""
    waves = [window.wave for window in windows]
    mels = extract(waves, sampling_rate=RATE_HZ, return_tensors="pt")["input_features"]
    rows = [_target(window, targets, rng) for window in windows]
    longest = max(len(row.inputs) for row in rows)
    inputs = torch.full((len(rows), longest), targets.end)
    labels = torch.full((len(rows), longest), -100)
    looks = torch.zeros(len(rows), longest, N_STEPS)
    frames = torch.full((len(rows), N_STEPS), len(DIGITS))
    for b, (row, window) in enumerate(zip(rows, windows, strict=True)):
        inputs[b, : len(row.inputs)] = torch.tensor(row.inputs)
        labels[b, : len(row.labels)] = torch.tensor(row.labels)
        for place, span in enumerate(row.spans):
            if span is not None:
                looks[b, place, slice(*span)] = 1 / (span[1] - span[0])
        for word in window.spoken:
            first, last = (int(time_s * STEPS_PER_S) for time_s in (word.start_s, word.end_s))
            frames[b, first:last] = word.digit
        if window.cut_s is not None:
            frames[b, int(window.cut_s * STEPS_PER_S) :] = -100
    return Batch(mels, inputs, labels, looks, frames)


def _target(window: Window, targets: Targets, rng: random.Random) -> Target:
    with_times = rng.random() < 0.6
    if not window.is_speech:
        return targets.nothing(rng, with_times)
    return targets.words_of(window.spoken, window.cut_s, with_times)


def roughen(mels: Tensor, rough: float) -> Tensor:
    """Change voices and microphones: shift frequencies, colour them, blank some out.

    Args:
        mels: (B, 80, 500) as the feature extractor gives them.
        rough: From 0, hardly, to 1, strongly.
    """
    n, n_mels, n_frames = mels.shape
    bins = torch.arange(n_mels, dtype=torch.float32)
    warp = 1 + 0.13 * rough * (2 * torch.rand(n, 1) - 1)
    places = (bins * warp).clamp(max=n_mels - 1)  # (B, 80) where each bin comes from
    low = places.floor().long().clamp(max=n_mels - 2)
    share = (places - low)[..., None]
    rows = torch.arange(n)[:, None]
    mels = (1 - share) * mels[rows, low] + share * mels[rows, low + 1]
    knots = 0.12 * rough * torch.randn(n, 1, 6)
    colour = F.interpolate(knots, size=n_mels, mode="linear", align_corners=True)[:, 0]
    mels = mels + colour[..., None]
    floor = mels.amax(dim=(1, 2), keepdim=True) - 2.0  # 80 dB, as the extractor has it
    mels = torch.maximum(mels, floor)
    for _ in range(round(2 * rough)):
        first, width = torch.randint(n_mels, (n, 1)), torch.randint(9, (n, 1))
        hidden = (bins >= first) & (bins < first + width)
        mels = torch.where(hidden[..., None], floor, mels)
        steps = torch.arange(n_frames)
        first, width = torch.randint(n_frames, (n, 1)), torch.randint(12, (n, 1))
        hidden = (steps >= first) & (steps < first + width)
        mels = torch.where(hidden[:, None], floor, mels)
    return mels
