"""Tools, `tool_choice` and `response_format` of one call, brought to one plan for the grammar.

A schema for the answer is shown to the model as one more tool, whose call is forced: the JSON of
its arguments becomes the answer's text. So models see what is asked, tools and a schema may be
given together, as agents do, and every model that can call tools can answer in JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

    from ibllm_tools.decoding import Constraint

Tool = dict[str, Any]
"""A tool in OpenAI's form: `{"type": "function", "function": {"name", ...}}`."""

AUTO, REQUIRED, NONE = "auto", "required", "none"
ANSWER = "answer"

_CHOICES = 'expected "auto", "any", "required", "none", True, or the name of a tool'


@dataclass(frozen=True)
class Plan:
    """What an answer may be.

    Attributes:
        tools: The tools that the prompt lists.
        choice: "auto", "required", "none" or the name of the one tool to call.
        parallel: Whether several calls may come in one answer.
        answer: The name of the tool whose arguments are the answer's text; None if there is none.
        schema: The schema of an answer that is no object; it is not listed as a tool.
        is_json: Whether the whole answer is JSON by `schema` (any object where that is None).
    """

    tools: tuple[Tool, ...] = ()
    choice: str = AUTO
    parallel: bool = True
    answer: str | None = None
    schema: Mapping[str, Any] | None = None
    is_json: bool = False

    @property
    def calls(self) -> bool:
        """Whether an answer may hold calls, those that stand for its text included."""
        return bool(self.tools) and not self.is_json and self.choice != NONE

    @property
    def says_text(self) -> bool:
        """Whether an answer may be plain text, in which stop texts count."""
        return not self.is_json and self.choice in {AUTO, NONE}

    def constraint(self, tokenizer: Any, end_ids: Collection[int]) -> Constraint | None:
        """Compile the grammar of the plan for a tokenizer; None where everything is allowed.

        Raises:
            SchemaError: A schema has a keyword that cannot be enforced.
        """
        if not self.tools and not self.is_json:
            return None
        from ibllm_tools.grammar import compile_calls, compile_json

        if self.is_json:
            schema = None if self.schema is None else dict(self.schema)
            return compile_json(schema, tokenizer, end_ids=end_ids)
        return compile_calls(
            self.tools, tokenizer, choice=self.choice, parallel=self.parallel, end_ids=end_ids
        )


def as_tools(
    tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool],
    strict: bool | None = None,
) -> list[Tool]:
    """Bring tools of every kind that LangChain knows to OpenAI's form.

    Raises:
        ConfigurationError: A tool runs at a provider, such as a web search; none does here.
    """
    found = [_as_tool(tool, strict) for tool in tools]
    for tool in found:
        if tool.get("type") != "function":
            raise ConfigurationError(
                f"found a tool of type {tool.get('type')!r}, which a provider runs; expected a "
                "function, a BaseTool, a pydantic class or a JSON schema; pass one of these"
            )
    return found


def _as_tool(tool: Any, strict: bool | None) -> Tool:
    found = convert_to_openai_tool(tool, strict=strict)
    model = getattr(tool, "tool_call_schema", tool)
    if isinstance(model, type) and issubclass(model, BaseModel):
        schema = model.model_json_schema()
        if is_recursive(schema):  # the conversion allows anything where a class holds itself
            found["function"]["parameters"] = _rooted(schema)
    return found


def is_recursive(schema: Mapping[str, Any]) -> bool:
    """Whether a definition of a JSON schema holds itself, directly or through others."""
    held = {f"#/$defs/{name}": set(_refs(part)) for name, part in schema.get("$defs", {}).items()}
    for _ in held:
        held = {name: refs.union(*(held.get(r, ()) for r in refs)) for name, refs in held.items()}
    return any(name in refs for name, refs in held.items())


