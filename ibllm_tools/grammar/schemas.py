"""JSON schemas as users write them, brought to the form that the grammar can enforce.

```
any draft, nullable, $ref anywhere, annotations -> prepare_* -> what llguidance takes
```
Objects that list their properties and say nothing of others are closed. Keywords that no grammar
here can enforce are refused by name; annotations and unknown words are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from ibllm_tools.errors import SchemaError
from ibllm_tools.grammar.schema_forms import merge_parts, modernise

MAX_ITEMS = 1024
"""Items of an array whose schema names no bound."""

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
ANY_OBJECT: dict[str, Any] = {"type": "object"}

Schema = dict[str, Any] | bool

_UNENFORCEABLE: dict[str, tuple[Any, ...]] = {
    "not": (),
    "if": (),
    "contains": (),
    "uniqueItems": (False,),
    "propertyNames": (True, {}),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "dependencies": ({},),
    "unevaluatedProperties": (True, {}),
    "unevaluatedItems": (True, {}),
    "$dynamicRef": (),
    "$recursiveRef": (),
}
"""Keywords that are refused, and for each the values with which it says nothing."""

_KEPT = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "array": ("minItems", "maxItems", "items", "prefixItems"),
    "object": (
        "properties",
        "patternProperties",
        "required",
        "additionalProperties",
        "minProperties",
        "maxProperties",
    ),
}
_BRANCHES = ("anyOf", "oneOf", "allOf")
_STANDARD_FORMATS = frozenset(
    {
        "date-time", "date", "time", "duration", "email", "idn-email", "hostname", "idn-hostname",
        "ipv4", "ipv6", "uri", "uri-reference", "iri", "iri-reference", "uuid", "uri-template",
        "json-pointer", "relative-json-pointer", "regex",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """A schema that is ready, and its parts with their places, to find the one at fault."""

    schema: dict[str, Any]
    parts: tuple[tuple[str, dict[str, Any]], ...]


def prepare_answer(schema: Mapping[str, Any] | None) -> Prepared:
    """Prepare the schema of an answer; None stands for any JSON object.

    Raises:
        SchemaError: A keyword cannot be enforced, or the schema is none.
    """
    return _prepare(ANY_OBJECT if schema is None else schema)


def prepare_arguments(parameters: Mapping[str, Any] | None, tool: str) -> Prepared:
    """Prepare the parameters of a tool; without any, its arguments are `{}`.

    Raises:
        SchemaError: A keyword cannot be enforced, or the parameters are no object.
    """
    prepared = _prepare(parameters or NO_ARGUMENTS, f"{tool}: ")
    kind = prepared.schema.get("type", "object")
    if kind != "object":
        raise SchemaError(
            f"the parameters of tool {tool!r} have the type {kind!r}; expected an object schema, "
            'such as {"type": "object", "properties": {...}}'
        )
    return prepared


def _prepare(schema: Any, prefix: str = "") -> Prepared:
    preparer = _Preparer(schema, prefix)
    try:
        prepared = preparer.schema(schema, "#")
    except RecursionError:
        raise SchemaError(f"{prefix}the schema is nested too deeply; flatten it") from None
    if isinstance(prepared, bool):
        prepared = {"anyOf": [prepared]}
    if preparer.definitions:
        prepared = {**prepared, "$defs": preparer.definitions}
    return Prepared(prepared, tuple(preparer.parts))


@dataclass
class _Preparer:
    """Walks one schema; definitions that are referred to are prepared once and kept by name."""

    root: Any
    prefix: str = ""
    names: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, Any] = field(default_factory=dict)
    parts: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def schema(self, found: Any, path: str, *, whole: bool = True) -> Schema:
        """Prepare the schema at `path`; `whole` says that no other schema adds to its object."""
        if isinstance(found, bool):
            return {} if found else False
        if not isinstance(found, Mapping):
            raise SchemaError(
                f"{self.prefix}{path} is {found!r}; expected a JSON schema, that is an object"
            )
        self._refuse(found, path)
        source = modernise(merge_parts(found, lambda ref: self._resolve(ref, path)))
        self._refuse(source, path)
        out = self._fields(source, path, whole)
        if source.get("nullable") is True:
            out = {"anyOf": [out, {"type": "null"}]}
        self.parts.append((self.prefix + path, out))
        return out

    def _refuse(self, found: Mapping[str, Any], path: str) -> None:
        for keyword, silent in _UNENFORCEABLE.items():
            if keyword in found and not any(_same(found[keyword], value) for value in silent):
                raise SchemaError(
                    f"{self.prefix}{path}: the keyword {keyword!r} cannot be enforced while an "
                    "answer is written; remove it, and check the answer for it afterwards"
                )

    def _fields(self, source: Mapping[str, Any], path: str, whole: bool) -> dict[str, Any]:
        out: dict[str, Any] = {
            key: source[key] for key in ("type", "enum", "const") if key in source
        }
        kinds = _kinds(source)
        if "type" not in out and len(kinds) == 1 and not _says_values(source):
            out["type"] = kinds[0]
        for keyword in (key for kind in kinds for key in _KEPT[kind] if key in source):
            out[keyword] = source[keyword]
        self._strings(out)
        self._arrays(out, path)
        self._objects(out, source, path, whole)
        if "$ref" in source:
            out["$ref"] = self._define(source["$ref"], path)
        alone = whole and "properties" not in source
        for keyword in (key for key in _BRANCHES if key in source):
            branches = source[keyword]
            if not isinstance(branches, (list, tuple)):
                raise SchemaError(f"{self.prefix}{path}: {keyword!r} is no list of schemas")
            out[keyword] = [
                self.schema(branch, f"{path}/{keyword}/{i}", whole=alone and keyword != "allOf")
                for i, branch in enumerate(branches)
            ]
        return out

    @staticmethod
    def _strings(out: dict[str, Any]) -> None:
        if "format" in out and out["format"] not in _STANDARD_FORMATS:
            del out["format"]  # a word of some vendor, which says nothing about the text

    def _arrays(self, out: dict[str, Any], path: str) -> None:
        if "array" not in _types(out):
            return
        if "prefixItems" in out:
            out["prefixItems"] = [
                self.schema(entry, f"{path}/prefixItems/{i}")
                for i, entry in enumerate(out["prefixItems"])
            ]
            if "items" not in out and out.get("minItems", 0) <= len(out["prefixItems"]):
                out["items"] = False
        if "items" in out:
            out["items"] = self.schema(out["items"], f"{path}/items")
        if "maxItems" not in out and isinstance(out.get("minItems", 0), int):
            out["maxItems"] = max(out.get("minItems", 0), MAX_ITEMS)

    def _objects(
        self, out: dict[str, Any], source: Mapping[str, Any], path: str, whole: bool
    ) -> None:
        for keyword in ("properties", "patternProperties"):
            if keyword in out:
                if not isinstance(out[keyword], Mapping):
                    raise SchemaError(f"{self.prefix}{path}: {keyword!r} is no object of schemas")
                out[keyword] = {
                    name: self.schema(entry, f"{path}/{keyword}/{name}")
                    for name, entry in out[keyword].items()
                }
        n_free = out.get("minProperties", 0) if isinstance(out.get("minProperties"), int) else 0
        if n_free > 1 + len(out.get("required", ())):
            # A key may be written twice, and then counts once.
            raise SchemaError(
                f"{self.prefix}{path}: the keyword 'minProperties' cannot be enforced for more "
                "than one key beside those required; remove it, or name the keys in 'required'"
            )
        if "additionalProperties" in out:
            out["additionalProperties"] = self.schema(
                out["additionalProperties"], f"{path}/additionalProperties"
            )
        elif "properties" in out and whole and not _adds_properties(source):
            missing = [name for name in out.get("required", ()) if name not in out["properties"]]
            out["properties"] = {**out["properties"], **{name: {} for name in missing}}
            out["additionalProperties"] = False

    def _define(self, ref: Any, path: str) -> str:
        target = self._resolve(ref, path)
        if ref not in self.names:
            self.names[ref] = f"d{len(self.names)}"
            self.definitions[self.names[ref]] = {}
            self.definitions[self.names[ref]] = self.schema(target, ref)
        return f"#/$defs/{self.names[ref]}"

    def _resolve(self, ref: Any, path: str) -> Any:
        """Find what a `$ref` points to, within this schema."""
        place: Any = self.root
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise SchemaError(
                f"{self.prefix}{path}: '$ref' is {ref!r}; expected a place in the same schema, "
                "such as '#/$defs/Name': write the definition into the schema"
            )
        for step in ref.split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            try:
                place = place[int(key)] if isinstance(place, list) else place[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise SchemaError(
                    f"{self.prefix}{path}: '$ref' is {ref!r}, but the schema has no such place; "
                    "check the spelling, or add the definition"
                ) from None
        return place


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    found = schema.get("type", ())
    return (found,) if isinstance(found, str) else tuple(found)


def _kinds(source: Mapping[str, Any]) -> list[str]:
    """The groups of keywords that count: those of the type, or those that are used."""
    if "type" in source:
        named = {"number" if name == "integer" else name for name in _types(source)}
        return [kind for kind in _KEPT if kind in named]
    return [kind for kind, keywords in _KEPT.items() if any(key in source for key in keywords)]


def _says_values(source: Mapping[str, Any]) -> bool:
    return "enum" in source or "const" in source


def _adds_properties(source: Mapping[str, Any]) -> bool:
    """Whether parts of a schema may bring further properties to its object."""
    if "allOf" in source or "$ref" in source:
        return True
    branches = [*source.get("anyOf", ()), *source.get("oneOf", ())]
    return any(
        not isinstance(branch, Mapping) or {"properties", "$ref", "allOf"} & branch.keys()
        for branch in branches
    )


def _same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and bool(value == other)
