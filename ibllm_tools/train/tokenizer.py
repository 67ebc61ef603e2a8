"""Pocket's tokenizer and chat format: a small byte-complete BPE and a chat template.

Letters of one case pattern run together; digits, spaces, punctuation, Han characters and kana
stand alone, so that whatever is copied is spelled alike wherever it stands. `render_chat` writes
the same text as the chat template, in pieces that say what the model has to learn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from ibllm_tools.model.prompts import NOTE
from ibllm_tools.model.tool_ranking import FITS

PAD, BOS, END, SYSTEM, USER, ASSISTANT, TOOL, CALL = CHAT_TOKENS = (
    "<|pad|>",
    "<|bos|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<|call|>",
)
N_MARKS = 16
TOOL_MARKS = tuple(f"<|{i}|>" for i in range(1, N_MARKS + 1))
"""One special token before each tool of a list; a longer list begins again with the first."""
FITS_MARK = "<|fits|>"
"""Before a tool that fits the request; see `ToolRanker`."""
SPECIAL_TOKENS = (*CHAT_TOKENS, *TOOL_MARKS, NOTE, FITS_MARK)
NAME_OPENS, ARGUMENTS_OPEN = JSON_PIECES = ('{"name": "', '", "arguments": {')
"""Added tokens: how every call begins, and what stands between its name and its arguments."""
KANA = (*map(chr, range(0x3041, 0x3097)), *map(chr, range(0x30A1, 0x30FB)), "ー")
"""Added tokens: in bytes, kana differ in their last one only, and copies go astray."""

Message = Mapping[str, Any]
"""A message in OpenAI's form; LangChain's own `tool_calls` are understood as well."""

_TYPE_MACRO = (
    "{%- macro kind(s) -%}"
    "{%- if s.enum %}{% for v in s.enum %}{{ '|' if not loop.first }}{{ v | tojson }}{% endfor %}"
    "{%- elif s.anyOf %}{% for v in s.anyOf %}{{ '|' if not loop.first }}{{ kind(v) }}{% endfor %}"
    "{%- elif s.type and s.type is not string %}{{ s.type | join('|') }}"
    "{%- elif s.properties %}{{ '{' }}{{ fields(s) }}{{ '}' }}"
    "{%- elif s['items'] is mapping %}[{{ kind(s['items']) }}]"
    "{%- else %}{{ s.type or 'any' }}{% endif %}"
    "{%- endmacro %}"
    "{%- macro fields(s) -%}"
    "{%- for name, p in (s.properties or {}).items() %}{{ ', ' if not loop.first }}{{ name }}"
    "{{- '' if name in (s.required or []) else '?' }}: {{ kind(p) }}"
    "{%- if p.description %} ({{ p.description }}){% endif %}{% endfor %}"
    "{%- endmacro %}"
)
_TEXT_MACRO = (
    "{%- macro text(content) -%}"
    "{%- if content is string %}{{ content }}{%- elif content %}"
    "{%- for block in content if block is mapping and block.type == 'text' %}"
    "{{- block.text }}{%- endfor %}{%- endif %}"
    "{%- endmacro %}"
)
CHAT_TEMPLATE = (
    _TYPE_MACRO + _TEXT_MACRO + "{%- set led = messages and messages[0].role == 'system' %}"
    "{{- '<|bos|>' }}"
    "{%- if tools or led %}{{- '<|system|>' }}"
    "{%- if led %}{{- text(messages[0].content) }}{%- endif %}"
    "{%- for tool in tools or [] %}{%- set f = tool.function or tool %}"
    "{{- '<|fits|>' if tool.fits }}"
    "{{- '<|' ~ (loop.index0 % 16 + 1) ~ '|>' ~ f.name }}({{ fields(f.parameters or {}) }})"
    "{%- if f.description %} {{ f.description }}{%- endif %}"
    "{%- endfor %}{{- '<|end|>' }}{%- endif %}"
    "{%- for message in (messages[1:] if led else messages) %}"
    "{{- '<|' + message.role + '|>' }}"
    "{%- if message.reasoning_content %}"
    "{{- '<|note|>' ~ message.reasoning_content ~ '<|note|>' }}{%- endif %}"
    "{{- text(message.content) }}"
    "{%- for call in message.tool_calls or [] %}{%- set f = call.function or call %}"
    "{%- set given = f.arguments if f.arguments is defined else f.args %}"
    '{{- \'<|call|>{"name": "\' ~ f.name ~ \'", "arguments": \' }}'
    "{{- given if given is string else (given or {}) | tojson }}{{- '}' }}"
    "{%- endfor %}"
    "{{- '<|end|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)
_LETTER = r"[\p{L}\p{M}&&[^\p{Han}\p{Hiragana}\p{Katakana}]]"
_PIECES = (
    r"\p{Han}|[\p{Hiragana}\p{Katakana}]"
    r"|\p{Lu}?[\p{Ll}\p{M}]+|\p{Lu}+(?!\p{Ll})"
    rf"|{_LETTER}+?|\p{{N}}|\s|[^\s\p{{L}}\p{{M}}\p{{N}}]"
)


def train_tokenizer(lines: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-complete BPE tokenizer with a chat template.

    Every byte is in the vocabulary, so any text survives encoding and decoding.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(JSON_PIECES) - len(KANA),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return wrap_tokenizer(tokenizer)


def wrap_tokenizer(tokenizer: Any) -> PreTrainedTokenizerFast:
    """Give a trained tokenizer its special tokens, JSON pieces and chat template."""
    from tokenizers import AddedToken

    added = (*JSON_PIECES, *KANA)
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in added])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        additional_special_tokens=[*CHAT_TOKENS[3:], *TOOL_MARKS, NOTE, FITS_MARK],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def encode_text(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Ids of a text; spelled special tokens become special."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode_chat(
    tokenizer: PreTrainedTokenizerFast, turns: Sequence[tuple[str, str]]
) -> tuple[list[int], list[bool]]:
    """Turn questions and answers into ids and a mask of the answers, as `encode_messages`."""
    messages = []
    for question, answer in turns:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return encode_messages(tokenizer, messages)


def encode_messages(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[int], list[bool]]:
    """Turn a conversation into ids and a mask of what the assistant says.

    The ids equal those of the chat template. The mask includes calls and end tokens.
    """
    ids: list[int] = []
    said: list[bool] = []
    for text, learned in render_chat(messages, tools):
        piece = encode_text(tokenizer, text)
        ids += piece
        said += [learned] * len(piece)
    return ids, said


def render_chat(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
) -> list[tuple[str, bool]]:
    """Write a conversation as the chat template does, in pieces (text, said by the assistant)."""
    head, rest = BOS, list(messages)
    led = bool(rest) and rest[0]["role"] == "system"
    if tools or led:
        opening = plain_text(rest.pop(0)["content"]) if led else ""
        listed = "".join(_render_tool(i, tool) for i, tool in enumerate(tools))
        head += f"{SYSTEM}{opening}{listed}{END}"
    pieces = [(head, False)]
    for message in rest:
        note = message.get("reasoning_content")
        body = f"{NOTE}{note}{NOTE}" if note else ""
        body += plain_text(message.get("content"))
        body += "".join(_render_call(call) for call in message.get("tool_calls") or ())
        pieces.append((f"<|{message['role']}|>", False))
        pieces.append((body + END, message["role"] == "assistant"))
    return pieces


def plain_text(content: Any) -> str:
    """The text of a message's content: a string, or the text blocks of a list."""
    if isinstance(content, str):
        return content
    return "".join(b["text"] for b in content or () if isinstance(b, dict) and b["type"] == "text")


