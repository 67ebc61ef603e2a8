"""Samples in memory written as a WAV file, so that they can travel in a block."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.media.problems import problem

_IEEE_FLOAT = 3


def wav_bytes(array: NDArray[Any], rate_hz: int | None, name: str) -> bytes:
    """Encode (S,) or (C, S) samples in [-1, 1] as a 32-bit float WAV file.

    Raises:
        MediaError: `rate_hz` is missing, or the array is no sound.
    """
    samples = np.atleast_2d(array)
    if rate_hz is None or rate_hz <= 0:
        raise problem(name, f"rate_hz {rate_hz}", "samples per second", "pass rate_hz=16000")
    if samples.ndim != 2 or not samples.size or not np.issubdtype(samples.dtype, np.floating):
        raise problem(
            name,
            f"an array of {array.dtype} with shape {array.shape}",
            "floats of shape (S,) or (C, S) in [-1, 1]",
            "divide int16 samples by 32768",
        )
    channels = samples.shape[0]
    data = samples.T.astype("<f4").tobytes()
    align = 4 * channels
    head = struct.pack("<HHIIHH", _IEEE_FLOAT, channels, rate_hz, rate_hz * align, align, 32)
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body
