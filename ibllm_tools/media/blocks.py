"""Content blocks: the many spellings of a medium in a message, brought to one form.

This module knows how clients write blocks; it opens and decodes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote

from ibllm_tools.media.items import MODALITIES, Modality
from ibllm_tools.media.problems import problem, shown

ACCEPTED = (
    "a LangChain block image, audio, video or file (3D shape, IMU, depth or thermal data) with "
    "base64, url or file_id; text with extras.modality 'text'; OpenAI image_url, input_audio, "
    "video_url or file; a block with source_type; an Anthropic image; non_standard around any of "
    "these; point_cloud"
)

# What each block type may be sensed as; the first is what it is by default, and None leaves it
# to the content.
_SENSES: dict[str, tuple[Modality | None, ...]] = {
    "image": ("image", "depth", "thermal"),
    "image_url": ("image", "depth", "thermal"),
    "input_image": ("image", "depth", "thermal"),
    "audio": ("audio",),
    "audio_url": ("audio",),
    "input_audio": ("audio",),
    "video": ("video", "audio"),
    "video_url": ("video", "audio"),
    "file": (None, "image", "video", "audio", "depth", "thermal", "imu", "point"),
    "point_cloud": ("point",),
    "point": ("point",),
    "depth": ("depth",),
    "thermal": ("thermal",),
    "imu": ("imu",),
    "text": ("text",),
}

MAX_WEIGHT = 1_000_000  # the sum of a mixture's weights must stay a number in float32

_WRAPPED = ("image_url", "input_image", "audio_url", "input_audio", "video_url", "file", "source")
_SOURCES = ("base64", "data", "url", "file_id", "path", "file_data", "image_url")


@dataclass(frozen=True)
class Located:
    """Where the bytes of one medium are, and what is said about them.

    Attributes:
        where: "base64", "url", "path", "file_id" or "text".
        value: The base64 text (or bytes), URL, path, id or text itself.
        modality: What it is to be sensed as; None leaves it to the content.
        mime: The declared MIME type, if any.
        weight: Its weight in a mix.
        name: What errors and prompts call it.
        extras: All extras of the block, for options such as `units`.
    """

    where: str
    value: str | bytes
    modality: Modality | None
    mime: str | None
    weight: float
    name: str
    extras: Mapping[str, Any] = field(default_factory=dict)


def is_media(block: object) -> bool:
    """Tell whether `block` is meant as a medium to be sensed, valid or not.

    Plain text, tool calls and reasoning are not; `load` decides whether a medium is valid.
    """
    if isinstance(block, Mapping) and block.get("type") == "non_standard":
        block = block.get("value")
    if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
        return False
    if block["type"] == "text":
        return _extras(block, "text").get("modality") is not None
    return block["type"] in _SENSES and block.get("source_type") != "text"


def locate(block: Mapping[str, Any]) -> Located:
    """Bring any accepted spelling of a medium to one form.

    Raises:
        MediaError: The block is of no accepted kind, or its extras are not valid.
    """
    block = _unwrapped(block)
    kind = block["type"]
    name = _name(block, kind)
    extras = _extras(block, name)
    modality = _modality(kind, extras, name)
    weight = check_weight(extras.get("weight", block.get("weight", 1.0)), name)
    if kind == "text":
        return Located("text", _text(block, name), modality, None, weight, name, extras)
    where, value, mime = _source(block, kind, name)
    if name == f"{kind} block" and where in {"url", "path"}:
        name = _last_part(str(value)) or name
    return Located(where, value, modality, mime, weight, name, extras)


def check_weight(weight: object, name: str) -> float:
    """Return `weight` as a float; raise `MediaError` unless it is above 0 and at most 1e6."""
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    try:
        value = float(cast("float", weight)) if number else math.nan
    except OverflowError:
        value = math.inf
    if 0 < value <= MAX_WEIGHT:
        return value
    raise problem(
        name,
        f"weight {shown(weight)}",
        f"a finite number above 0 and at most {MAX_WEIGHT:,}",
        "scale the weights of all media, or leave the medium out",
    )


def check_modality(modality: object, name: str) -> Modality:
    """Return `modality` if it is one of ours; raise `MediaError` otherwise."""
    if isinstance(modality, str) and modality in MODALITIES:
        return modality
    raise problem(
        name,
        f"modality {shown(modality)}",
        f"one of {', '.join(MODALITIES)}",
        "set extras.modality to one of them",
    )


def _unwrapped(block: object) -> Mapping[str, Any]:
    if isinstance(block, Mapping) and block.get("type") == "non_standard":
        block = block.get("value")
    if not isinstance(block, Mapping):
        raise problem("content block", shown(block), ACCEPTED, "pass one of these")
    kind = block.get("type")
    if not isinstance(kind, str) or kind not in _SENSES:
        raise problem("content block", f"type {shown(kind)}", ACCEPTED, "pass one of these")
    return block


def _extras(block: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Extras, wherever a client or core's normaliser has put them."""
    found: dict[str, Any] = {}
    for holder in (block.get("metadata"), block.get("extras")):
        if holder is None:
            continue
        if not isinstance(holder, Mapping):
            raise problem(name, f"extras of {shown(holder)}", "an object", "pass a JSON object")
        # Core moves unknown keys of older blocks one level down, into extras.
        for inner in (holder.get("metadata"), holder.get("extras"), holder):
            if isinstance(inner, Mapping):
                found.update({str(key): value for key, value in inner.items()})
    return found