def _render_call(call: Mapping[str, Any]) -> str:
    function = call.get("function") or call
    given = function["arguments"] if "arguments" in function else function.get("args")
    arguments = given if isinstance(given, str) else dump_json(given or {})
    return f"{CALL}{NAME_OPENS}{function['name']}{ARGUMENTS_OPEN[:-1]}{arguments}}}"


def _render_tool(index: int, tool: Mapping[str, Any]) -> str:
    function = tool.get("function") or tool
    described = f" {function['description']}" if function.get("description") else ""
    fields = _render_fields(function.get("parameters") or {})
    mark = (FITS_MARK if tool.get(FITS) else "") + TOOL_MARKS[index % N_MARKS]
    return f"{mark}{function['name']}({fields}){described}"


def _render_fields(schema: Mapping[str, Any]) -> str:
    shown = []
    for name, field in (schema.get("properties") or {}).items():
        optional = "" if name in (schema.get("required") or ()) else "?"
        described = f" ({field['description']})" if field.get("description") else ""
        shown.append(f"{name}{optional}: {_render_kind(field)}{described}")
    return ", ".join(shown)


def _render_kind(schema: Mapping[str, Any]) -> str:
    if schema.get("enum"):
        return "|".join(dump_json(value) for value in schema["enum"])
    if schema.get("anyOf"):
        return "|".join(_render_kind(branch) for branch in schema["anyOf"])
    kind = schema.get("type")
    if isinstance(kind, list):
        return "|".join(kind)
    if schema.get("properties"):
        return "{" + _render_fields(schema) + "}"
    if isinstance(schema.get("items"), dict):
        return f"[{_render_kind(schema['items'])}]"
    return str(kind or "any")


def dump_json(value: Any) -> str:
    """JSON as the chat template writes it."""
    return json.dumps(value, ensure_ascii=False)
