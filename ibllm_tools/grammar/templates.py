"""The chat template for conversations with tools: the tokenizer's own, or a fallback.

The fallback rewrites messages before the tokenizer's own template writes them: tools are listed
in the system turn, calls become text of the assistant, results become text of the user. An LLM
without any chat template gets Alpaca's form in the same way.
"""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakKeyDictionary

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.grammar.markup import CallMarkup, find_markup
from ibllm_tools.model.prompts import alpaca_conversation

_LISTING = (
    "{%- macro listing(tools) -%}"
    "You can call these functions; each line describes one:\\n"
    "{%- for tool in tools %}{{ '\\n' }}{{ (tool.function or tool) | tojson }}{% endfor %}"
    "{{- '\\n\\nTo call a function, write its name and arguments as JSON, like this:\\n' }}"
    '{{- \'<tool_call>\\n{"name": "function", "arguments": {"key": "value"}}\\n\' }}'
    "{{- '</tool_call>' }}"
    "{%- endmacro -%}"
)
_CALLS = (
    "{%- macro calls(message) -%}"
    "{{- message.content or '' }}"
    "{%- for call in message.tool_calls %}{%- set f = call.function or call %}"
    "{{- '\\n' if message.content or not loop.first }}"
    '{{- \'<tool_call>\\n{"name": "\' ~ f.name ~ \'", "arguments": \' }}'
    "{{- f.arguments if f.arguments is string else (f.arguments or {}) | tojson }}"
    "{{- '}\\n</tool_call>' }}{%- endfor %}"
    "{%- endmacro -%}"
)
_REWRITING = (
    "{%- set ns = namespace(told=[], head='', led=false) -%}"
    "{%- if messages and messages[0].role == 'system' -%}"
    "{%- set ns.head = messages[0].content -%}{%- set ns.led = true -%}{%- endif -%}"
    "{%- if tools -%}"
    "{%- set ns.head = (ns.head ~ '\\n\\n' if ns.head else '') ~ listing(tools) -%}{%- endif -%}"
    "{%- if ns.head and SYSTEM -%}"
    "{%- set ns.told = [{'role': 'system', 'content': ns.head}] -%}{%- set ns.head = '' -%}"
    "{%- endif -%}"
    "{%- for m in (messages[1:] if ns.led else messages) -%}"
    "{%- if m.role == 'tool' -%}"
    "{%- set result = '<tool_response>\\n' ~ m.content ~ '\\n</tool_response>' -%}"
    "{%- set last = ns.told[-1] if ns.told else none -%}"
    "{%- if last and last.get('is_result') -%}"
    "{%- set ns.told = ns.told[:-1] + [{'role': 'user', 'is_result': true,"
    " 'content': last.content ~ '\\n' ~ result}] -%}"
    "{%- else -%}"
    "{%- set ns.told = ns.told + [{'role': 'user', 'is_result': true, 'content': result}] -%}"
    "{%- endif -%}"
    "{%- elif m.role == 'assistant' and m.tool_calls -%}"
    "{%- set ns.told = ns.told + [{'role': 'assistant', 'content': calls(m)}] -%}"
    "{%- elif m.role == 'user' and ns.head -%}"
    "{%- set ns.told = ns.told + [{'role': 'user', 'content': ns.head ~ '\\n\\n' ~ m.content}] -%}"
    "{%- set ns.head = '' -%}"
    "{%- else -%}{%- set ns.told = ns.told + [m] -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- set messages = ns.told -%}{%- set tools = none -%}"
)
_ALPACA = (
    "{%- set ns = namespace(head=HEAD, turns='') -%}"
    "{%- for m in messages -%}"
    "{%- if m.role == 'system' -%}{%- set ns.head = m.content -%}"
    "{%- elif m.role == 'user' -%}"
    "{%- set ns.turns = ns.turns ~ '\\n\\n### Instruction:\\n' ~ m.content"
    " ~ '\\n\\n### Response:' -%}"
    "{%- else -%}{%- set ns.turns = ns.turns ~ m.content -%}{%- endif -%}"
    "{%- endfor -%}"
    "{{- (bos_token or '') ~ ns.head ~ ns.turns -}}"
)
_found: WeakKeyDictionary[Any, tuple[Any, tuple[str, CallMarkup]]] = WeakKeyDictionary()
_lock = threading.Lock()


def chat_template_with_tools(tokenizer: Any) -> str:
    """Return the chat template for conversations with tools, calls and results.

    Returns:
        The tokenizer's own template, its "tool_use" variant, or a fallback: text to be passed as
        `chat_template` to `apply_chat_template`, together with `tools`.

    Raises:
        ConfigurationError: Even the fallback cannot be used with the tokenizer's template.
    """
    return template_and_markup(tokenizer)[0]


def template_and_markup(tokenizer: Any) -> tuple[str, CallMarkup]:
    """Return the template for tools, and the markup of calls in it; found once per tokenizer."""
    own = getattr(tokenizer, "chat_template", None)
    with _lock:
        known = _found.get(tokenizer)
        if known is None or known[0] != own:
            known = (own, _choose(tokenizer, own))
            _found[tokenizer] = known
        return known[1]


def _choose(tokenizer: Any, own: Any) -> tuple[str, CallMarkup]:
    problem: ConfigurationError | None = None
    for template in _candidates(tokenizer, own):
        try:
            return template, find_markup(tokenizer, template)
        except ConfigurationError as error:
            problem = error
    assert problem is not None
    raise problem


def _candidates(tokenizer: Any, own: Any) -> list[str]:
    """Templates to try, the most fitting first."""
    named = own if isinstance(own, dict) else {"default": own}
    given = [named[key] for key in ("tool_use", "default") if named.get(key)]
    base = given[-1] if given else _alpaca_template(tokenizer)
    return [*given, fallback_template(base), fallback_template(base, has_system=False)]


def fallback_template(base: str, *, has_system: bool = True) -> str:
    """Put the rewriting of tools, calls and results before a template that knows none.

    Args:
        base: The template that writes the rewritten messages.
        has_system: Whether it takes a system message; without, the first user message begins
            with what the system says.
    """
    flag = "true" if has_system else "false"
    return _LISTING + _CALLS + _REWRITING.replace("SYSTEM", flag) + base


def _alpaca_template(tokenizer: Any) -> str:
    """Alpaca's form as a template; the same text as `alpaca_conversation`."""
    head = alpaca_conversation([])
    # The template writes the first token where the tokenizer would add it by itself.
    template = _ALPACA.replace("HEAD", repr(head))
    adds_bos = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    return template if adds_bos else template.replace("(bos_token or '') ~ ", "")
