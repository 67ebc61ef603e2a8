"""Constrained decoding: answers that are JSON of a schema, or calls of tools, and nothing else.

```
schema or tools -> schemas -> lark -> Grammar -> begin(max_tokens) -> allowed() / take(token)
chat template   -> CallMarkup -> stream() -> TextDelta, CallStart, CallDelta, CallEnd
```
"""

from ibllm_tools.errors import SchemaError
from ibllm_tools.grammar.compiling import compile_calls, compile_json
from ibllm_tools.grammar.markup import CallMarkup
from ibllm_tools.grammar.matching import Grammar, GrammarState
from ibllm_tools.grammar.parsing import (
    CallDelta,
    CallEnd,
    CallParser,
    CallStart,
    Event,
    TextDelta,
)
from ibllm_tools.grammar.templates import chat_template_with_tools

__all__ = [
    "CallDelta",
    "CallEnd",
    "CallMarkup",
    "CallParser",
    "CallStart",
    "Event",
    "Grammar",
    "GrammarState",
    "SchemaError",
    "TextDelta",
    "chat_template_with_tools",
    "compile_calls",
    "compile_json",
]
