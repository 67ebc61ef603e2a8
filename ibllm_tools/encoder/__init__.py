"""ImageBind's trunks: any medium becomes one vector in a joint space."""

from ibllm_tools.encoder.configuration import (
    AudioConfig,
    DepthConfig,
    ImageBindConfig,
    ImuConfig,
    PointConfig,
    TextConfig,
    ThermalConfig,
    VisionConfig,
    trunk_of,
)
from ibllm_tools.encoder.grouping import PointGroups, group_points
from ibllm_tools.encoder.imagebind import ImageBind, Stages

__all__ = [
    "AudioConfig",
    "DepthConfig",
    "ImageBind",
    "ImageBindConfig",
    "ImuConfig",
    "PointConfig",
    "PointGroups",
    "Stages",
    "TextConfig",
    "ThermalConfig",
    "VisionConfig",
    "group_points",
    "trunk_of",
]