def _modality(kind: str, extras: Mapping[str, Any], name: str) -> Modality | None:
    senses = _SENSES[kind]
    wanted = extras.get("modality")
    if wanted is None and kind == "text":
        raise problem(
            name,
            "a text block without extras.modality",
            "extras.modality 'text' on a text to be sensed",
            "set it, or leave the text to the LLM",
        )
    if wanted is None:
        return senses[0]
    modality = check_modality(wanted, name)
    if modality not in senses:
        possible = ", ".join(sense for sense in senses if sense)
        raise problem(
            name,
            f"modality {modality} on a block of type {kind}",
            f"one of {possible}",
            "use a file block, whose modality may be any",
        )
    return modality


def _name(block: Mapping[str, Any], kind: str) -> str:
    file = block.get("file")
    for holder in (block.get("extras"), block.get("metadata"), block, file):
        if isinstance(holder, Mapping):
            for key in ("name", "filename", "title"):
                name = holder.get(key)
                if isinstance(name, str) and name:
                    return name[:200]
    return f"{kind} block"


def _last_part(address: str) -> str:
    """What a file or URL is called; a data URL has no name."""
    if address[:5].lower() == "data:":
        return ""
    return unquote(address[:2000].partition("?")[0].partition("#")[0].rsplit("/", 1)[-1])[:200]


def _text(block: Mapping[str, Any], name: str) -> str:
    text = block.get("text")
    if isinstance(text, str):
        return text
    raise problem(name, f"text {shown(text)}", "a string", "put the text under the key text")


def _source(block: Mapping[str, Any], kind: str, name: str) -> tuple[str, str | bytes, str | None]:
    """Find the one place that the block names, and the MIME type declared beside it."""
    holder: Mapping[str, Any] = block
    for key in _WRAPPED:
        inner = block.get(key)
        if isinstance(inner, Mapping):
            holder = {**block, **inner, "type": kind}
            holder.pop(key, None)
            break
        if isinstance(inner, str) and key == kind:
            holder = {"url": inner, "mime_type": block.get("mime_type")}
            break
    if block.get("source_type") == "id":
        holder = {**holder, "file_id": block.get("id")}
    given = [key for key in _SOURCES if holder.get(key) is not None]
    if len(given) != 1:
        raise problem(
            name,
            " and ".join(given) if given else "a block that holds nothing",
            "exactly one of base64, url or file_id",
            "pass the bytes as base64",
        )
    return _typed_source(given[0], holder[given[0]], name, _mime(holder, name))


def _typed_source(
    key: str, value: object, name: str, mime: str | None
) -> tuple[str, str | bytes, str | None]:
    encoded = key in {"base64", "data", "file_data"}
    if isinstance(value, (bytes, bytearray)) and encoded:
        return "base64", bytes(value), mime
    if not isinstance(value, str):
        raise problem(name, f"{key} of {shown(value)}", "a string", "pass base64 text or a URL")
    if key in {"url", "image_url"} or (encoded and value[:5].lower() == "data:"):
        return "url", value, mime
    return ("base64" if encoded else key), value, mime


def _mime(holder: Mapping[str, Any], name: str) -> str | None:
    mime = holder.get("mime_type", holder.get("media_type"))
    if mime is not None and not isinstance(mime, str):
        raise problem(name, f"mime_type {shown(mime)}", "a string", "pass a type like image/png")
    if mime is None and isinstance(holder.get("format"), str):
        return f"audio/{holder['format']}"
    return mime
