"""Sizes of every trunk; the defaults are those of the released `imagebind_huge`.

A trunk that is `None` does not exist. Depth and thermal take images of one channel.
`stem_channels` replaces the patch projection by a convolutional stem that halves the image once
per entry; `stem_depths` counts its residual convolutions after each halving. Small trunks learn
faster with it (Xiao et al., 2021, "Early convolutions help transformers see better").
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import transformers
from transformers import PretrainedConfig

from ibllm_tools.errors import ConfigurationError

TRUNKS = ("vision", "text", "audio", "depth", "thermal", "imu", "point")
_TRUNK_OF_MODALITY = {"image": "vision", "video": "vision"}


def trunk_of(modality: str) -> str:
    """Name the trunk that reads a modality: image and video share `vision`.

    Raises:
        ConfigurationError: The modality is unknown.
    """
    trunk = _TRUNK_OF_MODALITY.get(modality, modality)
    if trunk not in TRUNKS:
        known = ", ".join(["image", "video", *TRUNKS[1:]])
        raise ConfigurationError(f"unknown modality {modality!r}; use one of {known}")
    return trunk


@dataclass
class _Transformer:
    """Sizes that all transformer trunks share. `drop_path` is the rate of the last block."""

    width: int
    n_layers: int
    n_heads: int
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.n_heads:
            raise ConfigurationError(
                f"width {self.width} is not divisible by n_heads {self.n_heads}; change one of them"
            )
        for field in fields(self):  # JSON turns tuples into lists
            if isinstance(getattr(self, field.name), list):
                setattr(self, field.name, tuple(getattr(self, field.name)))
        channels, depths = (getattr(self, f"stem_{name}", ()) for name in ("channels", "depths"))
        if len(channels) != len(depths):
            raise ConfigurationError(
                f"found {len(channels)} stem_channels and {len(depths)} stem_depths; "
                f"give one depth per halving"
            )


@dataclass
class VisionConfig(_Transformer):
    """Images (3, px, px) and clips (3, n_frames, px, px)."""

    width: int = 1280
    n_layers: int = 32
    n_heads: int = 16
    image_px: int = 224
    patch_px: int = 14
    n_frames: int = 2
    stem_channels: tuple[int, ...] = ()
    stem_depths: tuple[int, ...] = ()
    stem_pool: bool = False


@dataclass
class TextConfig(_Transformer):
    """Token ids (n_context,); the last id of the vocabulary ends a text."""

    width: int = 1024
    n_layers: int = 24
    n_heads: int = 16
    vocab_size: int = 49408
    n_context: int = 77


@dataclass
class AudioConfig(_Transformer):
    """Log-mel images (1, n_mels, n_frames), cut into overlapping patches."""

    width: int = 768
    n_layers: int = 12
    n_heads: int = 12
    drop_path: float = 0.1
    n_mels: int = 128
    n_frames: int = 204
    patch_px: int = 16
    stride_px: int = 10
    stem_channels: tuple[int, ...] = ()
    stem_depths: tuple[int, ...] = ()
    stem_pool: bool = False


@dataclass
class DepthConfig(_Transformer):
    """Disparity images (1, px, px)."""

    width: int = 384
    n_layers: int = 12
    n_heads: int = 8
    image_px: int = 224
    patch_px: int = 16
    stem_channels: tuple[int, ...] = ()
    stem_depths: tuple[int, ...] = ()
    stem_pool: bool = False


@dataclass
class ThermalConfig(_Transformer):
    """Thermal images (1, px, px)."""

    width: int = 768
    n_layers: int = 12
    n_heads: int = 12
    image_px: int = 224
    patch_px: int = 16
    stem_channels: tuple[int, ...] = ()
    stem_depths: tuple[int, ...] = ()
    stem_pool: bool = False


@dataclass
class ImuConfig(_Transformer):
    """Signals (n_channels, n_samples), cut into windows of `window` samples."""

    width: int = 512
    n_layers: int = 6
    n_heads: int = 8
    drop_path: float = 0.7
    n_channels: int = 6
    n_samples: int = 2000
    window: int = 8
    head_dropout: float = 0.5


@dataclass
class PointConfig(_Transformer):
    """Point clouds (N, 3), by PointBERT or by I2P-MAE.

    `width`, `n_layers`, `n_groups`, `group_size` and `mlp_channels` size PointBERT;
    the `level_*` fields size I2P-MAE, whose last width is the feature's.
    `mlp_channels` are the inner widths of the small PointNet, `mlp_out` is that of its result.
    """

    width: int = 384
    n_layers: int = 12
    n_heads: int = 6
    drop_path: float = 0.1
    encoder: Literal["pointbert", "i2pmae"] = "pointbert"
    projection_dim: int = 512
    fps_start: int = 0
    n_groups: int = 512
    group_size: int = 32
    mlp_channels: tuple[int, ...] = (128, 256, 512)
    mlp_out: int = 256
    pos_hidden: int = 128
    level_layers: tuple[int, ...] = (5, 5, 5)
    level_widths: tuple[int, ...] = (96, 192, 384)
    level_radius: tuple[float, ...] = (0.24, 0.48, 0.96)
    level_group_sizes: tuple[int, ...] = (48, 24, 24)
    level_n_groups: tuple[int, ...] = (512, 256, 64)

    def __post_init__(self) -> None:
        if self.encoder not in ("pointbert", "i2pmae"):
            raise ConfigurationError(
                f"point encoder {self.encoder!r} is unknown; use 'pointbert' or 'i2pmae'"
            )
        if self.encoder == "i2pmae":
            for width in self.level_widths:
                self.width = width  # in the end that of the feature
                super().__post_init__()
        super().__post_init__()


TrunkConfig = (
    VisionConfig | TextConfig | AudioConfig | DepthConfig | ThermalConfig | ImuConfig | PointConfig
)
_CLASSES: dict[str, type[Any]] = {
    "vision": VisionConfig,
    "text": TextConfig,
    "audio": AudioConfig,
    "depth": DepthConfig,
    "thermal": ThermalConfig,
    "imu": ImuConfig,
    "point": PointConfig,
}
_HUGE: dict[str, Any] = {}  # an empty dict asks for a trunk of the released size


class ImageBindConfig(PretrainedConfig):  # type: ignore[misc, no-untyped-call, unused-ignore]
    """The joint width and one optional config per trunk; the default is `imagebind_huge`.

    Each trunk is given as its config, as a dict of that config's fields, or as `None`.

    Raises:
        ConfigurationError: A trunk's dict has an unknown field, or its sizes do not fit.
    """

    model_type = "imagebind"

    def __init__(
        self,
        joint_dim: int = 1024,
        vision: VisionConfig | dict[str, Any] | None = _HUGE,
        text: TextConfig | dict[str, Any] | None = _HUGE,
        audio: AudioConfig | dict[str, Any] | None = _HUGE,
        depth: DepthConfig | dict[str, Any] | None = _HUGE,
        thermal: ThermalConfig | dict[str, Any] | None = _HUGE,
        imu: ImuConfig | dict[str, Any] | None = _HUGE,
        point: PointConfig | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.joint_dim = joint_dim
        self.vision: VisionConfig | None = _read("vision", vision)
        self.text: TextConfig | None = _read("text", text)
        self.audio: AudioConfig | None = _read("audio", audio)
        self.depth: DepthConfig | None = _read("depth", depth)
        self.thermal: ThermalConfig | None = _read("thermal", thermal)
        self.imu: ImuConfig | None = _read("imu", imu)
        self.point: PointConfig | None = _read("point", point)

    @classmethod
    def only(cls, *, joint_dim: int = 1024, **trunks: Any) -> ImageBindConfig:
        """Make a config that has the named trunks and no others."""
        return cls(joint_dim=joint_dim, **{name: trunks.get(name) for name in TRUNKS})

    @property
    def trunks(self) -> dict[str, TrunkConfig]:
        """The configs of the trunks that exist, by trunk name."""
        found = {name: getattr(self, name) for name in TRUNKS}
        return {name: config for name, config in found.items() if config is not None}

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        plain: dict[str, Any] = {"model_type": self.model_type, "joint_dim": self.joint_dim}
        plain["transformers_version"] = transformers.__version__  # a nested config must have it
        for name in TRUNKS:
            config = getattr(self, name)
            plain[name] = None if config is None else asdict(config)
        return plain

    def to_diff_dict(self) -> dict[str, Any]:
        """All fields, defaults too, so that a saved config says what it is."""
        return self.to_dict()


def _read(name: str, value: Any) -> Any:
    """Turn a dict of fields into the trunk's config."""
    if value is None or not isinstance(value, dict):
        return value
    known = {field.name for field in fields(_CLASSES[name])}
    if unknown := sorted(set(value) - known):
        raise ConfigurationError(
            f"the {name} trunk has no field {', '.join(unknown)}; "
            f"known are {', '.join(sorted(known))}"
        )
    return _CLASSES[name](**value)
