"""`load`: from a content block to a decoded medium. The way in for every byte of a message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ibllm_tools.media.audio import read_audio
from ibllm_tools.media.blocks import Located, locate
from ibllm_tools.media.detection import detect
from ibllm_tools.media.formats import Format, recognise
from ibllm_tools.media.images import read_depth, read_image, read_thermal
from ibllm_tools.media.items import (
    Audio,
    Depth,
    Image,
    Imu,
    Modality,
    Points,
    Text,
    Thermal,
)
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.problems import decoding, problem
from ibllm_tools.media.shapes import read_points
from ibllm_tools.media.signals import read_imu
from ibllm_tools.media.sources import read
from ibllm_tools.media.video import Video, read_video

Item = Image | Video | Audio | Depth | Thermal | Imu | Points | Text


def load(
    block: Mapping[str, Any],
    policy: MediaPolicy | None = None,
    *,
    lookup: Callable[[str], Mapping[str, Any]] | None = None,
) -> Item:
    """Decode the medium of a content block; nothing else is changed or kept.

    Args:
        block: A `Media`, or a block in any accepted spelling (see `blocks.ACCEPTED`).
        policy: Limits, and which folders and hosts the block may name; by default none.
        lookup: Turns a `file_id` into the block that it stands for.

    Returns:
        The decoded medium with its modality, weight and name.

    Raises:
        MediaError: The block is of no accepted kind, names what the policy does not allow, or its
            content is missing, damaged, cut off, too large or not what it says.
    """
    policy = policy or MediaPolicy()
    located = locate(block)
    if located.where == "file_id" and lookup is not None:
        located = _looked_up(located, lookup)
    if located.where == "text":
        return _text(located, policy)
    data, mime = read(located, policy)
    format_ = recognise(data, located.modality, mime, located.name)
    modality = located.modality or detect(data, format_, located.name)
    # Casts of hostile numbers may warn; NaN and infinity are looked for afterwards.
    with decoding(located.name, f"a medium of {modality}"), np.errstate(all="ignore"):
        return _decode(data, format_, modality, policy, located)


def _looked_up(located: Located, lookup: Callable[[str], Mapping[str, Any]]) -> Located:
    """The stored block; what the naming block says of modality and weight goes first."""
    try:
        stored = locate(lookup(str(located.value)))
    except KeyError as error:
        raise problem(
            located.name, "a file_id that is not known", "one of this conversation", "attach it"
        ) from error
    if stored.where == "file_id":
        raise problem(located.name, "a file_id that names another one", "content", "attach it")
    extras = {**stored.extras, **located.extras}
    weight = located.weight if "weight" in located.extras else stored.weight
    modality = located.modality if "modality" in located.extras else stored.modality
    return Located(stored.where, stored.value, modality, stored.mime, weight, stored.name, extras)


def _text(located: Located, policy: MediaPolicy) -> Text:
    text = str(located.value)
    if not text.strip():
        raise problem(located.name, "an empty text", "some words", "pass the text to sense")
    if len(text) > policy.max_chars:
        raise problem(
            located.name,
            f"{len(text):,} characters",
            f"at most {policy.max_chars:,}",
            "shorten it; the encoder reads about 75 tokens",
        )
    return Text(text, weight=located.weight, name=located.name)


def _decode(
    data: bytes, format_: Format, modality: Modality, policy: MediaPolicy, located: Located
) -> Item:
    name, weight = located.name, located.weight
    if modality == "depth":
        return read_depth(data, format_, policy, name, weight, located.extras)
    readers: dict[Modality, Callable[[bytes, Format, MediaPolicy, str, float], Item]] = {
        "image": read_image,
        "thermal": read_thermal,
        "audio": read_audio,
        "video": read_video,
        "imu": read_imu,
        "point": read_points,
    }
    return readers[modality](data, format_, policy, name, weight)
