"""What experts accept: checked and bounded before any model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ibllm_tools.errors import ConfigurationError, MediaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image as PilImage

MAX_PIXELS = 50_000_000  # as MediaPolicy
MAX_ASPECT = 20
MAX_LABELS = 64
MAX_LABEL_CHARS = 80
MAX_SECONDS = 3600
MIN_RATE_HZ, MAX_RATE_HZ = 1000, 384_000
RATE_HZ = 16_000  # what speech models listen to


def to_rgb(image: PilImage.Image) -> PilImage.Image:
    """Bring a picture of any mode to RGB: transparency over white, 16-bit grey to 8 bits.

    Raises:
        MediaError: It has too many pixels, or is too narrow to look at.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"image: found {width} x {height} pixels, expected at most {MAX_PIXELS:,}; "
            "scale it down"
        )
    if min(width, height) < 1 or max(width, height) > MAX_ASPECT * min(width, height):
        raise MediaError(
            f"image: found {width} x {height} pixels, expected sides of at most "
            f"{MAX_ASPECT} : 1; cut out the part of interest"
        )
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_grey(image)
    if image.mode in {"RGBA", "RGBa", "LA", "La", "PA"} or "transparency" in image.info:
        return _over_white(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_grey(image: PilImage.Image) -> PilImage.Image:
    """Scale integers from 0..65535 and floats from 0..1 to 8 bits; values beyond are clipped."""
    from PIL import Image as PilImage

    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    full = 1.0 if image.mode == "F" else 65535.0
    return PilImage.fromarray(np.rint(np.clip(values / full, 0, 1) * 255).astype(np.uint8))


def _over_white(layer: PilImage.Image) -> PilImage.Image:
    from PIL import Image as PilImage

    white = PilImage.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer)
    return white


def check_labels(labels: Sequence[str] | None) -> list[str] | None:
    """Strip labels and drop repeated ones; None stays None.

    Raises:
        ConfigurationError: There are none, too many, or one is empty or very long.
    """
    if labels is None:
        return None
    if isinstance(labels, str):
        raise ConfigurationError(f'labels: found the text {labels!r}; expected a list: ["dog"]')
    # A full stop divides the nouns in the prompt of Grounding DINO.
    cleaned = [" ".join(str(label).replace(".", " ").split()) for label in labels]
    unique = list({label.casefold(): label for label in cleaned}.values())
    if not 1 <= len(unique) <= MAX_LABELS:
        raise ConfigurationError(
            f"labels: found {len(unique)}, expected 1 to {MAX_LABELS} nouns; ask for fewer at once"
        )
    for label in unique:
        if not 1 <= len(label) <= MAX_LABEL_CHARS:
            raise ConfigurationError(
                f"labels: found one of {len(label)} characters, expected 1 to {MAX_LABEL_CHARS}; "
                'name things by a noun, such as "dog"'
            )
    return unique


def check_threshold(threshold: float | None, default: float) -> float:
    """Return the threshold, or the default where there is none.

    Raises:
        ConfigurationError: It lies outside 0 to 1.
    """
    if threshold is None:
        return default
    if not 0 <= threshold <= 1:  # False for NaN too
        raise ConfigurationError(f"threshold: found {threshold}, expected 0 to 1, such as 0.5")
    return float(threshold)


def check_sound(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """Check a mono sound and return it as float32 in [-1, 1].

    Raises:
        MediaError: It is empty, not mono, too long, holds NaN, or its rate is out of range.
    """
    sound = np.asarray(samples)
    if sound.ndim != 1 or not sound.size or sound.dtype.kind != "f":
        raise MediaError(
            f"sound: found {sound.dtype} of shape {sound.shape}, expected mono floats (S,); "
            "average the channels: `audio.samples.mean(axis=0)`"
        )
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise MediaError(
            f"sound: found {rate_hz} Hz, expected {MIN_RATE_HZ} to {MAX_RATE_HZ}; resample it"
        )
    if sound.size > MAX_SECONDS * rate_hz:
        raise MediaError(
            f"sound: found {sound.size / rate_hz:,.0f} s, expected at most {MAX_SECONDS} s; "
            "cut it into parts"
        )
    if not np.isfinite(sound).all():
        raise MediaError("sound: found NaN or infinity, expected samples in [-1, 1]; clean it")
    return np.clip(sound, -1, 1).astype(np.float32)


def to_model_rate(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """Resample (S,) to 16 kHz."""
    if rate_hz == RATE_HZ:
        return samples
    import torch

    from ibllm_tools.preprocess.audio import resample

    resampled: NDArray[np.float32] = resample(torch.from_numpy(samples), rate_hz, RATE_HZ).numpy()
    return resampled
