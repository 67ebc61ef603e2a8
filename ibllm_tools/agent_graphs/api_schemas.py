"""Schemas of OpenAPI documents as plain JSON schema: references resolved, and only what guides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_community.utilities.openapi import OpenAPISpec

MAX_DEPTH = 5
_KEPT = ("type", "enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")
_MAX_DESCRIPTION = 200


def simple_schema(spec: OpenAPISpec, schema: Any) -> dict[str, Any]:
    """The part of a schema that says what to fill in.

    Args:
        spec: Where references lead.
        schema: A schema or reference of openapi-pydantic, or None for anything.

    Returns:
        JSON schema without references; below `MAX_DEPTH` levels anything is allowed. The server
        checks the rest.
    """
    if schema is None:
        return {"type": "string"}
    raw = schema.model_dump(by_alias=True, exclude_none=True, mode="json")
    schemas = spec.components.schemas if spec.components else None
    held = {
        name: entry.model_dump(by_alias=True, exclude_none=True, mode="json")
        for name, entry in (schemas or {}).items()
    }
    return _simple(raw, held, MAX_DEPTH)


def _simple(raw: Mapping[str, Any], held: Mapping[str, Any], depth: int) -> dict[str, Any]:
    seen: set[str] = set()
    while "$ref" in raw:
        name = str(raw["$ref"]).rpartition("/")[2]
        if name in seen or name not in held:
            return {}
        seen.add(name)
        raw = held[name]
    kept: dict[str, Any] = {key: raw[key] for key in _KEPT if key in raw}
    if isinstance(raw.get("description"), str):
        kept["description"] = " ".join(raw["description"].split())[:_MAX_DESCRIPTION]
    if depth == 0:
        return kept
    if isinstance(raw.get("properties"), Mapping):
        inner = raw["properties"].items()
        kept["type"] = "object"
        kept["properties"] = {
            name: _simple(entry, held, depth - 1)
            for name, entry in inner
            if not entry.get("readOnly")
        }
        kept["required"] = [n for n in raw.get("required", []) if n in kept["properties"]]
    if isinstance(raw.get("items"), Mapping):
        kept["items"] = _simple(raw["items"], held, depth - 1)
    choices = [*raw.get("anyOf", []), *raw.get("oneOf", [])]
    if choices and "type" not in kept:
        kept["anyOf"] = [_simple(choice, held, depth - 1) for choice in choices]
    for part in raw.get("allOf", []):
        kept = _merged(kept, _simple(part, held, depth - 1))
    return kept


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both of two object schemas."""
    merged = {**other, **one}
    if "properties" in one or "properties" in other:
        merged["properties"] = {**other.get("properties", {}), **one.get("properties", {})}
        merged["required"] = sorted({*other.get("required", []), *one.get("required", [])})
    return merged
