"""Videos: checked at once, decoded lazily, so that a long clip never lies in memory as frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from ibllm_tools.media.audio import read_track
from ibllm_tools.media.containers import Deadline, claimed_s, opened, video_stream
from ibllm_tools.media.formats import Format
from ibllm_tools.media.integrity import check_complete
from ibllm_tools.media.items import Audio, Modality, Sensed
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.problems import problem

Frames = NDArray[np.uint8]

# A frame at 0.72 s belongs to a clip from 0.72 s, however the clip's start was rounded.
_EPSILON_S = 1e-6
_MAX_FPS = 250
_USUAL_FPS = 25
_MAX_OUTPUT_BYTES = 2**30
_SLACK_S = 0.5


@dataclass(frozen=True)
class Track:
    """When the frames of a video are shown.

    Attributes:
        pts: (F,) int64 time stamps in display order, in `unit_s`; frame i is shown from pts[i].
        keys: Time stamps of the frames at which decoding can start, sorted.
        unit_s: Seconds per unit.
        last_s: Seconds that the last frame is shown.
        stamped: Whether frames carry these stamps; if not, they are counted instead.
    """

    pts: NDArray[np.int64]
    keys: NDArray[np.int64]
    unit_s: Fraction
    last_s: Fraction
    stamped: bool

    @property
    def times_s(self) -> NDArray[np.float64]:
        """(F,) seconds from the first frame."""
        ticks = (self.pts - self.pts[0]).astype(np.float64)
        times: NDArray[np.float64] = ticks * self.unit_s.numerator / self.unit_s.denominator
        return times

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return float(int(self.pts[-1] - self.pts[0]) * self.unit_s + self.last_s)


@dataclass(frozen=True, eq=False)
class Video(Sensed):
    """A video in its encoded form, known to be complete; frames are decoded when asked for.

    Attributes:
        data: The encoded file.
        format_: Its container.
        policy: The limits under which it was loaded, which hold for decoding too.
        track: When its frames are shown.
    """

    modality: ClassVar[Modality] = "video"
    data: bytes = field(repr=False)
    format_: Format = field(repr=False)
    policy: MediaPolicy = field(repr=False)
    track: Track = field(repr=False)

    @property
    def duration_s(self) -> float:
        """Length in seconds, from the first frame to the end of the last."""
        return self.track.duration_s

    @property
    def fps(self) -> float:
        """Mean frames per second."""
        return len(self.track.pts) / self.duration_s

    def frames(self, spans_s: Sequence[tuple[float, float]], n_frames: int) -> list[Frames]:
        """Decode `n_frames` frames of each span, evenly chosen from first to last.

        Args:
            spans_s: (start, end) in seconds; a frame counts if start <= its time < end. A span
                without a frame of its own gives the frame that is shown at its start.
            n_frames: Frames per span; a span with fewer repeats some.

        Returns:
            For each span (n_frames, H, W, 3) uint8 RGB, turned upright.

        Raises:
            MediaError: The content is damaged, or decoding takes too long.

        Source: frame choice as in pytorchvideo's uniform temporal subsampling.
        """
        chosen = [_choose(self.track.times_s, start, end, n_frames) for start, end in spans_s]
        wanted = sorted({number for numbers in chosen for number in numbers})
        pictures = _decode(self, wanted)
        return [np.stack([pictures[number] for number in numbers]) for numbers in chosen]

    def audio(self) -> Audio | None:
        """Decode the sound track, or return None if there is none."""
        return read_track(self.data, self.format_, self.policy, self.name, self.weight)


def read_video(
    data: bytes, format_: Format, policy: MediaPolicy, name: str, weight: float = 1.0
) -> Video:
    """Check a video and list its frames; only the first one is decoded.

    Raises:
        MediaError: It has no pictures, is cut off or damaged, or is larger than allowed.
    """
    check_complete(data, format_.container, name)
    with opened(data, format_, policy, name) as (container, deadline):
        stream = video_stream(container, policy)
        if stream is None:
            raise problem(name, "no pictures", "a video", "pass it as audio")
        stated_s = claimed_s(container, data, format_)
        _check_claims(stream, stated_s, policy, name)
        track = _index(container, stream, stated_s, policy, name, deadline)
    video = Video(data, format_, policy, track, weight=weight, name=name)
    _decode(video, [0])
    return video


def _check_claims(stream: Any, stated_s: float, policy: MediaPolicy, name: str) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if not 0 < width * height <= policy.max_pixels:
        raise problem(
            name,
            # A decoder that was stopped by its limit leaves the size at 0.
            f"frames of {width} x {height} pixels" if width else "frames of too many pixels",
            f"at most {policy.max_pixels:,} pixels",
            "scale it down, or raise MediaPolicy.max_pixels",
        )
    _check_seconds(stated_s, policy, name)


def _check_seconds(seconds: float, policy: MediaPolicy, name: str) -> None:
    if seconds > policy.max_seconds:
        raise problem(
            name,
            f"{seconds:.1f} s",
            f"at most {policy.max_seconds:g} s",
            "cut out the part of interest, or raise MediaPolicy.max_seconds",
        )


def _index(
    container: InputContainer,
    stream: Any,
    stated_s: float,
    policy: MediaPolicy,
    name: str,
    deadline: Deadline,
) -> Track:
    """List the time stamps from the packets, and compare their number and end with the header."""
    limit = int(policy.max_seconds * _MAX_FPS) + 1
    stamps: list[int] = []
    keys: list[int] = []
    last_frame, end_s, n_packets = 0, 0.0, 0
    # AVI stores no time stamps; those that FFmpeg makes up are wrong where frames are reordered.
    stamped = container.format.name != "avi"
    for packet in container.demux():
        deadline.check()
        if not packet.size:
            continue
        stamp = packet.dts if packet.pts is None else packet.pts
        if packet.is_corrupt:
            raise _cut_off(name, "a frame that is cut off")
        if stamp is not None:
            end_s = max(end_s, float((stamp + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index != stream.index:
            continue
        n_packets += 1
        stamped = stamped and packet.pts is not None
        if packet.is_discard or stamp is None:
            continue
        stamps.append(stamp)
        last_frame = packet.duration or last_frame
        if packet.is_keyframe:
            keys.append(stamp)
        if len(stamps) > limit:
            raise problem(name, f"more than {limit:,} frames", "fewer", "lower its frame rate")
    # An AVI header counts a frame or two more; its chunks have been checked already.
    n_claimed = stream.frames if container.format.name != "avi" else 0
    _check_whole(n_claimed, n_packets, stated_s, end_s, name)
    return _track(stamps, keys, last_frame, stream, stamped, policy, name)


def _check_whole(n_claimed: int, n_packets: int, stated_s: float, end_s: float, name: str) -> None:
    if n_packets == 0:
        raise _cut_off(name, "no frames")
    if n_claimed > n_packets:
        raise _cut_off(name, f"{n_packets:,} frames under a header that claims {n_claimed:,}")
    if end_s < stated_s - _SLACK_S:
        raise _cut_off(name, f"{end_s:.2f} s under a header that states {stated_s:.2f} s")


def _cut_off(name: str, found: str) -> Exception:
    return problem(name, found, "a complete video", "it is cut off: export or upload it again")


def _track(
    stamps: list[int],
    keys: list[int],
    last_frame: int,
    stream: Any,
    stamped: bool,
    policy: MediaPolicy,
    name: str,
) -> Track:
    if not stamps:
        raise _cut_off(name, "no frames that are shown")
    pts = np.unique(np.array(stamps, np.int64))
    unit_s = Fraction(stream.time_base)
    rate = stream.average_rate or stream.guessed_rate or _USUAL_FPS
    last_s = last_frame * unit_s or 1 / Fraction(rate)
    track = Track(pts, np.unique(np.array(keys, np.int64)), unit_s, last_s, stamped)
    _check_seconds(track.duration_s, policy, name)
    return track


def _choose(times_s: NDArray[np.float64], start: float, end: float, n_frames: int) -> list[int]:
    first = int(np.searchsorted(times_s, start - _EPSILON_S, side="left"))
    stop = int(np.searchsorted(times_s, end - _EPSILON_S, side="left"))
    if stop <= first:
        shown = int(np.searchsorted(times_s, start + _EPSILON_S, side="right")) - 1
        return [max(shown, 0)] * n_frames
    offsets = np.linspace(0, stop - first - 1, n_frames).astype(np.int64)
    return [first + int(offset) for offset in offsets]


def _decode(video: Video, wanted: list[int]) -> dict[int, Frames]:
    """Decode the frames of the sorted numbers `wanted`, jumping to key frames on the way."""
    pictures: dict[int, Frames] = {}
    with opened(video.data, video.format_, video.policy, video.name) as (container, deadline):
        stream = video_stream(container, video.policy)
        source = _Source(container, stream, video.track, deadline)
        size: tuple[int, int] | None = None
        for number in wanted:
            frame = source.seek(number)
            size = size or (frame.width, frame.height)
            if size[0] * size[1] * 3 * len(wanted) > _MAX_OUTPUT_BYTES:
                raise problem(
                    video.name, "frames too large for memory", "1 GiB", "scale the video down"
                )
            pictures[number] = _upright(frame, size)
    return pictures


class _Source:
    """Frames of one open container, asked for in rising order."""

    def __init__(
        self,
        container: InputContainer,
        stream: Any,
        track: Track,
        deadline: Deadline,
    ) -> None:
        self._container = container
        self._stream = stream
        self._track = track
        self._deadline = deadline
        self._decoded: Iterator[Any] = container.decode(stream)
        self._position = -1
        self._frame: Any = None
        self._count = 0

    def seek(self, number: int) -> Any:
        """Decode up to frame `number`; a frame lost to damage is replaced by its neighbour."""
        self._jump(number)
        while self._position < number:
            self._deadline.check()
            frame = next(self._decoded, None)
            if frame is None:
                break
            self._frame = frame
            self._position = self._number(frame)
        if self._frame is None:
            raise EOFError("no frame could be decoded")
        return self._frame

    def _jump(self, number: int) -> None:
        """Seek if a key frame lies between here and the wanted frame."""
        track, target = self._track, self._track.pts[number]
        earlier = track.keys[track.keys <= target]
        if not track.stamped or not len(earlier):
            return
        here = track.pts[max(self._position, 0)]
        if earlier[-1] > here:
            self._container.seek(int(earlier[-1]), stream=self._stream, backward=True)
            self._decoded = self._container.decode(self._stream)

    def _number(self, frame: Any) -> int:
        if not self._track.stamped or frame.pts is None:
            self._count += 1
            return self._count - 1
        return int(np.searchsorted(self._track.pts, frame.pts, side="right")) - 1


def _upright(frame: Any, size: tuple[int, int]) -> Frames:
    """(H, W, 3) RGB at the size of the first frame, turned as the file's metadata asks."""
    if (frame.width, frame.height) != size:
        frame = frame.reformat(width=size[0], height=size[1])
    picture: Frames = frame.to_ndarray(format="rgb24")
    quarter_turns = round(frame.rotation / 90)
    return np.ascontiguousarray(np.rot90(picture, quarter_turns)) if quarter_turns else picture
