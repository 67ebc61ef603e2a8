"""Sound and video containers: opened by PyAV from memory, and able to open nothing else.

The demuxer is forced from the magic bytes, nested protocols are switched off, and only known
codecs may run, each with a limit on pixels. This module knows no sampling and no colours.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import av
from av.container import InputContainer
from av.stream import Disposition

from ibllm_tools.media.formats import Format
from ibllm_tools.media.integrity import stated_s
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.problems import decoding, problem

_AUDIO_CODECS = (
    "aac,aac_fixed,ac3,ac3_fixed,eac3,alac,flac,libopus,opus,libvorbis,vorbis,mp1,mp1float,mp2,"
    "mp2float,mp3,mp3float,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,gsm_ms,pcm_alaw,pcm_f32be,"
    "pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,pcm_s32be,"
    "pcm_s32le,pcm_s8,pcm_u8"
)
_VIDEO_CODECS = (
    "av1,libdav1d,libaom-av1,dnxhd,ffv1,h263,h264,hevc,huffyuv,ffvhuff,mjpeg,mpeg1video,"
    "mpeg2video,mpeg4,msmpeg4v2,msmpeg4,png,prores,rawvideo,theora,utvideo,vp8,libvpx,vp9,"
    "libvpx-vp9,wmv1,wmv2"
)


class Deadline:
    """A time limit for decoding one medium."""

    def __init__(self, policy: MediaPolicy, name: str) -> None:
        self._limit_s = policy.decode_timeout_s
        self._end = time.monotonic() + policy.decode_timeout_s
        self._name = name

    def check(self) -> None:
        """Raise `MediaError` once the time is up."""
        if time.monotonic() > self._end:
            raise problem(
                self._name,
                f"content that takes longer than {self._limit_s:g} s to decode",
                "less",
                "make it shorter or smaller, or raise MediaPolicy.decode_timeout_s",
            )


class _TimedBytes(io.BytesIO):
    """Bytes whose reading stops at the deadline, even inside a demuxer's own loop."""

    def __init__(self, data: bytes, deadline: Deadline) -> None:
        super().__init__(data)
        self._deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        self._deadline.check()
        return super().read(size)


def _open_nothing(*_args: object) -> NoReturn:
    raise PermissionError("a medium may not open another file or address")


@contextmanager
def opened(
    data: bytes, format_: Format, policy: MediaPolicy, name: str
) -> Iterator[tuple[InputContainer, Deadline]]:
    """Open the container in `data` for demuxing and decoding.

    Raises:
        MediaError: Anything that goes wrong inside, also in the caller's block.
    """
    deadline = Deadline(policy, name)
    with (
        decoding(name, f"a {format_.name} file"),
        av.open(
            _TimedBytes(data, deadline),
            format=format_.container,
            options=codec_options(policy) | {"protocol_whitelist": "none"},
            io_open=_open_nothing,
        ) as container,
    ):
        assert isinstance(container, InputContainer)
        yield container, deadline


def codec_options(policy: MediaPolicy) -> dict[str, str]:
    """Options that every decoder gets: which codecs may run, and how large a frame may be."""
    return {
        "codec_whitelist": f"{_AUDIO_CODECS},{_VIDEO_CODECS}",
        "max_pixels": str(policy.max_pixels),
    }


def audio_stream(container: InputContainer, policy: MediaPolicy) -> Any | None:
    """Return the first sound track, ready to decode, or None."""
    for stream in container.streams.audio:
        stream.codec_context.options = codec_options(policy)
        return stream
    return None


def video_stream(container: InputContainer, policy: MediaPolicy) -> Any | None:
    """Return the first picture track that is no cover picture, ready to decode, or None."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            stream.codec_context.options = codec_options(policy)
            return stream
    return None


def has_video(data: bytes, format_: Format, name: str) -> bool:
    """Tell whether the container holds moving pictures."""
    policy = MediaPolicy()
    with opened(data, format_, policy, name) as (container, _):
        return video_stream(container, policy) is not None


def claimed_s(container: InputContainer, data: bytes, format_: Format) -> float:
    """The length in seconds that the container states, or 0."""
    return max(float(container.duration or 0) / av.time_base, stated_s(data, format_.container))
