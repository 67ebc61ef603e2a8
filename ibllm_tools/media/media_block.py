"""`Media`: a content block made by a person's own code from a file, bytes, an array or a text."""

from __future__ import annotations

import base64
import io
import os
import struct
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from ibllm_tools.media.blocks import check_modality, check_weight
from ibllm_tools.media.detection import detect
from ibllm_tools.media.formats import recognise
from ibllm_tools.media.items import Modality
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.problems import problem
from ibllm_tools.media.sources import read_file

_IEEE_FLOAT = 3
_BLOCK_TYPES: dict[Modality, str] = {
    "image": "image",
    "depth": "image",
    "thermal": "image",
    "audio": "audio",
    "video": "video",
    "imu": "file",
    "point": "file",
}


class Media(dict[str, Any]):
    """A LangChain content block that holds one medium; it goes into a message as it is.

    It is a plain dict of JSON values: ``HumanMessage(content=["What is this?",
    Media.from_path("dog.jpg")])``. The bytes are read when it is made, so a message that carries
    it opens nothing later.
    """

    __slots__ = ()

    @classmethod
    def from_path(
        cls,
        path: str | os.PathLike[str],
        *,
        modality: Modality | None = None,
        weight: float = 1.0,
        mime_type: str | None = None,
        policy: MediaPolicy | None = None,
    ) -> Self:
        """Make a block from a file that the calling code chose to open.

        Args:
            path: The file.
            modality: What to sense it as; by default, what its content is.
            weight: Its weight in a mix; finite and above 0.
            mime_type: Its type; by default, told from the content.
            policy: Limits; `allowed_dirs` is not asked, because the caller names the file.

        Raises:
            MediaError: The file is missing, empty, too large or of no accepted format.
        """
        policy = policy or MediaPolicy()
        name = Path(path).name
        data = read_file(path, policy, name)
        if modality == "text":
            return cls.from_text(_decode_text(data, name), weight=weight, name=name)
        return cls.from_bytes(
            data, mime_type=mime_type, modality=modality, weight=weight, name=name
        )

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        *,
        mime_type: str | None = None,
        modality: Modality | None = None,
        weight: float = 1.0,
        name: str | None = None,
    ) -> Self:
        """Make a block from the bytes of an encoded medium.

        Raises:
            MediaError: The bytes are empty, of no accepted format, or not what was declared.
        """
        label = name or "media"
        check_weight(weight, label)
        wanted = None if modality is None else check_modality(modality, label)
        format_ = recognise(data, wanted, mime_type, label)
        sensed = wanted or detect(data, format_, label)
        extras: dict[str, Any] = {"modality": sensed, "weight": float(weight)}
        if name:
            extras["name"] = name
        # An array or shape travels as a file; a picture of depth stays an image, which any other
        # model can still look at.
        type_ = _BLOCK_TYPES[sensed] if format_.family not in {"array", "csv"} else "file"
        text = base64.b64encode(data).decode("ascii")
        mime = mime_type or _mime(format_.mimes, type_)
        return cls(type=type_, base64=text, mime_type=mime, extras=extras)

    @classmethod
    def from_array(
        cls,
        array: NDArray[Any],
        modality: Modality,
        *,
        weight: float = 1.0,
        rate_hz: int | None = None,
        name: str | None = None,
    ) -> Self:
        """Make a block from an array.

        Args:
            array: image (H, W), (H, W, 3) or (H, W, 4) uint8; audio (S,) or (C, S) float in
                [-1, 1]; depth (H, W) disparity in pixels; thermal (H, W) in [0, 1]; imu (6, T);
                point (N, 3).
            modality: What it is.
            weight: Its weight in a mix; finite and above 0.
            rate_hz: Samples per second; needed for audio only.
            name: What errors and prompts call it.

        Raises:
            MediaError: Shape, type or values do not fit the modality.
        """
        label = name or f"{modality} array"
        data = _encode(np.asarray(array), check_modality(modality, label), rate_hz, label)
        return cls.from_bytes(data, modality=modality, weight=weight, name=name)

    @classmethod
    def from_text(cls, text: str, *, weight: float = 1.0, name: str | None = None) -> Self:
        """Make a block whose text is sensed by the encoder instead of read by the LLM."""
        if not text.strip():
            raise problem(name or "text", "an empty text", "some words", "pass the text to sense")
        extras: dict[str, Any] = {
            "modality": "text",
            "weight": check_weight(weight, name or "text"),
        }
        if name:
            extras["name"] = name
        return cls(type="text", text=text, extras=extras)

    @property
    def modality(self) -> Modality:
        """What the medium is sensed as."""
        found: Modality = self["extras"]["modality"]
        return found

    @property
    def weight(self) -> float:
        """Its weight in a mix."""
        return float(self["extras"]["weight"])

    @property
    def name(self) -> str:
        """What errors and prompts call it."""
        return str(self["extras"].get("name", self["type"]))

    def __repr__(self) -> str:
        size = len(self.get("base64") or self.get("text") or "")
        return f"Media({self.modality}, {self.name!r}, weight={self.weight:g}, {size} characters)"


