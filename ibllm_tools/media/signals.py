"""Motion recordings (IMU): six axes over time, from `.npy` or `.csv`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.media.arrays import read_npy, read_table, to_float32, too_many
from ibllm_tools.media.formats import Format
from ibllm_tools.media.items import Imu
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.problems import problem

_AXES = 6


def read_imu(
    data: bytes, format_: Format, policy: MediaPolicy, name: str, weight: float = 1.0
) -> Imu:
    """Decode a motion recording.

    An array is (6, T) or (T, 6); where both fit, (6, T). A table has six columns and may open with
    a line of names; a seventh column in front, whose name starts with `t`, is time and is left out.
    The order is accelerometer x, y, z, then gyroscope x, y, z.

    Raises:
        MediaError: It has no six axes, or holds NaN, infinity or more samples than allowed.
    """
    if format_.family == "array":
        values = _squeezed(read_npy(data, name))
    else:
        values = _from_table(data, policy, name)
    if values.ndim != 2 or _AXES not in values.shape or not values.size:
        raise problem(
            name,
            f"values of shape {str(values.shape)[:60]}",
            "(6, T): accelerometer x, y, z and gyroscope x, y, z",
            "keep these six axes and no other",
        )
    signal = values if values.shape[0] == _AXES else values.T
    if signal.shape[1] > policy.max_points:
        raise too_many(name, policy.max_points, "samples")
    return Imu(np.ascontiguousarray(to_float32(signal, name)), weight=weight, name=name)


def _squeezed(values: NDArray[Any]) -> NDArray[Any]:
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    return values


def _from_table(data: bytes, policy: MediaPolicy, name: str) -> NDArray[Any]:
    """(T, 6) from text, without a line of names and a column of times."""
    body = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    first, _, rest = body.partition(b"\n")
    names = [part.strip().strip('"').lower() for part in first.decode("latin1").split(",")]
    has_names = any(part[:1].isalpha() and part not in {"nan", "inf"} for part in names)
    has_time = has_names and len(names) == _AXES + 1 and names[0].startswith("t")
    columns = tuple(range(1, _AXES + 1)) if has_time else None
    return read_table(rest if has_names else body, policy.max_points, name, columns)