def _refs(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    for inner in part if isinstance(part, list) else ():
        yield from _refs(inner)


def _rooted(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with its root written out, where that is a reference."""
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    root = {**schema.get("$defs", {}).get(name, {}), **schema}
    return {key: held for key, held in root.items() if key not in {"$ref", "title", "description"}}


def tool_name(tool: Mapping[str, Any]) -> str:
    """The name of a tool in OpenAI's form."""
    return str(tool["function"]["name"])


def as_choice(choice: object, names: Sequence[str]) -> str:
    """Bring every spelling of `tool_choice` to "auto", "required", "none" or a tool's name.

    Args:
        choice: A word, a tool's name, True (required), False or None (auto), or a dict in
            OpenAI's or Anthropic's form.
        names: The names of the tools.

    Raises:
        ConfigurationError: There is no such tool, or none at all.
    """
    found = _chosen_name(choice) if isinstance(choice, Mapping) else choice
    if found in (None, False, AUTO):
        return AUTO
    if found == NONE:
        return NONE
    if not names:
        raise ConfigurationError(f"tool_choice is {choice!r}, but there are no tools; give some")
    if found is True or found in {"any", REQUIRED}:
        return REQUIRED
    if isinstance(found, str) and found in names:
        return found
    raise ConfigurationError(f"tool_choice is {choice!r}; {_CHOICES}: {', '.join(names)}")


def _chosen_name(choice: Mapping[str, Any]) -> object:
    for holder in (choice.get("function"), choice.get("tool"), choice):
        if isinstance(holder, Mapping) and isinstance(holder.get("name"), str):
            return holder["name"]
    return choice.get("type", dict(choice))


def make_plan(
    tools: Sequence[Any] | None, choice: object, parallel: bool | None, response_format: Any
) -> Plan:
    """Say what the answer to a call with these settings may be.

    Raises:
        ConfigurationError: The settings do not fit together.
    """
    offered = as_tools(tools or ())
    names = [tool_name(tool) for tool in offered]
    chosen = as_choice(choice, names)
    several = parallel is not False
    wanted, schema = _wanted_format(response_format)
    if wanted is None:
        if chosen not in {AUTO, REQUIRED, NONE}:
            several = False
        return Plan(tuple(offered), chosen, several)
    if not offered and (schema is None or not _is_object(schema)):
        return Plan(schema=schema, is_json=True)
    answer = _answer_tool(wanted, schema or {"type": "object"}, names)
    name = tool_name(answer)
    if not offered or chosen == NONE:
        return Plan((*offered, answer), name, parallel=False, answer=name)
    if chosen in names:
        return Plan(tuple(offered), chosen, parallel=False)
    return Plan((*offered, answer), REQUIRED, several, answer=name)


def _wanted_format(response_format: Any) -> tuple[str | None, Mapping[str, Any] | None]:
    """The name and schema of a `response_format` in OpenAI's form; no name where it is text."""
    if response_format is None:
        return None, None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "text":
        return None, None
    if kind == "json_object":
        schema = response_format.get("schema")
        return str((schema or {}).get("title", ANSWER)), schema
    inner = response_format.get("json_schema") if kind == "json_schema" else None
    if isinstance(inner, Mapping) and isinstance(inner.get("schema"), Mapping):
        return str(inner.get("name") or ANSWER), inner["schema"]
    raise ConfigurationError(
        f"response_format is {response_format!r}; expected "
        '{"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}} or '
        '{"type": "json_object"}; or use with_structured_output'
    )


def _is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object" or "properties" in schema


def _answer_tool(name: str, schema: Mapping[str, Any], taken: Sequence[str]) -> Tool:
    if not _is_object(schema):
        raise ConfigurationError(
            f"the schema {name!r} is no object, and tools are given too; wrap it in an object, "
            "or leave the tools out"
        )
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:64] or ANSWER
    while name in taken:
        name += "_"
    parameters = {key: held for key, held in schema.items() if key not in {"title", "description"}}
    function = {"name": name, "parameters": {"type": "object", **parameters}}
    if schema.get("description"):
        function["description"] = schema["description"]
    return {"type": "function", "function": function}
