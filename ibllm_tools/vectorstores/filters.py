"""Which documents a search may find: a dict of metadata, or a function of the document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from langchain_core.documents import Document

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.vectorstores.records import Record

Filter: TypeAlias = Mapping[str, Any] | Callable[[Document], bool]
"""`{"modality": "image"}`, `{"modality": ["image", "video"]}` (one of them), or a function."""


def matcher(wanted: Filter | None) -> Callable[[Record], bool] | None:
    """Turn a filter into a function of a record; None for no filter.

    Every key of a dict must be in the metadata, with that value or one of a list.

    Raises:
        ConfigurationError: It is neither a dict nor a function, or has an operator such as "$gt".
    """
    if wanted is None or (isinstance(wanted, Mapping) and not wanted):
        return None
    if isinstance(wanted, Mapping):
        _refuse_operators(wanted)
        return lambda record: _agrees(record.metadata, wanted)
    if callable(wanted):
        return lambda record: wanted(record.document())
    raise ConfigurationError(
        f"filter is of type {type(wanted).__name__}; expected a dict of metadata or a function "
        "that takes a document"
    )


def _agrees(metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(key in metadata and _is(metadata[key], value) for key, value in wanted.items())


def _is(found: object, value: object) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return found == value or found in list(value)
    return bool(found == value)


def _refuse_operators(wanted: Mapping[str, Any]) -> None:
    inner = [key for value in wanted.values() if isinstance(value, Mapping) for key in value]
    for key in [*wanted, *inner]:
        if str(key).startswith("$"):
            raise ConfigurationError(
                f"filter: found the operator {key!r}; expected values to be equal to; pass a "
                'function instead, such as lambda document: document.metadata["year"] > 2020'
            )