def _decode_text(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise problem(
            name, "bytes that are no UTF-8 text", "a text file", "save it as UTF-8"
        ) from error


def _mime(mimes: tuple[str, ...], type_: str) -> str:
    """The type to write: the same container holds audio/mp4 and video/mp4."""
    return next((mime for mime in mimes if mime.startswith(f"{type_}/")), mimes[0])


def _encode(array: NDArray[Any], modality: Modality, rate_hz: int | None, name: str) -> bytes:
    if modality == "image":
        return _png(array, name)
    if modality == "audio":
        return _wav(array, rate_hz, name)
    if modality in {"depth", "thermal", "imu", "point"}:
        # Depth as float: an integer array would be read as millimetres.
        stored = array.astype(np.float32) if modality != "thermal" else array
        buffer = io.BytesIO()
        np.save(buffer, stored, allow_pickle=False)
        return buffer.getvalue()
    raise problem(
        name,
        f"an array of {modality}",
        "an array of image, audio, depth, thermal, imu or point",
        "use Media.from_path for a video and Media.from_text for a text",
    )


def _png(array: NDArray[Any], name: str) -> bytes:
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in {3, 4})
    if array.dtype != np.uint8 or not shaped or not array.size:
        raise problem(
            name,
            f"an array of {array.dtype} with shape {array.shape}",
            "uint8 of shape (H, W), (H, W, 3) or (H, W, 4)",
            "scale the values to 0..255 and convert them",
        )
    buffer = io.BytesIO()
    PilImage.fromarray(np.ascontiguousarray(array)).save(buffer, "PNG")
    return buffer.getvalue()


def _wav(array: NDArray[Any], rate_hz: int | None, name: str) -> bytes:
    """Encode (S,) or (C, S) samples in [-1, 1] as a 32-bit float WAV file.

    Raises:
        MediaError: `rate_hz` is missing, or the array is no sound.
    """
    samples = np.atleast_2d(array)
    if rate_hz is None or rate_hz <= 0:
        raise problem(name, f"rate_hz {rate_hz}", "samples per second", "pass rate_hz=16000")
    if samples.ndim != 2 or not samples.size or not np.issubdtype(samples.dtype, np.floating):
        raise problem(
            name,
            f"an array of {array.dtype} with shape {array.shape}",
            "floats of shape (S,) or (C, S) in [-1, 1]",
            "divide int16 samples by 32768",
        )
    channels = samples.shape[0]
    data = samples.T.astype("<f4").tobytes()
    align = 4 * channels
    head = struct.pack("<HHIIHH", _IEEE_FLOAT, channels, rate_hz, rate_hz * align, align, 32)
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body
