"""What an LLM may pass to the tools: ids of attachments, never paths."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

MAX_MIXED = 8
MAX_FOUND = 20
MAX_LABELS = 20


def _listed(value: Any) -> Any:
    """A lone id where a list is asked for; models often write it so."""
    return [value] if isinstance(value, str) else value


Ids = Annotated[list[str], BeforeValidator(_listed), Field(min_length=1, max_length=MAX_MIXED)]
Weight = Annotated[float, Field(gt=0, le=1000)]


class PerceiveArgs(BaseModel):
    """A question about attachments."""

    question: str = Field(description="what to find out, as a full question")
    attachments: Ids = Field(description='ids of attachments, such as ["image-1"]')
    weights: list[Weight] | None = Field(
        default=None, description="how much each attachment counts, in the same order"
    )


class DetectArgs(BaseModel):
    """A picture to search for objects."""

    image: str = Field(description="id of an image, such as image-1")
    labels: list[str] | None = Field(
        default=None,
        max_length=MAX_LABELS,
        description="nouns to look for; leave out to find everything that is known",
    )
    threshold: float | None = Field(
        default=None, ge=0, le=1, description="least score of what is reported"
    )


class TranscribeArgs(BaseModel):
    """A recording with speech."""

    audio: str = Field(description="id of a recording or video, such as audio-1")
    language: str | None = Field(default=None, description="code such as en, if it is known")


class SimilarArgs(BaseModel):
    """What to look for by likeness."""

    query: str = Field(description="id of an attachment, such as image-1, or words to search by")
    k: int = Field(default=4, ge=1, le=MAX_FOUND, description="how many results")


class EmbedArgs(BaseModel):
    """A medium to turn into numbers."""

    attachment: str = Field(description="id of an attachment, such as image-1")


class VideoArgs(BaseModel):
    """A video to look through."""

    video: str = Field(description="id of a video, such as video-1")
    question: str = Field(
        default="What is in the video?", description="what to find out about the video"
    )
