"""Older and roundabout forms of JSON schema, rewritten as one plain schema.

Nothing here walks into a schema; each function looks at one level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_PLAIN_OBJECT = frozenset({"type", "properties", "required"})
_MEANING = _PLAIN_OBJECT | {
    "$ref", "allOf", "anyOf", "oneOf", "enum", "const", "items", "prefixItems", "additionalItems",
    "minItems", "maxItems", "additionalProperties", "patternProperties", "minProperties",
    "maxProperties", "minLength", "maxLength", "pattern", "format", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "nullable", "not", "if", "contains",
    "uniqueItems", "propertyNames", "dependentRequired", "dependentSchemas", "dependencies",
    "unevaluatedProperties", "unevaluatedItems",
}  # fmt: skip
"""Keywords that say something about a value; the others are annotations."""
_LONGEST_CHAIN = 32


def modernise(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite keywords of older drafts and of OpenAPI 3.0 by those of draft 2020-12."""
    out = dict(schema)
    for strict, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(out.get(strict), bool):
            is_strict = out.pop(strict)
            if is_strict and bound in out:
                out[strict] = out.pop(bound)
    if isinstance(out.get("items"), (list, tuple)):
        out["prefixItems"] = list(out.pop("items"))
        if "additionalItems" in out:
            out["items"] = out["additionalItems"]
    return out


def merge_parts(
    schema: Mapping[str, Any], resolve: Callable[[Any], Any], depth: int = 0
) -> Mapping[str, Any]:
    """Make one schema of `allOf` and of what stands beside `$ref`, where that is simple.

    Simple are a single part that stands alone, and parts that are plain objects. Otherwise the
    schema is returned as it is.

    Args:
        schema: One level of a schema.
        resolve: Finds what a `$ref` points to.
        depth: How many schemas this one is a part of.
    """
    own = {key: value for key, value in schema.items() if key in _MEANING}
    parts = list(own.pop("allOf", ())) if isinstance(own.get("allOf", []), (list, tuple)) else []
    if depth > _LONGEST_CHAIN or (not parts and ("$ref" not in own or len(own) == 1)):
        return schema
    nullable = own.pop("nullable", None)
    if "$ref" in own:
        parts.insert(0, {"$ref": own.pop("$ref")})
    if own:
        parts.append(own)
    merged = parts[0] if len(parts) == 1 else _merge_objects(parts, resolve, depth)
    if not isinstance(merged, Mapping):
        return schema
    return merged if nullable is None else {**merged, "nullable": nullable}


def _merge_objects(
    parts: list[Any], resolve: Callable[[Any], Any], depth: int
) -> dict[str, Any] | None:
    """Merge parts that are plain objects; None if one is not."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for part in parts:
        found = _follow(part, resolve)
        if not isinstance(found, Mapping):
            return None
        if "allOf" in found:
            found = merge_parts(found, resolve, depth + 1)
        said = {key: value for key, value in found.items() if key in _MEANING}
        if said.keys() - _PLAIN_OBJECT or said.get("type", "object") != "object":
            return None
        for name, entry in said.get("properties", {}).items():
            known = properties.get(name)
            properties[name] = entry if known in (None, entry) else {"allOf": [known, entry]}
        required += [name for name in said.get("required", ()) if name not in required]
    return {"type": "object", "properties": properties, "required": required}


def _follow(part: Any, resolve: Callable[[Any], Any]) -> Any:
    """Follow a part that is nothing but a `$ref`."""
    for _ in range(_LONGEST_CHAIN):
        if not isinstance(part, Mapping) or "$ref" not in part:
            return part
        if {key for key in part if key in _MEANING} != {"$ref"}:
            return None
        part = resolve(part["$ref"])
    return None
