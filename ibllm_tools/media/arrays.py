"""Number arrays from `.npy` and text files, read without pickle and sized before they are held."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ibllm_tools.media.problems import decoding, problem

_MAX_HEADER = 10_000
_MAX_COLUMNS = 64
_MAX_EMPTY = 100_000


def read_npy(data: bytes, name: str) -> NDArray[Any]:
    """Read an `.npy` file of real numbers.

    Returns:
        A read-only array of integers or floats over `data`.

    Raises:
        MediaError: It holds objects, or claims more values than there are.
    """
    with decoding(name, "an .npy array"):
        stream = io.BytesIO(data)
        version = npy_format.read_magic(stream)
        reader = npy_format.read_array_header_1_0
        if version != (1, 0):
            reader = npy_format.read_array_header_2_0
        shape, fortran, dtype = reader(stream, max_header_size=_MAX_HEADER)
    _check_dtype(dtype, name)
    count, left = math.prod(shape), len(data) - stream.tell()
    if min(shape, default=0) < 0 or count * dtype.itemsize > left:
        raise problem(
            name,
            f"a header that claims {count:,} values where {left // dtype.itemsize:,} follow",
            "all of them",
            "it is cut off: save it again with numpy.save",
        )
    flat = np.frombuffer(data, dtype, count, stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def _check_dtype(dtype: np.dtype[Any], name: str) -> None:
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise problem(
            name,
            f"an array of {str(dtype)[:40]}",
            "integers or floats",
            "save it with array.astype('float32')",
        )


def check_finite(values: NDArray[Any], name: str) -> None:
    """Raise `MediaError` if a value is NaN or infinite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int(np.size(values) - np.isfinite(values).sum())
        raise problem(
            name, f"{bad:,} values of NaN or infinity", "finite values", "clean the data first"
        )


def to_float32(values: NDArray[Any], name: str) -> NDArray[np.float32]:
    """Convert to float32; raise `MediaError` for NaN, infinity or values that overflow."""
    check_finite(values, name)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(np.float32)
    check_finite(narrow, name)
    return narrow


def read_table(
    text: bytes, max_rows: int, name: str, columns: tuple[int, ...] | None = None
) -> NDArray[np.float64]:
    """Read rows of numbers divided by spaces, tabs, commas or semicolons.

    Args:
        text: The rows; lines that open with `#` or `//` are left out.
        max_rows: Most rows to accept.
        name: The medium's name.
        columns: Which columns to keep; by default all.

    Returns:
        (N, K) float64.

    Raises:
        MediaError: A row is no row of numbers, rows differ in length, or there are too many.
    """
    rows = text_rows(text, name)
    first = next(rows, None)
    if first is None:
        raise problem(name, "no rows of numbers", "at least one", "check how it was written")
    if len(first.split()) > _MAX_COLUMNS:
        raise problem(name, "very many columns", f"at most {_MAX_COLUMNS}", "keep those needed")
    with decoding(name, "rows of numbers"):
        table = np.loadtxt(
            chain([first], rows),
            dtype=np.float64,
            comments=None,
            ndmin=2,
            max_rows=max_rows + 1,
            usecols=columns,
            encoding="latin1",
        )
    if len(table) > max_rows:
        raise too_many(name, max_rows, "rows")
    return table


def text_rows(text: bytes, name: str) -> Iterator[str]:
    """Lines that are neither blank nor comments, with columns divided by spaces.

    Raises:
        MediaError: There are very many blank lines and comments, which would only cost time.
    """
    text = text.replace(b"\r", b"\n").replace(b",", b" ").replace(b";", b" ")
    while b"\n\n" in text:
        text = text.replace(b"\n\n", b"\n")
    n_empty = 0
    for line in io.BytesIO(text):
        row = line.split(b"#")[0].strip()
        if row and not row.startswith(b"//"):
            yield row.decode("latin1")
        else:
            n_empty += 1
        if n_empty > _MAX_EMPTY:
            raise problem(name, "very many empty lines", "rows of numbers", "leave them out")


def too_many(name: str, limit: int, what: str) -> Exception:
    """Build the error for more points, rows or faces than the policy allows."""
    return problem(
        name,
        f"more than {limit:,} {what}",
        f"at most {limit:,}",
        "thin it out, or raise MediaPolicy.max_points",
    )
