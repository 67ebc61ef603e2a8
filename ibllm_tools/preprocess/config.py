"""The sizes and statistics that preprocessing needs; saved as `preprocessor_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ibllm_tools.errors import ConfigurationError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP_MERGES = 48894


@dataclass(frozen=True)
class PreprocessConfig:
    """How each modality becomes a tensor. The defaults are those of `imagebind_huge`.

    Attributes:
        image_px: Side of images and video crops, in pixels.
        image_zooms: Shares of the centre square that the views of an image show, in (0, 1]; the
            encoder averages over views as it does over the clips of a video. The reference has
            one view, the whole square.
        image_flips: Whether each of these views comes mirrored as well.
        image_mean: Mean of each colour channel, for values in [0, 1].
        image_std: Standard deviation of each colour channel.
        audio_rate_hz: Samples per second after resampling.
        audio_mels: Mel bins of the filter bank.
        audio_frames: Frames of 10 ms per clip; shorter clips are padded.
        audio_clips: Clips per recording, spread evenly.
        audio_clip_s: Length of a clip in seconds.
        audio_mean: Mean subtracted from the log-mel values.
        audio_std: Divisor of the log-mel values.
        video_clips: Clips per video, spread evenly.
        video_clip_s: Length of a clip in seconds.
        video_frames: Frames taken from each clip.
        video_crops: Square crops of each clip along its longer side.
        depth_px: Side of disparity maps, in pixels.
        depth_unit_range: Whether each disparity map is stretched to [0, 1], so that maps of
            any unit fit; the reference takes disparity as it is.
        thermal_px: Side of thermal images, in pixels.
        imu_samples: Samples per channel of an IMU signal.
        n_points: Points of a cloud.
        text_context: Tokens of a text, with start, end and padding.
        text_merges: How many of CLIP's merges are used; the vocabulary has
            512 + text_merges + 2 tokens, the last two are start and end.
        text_special_tokens: Whether `<|startoftext|>` and `<|endoftext|>` in a text become
            special tokens, as in the reference; False reads them as plain characters.
    """

    image_px: int = 224
    image_zooms: tuple[float, ...] = (1.0,)
    image_flips: bool = False
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD
    audio_rate_hz: int = 16000
    audio_mels: int = 128
    audio_frames: int = 204
    audio_clips: int = 3
    audio_clip_s: float = 2.0
    audio_mean: float = -4.268
    audio_std: float = 9.138
    video_clips: int = 5
    video_clip_s: float = 2.0
    video_frames: int = 2
    video_crops: int = 3
    depth_px: int = 224
    depth_unit_range: bool = False
    thermal_px: int = 224
    imu_samples: int = 2000
    n_points: int = 8192
    text_context: int = 77
    text_merges: int = CLIP_MERGES
    text_special_tokens: bool = True

    def __post_init__(self) -> None:
        """Refuse sizes that cannot work.

        Raises:
            ConfigurationError: A size is not positive, or there are more merges than exist.
        """
        for name, value in self.to_dict().items():
            if isinstance(value, (int, float)) and name not in _MAY_BE_ZERO and value <= 0:
                raise ConfigurationError(f"{name}: found {value}, expected a value above 0")
        if not self.image_zooms or not all(0 < zoom <= 1 for zoom in self.image_zooms):
            raise ConfigurationError(
                f"image_zooms: found {self.image_zooms}, expected at least one share above 0 and "
                "at most 1"
            )
        if not 0 <= self.text_merges <= CLIP_MERGES:
            raise ConfigurationError(
                f"text_merges: found {self.text_merges}, expected 0 to {CLIP_MERGES}"
            )
        if self.text_context < _SPECIAL_TOKENS:
            raise ConfigurationError(
                f"text_context: found {self.text_context}, expected at least {_SPECIAL_TOKENS} "
                "(start and end)"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as values that JSON can hold."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PreprocessConfig:
        """Build from `to_dict`; names that are not settings are ignored.

        Raises:
            ConfigurationError: A size cannot work.
        """
        known = {field.name for field in fields(cls)}
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if name in known
        }
        return cls(**settings)


_MAY_BE_ZERO = (
    "audio_mean", "text_merges", "depth_unit_range", "image_flips", "text_special_tokens",
)  # fmt: skip
_SPECIAL_TOKENS = 2
