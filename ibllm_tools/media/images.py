"""Pictures, and what is stored as pictures: depth and thermal maps."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from ibllm_tools.media.arrays import check_finite, read_npy, to_float32
from ibllm_tools.media.formats import Format
from ibllm_tools.media.integrity import check_picture
from ibllm_tools.media.items import Depth, Image, Thermal
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.problems import decoding, problem, shown

# Kinect's, as in SUN RGB-D: disparity in pixels = baseline x focal length / depth.
_BASELINE_M = 0.075
_FOCAL_PX = 518.857901
_MM_PER_M = 1000.0
# The disparity at which ImageBind's depth trunk is saturated; white in an 8-bit map.
MAX_DISPARITY_PX = 75.0

_MAX_SCANS = 100
_MAX_RLE_BYTES = 4 * 2**20
_ORIENTATION = 0x0112
_TURNS = {
    2: PilImage.Transpose.FLIP_LEFT_RIGHT,
    3: PilImage.Transpose.ROTATE_180,
    4: PilImage.Transpose.FLIP_TOP_BOTTOM,
    5: PilImage.Transpose.TRANSPOSE,
    6: PilImage.Transpose.ROTATE_270,
    7: PilImage.Transpose.TRANSVERSE,
    8: PilImage.Transpose.ROTATE_90,
}
# `warnings.catch_warnings` swaps a global list: two threads inside it could leave it swapped.
_WARNINGS = threading.Lock()


def read_image(
    data: bytes, format_: Format, policy: MediaPolicy, name: str, weight: float = 1.0
) -> Image:
    """Decode a picture to RGB.

    EXIF orientation is applied; transparency is laid over white; 16-bit grey is scaled to 8 bits;
    of an animation the first frame is taken. An opaque picture gives what PIL's
    ``convert("RGB")`` gives.

    Raises:
        MediaError: It is damaged, cut off or larger than allowed.
    """
    picture = _open(data, format_, policy, name)
    with decoding(name, f"a {format_.name} picture"):
        return Image(_to_rgb(picture, name), weight=weight, name=name)


def read_depth(
    data: bytes,
    format_: Format,
    policy: MediaPolicy,
    name: str,
    weight: float = 1.0,
    extras: Mapping[str, Any] | None = None,
) -> Depth:
    """Decode a depth map to disparity in pixels, as the encoder was trained on.

    `extras.units` says what the stored values are: "disparity" (pixels), "m" or "mm" of depth.
    By default floats are disparity, integers of 16 bits and more are millimetres, and an 8-bit
    picture is a map whose white is the nearest (75 px of disparity). Depth z in metres becomes
    0.075 x 518.857901 / z; a depth of 0 or less is unknown and becomes 0.

    Raises:
        MediaError: It is damaged, too large, no map, or holds NaN, infinity or negative values.
    """
    values = _read_map(data, format_, policy, name)
    units = (extras or {}).get("units") or _usual_units(values)
    if units not in {"disparity", "m", "mm", "map"}:
        raise problem(name, f"units {shown(units)}", "disparity, m or mm", "correct extras.units")
    check_finite(values, name)
    if values.dtype.kind != "u" and values.min() < 0:
        raise problem(name, "negative values", "disparity or depth, 0 and above", "clean the map")
    return Depth(_to_disparity(values, units, name), weight=weight, name=name)


def read_thermal(
    data: bytes, format_: Format, policy: MediaPolicy, name: str, weight: float = 1.0
) -> Thermal:
    """Decode a thermal picture to [0, 1]; a coloured one is turned grey first.

    Raises:
        MediaError: It is damaged or too large, or its floats lie outside [0, 1].
    """
    values = _read_map(data, format_, policy, name)
    check_finite(values, name)
    if values.dtype.kind == "f":
        if values.min() < 0 or values.max() > 1:
            raise problem(
                name, "float values outside [0, 1]", "values in [0, 1]", "scale them first"
            )
        return Thermal(to_float32(values, name), weight=weight, name=name)
    full = 255 if values.dtype == np.uint8 else 65535
    if values.min() < 0 or values.max() > full:
        raise problem(name, "values outside 0..65535", "8 or 16 bits", "scale them first")
    return Thermal(to_float32(values / full, name), weight=weight, name=name)


def _open(data: bytes, format_: Format, policy: MediaPolicy, name: str) -> PilImage.Image:
    """Read the header with the one decoder that fits; the size is checked before any pixel."""
    _check_end(data, format_, name)
    _check_effort(data, format_, name)
    with decoding(name, f"a {format_.name} picture"), _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = PilImage.open(io.BytesIO(data), formats=(format_.name.upper(),))
        except PilImage.DecompressionBombError as error:
            raise _too_many_pixels(name, "far too many", policy) from error
        orientation = _orientation(picture)
    if picture.width * picture.height > policy.max_pixels:
        raise _too_many_pixels(name, f"{picture.width} x {picture.height}", policy)
    with decoding(name, f"a {format_.name} picture"):
        check_picture(data, name)
        with _quiet() if format_.name == "tiff" else nullcontext():
            picture.load()
        turn = _TURNS.get(orientation)
        return picture.transpose(turn) if turn is not None else picture


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep libtiff from writing to stderr, which it does directly and cannot be told not to."""
    with _WARNINGS:
        try:
            kept = os.dup(2)
        except OSError:
            yield
            return
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 2)
        os.close(sink)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _too_many_pixels(name: str, found: str, policy: MediaPolicy) -> Exception:
    return problem(
        name,
        f"{found} pixels",
        f"at most {policy.max_pixels:,}",
        "scale it down, or raise MediaPolicy.max_pixels",
    )


