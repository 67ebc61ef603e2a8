"""Decoded media: what `load` hands to preprocessing. Shapes and units are fixed here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

Modality = Literal["image", "video", "audio", "depth", "thermal", "imu", "point", "text"]

MODALITIES: tuple[Modality, ...] = (
    "image",
    "video",
    "audio",
    "depth",
    "thermal",
    "imu",
    "point",
    "text",
)

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True)
class Sensed:
    """What every decoded medium carries: its name and its weight in a mix (finite, > 0)."""

    modality: ClassVar[Modality]
    weight: float = 1.0
    name: str = ""


@dataclass(frozen=True, eq=False)
class Image(Sensed):
    """A picture: RGB, upright (EXIF applied), transparency laid over white."""

    modality: ClassVar[Modality] = "image"
    pixels: PilImage.Image


@dataclass(frozen=True, eq=False)
class Depth(Sensed):
    """A depth map as disparity: (H, W) float32 in pixels, larger is nearer, 0 is unknown."""

    modality: ClassVar[Modality] = "depth"
    disparity: FloatArray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Thermal(Sensed):
    """A thermal picture: (H, W) float32 in [0, 1], larger is warmer."""

    modality: ClassVar[Modality] = "thermal"
    values: FloatArray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Audio(Sensed):
    """A sound: (C, S) float32 in [-1, 1] at `rate_hz` samples per second."""

    modality: ClassVar[Modality] = "audio"
    samples: FloatArray = field(repr=False)
    rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return float(self.samples.shape[1]) / self.rate_hz


@dataclass(frozen=True, eq=False)
class Imu(Sensed):
    """A motion recording: (6, T) float32, three accelerometer and three gyroscope axes."""

    modality: ClassVar[Modality] = "imu"
    signal: FloatArray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Points(Sensed):
    """A 3D shape: (N, 3) float32 coordinates as stored, neither centred nor scaled."""

    modality: ClassVar[Modality] = "point"
    xyz: FloatArray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Text(Sensed):
    """A text to be sensed by the encoder, not read by the LLM."""

    modality: ClassVar[Modality] = "text"
    text: str
