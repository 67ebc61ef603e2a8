"""Sounds: any rate, any number of channels, decoded to float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.errors import MediaError
from ibllm_tools.media.arrays import to_float32
from ibllm_tools.media.containers import audio_stream, claimed_s, opened
from ibllm_tools.media.formats import Format
from ibllm_tools.media.integrity import check_complete
from ibllm_tools.media.items import Audio, FloatArray
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.problems import problem

# 256 MiB of float32: ten minutes of 48 kHz stereo fit.
_MAX_VALUES = 2**26
_MAX_CHANNELS = 32
_MIN_RATE_HZ, _MAX_RATE_HZ = 1000, 384_000
# Above this, samples are no overshoot of a codec but on another scale.
_MAX_PEAK = 16.0
# Priming samples and rounding make a stated length differ from the decoded one.
_SLACK_S = 0.15
_EXACT = {"flac", "mov", "matroska"}


def read_audio(
    data: bytes, format_: Format, policy: MediaPolicy, name: str, weight: float = 1.0
) -> Audio:
    """Decode a sound.

    Integer samples are divided by 2 to the power of their bits minus one, as soundfile does; float
    samples are taken as they are. Values beyond 1 are clipped.

    Raises:
        MediaError: It has no sound track, is cut off or damaged, or is longer than allowed.
    """
    audio = read_track(data, format_, policy, name, weight)
    if audio is None:
        raise problem(name, "no sound track", "a sound", "choose a file with sound")
    return audio


def read_track(
    data: bytes, format_: Format, policy: MediaPolicy, name: str, weight: float = 1.0
) -> Audio | None:
    """Decode the first sound track, or return None if there is none."""
    check_complete(data, format_.container, name)
    with opened(data, format_, policy, name) as (container, deadline):
        stream = audio_stream(container, policy)
        if stream is None:
            return None
        rate_hz, channels = _check_header(stream, name)
        exact = format_.container in _EXACT
        stated_s = claimed_s(container, data, format_) if exact else 0.0
        if stated_s > policy.max_seconds:
            raise _too_long(name, policy)
        chunks, n_samples = [], 0
        for frame in container.decode(stream):
            deadline.check()
            n_samples += _check_frame(frame, rate_hz, channels, name)
            _check_length(n_samples, rate_hz, channels, policy, name)
            chunks.append(_to_float(frame))
        if stream.duration and exact:
            _check_stated(float(stream.duration * stream.time_base), n_samples / rate_hz, name)
        return Audio(_join(chunks, name), rate_hz, weight=weight, name=name)


def _check_header(stream: Any, name: str) -> tuple[int, int]:
    rate_hz, channels = int(stream.rate or 0), int(stream.channels or 0)
    if not _MIN_RATE_HZ <= rate_hz <= _MAX_RATE_HZ or not 1 <= channels <= _MAX_CHANNELS:
        raise problem(
            name,
            f"{channels} channels at {rate_hz} Hz",
            f"1 to {_MAX_CHANNELS} channels at {_MIN_RATE_HZ} to {_MAX_RATE_HZ} Hz",
            "resample it",
        )
    return rate_hz, channels


def _check_frame(frame: Any, rate_hz: int, channels: int, name: str) -> int:
    if frame.sample_rate != rate_hz or len(frame.layout.channels) != channels:
        raise problem(
            name,
            "a sound that changes its rate or channels midway",
            "one rate and one number of channels",
            "export it again",
        )
    return int(frame.samples)


def _check_length(
    n_samples: int, rate_hz: int, channels: int, policy: MediaPolicy, name: str
) -> None:
    if n_samples > policy.max_seconds * rate_hz:
        raise _too_long(name, policy)
    if n_samples * channels > _MAX_VALUES:
        raise problem(
            name,
            f"more than {_MAX_VALUES:,} samples over all channels",
            "fewer",
            "mix it down to mono at 16 kHz, which is all that the encoder hears",
        )


def _too_long(name: str, policy: MediaPolicy) -> MediaError:
    return problem(
        name,
        f"more than {policy.max_seconds:g} s",
        f"at most {policy.max_seconds:g} s",
        "cut out the part of interest, or raise MediaPolicy.max_seconds",
    )


def _check_stated(stated_s: float, decoded_s: float, name: str) -> None:
    if decoded_s < stated_s - _SLACK_S:
        raise problem(
            name,
            f"{decoded_s:.2f} s of sound under a header that states {stated_s:.2f} s",
            "all of it",
            "it is cut off: export or upload it again",
        )


def _to_float(frame: Any) -> NDArray[Any]:
    """(C, S) float from a frame; packed samples are interleaved."""
    values: NDArray[Any] = frame.to_ndarray()
    if frame.format.is_packed:
        values = values.reshape(-1, len(frame.layout.channels)).T
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        # float64 first: float32 cannot hold every 32-bit integer. The quotient is then exact.
        bits = 8 * values.dtype.itemsize - 1
        return (values.astype(np.float64) / 2.0**bits).astype(np.float32)
    return values


def _join(chunks: list[NDArray[Any]], name: str) -> FloatArray:
    if not chunks or not sum(chunk.shape[1] for chunk in chunks):
        raise problem(name, "a sound track without samples", "a sound", "check the recording")
    samples = to_float32(np.concatenate(chunks, axis=1), name)
    peak = float(np.abs(samples).max())
    if peak > _MAX_PEAK:
        raise problem(
            name,
            f"float samples up to {peak:g}",
            "samples in [-1, 1]",
            "divide them by the full scale, such as 32768",
        )
    return np.clip(samples, -1.0, 1.0) if peak > 1 else samples