def _check_effort(data: bytes, format_: Format, name: str) -> None:
    """Refuse what is cheap to store and dear to decode, beyond the number of pixels."""
    # Inside compressed data, 0xFF is never followed by 0xDA.
    if format_.name == "jpeg" and data.count(b"\xff\xda") > _MAX_SCANS:
        raise problem(name, "a JPEG of very many scans", f"at most {_MAX_SCANS}", "save it anew")
    # Pillow decodes run lengths in Python.
    if format_.name == "bmp" and data[30:31] in {b"\1", b"\2"} and len(data) > _MAX_RLE_BYTES:
        raise problem(name, "a large run-length BMP", "an uncompressed one", "save it as PNG")


def _check_end(data: bytes, format_: Format, name: str) -> None:
    """Find files that were cut off where their decoder would not notice."""
    whole = {
        "png": b"IEND\xaeB`\x82" in data[-(2**20) :],
        "jpeg": b"\xff\xd9" in data[2:],
        "webp": len(data) >= 8 + int.from_bytes(data[4:8], "little"),
        "gif": b"\0;" in data[-(2**10) :],
    }
    if not whole.get(format_.name, True):
        raise problem(
            name,
            f"a {format_.name} picture without its end",
            "a complete picture",
            "it is cut off: export or upload it again",
        )


def _orientation(picture: PilImage.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF data must not cost the picture
        return 1


def _to_rgb(picture: PilImage.Image, name: str) -> PilImage.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _to_eight_bits(np.asarray(picture), name)
    if picture.mode in {"RGBA", "RGBa", "LA", "La", "PA"} or "transparency" in picture.info:
        layer = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        white = PilImage.new("RGB", layer.size, "white")
        white.paste(layer, mask=layer)
        return white
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _to_eight_bits(values: NDArray[Any], name: str) -> PilImage.Image:
    """Grey of 16 bits scaled to 8 (65535 becomes 255), or floats of [0, 1]."""
    check_finite(values, name)
    full = 1.0 if values.dtype.kind == "f" else 65535.0
    if values.min() < 0 or values.max() > full:
        raise problem(
            name,
            f"grey values outside 0..{full:g}",
            "16-bit integers, or floats in [0, 1]",
            "scale them, or declare extras.modality depth or thermal",
        )
    scaled = values.astype(np.float32) * np.float32(255 / full)
    return PilImage.fromarray(np.rint(scaled, out=scaled).astype(np.uint8))


def _read_map(data: bytes, format_: Format, policy: MediaPolicy, name: str) -> NDArray[Any]:
    """(H, W) values as stored, from a picture or an .npy array."""
    if format_.family == "picture":
        picture = _open(data, format_, policy, name)
        grey = picture.mode.startswith("I") or picture.mode == "F"
        with decoding(name, "a grey picture"):
            return np.asarray(picture if grey else _to_rgb(picture, name).convert("L"))
    values = read_npy(data, name)
    while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or not values.size:
        raise problem(name, f"an array of shape {values.shape}", "(height, width)", "pass one map")
    if values.size > policy.max_pixels:
        raise _too_many_pixels(name, f"{values.shape[1]} x {values.shape[0]}", policy)
    return values


def _usual_units(values: NDArray[Any]) -> str:
    if values.dtype.kind == "f":
        return "disparity"
    return "map" if values.dtype == np.uint8 else "mm"


def _to_disparity(values: NDArray[Any], units: str, name: str) -> NDArray[np.float32]:
    if units == "disparity":
        return to_float32(values, name)
    if units == "map":
        return to_float32(values.astype(np.float32) * np.float32(MAX_DISPARITY_PX / 255), name)
    metres = to_float32(values, name) / np.float32(_MM_PER_M if units == "mm" else 1.0)
    known = metres > 0
    disparity = np.zeros_like(metres)
    np.divide(_BASELINE_M * _FOCAL_PX, metres, out=disparity, where=known)
    return to_float32(disparity, name)
