"""Counting tokens of messages without charging for media, which take no place in a prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from langchain_core.messages import convert_to_messages
from langchain_core.messages.utils import count_tokens_approximately

from ibllm_tools.chat_models.messages import plain_text

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage, MessageLikeRepresentation


def count_text_tokens(messages: Iterable[MessageLikeRepresentation], **options: Any) -> int:
    """Estimate the tokens of messages by their text and calls alone.

    LangChain's own estimate charges a fourth of the base64 of a sound, video or file, so that one
    short clip makes `SummarizationMiddleware` and `trim_messages` throw a conversation away. This
    one serves both as `token_counter`, with any chat model, and loads no model. For exact counts
    use `ChatImageBindLLM.get_num_tokens_from_messages` in its place.

    Args:
        messages: In any form that LangChain accepts.
        **options: Of `langchain_core.messages.utils.count_tokens_approximately`.
    """
    read = convert_to_messages(list(messages))
    return int(count_tokens_approximately([_without_media(m) for m in read], **options))


def _without_media(message: BaseMessage) -> BaseMessage:
    return message.model_copy(update={"content": plain_text(message)})
