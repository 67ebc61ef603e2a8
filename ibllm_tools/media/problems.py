"""How media errors read: what was found, what was expected, and the next step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ibllm_tools.errors import MediaError

_MAX_SHOWN = 60


def shown(value: Any) -> str:
    """Return a short one-line form of `value` for an error; long data is never echoed."""
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes"
    text = value[: _MAX_SHOWN + 1] if isinstance(value, str) else _typed(value)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def _typed(value: Any) -> str:
    if value is None or isinstance(value, (bool, float)):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else "an integer of many digits"
    return f"a {type(value).__name__}"


def problem(name: str, found: str, expected: str, step: str) -> MediaError:
    """Build the error for the medium `name`; the caller raises it."""
    return MediaError(f"{shown(name)}: found {found}; expected {expected}; {step}")


@contextmanager
def decoding(name: str, kind: str, step: str = "") -> Iterator[None]:
    """Turn whatever a decoder raises on damaged bytes into a `MediaError`.

    Args:
        name: The medium's name, which opens the message.
        kind: What the bytes should have been, such as "a JPEG image".
        step: The next step to offer; by default, to export the file anew.
    """
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        # Decoders raise anything on hostile bytes: OSError, struct.error, KeyError, MemoryError…
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        advice = step or "the file is damaged or cut off: export it again"
        raise problem(name, f"bytes that do not decode ({reason})", kind, advice) from error
