"""Is there speech at all? Loudness, and which of a model's words to believe.

Whisper models write words for silence and music too; what they write is then a guess. A stretch
counts as speech only if it is loud enough, the model does not hold it for no speech, and the
words are neither unlikely nor one phrase over and over.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ibllm_tools.experts.inputs import RATE_HZ
from ibllm_tools.experts.results import Segment, Transcript, Word
from ibllm_tools.experts.timing import tighten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

FRAME_S = 0.02
FLOOR_DB = -60.0  # of full scale; quiet speech lies near -45
MAX_NO_SPEECH = 0.6  # Whisper's own threshold
HARDLY_SPEECH = 0.9  # beyond this, no words are believed
SURE_LOGPROB = -0.35  # mean per token; between the two, only surer words are believed
MIN_LOGPROB = -1.0  # Whisper's own threshold
MAX_COMPRESSION = 2.4  # Whisper's own threshold
MIN_REPEAT_CHARS = 40  # shorter texts compress badly whatever they are


@dataclass(frozen=True)
class Limits:
    """Beyond what no words are believed; a checkpoint may set its own (`speech_limits`).

    Attributes:
        no_speech: The highest probability that nobody speaks.
        logprob: The lowest mean log probability of the words' tokens.
    """

    no_speech: float = HARDLY_SPEECH
    logprob: float = MIN_LOGPROB


@dataclass(frozen=True)
class Heard:
    """A segment as a model gives it, with what tells whether to believe it."""

    segment: Segment
    mean_logprob: float


def loudness_db(samples: NDArray[np.float32]) -> float:
    """Return the level of the loudest 20 ms in dB of full scale; -inf for digital silence.

    Args:
        samples: (S,) mono float32 at 16 kHz. A constant offset does not count.
    """
    n_frame = int(FRAME_S * RATE_HZ)
    n_frames = max(samples.size // n_frame, 1)
    frames = (
        np.resize(samples, n_frame * n_frames)
        if samples.size < n_frame
        else (samples[: n_frame * n_frames])
    )
    frames = frames.reshape(n_frames, n_frame).astype(np.float64)
    power = float(frames.var(axis=1).max())
    return 10 * float(np.log10(power)) if power > 0 else -float("inf")


def is_silent(samples: NDArray[np.float32]) -> bool:
    """Tell whether nothing in (S,) at 16 kHz is loud enough to be speech."""
    return loudness_db(samples) < FLOOR_DB


WHISPER_LIMITS = Limits()


def is_believed(
    heard: Heard, samples: NDArray[np.float32], limits: Limits = WHISPER_LIMITS
) -> bool:
    """Tell whether a segment is speech rather than invented words.

    Args:
        heard: What the model gave.
        samples: (S,) of the whole sound at 16 kHz.
        limits: How sure the model must be.
    """
    segment = heard.segment
    text = segment.text.encode()
    if not any(letter.isalnum() for letter in segment.text):
        return False
    if segment.no_speech > limits.no_speech or heard.mean_logprob < limits.logprob:
        return False
    if segment.no_speech > MAX_NO_SPEECH and heard.mean_logprob < SURE_LOGPROB:
        return False
    if len(text) > MIN_REPEAT_CHARS and len(text) / len(zlib.compress(text)) > MAX_COMPRESSION:
        return False
    span = slice(int(segment.start_s * RATE_HZ), int(np.ceil(segment.end_s * RATE_HZ)))
    return not is_silent(samples[span]) if samples[span].size else False


def to_transcript(
    heard: Iterable[Heard],
    samples: NDArray[np.float32],
    language: str | None,
    model: str,
    limits: Limits = WHISPER_LIMITS,
) -> Transcript:
    """Keep the segments that are believed; none means that nobody speaks."""
    segments = tighten([one.segment for one in heard if is_believed(one, samples, limits)], samples)
    return Transcript(
        text=" ".join(segment.text for segment in segments),
        language=language if segments else None,
        segments=segments,
        is_speech=bool(segments),
        model=model,
    )


def make_segment(
    text: str, span_s: tuple[float, float], words: list[Word], no_speech: float, length_s: float
) -> Segment:
    """Build a segment that lies within the sound, and whose words lie within it."""
    start_s, end_s = _within(span_s, (0.0, length_s))
    return Segment(
        text=text.strip(),
        start_s=start_s,
        end_s=end_s,
        words=[_word_within(word, (start_s, end_s)) for word in words if word.text.strip()],
        no_speech=min(max(no_speech, 0.0), 1.0),
    )


def _word_within(word: Word, bounds_s: tuple[float, float]) -> Word:
    start_s, end_s = _within((word.start_s, word.end_s), bounds_s)
    return Word(text=word.text.strip(), start_s=start_s, end_s=end_s)


def _within(span_s: tuple[float, float], bounds_s: tuple[float, float]) -> tuple[float, float]:
    first_s, last_s = bounds_s
    start_s = min(max(span_s[0], first_s), last_s)
    return round(start_s, 3), round(min(max(span_s[1], start_s), last_s), 3)
