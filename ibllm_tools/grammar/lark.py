"""Grammars as texts in llguidance's dialect of Lark.

```
start: TEXT | head call         # auto, where calls begin with a text such as <tool_call>
call: "…opening…" tool ( "…joint…" tool ){0,15} "…closing…"
tool: "name" "…middle…" arguments
```
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ibllm_tools.grammar.markup import ID_MARK, CallMarkup

MAX_CALLS = 16
_ID = "/[a-zA-Z0-9]{9}/"
_ANYTHING = "(?s:.*)"
_PLAIN = re.compile(r"[A-Za-z0-9_ ]")


def json_grammar(schema: Mapping[str, Any], separators: tuple[str, str] = (", ", ": ")) -> str:
    """Write the grammar of one JSON text.

    Args:
        schema: A prepared schema.
        separators: Between items, and between a key and its value.
    """
    return f"start: {json_rule(schema, separators)}\n"


def json_rule(schema: Mapping[str, Any], separators: tuple[str, str]) -> str:
    """Write a JSON text as a part of a grammar."""
    options = {
        "whitespace_flexible": False,
        "item_separator": separators[0],
        "key_separator": separators[1],
    }
    return "%json " + json.dumps({**schema, "x-guidance": options})


def calls_grammar(
    markup: CallMarkup,
    tools: Sequence[tuple[str, Mapping[str, Any]]],
    specials: Mapping[str, int],
    *,
    may_talk: bool,
    parallel: bool,
    reasoning: tuple[str, str] | None = None,
) -> str:
    """Write the grammar of an answer that calls tools.

    Args:
        markup: How the chat template writes calls.
        tools: Name and prepared parameters of each.
        specials: Ids of the special tokens by spelling.
        may_talk: The answer may be text, or begin with text.
        parallel: Several calls may follow one another.
        reasoning: Special tokens around a text of thoughts that may come before a text.
    """

    def write(text: str) -> str:
        return _literal(text, specials)

    more = ""
    if parallel and markup.joint is not None:
        more = f"( {write(markup.joint)} tool ){{0,{MAX_CALLS - 1}}}"
    opening, (thoughts, rules) = write(markup.opening), _thoughts(reasoning, specials)
    if not may_talk:
        start, rules = f"{opening} calls", []
    elif markup.is_bare:
        rules.append(f"TEXT: {_without(markup.opening, anchored=True)}")
        start = f"{thoughts} ( TEXT | {opening} calls )"
    elif markup.trigger in specials:
        rules.append(f"TEXT: {_without(markup.trigger)}")
        start = f"{thoughts} TEXT ( {opening} calls )?"
    else:
        rest = markup.opening.removeprefix(markup.trigger)
        rules.append(f"TEXT: {_without(markup.trigger)}")
        rules.append(f"head[lazy]: /{_ANYTHING}{_escape(markup.trigger)}/")
        start = f"{thoughts} ( TEXT | head {write(rest)} calls )"
    names = " | ".join(f"tool_{i}" for i in range(len(tools)))
    separators = (markup.item_separator, markup.key_separator)
    bodies = [
        f"tool_{i}: {write(name + markup.middle)} {json_rule(schema, separators)}"
        for i, (name, schema) in enumerate(tools)
    ]
    head = [f"start: {start}", f"calls: tool {more} {write(markup.closing)}", f"tool: {names}"]
    return "\n".join([*head, *rules, *bodies]) + "\n"


def text_grammar(
    markup: CallMarkup, specials: Mapping[str, int], reasoning: tuple[str, str] | None = None
) -> str:
    """Write the grammar of a text in which no call begins; arguments as of `calls_grammar`."""
    thoughts, rules = _thoughts(reasoning, specials)
    text = markup.opening if markup.is_bare else markup.trigger
    rules.append(f"TEXT: {_without(text, anchored=markup.is_bare)}")
    return "\n".join([f"start: {thoughts} TEXT", *rules]) + "\n"


def _thoughts(
    reasoning: tuple[str, str] | None, specials: Mapping[str, int]
) -> tuple[str, list[str]]:
    """Write a part of thoughts that may be left out, and its rules; nothing without markup."""
    if reasoning is None or not set(reasoning) <= specials.keys():
        return "", []  # where it is plain text, it is text like any other
    opening, closing = (f"<[{specials[mark]}]>" for mark in reasoning)
    rules = [
        f"thoughts: {opening} THOUGHT {closing} /[ \\n]*/",
        f"THOUGHT: {_without(reasoning[1])}",
    ]
    return "thoughts?", rules


def _without(text: str, *, anchored: bool = False) -> str:
    """Any text that does not hold `text`; where anchored, that does not begin with it."""
    before = "" if anchored else _ANYTHING
    return f"/{_ANYTHING}/ & ~/{before}{_escape(text)}{_ANYTHING}/"


def _escape(text: str) -> str:
    """A text as a regular expression between slashes."""
    return "".join(c if _PLAIN.match(c) else f"\\x{{{ord(c):X}}}" for c in text)


def _literal(text: str, specials: Mapping[str, int]) -> str:
    """A text with special tokens and ids in it as a part of a grammar."""
    spelled = sorted((s for s in specials if s and s in text), key=len, reverse=True)
    pattern = "|".join(re.escape(piece) for piece in [*spelled, ID_MARK])
    pieces = [piece for piece in re.split(f"({pattern})", text) if piece]
    return " ".join(_part(piece, specials) for piece in pieces)


def _part(piece: str, specials: Mapping[str, int]) -> str:
    if piece == ID_MARK:
        return _ID
    return f"<[{specials[piece]}]>" if piece in specials else json.dumps(piece, ensure_ascii=False)
