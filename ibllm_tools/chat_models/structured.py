"""`with_structured_output`: a schema in, objects of it out."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import (
    JsonOutputKeyToolsParser,
    PydanticToolsParser,
)
from langchain_core.runnables import RunnableMap, RunnablePassthrough
from langchain_core.utils.pydantic import is_basemodel_subclass

from ibllm_tools.chat_models.tools import ANSWER, as_tools, tool_name
from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable

Method = Literal["json_schema", "function_calling", "json_mode"]
Schema = dict[str, Any] | type

# A dict with one of these is a tool in some provider's form, not a bare JSON schema.
_TOOL_KEYS = frozenset({"function", "input_schema", "name", "toolSpec"})


def structured_output(
    chat: BaseChatModel,
    schema: Schema | None,
    method: Method,
    *,
    include_raw: bool,
    strict: bool | None,
    settings: dict[str, Any],
) -> Runnable[Any, Any]:
    """Bind a schema to a chat model and parse what it says; see `with_structured_output`.

    Raises:
        ConfigurationError: The method is unknown, or needs a schema and has none.
    """
    if method not in {"json_schema", "function_calling", "json_mode"}:
        raise ConfigurationError(
            f"method is {method!r}; expected 'json_schema', 'function_calling' or 'json_mode'"
        )
    if schema is None and method != "json_mode":
        raise ConfigurationError(f"{method} needs a schema; give one, or use method='json_mode'")
    schema = _titled(schema) if isinstance(schema, dict) else schema
    settings["ls_structured_output_format"] = {
        "kwargs": {"method": method, "strict": strict},
        "schema": schema if schema is not None else {"title": ANSWER, "type": "object"},
    }
    if method == "function_calling":
        assert schema is not None
        bound, parser = _as_call(chat, schema, strict, settings)
    else:
        settings["response_format"] = _response_format(schema, method, strict)
        bound, parser = chat.bind(**settings), _text_parser(schema)
    return _with_raw(bound, parser) if include_raw else bound | parser


def _titled(schema: dict[str, Any]) -> dict[str, Any]:
    """A bare JSON schema needs a title to be converted."""
    return schema if schema.keys() & {*_TOOL_KEYS, "title"} else {"title": ANSWER, **schema}


def _json_schema(schema: Schema) -> dict[str, Any]:
    if isinstance(schema, dict) and not schema.keys() & _TOOL_KEYS:
        return schema
    [tool] = as_tools([schema])
    function = tool["function"]
    named = {key: function[key] for key in ("description",) if key in function}
    return {"title": function["name"], **named, **function.get("parameters", {"type": "object"})}


def _response_format(schema: Schema | None, method: Method, strict: bool | None) -> dict[str, Any]:
    if schema is None:
        return {"type": "json_object"}
    written = _json_schema(schema)
    if method == "json_mode":  # the schema is known, so that the keys can be held to it
        return {"type": "json_object", "schema": written}
    named: dict[str, Any] = {"name": str(written.get("title", ANSWER)), "schema": written}
    if strict is not None:
        named["strict"] = strict
    return {"type": "json_schema", "json_schema": named}


def _text_parser(schema: Schema | None) -> Runnable[Any, Any]:
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return PydanticOutputParser(pydantic_object=schema)
    return JsonOutputParser()


def _as_call(
    chat: BaseChatModel, schema: Schema, strict: bool | None, settings: dict[str, Any]
) -> tuple[Runnable[Any, Any], Runnable[Any, Any]]:
    [tool] = as_tools([schema], strict)
    name = tool_name(tool)
    bound = chat.bind_tools([tool], tool_choice=name, parallel_tool_calls=False, **settings)
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return bound, PydanticToolsParser(tools=[schema], first_tool_only=True)
    return bound, JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)


def _with_raw(bound: Runnable[Any, Any], parser: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """`{"raw": message, "parsed": object or None, "parsing_error": exception or None}`."""
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")
