"""The closed set of experts, and what a router answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import BaseModel, Field

Expert = Literal["answer", "detector", "speech", "similarity", "none"]
EXPERTS: tuple[Expert, ...] = get_args(Expert)
"""In the order in which a route names them."""

_WORKS_ON = {"detector": {"image", "video"}, "speech": {"audio", "video"}}
_MAX_EXPERTS = 3


class Route(BaseModel):
    """The experts that a question needs."""

    experts: list[Expert] = Field(min_length=1, max_length=_MAX_EXPERTS)


def fitting(experts: Sequence[Expert], ids: Sequence[str]) -> list[Expert]:
    """Keep the experts that have something to work on, each once, in order of `EXPERTS`.

    Args:
        experts: As a model chose them.
        ids: Of the attachments, such as `image-1`; their kind is in the name.

    Returns:
        `["none"]` where there is no attachment, `["answer"]` where no expert is left.
    """
    if not ids:
        return ["none"]
    kinds = {kind_of_id(id_) for id_ in ids}
    kept = [e for e in EXPERTS if e in experts and _has_work(e, kinds, len(ids))]
    if len(kept) > 1:
        kept = [e for e in kept if e != "none"]
    return kept or ["answer"]


def kind_of_id(id_: str) -> str:
    """`image` of `image-1`."""
    return id_.rpartition("-")[0]


def _has_work(expert: Expert, kinds: set[str], n_held: int) -> bool:
    if expert == "similarity":
        return n_held > 1
    return expert not in _WORKS_ON or bool(_WORKS_ON[expert] & kinds)
