"""Sounds to learn the spoken digits from: words with pauses, and what is no speech.

```
recordings -> speed, loudness, pauses -> a stream of words ┐
noise, other sounds of the pack, tones ────────────────────┴-> room -> (S,) and where words are
```
Every sound is drawn from a random source that is given, so that the same seed gives the same.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.preprocess.audio import resample
from ibllm_tools.train.data import Table, read_parquet

RATE_HZ = 16_000
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EDGE_DB = -32.0  # of a word's loudest 10 ms; what is quieter at its ends is no part of it
FRAME = 160  # 10 ms

Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Recording:
    """One spoken digit.

    Attributes:
        digit: 0 to 9.
        speaker: Who speaks.
        name: Its id in the pack.
        wave: (S,) at 16 kHz, at its own loudness.
    """

    digit: int
    speaker: str
    name: str
    wave: Wave


@dataclass(frozen=True)
class Spoken:
    """A word and when it is heard, in seconds."""

    digit: int
    start_s: float
    end_s: float


def read_recordings(data_dir: Path, splits: Sequence[str] = ("train", "val")) -> list[Recording]:
    """Read the spoken digits of a pack, brought to 16 kHz.

    Raises:
        ConfigurationError: There is no such table, or it has no row of these splits.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    path = data_dir / "speech_digits.parquet"
    frame = read_parquet(path)
    frame = frame[frame.split.isin(list(splits))]
    if not len(frame):
        raise ConfigurationError(f"{path}: found no row of split {', '.join(splits)}")
    rows = zip(frame.digit, frame.speaker, frame.id, frame.flac, strict=True)
    return [Recording(int(d), str(s), str(name), decode(flac)) for d, s, name, flac in rows]


def decode(blob: bytes) -> Wave:
    """Decode a sound file to (S,) mono float32 at 16 kHz."""
    import av

    with av.open(io.BytesIO(blob), "r") as container:
        rate_hz = container.streams.audio[0].rate
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)
        frames = [f for frame in container.decode(audio=0) for f in resampler.resample(frame)]
        frames += resampler.resample(None)
    wave = np.concatenate([f.to_ndarray().reshape(-1) for f in frames])
    doubled: Wave = resample(torch.from_numpy(wave), rate_hz, RATE_HZ).numpy()
    return doubled.astype(np.float32)


def edges(wave: Wave) -> tuple[int, int]:
    """Return the first and last sample of what is heard of a word."""
    n_frames = max(1, wave.size // FRAME)
    power = (np.resize(wave, n_frames * FRAME).reshape(n_frames, -1) ** 2).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (EDGE_DB / 10))
    return int(loud[0]) * FRAME, min(int(loud[-1] + 1) * FRAME, wave.size)


def change_speed(wave: Wave, factor: float) -> Wave:
    """Play faster (above 1) or slower: tempo, pitch and colour of the voice change together."""
    places = np.arange(0, wave.size - 1, factor)
    return np.asarray(np.interp(places, np.arange(wave.size), wave), np.float32)


@dataclass(frozen=True)
class Pauses:
    """How long the silences around words are, in seconds.

    Attributes:
        lead: Least and most before the first word.
        between: Least and most between words.
    """

    lead: tuple[float, float] = (0.05, 0.8)
    between: tuple[float, float] = (0.05, 0.7)


def say(
    random: np.random.Generator,
    recordings: Sequence[Recording],
    speed: tuple[float, float] = (0.9, 1.1),
    pauses: Pauses = Pauses(),
) -> tuple[Wave, list[Spoken]]:
    """Put recordings in a row, with pauses between them.

    Args:
        random: Draws speed, loudness and pauses.
        recordings: One for each word.
        speed: Least and most; one for all words, each word varies a little around it.
        pauses: Around the words.

    Returns:
        (S,) float32 whose words peak near 0.5, and the words with their times.
    """
    pace = random.uniform(*speed)
    parts, spoken = [], []
    at = 0
    for i, recording in enumerate(recordings):
        gap_s = random.uniform(*(pauses.between if i else pauses.lead))
        wave = change_speed(recording.wave, pace * random.uniform(0.96, 1.04))
        wave = wave * (0.5 * 10 ** (random.uniform(-6, 0) / 20) / max(np.abs(wave).max(), 1e-4))
        parts += [np.zeros(round(gap_s * RATE_HZ), np.float32), wave.astype(np.float32)]
        at += parts[-2].size
        first, last = edges(wave)
        spoken.append(Spoken(recording.digit, (at + first) / RATE_HZ, (at + last) / RATE_HZ))
        at += wave.size
    tail_s = random.uniform(*pauses.lead)
    return np.concatenate([*parts, np.zeros(round(tail_s * RATE_HZ), np.float32)]), spoken


class Noise:
    """Coloured noise, made once and played from anywhere."""

    def __init__(self, seed: int, n_colours: int = 48) -> None:
        random = np.random.default_rng(seed)
        self.waves = [_coloured(random) for _ in range(n_colours)]

    def draw(self, random: np.random.Generator, n: int) -> Wave:
        """(n,) noise of a random colour, from brown to blue, with power 1."""
        wave = self.waves[random.integers(len(self.waves))]
        return np.resize(np.roll(wave, int(random.integers(wave.size))), n)


def _coloured(random: np.random.Generator) -> Wave:
    n = 1 << 17
    spectrum = np.fft.rfft(random.standard_normal(n))
    hz = np.maximum(np.fft.rfftfreq(n, 1 / RATE_HZ), 40.0)
    spectrum *= hz ** random.uniform(-1.2, 0.4)
    wave = np.fft.irfft(spectrum, n)
    return np.asarray(wave / max(wave.std(), 1e-9), np.float32)


def chords(random: np.random.Generator, n: int) -> Wave:
    """(n,) plain music: a few notes at a time that fade, with overtones, with power 1."""
    wave = np.zeros(n)
    at = 0
    while at < n:
        m = min(n - at, int(RATE_HZ * random.uniform(0.15, 1.2)))
        time_s = np.arange(m) / RATE_HZ
        for _ in range(random.integers(1, 4)):
            hz = 55 * 2 ** (random.integers(0, 60) / 12)
            for k in range(1, random.integers(2, 6)):
                fade = np.exp(-time_s * random.uniform(0, 6))
                wave[at : at + m] += fade * np.sin(2 * np.pi * hz * k * time_s) / k
        at += m
    return np.asarray(wave / max(wave.std(), 1e-9), np.float32)


def cut(random: np.random.Generator, table: Table, n: int) -> Wave:
    """(n,) from a sound of the pack, repeated where it is shorter, with power 1."""
    row = int(random.integers(len(table)))
    wave = table.values[row, : max(int(table.length[row]), 1)].astype(np.float32) / 32768
    wave = np.roll(np.resize(wave, max(n, wave.size)), -int(random.integers(wave.size)))[:n]
    return np.asarray(wave / max(float(wave.std()), 1e-4), np.float32)


def echo(random: np.random.Generator, wave: Wave) -> Wave:
    """Let it sound in a room: a short tail of faint noise follows all that is heard."""
    m = int(RATE_HZ * random.uniform(0.03, 0.25))
    tail = random.standard_normal(m) * np.exp(-np.arange(m) * (5.0 / m))
    tail *= random.uniform(0.1, 0.6) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    size = 1 << int(np.ceil(np.log2(wave.size + m)))
    mixed = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(tail, size), size)[: wave.size]
    return np.asarray(mixed, np.float32)
