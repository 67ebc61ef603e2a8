"""From schemas and tools to compiled grammars, each compiled once."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ibllm_tools.decoding import ReasoningMarkup
from ibllm_tools.errors import ConfigurationError, SchemaError
from ibllm_tools.grammar.lark import calls_grammar, json_grammar, json_rule, text_grammar
from ibllm_tools.grammar.markup import CallMarkup
from ibllm_tools.grammar.matching import Grammar, new_matcher
from ibllm_tools.grammar.schemas import Prepared, prepare_answer, prepare_arguments
from ibllm_tools.grammar.vocabulary import Vocabulary, vocabulary_of

CHOICES = ("auto", "required", "none")
_NAME = re.compile(r"[^\s\"\\\x00-\x1f\ue000<>]+")
_KEYWORDS = (
    (re.compile(r'Unimplemented keys: \["([^"]+)"'), None),
    (re.compile("oneOf"), "oneOf"),
    (re.compile("Unknown format"), "format"),
    (re.compile("regex"), "pattern"),
    (re.compile(r"(min/maxProperties)"), "maxProperties"),
    (re.compile(r"\b(minimum|maximum|minLength|maxLength|minItems|maxItems)\b"), None),
    (re.compile("multiple"), "multipleOf"),
    (re.compile("Invalid type"), "type"),
    (re.compile("required"), "required"),
    (re.compile("anyOf"), "anyOf"),
)


def compile_json(
    schema: Mapping[str, Any] | None, tokenizer: Any, *, end_ids: Collection[int] = ()
) -> Grammar:
    """Compile the grammar of answers that are JSON of a schema and nothing else.

    Args:
        schema: A JSON schema of any draft; None for any JSON object.
        tokenizer: A fast tokenizer of transformers.
        end_ids: Tokens that end an answer, beside the tokenizer's own.

    Raises:
        SchemaError: The schema cannot be enforced; the message names keyword and place.
        ConfigurationError: The tokenizer cannot be used with a grammar.
    """
    words = vocabulary_of(tokenizer, end_ids)

    def make() -> Grammar:
        prepared = prepare_answer(schema)
        return _compile(json_grammar(prepared.schema), words, [prepared])

    return words.grammars.get(("json", _canonical(schema)), make)


def compile_calls(
    tools: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    *,
    choice: str = "auto",
    parallel: bool = True,
    end_ids: Collection[int] = (),
) -> Grammar:
    """Compile the grammar of answers that may or have to call tools.

    Args:
        tools: In OpenAI's form.
        tokenizer: A fast tokenizer of transformers; its chat template says how calls look.
        choice: "auto" (text, calls, or text and then calls, thoughts before them where the LLM
            writes any), "required" (calls), "none" (text),
            or the name of the one tool to be called once.
        parallel: An answer may hold several calls, where the chat template can write them.
        end_ids: Tokens that end an answer, beside the tokenizer's own.

    Raises:
        SchemaError: Parameters cannot be enforced; the message names tool, keyword and place.
        ConfigurationError: There is no such tool, or the tokenizer cannot be used.
    """
    words = vocabulary_of(tokenizer, end_ids)
    markup, reasoning = CallMarkup.of(tokenizer), ReasoningMarkup.of(tokenizer)
    functions = [tool.get("function") or tool for tool in tools]
    names = [str(function.get("name", "")) for function in functions]
    _check(names, choice)
    if choice not in CHOICES:
        functions = [functions[names.index(choice)]]
        parallel = False
    pairs = [(str(f["name"]), f.get("parameters")) for f in functions]

    def make() -> Grammar:
        thinks = [words.specials[mark] for mark in reasoning or () if mark in words.specials]
        if choice == "none" or not pairs:
            text = text_grammar(markup, words.specials, reasoning)
            return Grammar.compile(text, words, ends_anywhere=True, marks=frozenset(thinks))
        prepared = [prepare_arguments(parameters, name) for name, parameters in pairs]
        text = calls_grammar(
            markup,
            [(name, p.schema) for (name, _), p in zip(pairs, prepared, strict=True)],
            words.specials,
            may_talk=choice == "auto",
            parallel=parallel,
            reasoning=reasoning,
        )
        marks = markup.marks(words.specials)
        marks = marks.union(thinks) if choice == "auto" else marks
        return _compile(text, words, prepared, ends_anywhere=choice == "auto", marks=marks)

    kind = choice if choice in CHOICES else "named"
    return words.grammars.get(("calls", kind, parallel, markup, reasoning, _canonical(pairs)), make)


def _check(names: Sequence[str], choice: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"found a tool named {name!r}; expected letters, digits, '_', '-' and '.'"
            )
    if len(set(names)) < len(names):
        raise ConfigurationError(f"found tools {names}; expected different names")
    if choice not in CHOICES and choice not in names:
        raise ConfigurationError(
            f"tool_choice is {choice!r}; expected 'auto', 'required', 'none' or one of {names}"
        )
    if choice == "required" and not names:
        raise ConfigurationError("tool_choice is 'required', but there is no tool; bind some")


def _compile(text: str, words: Vocabulary, parts: Sequence[Prepared], **options: Any) -> Grammar:
    try:
        return Grammar.compile(text, words, **options)
    except SchemaError:
        for prepared in parts:
            _find_fault(prepared, words)
        raise


def _find_fault(prepared: Prepared, words: Vocabulary) -> None:
    """Raise an error that names the innermost part of a schema that is refused alone."""
    definitions = {"$defs": prepared.schema["$defs"]} if "$defs" in prepared.schema else {}

    def problem(schema: Mapping[str, Any]) -> str:
        try:
            new_matcher("start: " + json_rule(schema, (", ", ": ")), words)
        except SchemaError as error:
            return str(error)
        return ""

    # Parts come innermost first, so that the first one at fault is the fault itself.
    for place, part in prepared.parts:
        if found := problem({**part, **definitions}):
            keyword = _keyword_in(found)
            raise SchemaError(
                f"{place}: the keyword {keyword!r} cannot be enforced as it is written "
                f"({_first_lines(found)}); change or remove it"
            )


def _keyword_in(message: str) -> str:
    for pattern, keyword in _KEYWORDS:
        if found := pattern.search(message):
            return keyword or str(found.group(1))
    return "type"


def _first_lines(message: str) -> str:
    reason = message.split("JSON schema:", 1)[-1]
    return " ".join(reason.split("\n   1 |", 1)[0].split())


def _canonical(value: Any) -> str:
    """A key for the cache; the order of properties counts, since answers follow it."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"the schema is no JSON ({error}); write it with plain values") from None
