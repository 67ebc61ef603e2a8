"""Conversations to token ids: the tokenizer's chat template, or Stanford Alpaca's templates.

Text that people write never becomes a special token: where it holds the spelling of one, it is
encoded apart from the template, as plain text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

IGNORED_LABEL = -100
CAPTION_REQUEST = "Generate caption of this image"
NOTE = "<|note|>"
"""Opens and closes what a model writes for itself before it answers, as pocket does."""
CALL = "<|call|>"
"""Opens a tool call of such a model."""

# The two training templates of Stanford Alpaca (Apache-2.0).
_SHORT_HEAD = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
_LONG_HEAD = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request."
)
_ROLES = ("system", "user", "assistant", "tool")
_MARK = re.compile("\ue000([0-9]+)\ue001")  # private-use characters stand for people's text
_MARK_CHARACTERS = re.compile("[\ue000\ue001]")


def alpaca_prompt(instruction: str, context: str | None = None) -> str:
    """Write one instruction as the released model was trained on.

    Args:
        instruction: What to do.
        context: Further input; None or "" selects the short template.
    """
    if not context:
        return f"{_SHORT_HEAD}\n\n### Instruction:\n{instruction}\n\n### Response:"
    return (
        f"{_LONG_HEAD}\n\n### Instruction:\n{instruction}\n\n### Input:\n{context}\n\n### Response:"
    )


def alpaca_conversation(messages: Sequence[Mapping[str, Any]]) -> str:
    """Write a conversation in Alpaca's form; a system message takes the place of the head.

    One user message gives exactly `alpaca_prompt`.
    """
    head, turns = _SHORT_HEAD, []
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "system":
            head = content
        elif role == "user":
            turns.append(f"\n\n### Instruction:\n{content}\n\n### Response:")
        else:
            turns.append(content)
    return head + "".join(turns)


def encode_conversation(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    chat_template: str | None = None,
    opening: bool = True,
) -> list[int]:
    """Encode a conversation up to where the next answer begins.

    Args:
        tokenizer: A tokenizer of transformers; its chat template is used if it has one.
        messages: `{"role": "system" | "user" | "assistant" | "tool", "content": text}` in order,
            with what the template takes for calls ("tool_calls", "tool_call_id", "name") and
            reasoning ("reasoning_content").
        tools: Functions that the template describes, in OpenAI's form.
        chat_template: Takes the place of the tokenizer's.
        opening: Whether the template opens the next answer.

    Raises:
        ConfigurationError: No message, an unknown role, or content that is not text.
    """
    check_messages(messages)
    messages = [_with_plain_calls(tokenizer, message) for message in messages]
    tools = _plain(tokenizer, list(tools))
    render, with_bos = _renderer(tokenizer, tools, chat_template, opening)
    if not any(spells_special(tokenizer, message["content"]) for message in messages):
        return _encode(tokenizer, render(messages), with_bos=with_bos)
    return _encode_apart(tokenizer, messages, render, with_bos=with_bos)


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what is no conversation.

    Raises:
        ConfigurationError: No message, an unknown role, or content that is not text.
    """
    if not messages:
        raise ConfigurationError("found no message; expected at least one with role 'user'")
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES or not isinstance(content, str):
            raise ConfigurationError(
                f"found a message with role {role!r} and content of type "
                f"{type(content).__name__}; expected role {', '.join(_ROLES)} and text"
            )


