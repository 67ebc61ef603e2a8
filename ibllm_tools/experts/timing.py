"""When words begin and end: attention says about where, the loudness of the sound says when.

Attention tells where one word goes over into the next, so that a pause falls to either of them.
Words part where it is quietest near there, and each is as long as it sounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ibllm_tools.experts.inputs import RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ibllm_tools.experts.results import Segment, Word

FRAME_S = 0.01
SMOOTH_FRAMES = 5
REACH_S = 0.25  # how far the border between two words may move
HUSHED_DB = 30.0  # so far below a word's loudest frame, nothing of it is heard
ABOVE_NOISE_DB = 6.0  # what is no louder than this above the quiet parts is noise
GAP_FRAMES = 15  # a longer silence is none within a word


def tighten(segments: Sequence[Segment], samples: NDArray[np.float32]) -> list[Segment]:
    """Move starts and ends of words to where they sound; they stay within their segments.

    Args:
        segments: Of the whole sound; not changed.
        samples: (S,) of the whole sound at 16 kHz.
    """
    n_frame = int(FRAME_S * RATE_HZ)
    n_frames = samples.size // n_frame
    if n_frames < SMOOTH_FRAMES or not any(segment.words for segment in segments):
        return list(segments)
    power = np.square(samples[: n_frames * n_frame]).reshape(n_frames, n_frame).mean(axis=1)
    smooth = np.convolve(power, np.full(SMOOTH_FRAMES, 1 / SMOOTH_FRAMES), mode="same")
    quiet = float(np.percentile(power, 10)) * 10 ** (ABOVE_NOISE_DB / 10)
    tight = [
        [_tight(word, power, quiet) for word in _part(segment.words, smooth)]
        for segment in segments
    ]
    return [
        segment.model_copy(update={"words": words})
        for segment, words in zip(segments, tight, strict=True)
    ]


def _part(words: Sequence[Word], power: NDArray[np.floating]) -> list[Word]:
    """Move the border of words that touch to the quietest place nearby, within their middles."""
    parted = list(words)
    for i in range(len(parted) - 1):
        one, other = parted[i], parted[i + 1]
        border_s = one.end_s
        if other.start_s > border_s:
            continue
        first_s = max((words[i].start_s + border_s) / 2, border_s - REACH_S)
        last_s = min((border_s + words[i + 1].end_s) / 2, border_s + REACH_S)
        first, last = round(first_s / FRAME_S), round(last_s / FRAME_S)
        nearby = power[first : last + 1]
        if nearby.size:
            border_s = round((first + int(nearby.argmin())) * FRAME_S, 3)
            parted[i] = one.model_copy(update={"end_s": max(border_s, one.start_s)})
            parted[i + 1] = other.model_copy(update={"start_s": min(border_s, other.end_s)})
    return parted


def _tight(word: Word, power: NDArray[np.floating], quiet: float) -> Word:
    """Keep the part of a word's span that sounds: the one that holds most of its power."""
    first, last = int(word.start_s / FRAME_S), int(np.ceil(word.end_s / FRAME_S))
    inside = power[first:last]
    if not inside.size:
        return word
    loud = np.flatnonzero(inside > max(float(inside.max()) * 10 ** (-HUSHED_DB / 10), quiet))
    if not loud.size:  # as loud as the noise
        return word
    runs = np.split(loud, np.flatnonzero(np.diff(loud) > GAP_FRAMES) + 1)
    main = max(runs, key=lambda run: float(inside[run].sum()))
    start_s = max(word.start_s, (first + int(main[0])) * FRAME_S)
    end_s = min(word.end_s, (first + int(main[-1]) + 1) * FRAME_S)
    return word.model_copy(update={"start_s": round(start_s, 3), "end_s": round(end_s, 3)})
