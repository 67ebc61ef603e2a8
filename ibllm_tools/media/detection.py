"""What a medium is, when neither its block nor its maker says so."""

from __future__ import annotations

from ibllm_tools.media.arrays import read_npy
from ibllm_tools.media.containers import has_video
from ibllm_tools.media.formats import Format
from ibllm_tools.media.items import Modality
from ibllm_tools.media.problems import problem

_BY_FAMILY: dict[str, Modality] = {
    "picture": "image",
    "audio": "audio",
    "csv": "imu",
    "shape": "point",
    "torch": "point",
}


def detect(data: bytes, format_: Format, name: str) -> Modality:
    """Tell what to sense `data` as.

    Raises:
        MediaError: An array may be more than one thing; the message says what to declare.
    """
    if format_.family == "video":
        return "video" if has_video(data, format_, name) else "audio"
    if format_.family == "array":
        return _of_array(data, name)
    return _BY_FAMILY[format_.family]


def _of_array(data: bytes, name: str) -> Modality:
    shape = read_npy(data, name).shape
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 2 and shape[1] == 3:
        return "point"
    if len(shape) == 2 and 6 in shape:
        return "imu"
    raise problem(
        name,
        f"an array of shape {str(shape)[:60]}, which may be several things",
        "(N, 3) for point or (6, T) for imu",
        "declare the modality: depth, thermal, imu or point",
    )