def _with_plain_calls(tokenizer: Any, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let no calls and no reasoning of a message spell a special token."""
    given = {key: message[key] for key in ("tool_calls", "reasoning_content") if message.get(key)}
    return {**message, **_plain(tokenizer, given)} if given else message


def _plain(tokenizer: Any, value: Any) -> Any:
    """Break the spelling of special tokens in texts that a template writes as JSON."""
    if isinstance(value, str):
        for token in _special_spellings(tokenizer):
            value = value.replace(token, f"{token[:1]} {token[1:]}" if len(token) > 1 else "")
        return value
    if isinstance(value, dict):
        return {_plain(tokenizer, k): _plain(tokenizer, v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(tokenizer, entry) for entry in value]
    return value


def supervise(
    tokenizer: Any, prompt: str, answer: str, max_tokens: int, *, with_bos: bool = True
) -> tuple[list[int], list[int]]:
    """Encode a prompt and its answer for training.

    Args:
        tokenizer: A tokenizer of transformers.
        prompt: Text that is given, such as `alpaca_prompt(...)`.
        answer: Text to learn; the end token is added.
        max_tokens: Both results are cut to this length.
        with_bos: Whether the tokenizer's first token is put before the prompt.

    Returns:
        Token ids, and labels of the same length: -100 over the prompt, then the ids.
    """
    ids = [*_encode(tokenizer, prompt + answer, with_bos=with_bos), tokenizer.eos_token_id]
    n_prompt = len(_encode(tokenizer, prompt, with_bos=with_bos))
    labels = [IGNORED_LABEL] * n_prompt + ids[n_prompt:]
    return ids[:max_tokens], labels[:max_tokens]


def _renderer(
    tokenizer: Any,
    tools: Sequence[Mapping[str, Any]] = (),
    chat_template: str | None = None,
    opening: bool = True,
) -> tuple[Callable[[Sequence[Mapping[str, Any]]], str], bool]:
    """How to write messages as text, and whether the first token is still to be added."""
    if chat_template is None and getattr(tokenizer, "chat_template", None) is None:
        return alpaca_conversation, True
    options: dict[str, Any] = {}
    if chat_template is not None:
        options["chat_template"] = chat_template
    if tools:
        options["tools"] = tools

    def render(messages: Sequence[Mapping[str, Any]]) -> str:
        text: str = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=opening, **options
        )
        return text

    return render, False


def _encode(tokenizer: Any, text: str, *, with_bos: bool) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=with_bos)["input_ids"]
    return ids


def spells_special(tokenizer: Any, text: str) -> bool:
    """Say whether a text holds the spelling of one of the tokenizer's special tokens."""
    return any(token in text for token in _special_spellings(tokenizer))


def _special_spellings(tokenizer: Any) -> list[str]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    found = [*tokenizer.all_special_tokens, *(token.content for token in added if token.special)]
    return [text for text in dict.fromkeys(found) if text]


def _encode_apart(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    render: Callable[[Sequence[Mapping[str, Any]]], str],
    *,
    with_bos: bool,
) -> list[int]:
    """Encode the template with its special tokens, and what people wrote without any."""
    contents = [_MARK_CHARACTERS.sub("", message["content"]) for message in messages]
    marked = [
        {**message, "content": f"\ue000{index}\ue001"} for index, message in enumerate(messages)
    ]
    encode_plain = plain_encoder(tokenizer)
    pieces = _MARK.split(render(marked))  # template, index, template, index, ..., template
    ids: list[int] = []
    for position, piece in enumerate(pieces):
        if position % 2:
            ids += encode_plain(contents[int(piece)])
        elif piece or (position == 0 and with_bos):
            ids += _encode(tokenizer, piece, with_bos=with_bos and position == 0)
    return ids


def plain_encoder(tokenizer: Any) -> Callable[[str], list[int]]:
    """An encoder to which the spelling of a special token is plain text.

    It works on a copy, since the switch is state of the tokenizer, which threads share.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return lambda text: list(
            tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        )
    copy = type(backend).from_str(backend.to_str())
    copy.encode_special_tokens = True
    return lambda text: list(copy.encode(text, add_special_tokens=False).ids)


def without_note(ids: Any, tokenizer: Any) -> list[int]:
    """Cut the note off the ids (T,) of an answer; where there is none, they stay as they are."""
    tokens: list[int] = [int(token) for token in ids]
    note = tokenizer.convert_tokens_to_ids(NOTE)
    if note is None or note == tokenizer.unk_token_id:
        return tokens
    found = [i for i, token in enumerate(tokens) if token == note]
    return tokens[found[1] + 1 :] if len(found) > 1 else tokens
