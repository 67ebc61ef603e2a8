"""Which columns of a row hold media or a caption, and the media that they name.

People name columns in many ways; the names accepted here are those of LLaVA, LLaMA-Factory,
img2dataset, LAION, Hugging Face's imagefolder and audiofolder, and the training pack.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ibllm_tools.data.examples import MediaRef
from ibllm_tools.data.placing import HeldBytes, Place, Reader, modality_of_name, sniffed
from ibllm_tools.data.rows import Row, RowError
from ibllm_tools.errors import MediaError
from ibllm_tools.media import Media, Modality
from ibllm_tools.media.blocks import check_modality, check_weight
from ibllm_tools.media.formats import recognise
from ibllm_tools.media.problems import shown

# For each modality the column names, the preferred one first.
MEDIA_COLUMNS: dict[Modality, tuple[str, ...]] = {
    "image": (
        *("image", "images", "jpg", "jpeg", "png", "webp", "gif", "bmp", "tiff", "tif"),
        *("img", "image_path", "image_file", "image_url", "photo"),
    ),
    "audio": (
        *("audio", "audios", "sound", "sounds", "ogg", "flac", "wav", "mp3", "m4a", "opus", "aac"),
        *("audio_path", "audio_file", "audio_url"),
    ),
    "video": ("video", "videos", "mp4", "webm", "avi", "mov", "mkv", "video_path", "video_url"),
    "depth": ("depth", "depths", "depth.png", "depth.npy", "depth_path"),
    "thermal": ("thermal", "thermal.png", "thermal.npy", "thermal_path"),
    "imu": ("imu", "imu.npy", "imu.csv"),
    "point": (
        *("point", "points", "point_cloud", "point_clouds", "ply", "obj", "off", "stl"),
        *("points.npy", "point.npy", "pt", "pth", "xyz"),
    ),
}
# Columns that do not say what they hold.
OPEN_COLUMNS = (
    *("media", "path", "file", "file_name", "filename", "filepath", "file_path", "media_path"),
    *("npy", "url", "uri"),
)
CAPTION_COLUMNS = (
    *("caption", "captions", "txt", "text", "description", "title", "alt", "alt_text", "concept"),
)
MAX_MEDIA = 64


@dataclass(frozen=True)
class Found:
    """A medium whose reader is known already, such as a member of a tar file."""

    key: str
    reader: Reader


_MEDIA_NAMES = {name for names in MEDIA_COLUMNS.values() for name in names} | set(OPEN_COLUMNS)
_OTHER_NAMES = {
    *CAPTION_COLUMNS,
    *("conversations", "messages", "system", "instruction", "input", "output", "response"),
    *("history", "id", "sample_id", "key", "__key__", "modality", "weight", "split"),
}


def is_media_column(name: str) -> bool:
    """Whether a column of this name holds media."""
    return name.lower() in _MEDIA_NAMES


def is_known_column(name: str) -> bool:
    """Whether a column of this name is read at all."""
    return name.lower() in _MEDIA_NAMES or name.lower() in _OTHER_NAMES


def caption_of(fields: Mapping[str, Any]) -> str:
    """The caption of a row with lower-case column names; "" if it has none."""
    for column in CAPTION_COLUMNS:
        value = fields.get(column)
        if isinstance(value, (list, tuple)):
            value = next((item for item in value if isinstance(item, str) and item.strip()), None)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def media_of(row: Row, fields: Mapping[str, Any], place: Place) -> tuple[MediaRef, ...]:
    """The media that a row names, in the order of modalities; none is read without need.

    Args:
        row: For keys of media that lie in the row itself.
        fields: Its values, with lower-case column names.
        place: Where files may lie.

    Raises:
        RowError: A medium is missing, not allowed, or of unclear modality.
    """
    said, weight = (
        fields[name] if _is_filled(fields.get(name)) else None for name in ("modality", "weight")
    )
    refs: list[MediaRef] = []
    for modality, columns in MEDIA_COLUMNS.items():
        column = _first_filled(fields, columns)
        if column is not None:
            for index, entry in enumerate(_entries(fields[column])):
                default = _Default(f"{row.where}/{index}.{column}", said or modality, weight)
                refs.append(_ref(entry, default, place))
    column = None if refs else _first_filled(fields, OPEN_COLUMNS)
    if column is not None:
        for index, entry in enumerate(_entries(fields[column])):
            refs.append(_ref(entry, _Default(f"{row.where}/{index}", said, weight), place))
    if len(refs) > MAX_MEDIA:
        raise RowError("too many media", f"found {len(refs)}, expected at most {MAX_MEDIA}")
    return tuple(refs)


@dataclass(frozen=True)
class _Default:
    """What stands for an entry that does not say it itself."""

    key: str
    modality: Any
    weight: Any


def _first_filled(fields: Mapping[str, Any], columns: tuple[str, ...]) -> str | None:
    return next((name for name in columns if _is_filled(fields.get(name))), None)


def _is_filled(value: Any) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return False
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, Mapping):
        return any(item is not None for item in value.values())
    return not isinstance(value, (list, tuple)) or any(_is_filled(item) for item in value)


def _entries(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        yield from (item for item in value if _is_filled(item))
    else:
        yield value


def _ref(entry: Any, default: _Default, place: Place) -> MediaRef:
    """One medium from a path, a URL, bytes, or an object that holds one of these."""
    said, weight = default.modality, default.weight
    if isinstance(entry, Mapping):
        said = entry["modality"] if _is_filled(entry.get("modality")) else said
        weight = entry["weight"] if _is_filled(entry.get("weight")) else weight
    try:
        wanted = None if said is None else check_modality(said, "the column modality")
        checked = 1.0 if weight is None else check_weight(_number(weight), "weight")
    except MediaError as error:
        raise RowError("bad modality or weight", str(error)) from error
    key, reader = _opened(entry, default.key, place, wanted)
    return MediaRef(key, wanted or modality_of_name(key) or sniffed(reader, key), checked, reader)


def _number(value: Any) -> Any:
    """The number that a table holds as text."""
    try:
        return float(value) if isinstance(value, (str, np.number)) else value
    except ValueError:
        return value


def _opened(entry: Any, key: str, place: Place, modality: Modality | None) -> tuple[str, Reader]:
    if isinstance(entry, Found):
        return entry.key, entry.reader
    if isinstance(entry, str):
        return place.locate(entry.strip())
    if isinstance(entry, (bytes, bytearray, memoryview)):
        return key, HeldBytes(_encoded(bytes(entry), modality), place.policy)
    if isinstance(entry, Mapping):
        return _opened_object(entry, key, place, modality)
    if hasattr(entry, "save") and hasattr(entry, "convert"):  # a picture that was decoded
        return key, HeldBytes(_as_png(entry), place.policy)
    raise RowError("no medium in its column", f"found {shown(entry)}, expected a path or bytes")


def _opened_object(
    entry: Mapping[str, Any], key: str, place: Place, modality: Modality | None
) -> tuple[str, Reader]:
    if isinstance(entry.get("bytes"), (bytes, bytearray)):
        name = entry.get("path")
        named = f"{key}/{name.rsplit('/', 1)[-1]}" if isinstance(name, str) and name else key
        return named, HeldBytes(_encoded(bytes(entry["bytes"]), modality), place.policy)
    if entry.get("array") is not None and entry.get("sampling_rate"):
        return key, HeldBytes(_as_wav(entry), place.policy)
    for name in ("path", "url", "file_name", "image", "audio", "video"):
        if isinstance(entry.get(name), str) and entry[name].strip():
            return place.locate(entry[name].strip())
    raise RowError(
        "no medium in its column", f"found keys {shown(', '.join(map(str, entry)))}, expected path"
    )


def _encoded(data: bytes, modality: Modality | None) -> bytes:
    """The bytes, or for bare float16 coordinates of the training pack an array file."""
    if modality != "point" or not data or len(data) % 6:
        return data
    try:
        recognise(data, "point", None, "points")
    except MediaError:
        buffer = io.BytesIO()
        points = np.frombuffer(data, "<f2").reshape(-1, 3).astype(np.float32)
        np.save(buffer, points, allow_pickle=False)
        return buffer.getvalue()
    return data


def _as_png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def _as_wav(entry: Mapping[str, Any]) -> bytes:
    from ibllm_tools.media.policy import MediaPolicy
    from ibllm_tools.media.sources import decode_base64

    try:
        samples = np.asarray(entry["array"], dtype=np.float32)
        block = Media.from_array(samples, "audio", rate_hz=int(entry["sampling_rate"]))
    except (MediaError, TypeError, ValueError) as error:
        raise RowError(
            "no medium in its column", f"a sound that cannot be used: {error}"
        ) from error
    return decode_base64(block["base64"], MediaPolicy(), "sound")
