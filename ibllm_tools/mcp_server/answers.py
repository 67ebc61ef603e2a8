"""What the tools return: text and pictures for an LLM, values with a schema for programs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image as PilImage
from pydantic import BaseModel, ConfigDict, Field

from ibllm_tools.experts.results import Detection, Segment
from ibllm_tools.media import Media, Modality

MAX_SIDE_PX = 1280
_QUALITY = 88


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Used(_Result):
    """A medium that was used."""

    name: str
    modality: Modality
    weight: float


class Perceived(_Result):
    """An answer about media."""

    answer: str
    perceived: str = Field(description="what the model notes before it answers; may be empty")
    media: list[Used]
    model: str


class Seen(_Result):
    """What is in a video at a time."""

    start_s: float
    objects: dict[str, int]


class Spoken(_Result):
    """What is said."""

    text: str
    language: str | None
    is_speech: bool
    segments: list[Segment]
    model: str


class Watched(_Result):
    """What was found in a video."""

    name: str
    answer: str
    duration_s: float
    seen: list[Seen] | None = Field(default=None, description="null without a detector")
    transcript: Spoken | None = Field(default=None, description="null without a recognizer")


class Found(_Result):
    """Objects in a picture."""

    name: str
    counts: dict[str, int]
    detections: list[Detection] = Field(description="boxes are x0, y0, x1, y1 in pixels")
    width_px: int
    height_px: int
    model: str


class Heard(Spoken):
    """Speech in a recording."""

    name: str


class Embedded(_Result):
    """A vector of length 1 in the space that all modalities share."""

    vector: list[float]
    media: list[Used]
    model: str


class Match(_Result):
    """A file that was found."""

    path: str = Field(description="as other tools take it")
    modality: Modality
    score: float = Field(description="cosine similarity; compare it within a modality")


class Matches(_Result):
    """Files that are most alike, the best first."""

    folder: str
    results: list[Match]
    n_searched: int
    unreadable: dict[str, str] = Field(description="files that cannot be read, and why")


class Listed(_Result):
    """A media file that may be read."""

    path: str
    modality: Modality | None
    n_bytes: int


class Listing(_Result):
    """Media files that may be read."""

    folders: list[str]
    files: list[Listed]
    n_left_out: int = Field(description="files beyond the most that are listed")


@dataclass(frozen=True)
class Answer:
    """What a tool found.

    Attributes:
        text: For an LLM.
        values: For programs; fit the tool's output schema.
        pictures: Encoded JPEG files.
    """

    text: str
    values: BaseModel
    pictures: Sequence[bytes] = ()


def used(media: Sequence[Media]) -> list[Used]:
    """Tell which media an answer is about."""
    return [Used(name=m.name, modality=m.modality, weight=m.weight) for m in media]


def result_of(answer: Answer) -> dict[str, Any]:
    """The JSON of an MCP tool result."""
    content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}]
    content += [
        {
            "type": "image",
            "data": base64.b64encode(picture).decode("ascii"),
            "mimeType": "image/jpeg",
        }
        for picture in answer.pictures
    ]
    values = answer.values.model_dump(mode="json")
    return {"content": content, "structuredContent": values, "isError": False}


def failure(said: str) -> dict[str, Any]:
    """The JSON of a result that says what went wrong; an LLM reads it and can act on it."""
    return {"content": [{"type": "text", "text": said}], "isError": True}


def jpeg_of(block: Media) -> bytes:
    """A picture as a JPEG file that is small enough for an LLM."""
    with PilImage.open(io.BytesIO(base64.b64decode(block["base64"]))) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
