"""What a client may pass to the tools, and how media in it are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.mcp_server.folders import Folders
from ibllm_tools.media import Media, MediaPolicy, Modality
from ibllm_tools.media.blocks import Located
from ibllm_tools.media.sources import read
from ibllm_tools.toolkit.schemas import MAX_FOUND, MAX_LABELS, MAX_MIXED

Arguments = TypeVar("Arguments", bound=BaseModel)
_SOURCES = ("path", "data", "text")


def _spelled_out(value: Any) -> Any:
    """Bring short forms and MCP's own content blocks to `path`, `data` or `text`."""
    if isinstance(value, str):
        return {"data" if value[:5].lower() == "data:" else "path": value}
    if not isinstance(value, Mapping) or "type" not in value:
        return value
    rest = {key: held for key, held in value.items() if key in MediaArg.model_fields}
    inner = value.get("resource")
    if isinstance(inner, Mapping):
        rest |= {"data": inner["blob"]} if "blob" in inner else {"path": inner.get("uri")}
    elif "uri" in value:
        rest["path"] = value["uri"]
    return rest


class MediaArg(BaseModel):
    """One medium: a file in an allowed folder, its bytes as base64, or a text to be sensed."""

    model_config = ConfigDict(extra="forbid")

    path: str | None = Field(
        default=None,
        description="a media file in a folder that may be read, absolute or relative to it",
    )
    data: str | None = Field(
        default=None, description="the bytes of the file as base64, or a data: URL"
    )
    text: str | None = Field(
        default=None, description="words to be sensed like a medium, for mixing and searching"
    )
    modality: Modality | None = Field(
        default=None, description="only where the content does not tell: depth, thermal or imu"
    )
    weight: float = Field(
        default=1.0, gt=0, le=1000, description="how much it counts among several media"
    )
    name: str | None = Field(default=None, max_length=200, description="a name for people")

    @model_validator(mode="after")
    def _check_source(self) -> MediaArg:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'none'} of path, data and text; expected one of "
                'them, such as {"path": "dog.jpg"}'
            )
        return self

    def read(self, folders: Folders, limits: MediaPolicy) -> Media:
        """Read the medium under the server's limits.

        Raises:
            MediaError: It may not be read, is damaged, too large, or no medium.
        """
        if self.text is not None:
            return Media.from_text(self.text, weight=self.weight, name=self.name)
        if self.path is not None:
            return folders.medium(self.path, self.modality, self.weight, limits)
        assert self.data is not None
        name = self.name or "data"
        where = "url" if self.data[:5].lower() == "data:" else "base64"
        located = Located(where, self.data, self.modality, None, self.weight, name)
        data, mime = read(located, limits.model_copy(update={"allowed_dirs": ()}))
        return Media.from_bytes(
            data, mime_type=mime, modality=self.modality, weight=self.weight, name=self.name
        )


def _listed(value: Any) -> Any:
    """A lone medium where a list is asked for."""
    return [value] if isinstance(value, (str, Mapping)) else value


Medium = Annotated[MediaArg, BeforeValidator(_spelled_out)]
Mixture = Annotated[
    list[Medium], BeforeValidator(_listed), Field(min_length=1, max_length=MAX_MIXED)
]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PerceiveArgs(_Arguments):
    """A question about media."""

    question: str = Field(min_length=1, description="what to find out, as a full question")
    media: Mixture = Field(description="one medium or several; several are perceived together")


class VideoArgs(_Arguments):
    """A video to look through."""

    video: Medium
    question: str = Field(default="What is in the video?", min_length=1)


class DetectArgs(_Arguments):
    """A picture to search for objects."""

    image: Medium
    labels: list[str] | None = Field(
        default=None,
        max_length=MAX_LABELS,
        description="nouns to look for; leave out to find everything that is known",
    )
    threshold: float | None = Field(
        default=None, ge=0, le=1, description="least score of what is reported"
    )
    draw: bool = Field(default=True, description="return the picture with its boxes")


class TranscribeArgs(_Arguments):
    """A recording with speech."""

    audio: Medium
    language: str | None = Field(default=None, description="code such as en, if it is known")
    draw: bool = Field(default=False, description="return a picture of the words over time")


class EmbedArgs(_Arguments):
    """Media to turn into one vector."""

    media: Mixture = Field(description="one medium, or several to be mixed by their weights")


class SimilarArgs(_Arguments):
    """What to look for by likeness, and where."""

    text: str | None = Field(default=None, description="words to search by")
    media: Mixture | None = Field(default=None, description="media to search by, mixed by weight")
    folder: str | None = Field(
        default=None, description="a folder that may be read; by default the first of them"
    )
    modality: Modality | None = Field(default=None, description="find this modality only")
    k: int = Field(default=5, ge=1, le=MAX_FOUND, description="how many to return")

    @model_validator(mode="after")
    def _check_query(self) -> SimilarArgs:
        if (self.text is None) == (self.media is None):
            raise ValueError("expected either text or media to search by, and not both")
        return self


class ListArgs(_Arguments):
    """A folder to list."""

    folder: str | None = Field(default=None, description="by default every folder that may be read")
    modality: Modality | None = Field(default=None, description="list this modality only")


def parse(schema: type[Arguments], given: Mapping[str, Any] | None) -> Arguments:
    """Check a client's arguments.

    Raises:
        ConfigurationError: They do not fit; every problem is named with its place.
    """
    try:
        return schema.model_validate(dict(given or {}))
    except ValidationError as error:
        problems = [_problem(entry) for entry in error.errors(include_url=False)[:5]]
        raise ConfigurationError("; ".join(problems)) from None


def _problem(entry: Any) -> str:
    place = ".".join(str(part) for part in entry["loc"])
    said = str(entry["msg"]).removeprefix("Value error, ")
    return f"{place}: {said}" if place else said


def media_in(checked: BaseModel) -> list[MediaArg]:
    """All media of a tool's arguments."""
    found: list[MediaArg] = []
    for value in vars(checked).values():
        held = value if isinstance(value, list) else [value]
        found += [entry for entry in held if isinstance(entry, MediaArg)]
    return found
