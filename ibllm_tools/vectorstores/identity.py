"""Which embeddings made a store, so that those of others are refused.

ImageBind's are told by the fingerprint of their weights; those of other packages by what they
make of one text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ibllm_tools.embeddings import ImageBindEmbeddings
from ibllm_tools.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from langchain_core.embeddings import Embeddings

PROBE = "a dog by the sea"
_PROBE_VALUES = 16
_SAME = 0.98


def identify(embeddings: Embeddings) -> dict[str, Any]:
    """Describe embeddings in values that JSON can hold."""
    if isinstance(embeddings, ImageBindEmbeddings):
        return {"name": _name(embeddings), "fingerprint": embeddings.fingerprint()}
    [vector] = embeddings.embed_documents([PROBE])
    probe = [round(float(value), 6) for value in vector[:_PROBE_VALUES]]
    return {"name": _name(embeddings), "probe": probe}


def require_same(folder: Path, stored: dict[str, Any], embeddings: Embeddings) -> None:
    """Raise `CheckpointError` unless `embeddings` give the vectors that the store holds."""
    if isinstance(embeddings, ImageBindEmbeddings):
        found = identify(embeddings)
        same = stored.get("fingerprint") == found["fingerprint"]
    elif "probe" in stored:
        found = identify(embeddings)
        same = _alike(stored["probe"], found["probe"])
    else:
        found, same = {"name": _name(embeddings)}, False
    if not same:
        raise CheckpointError(
            f"{folder}: found vectors of the encoder {stored.get('name')!r}"
            f"{_print_of(stored)}, expected those of {found['name']!r}{_print_of(found)}; open it "
            "with the embeddings that made it, or index the documents again"
        )


def _name(embeddings: Embeddings) -> str:
    if isinstance(embeddings, ImageBindEmbeddings):
        return embeddings.model
    return f"{type(embeddings).__module__}.{type(embeddings).__name__}"


def _print_of(identity: dict[str, Any]) -> str:
    return f" ({identity['fingerprint']})" if "fingerprint" in identity else ""


def _alike(one: list[float], other: list[float]) -> bool:
    """Compare directions, because another device or precision changes the last digits."""
    if len(one) != len(other) or not one:
        return False
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    lengths = sum(a * a for a in one) * sum(b * b for b in other)
    return bool(dot > 0 and dot * dot >= _SAME**2 * lengths)
