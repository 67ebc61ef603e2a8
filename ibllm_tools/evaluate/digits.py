"""How well a recognizer writes down the spoken digits of a pack: words, times, and silence.

```
recordings -> 1 to 6 digits in a row, noise -> recognizer -> wrong words, shifted times
sounds, music, noise, silence               -> recognizer -> words that nobody said
```
Everything goes through `transcribe`, as a user would call it. Only the held-out speakers tell how
it does with voices that it never heard; a checkpoint names them as `held_out_speakers`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ibllm_tools.evaluate.results import Measure, Section, Target, ratio, share
from ibllm_tools.evaluate.scorecard import Scorecard
from ibllm_tools.train.data import Table, open_table
from ibllm_tools.train.digits_sounds import (
    DIGITS,
    RATE_HZ,
    Noise,
    Pauses,
    Recording,
    Spoken,
    Wave,
    chords,
    read_recordings,
    say,
)

if TYPE_CHECKING:
    from ibllm_tools.experts.protocols import Recognizer
    from ibllm_tools.experts.results import Transcript

MAX_WER = 0.15
NEAR_S = 0.25
MOST_DIGITS = 6
N_LONG = 20
MUSIC = ("guitar", "piano")


@dataclass(frozen=True)
class Utterance:
    """A sound of (S,) samples at 16 kHz, and what is said in it."""

    wave: Wave
    spoken: list[Spoken]

    @property
    def words(self) -> list[str]:
        """What is said."""
        return [DIGITS[word.digit] for word in self.spoken]


@dataclass(frozen=True)
class Heard:
    """What was made of an utterance.

    Attributes:
        n_said: Words that were said.
        n_wrong: Words to insert, drop or replace until both agree.
        shifts_s: For an utterance without error, how far each start and end is off.
    """

    n_said: int
    n_wrong: int
    shifts_s: list[float]


def utterances(
    rng: np.random.Generator, recordings: Sequence[Recording], n: int, n_digits: int | None = None
) -> Iterator[Utterance]:
    """Say 1 to 6 digits, or `n_digits`, over noise that is 15 to 40 dB quieter."""
    noise = Noise(1)
    for _ in range(n):
        size = n_digits or int(rng.integers(1, MOST_DIGITS + 1))
        chosen = [recordings[i] for i in rng.integers(len(recordings), size=size)]
        wave, spoken = say(rng, chosen, (0.9, 1.1), Pauses((0.1, 0.8), (0.1, 0.7)))
        loud = float(np.sqrt((wave[np.abs(wave) > 0.01] ** 2).mean()))
        wave = wave + noise.draw(rng, wave.size) * loud * 10 ** (rng.uniform(-40, -15) / 20)
        gain = 10 ** (rng.uniform(-15, 0) / 20)
        yield Utterance(np.clip(wave * gain, -1, 1).astype(np.float32), spoken)


def n_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Count words to insert, drop or replace (Levenshtein, 1966)."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            swap = before + (word != other)
            before, row[j] = row[j], min(swap, row[j] + 1, row[j - 1] + 1)
    return row[-1]


def listen(recognizer: Recognizer, utterance: Utterance) -> Heard:
    """Let a recognizer write an utterance down, and compare."""
    found = recognizer.transcribe(utterance.wave, RATE_HZ)
    words = found.text.lower().replace(".", " ").replace(",", " ").split()
    wrong = n_errors(utterance.words, words)
    return Heard(len(utterance.words), wrong, [] if wrong else _shifts(found, utterance.spoken))


def _shifts(found: Transcript, spoken: Sequence[Spoken]) -> list[float]:
    words = [word for segment in found.segments for word in segment.words]
    if len(words) != len(spoken):
        return []
    pairs = list(zip(words, spoken, strict=True))
    return [abs(w.start_s - s.start_s) for w, s in pairs] + [
        abs(w.end_s - s.end_s) for w, s in pairs
    ]


def evaluate_digits(
    data_dir: Path | str,
    model: str | None = None,
    *,
    limit: int = 50,
    split: str = "val",
    seed: int = 7,
    work_dir: Path | str,
    device: str | None = None,
) -> Scorecard:
    """Score a recognizer on spoken digits and on sounds without speech.

    Args:
        data_dir: Folder with `speech_digits.parquet` and `sounds.parquet`.
        model: As for `open_recognizer`; by default the one that ships.
        limit: Utterances of each speaker, and sounds of each kind, at most.
        split: Which sounds; those of `train` were heard in training.
        seed: Of how digits are put together.
        work_dir: Where decoded sounds are kept.
        device: As in torch; by default an accelerator where there is one.

    Raises:
        CheckpointError: There is no such model.
        ConfigurationError: The pack is incomplete.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    from ibllm_tools.experts.opening import DEFAULT_RECOGNIZER, open_recognizer

    started = time.perf_counter()
    recognizer = open_recognizer(model, device)
    name = model or DEFAULT_RECOGNIZER
    recordings = read_recordings(Path(data_dir))
    sounds = open_table(Path(data_dir), Path(work_dir), "sounds", split)
    unheard = held_out_speakers(name)
    words, times = _words(recognizer, recordings, unheard, limit, seed)
    nothing = _nothing(
        recognizer,
        recordings[:: max(1, len(recordings) // limit)],
        _groups(data_dir, sounds, limit, seed),
    )
    command = f"ibllm eval digits --data {data_dir}" + (f" --model {model}" if model else "")
    return Scorecard(
        model=name,
        data=str(data_dir),
        split=split,
        limit=limit,
        through="transcribe",
        command=command,
        versions={name: version(name) for name in ("torch", "transformers", "numpy")},
        media={"recordings": len(recordings), "sounds": len(sounds)},
        sections=[words, times, nothing],
        seconds=time.perf_counter() - started,
    )


def held_out_speakers(checkpoint: str) -> tuple[str, ...]:
    """Return the speakers that a checkpoint names as never heard; none if it names none."""
    from ibllm_tools.experts.checkpoints import is_shipped, shipped_folder

    folder = shipped_folder(checkpoint) if is_shipped(checkpoint) else Path(checkpoint)
    path = folder / "config.json"
    if not path.is_file():
        return ()
    config = json.loads(path.read_text(encoding="utf-8"))
    return tuple(str(name) for name in config.get("held_out_speakers", ()))


def _words(
    recognizer: Recognizer,
    recordings: Sequence[Recording],
    unheard: Sequence[str],
    limit: int,
    seed: int,
) -> tuple[Section, Section]:
    """Word errors by speaker, and how far times are off for the unheard ones."""
    section = Section("words", "Word errors")
    shifts: list[float] = []
    long: list[Heard] = []
    speakers = sorted({r.speaker for r in recordings}, key=lambda name: (name not in unheard, name))
    for i, speaker in enumerate(speakers):
        own = [r for r in recordings if r.speaker == speaker]
        rng = np.random.default_rng([seed, i])
        heard = [listen(recognizer, u) for u in utterances(rng, own, limit)]
        is_new = speaker in unheard
        target = Target(high=MAX_WER) if is_new else None
        label = f"{speaker}, {'never heard before' if is_new else 'heard in training'}"
        section.measures.append(_wer(f"wer.{speaker}", label, heard, target))
        if is_new or not unheard:
            shifts += [shift for one in heard for shift in one.shifts_s]
            n_long = max(1, limit // 10)
            long += [listen(recognizer, u) for u in utterances(rng, own, n_long, N_LONG)]
    label = f"{N_LONG} digits in a row, over {'new' if unheard else 'all'} voices"
    section.measures.append(_wer("wer.long", label, long, Target(high=MAX_WER)))
    return section, _times(shifts)


def _wer(name: str, label: str, heard: Sequence[Heard], target: Target | None) -> Measure:
    wrong, said = [one.n_wrong for one in heard], [one.n_said for one in heard]
    note = f"{sum(said)} words"
    return ratio(name, f"word error rate, {label}", wrong, said, target=target, note=note)


def _times(shifts: Sequence[float]) -> Section:
    near = [shift <= NEAR_S for shift in shifts]
    return Section(
        "times",
        "Starts and ends of words, where all words are right",
        [
            share("near", f"off by at most {NEAR_S} s", near, target=Target(low=0.9)),
            ratio("mean", "mean error", shifts, unit="s"),
        ],
    )


def _groups(
    data_dir: Path | str, sounds: Table, limit: int, seed: int
) -> dict[str, tuple[str, list[Wave]]]:
    """Sounds in which nobody says a digit, by kind."""
    rng = np.random.default_rng([seed, 99])
    concepts = json.loads((Path(data_dir) / "concepts.json").read_text(encoding="utf-8"))
    names = {row["id"]: row["name_en"] for row in concepts}
    played = [row for row in range(len(sounds)) if names[int(sounds.concept[row])] in MUSIC]
    others = sorted(set(range(len(sounds))) - set(played))
    chosen = sorted(rng.permutation(others)[: 4 * limit])
    noise, n, made = Noise(2), 4 * RATE_HZ, range(limit)
    hiss = [noise.draw(rng, n) * np.float32(10 ** rng.uniform(-2.5, -0.6)) for _ in made]
    faint = [noise.draw(rng, n) * np.float32(10 ** rng.uniform(-4, -2.5)) for _ in made]
    tunes = [chords(rng, n) * np.float32(0.1) for _ in made]
    return {
        "sounds": ("sounds of the pack without music", [_sound(sounds, i) for i in chosen]),
        "music": ("guitar and piano of the pack", [_sound(sounds, i) for i in played]),
        "tunes": ("chords made by rule", tunes),
        "noise": ("noise", [np.clip(wave, -1, 1) for wave in hiss]),
        "silence": ("near silence and silence", [*faint, np.zeros(n, np.float32)]),
    }


def _sound(table: Table, row: int) -> Wave:
    return table.values[row, : int(table.length[row])].astype(np.float32) / np.float32(32768)


def _nothing(
    recognizer: Recognizer,
    recordings: Sequence[Recording],
    groups: dict[str, tuple[str, list[Wave]]],
) -> Section:
    """How often no speech is said to be none; and what speech without digits does."""
    section = Section("nothing", "No speech: an empty transcript, flagged")
    for name, (label, waves) in groups.items():
        flags = [not recognizer.transcribe(wave, RATE_HZ).is_speech for wave in waves]
        target = Target(low=0.95) if name != "tunes" else None
        section.measures.append(share(name, label, flags, target=target))
    backwards = [recording.wave[::-1].copy() for recording in recordings]
    flags = [not recognizer.transcribe(wave, RATE_HZ).is_speech for wave in backwards]
    note = "it knows digits only: other speech becomes digits"
    section.measures.append(share("other", "digits played backwards", flags, note=note))
    return section
