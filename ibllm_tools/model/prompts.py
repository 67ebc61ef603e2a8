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

# The two training templates of Stanford Alpaca (Apache-2.0).
_SHORT_HEAD = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
_LONG_HEAD = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request."
)
_ROLES = ("system", "user", "assistant")
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


def alpaca_conversation(messages: Sequence[Mapping[str, str]]) -> str:
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


def encode_conversation(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Encode a conversation up to where the next answer begins.

    Args:
        tokenizer: A tokenizer of transformers; its chat template is used if it has one.
        messages: `{"role": "system" | "user" | "assistant", "content": text}` in order.

    Raises:
        ConfigurationError: No message, an unknown role, or content that is not text.
    """
    check_messages(messages)
    render, with_bos = _renderer(tokenizer)
    if not any(spells_special(tokenizer, message["content"]) for message in messages):
        return _encode(tokenizer, render(messages), with_bos=with_bos)
    return _encode_apart(tokenizer, messages, render, with_bos=with_bos)


def check_messages(messages: Sequence[Mapping[str, str]]) -> None:
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


def _renderer(tokenizer: Any) -> tuple[Callable[[Sequence[Mapping[str, str]]], str], bool]:
    """How to write messages as text, and whether the first token is still to be added."""
    if getattr(tokenizer, "chat_template", None) is None:
        return alpaca_conversation, True

    def render(messages: Sequence[Mapping[str, str]]) -> str:
        text: str = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )
        return text

    return render, False


def _encode(tokenizer: Any, text: str, *, with_bos: bool) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=with_bos)["input_ids"]
    return ids


def spells_special(tokenizer: Any, text: str) -> bool:
    """Say whether a text holds the spelling of one of the tokenizer's special tokens."""
    if any(token in text for token in tokenizer.all_special_tokens if token):
        return True
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return any(token.special and token.content in text for token in added)


def _encode_apart(
    tokenizer: Any,
    messages: Sequence[Mapping[str, str]],
    render: Callable[[Sequence[Mapping[str, str]]], str],
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
