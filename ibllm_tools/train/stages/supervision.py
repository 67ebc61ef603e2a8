"""A whole conversation to token ids and labels: every answer is a target, nothing else.

The ids are those that the model reads when it answers (chat template or Alpaca's form, in one
piece), so that training and use agree. The end of an answer is learned too: the template's own
end token where it has one, else the tokenizer's, in the place of whatever follows the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ibllm_tools.model.prompts import (
    IGNORED_LABEL,
    alpaca_conversation,
    plain_encoder,
    spells_special,
)

EMPTY_ANSWER = "no answer"
TEMPLATE = "the chat template changes the text"
BEYOND = "no answer within max_tokens"

_MARK = re.compile("\ue000([0-9]+)\ue001")  # private-use characters stand for a message's text
_MARK_CHARACTERS = re.compile("[\ue000\ue001]")
_END_REACH = 3  # an end token comes among the first tokens after an answer

Messages = Sequence[Mapping[str, str]]


class RowProblem(ValueError):  # noqa: N818 - a row that is left out, not a failure
    """Why a row cannot be learned from; counted, never fatal."""


@dataclass(frozen=True)
class Encoded:
    """One row to learn from.

    Attributes:
        ids: Token ids.
        labels: As long; -100 where nothing is learned.
        is_cut: Whether the row was longer.
    """

    ids: list[int]
    labels: list[int]
    is_cut: bool


@dataclass(frozen=True)
class _Piece:
    """A part of the written conversation: of the template, or a message's text."""

    text: str
    message: int | None = None


def supervise_conversation(
    tokenizer: Any,
    messages: Messages,
    max_tokens: int,
    *,
    system_prompt: str | None = None,
) -> Encoded:
    """Encode a conversation for training.

    Args:
        tokenizer: A tokenizer of transformers; without a chat template Alpaca's form is used.
        messages: `{"role", "content"}` in order; every assistant turn is a target.
        max_tokens: Longest row; the rest is cut off.
        system_prompt: Put before conversations without a system message.

    Raises:
        RowProblem: No answer, none within `max_tokens`, or a template that rewrites texts.
    """
    messages = [{**m, "content": _MARK_CHARACTERS.sub("", m["content"]).strip()} for m in messages]
    if not any(m["role"] == "assistant" and m["content"] for m in messages):
        raise RowProblem(EMPTY_ANSWER)
    if system_prompt and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system_prompt}, *messages]
    pieces = _write(tokenizer, messages)
    ids, owners = _encode(tokenizer, pieces)
    roles = [m["role"] for m in messages]
    answers = [owner is not None and roles[owner] == "assistant" for owner in owners]
    labels = [token if told else IGNORED_LABEL for token, told in zip(ids, answers, strict=True)]
    ids, labels = _end_answers(tokenizer, ids, labels, owners, answers)
    cut = len(ids) > max_tokens
    ids, labels = ids[:max_tokens], labels[:max_tokens]
    if all(label == IGNORED_LABEL for label in labels[1:]):
        raise RowProblem(BEYOND)
    return Encoded(ids, labels, cut)


def _write(tokenizer: Any, messages: Messages) -> list[_Piece]:
    """Write a conversation as the model reads it, knowing which text is whose."""
    marked = [{**m, "content": f"\ue000{i}\ue001"} for i, m in enumerate(messages)]
    parts = _MARK.split(_render(tokenizer, marked))  # template, index, template, ..., template
    pieces = []
    for position, part in enumerate(parts):
        if position % 2:
            pieces.append(_Piece(messages[int(part)]["content"], int(part)))
        else:
            pieces.append(_Piece(part))
    if "".join(piece.text for piece in pieces) != _render(tokenizer, messages):
        raise RowProblem(TEMPLATE)
    return pieces


def _render(tokenizer: Any, messages: Messages) -> str:
    if getattr(tokenizer, "chat_template", None) is None:
        return alpaca_conversation(messages)
    text: str = tokenizer.apply_chat_template(list(messages), tokenize=False)
    return text


def _encode(tokenizer: Any, pieces: Sequence[_Piece]) -> tuple[list[int], list[int | None]]:
    """Token ids, and for each the message whose text it holds, None for the template's."""
    contents = [piece.text for piece in pieces if piece.message is not None]
    apart = not tokenizer.is_fast or any(spells_special(tokenizer, text) for text in contents)
    return _encode_apart(tokenizer, pieces) if apart else _encode_joined(tokenizer, pieces)


def _with_bos(tokenizer: Any) -> bool:
    return getattr(tokenizer, "chat_template", None) is None


def _encode_joined(tokenizer: Any, pieces: Sequence[_Piece]) -> tuple[list[int], list[int | None]]:
    text = "".join(piece.text for piece in pieces)
    encoded = tokenizer(text, add_special_tokens=_with_bos(tokenizer), return_offsets_mapping=True)
    owners: list[int | None] = []
    spans, index, place = [], 0, 0
    for piece in pieces:
        spans.append((place, place + len(piece.text), piece.message))
        place += len(piece.text)
    for start, end in encoded["offset_mapping"]:
        while index + 1 < len(spans) and spans[index][1] <= start:
            index += 1
        owner = spans[index][2] if end > start else None
        ahead = index + 1  # a token that begins in the template may hold an answer's first letter
        while owner is None and ahead < len(spans) and spans[ahead][0] < end:
            owner, ahead = spans[ahead][2], ahead + 1
        owners.append(owner)
    return list(encoded["input_ids"]), owners


def _encode_apart(tokenizer: Any, pieces: Sequence[_Piece]) -> tuple[list[int], list[int | None]]:
    """Encode piece by piece, so that the spelling of a special token stays plain text."""
    plain = plain_encoder(tokenizer)
    ids: list[int] = []
    owners: list[int | None] = []
    for position, piece in enumerate(pieces):
        if piece.message is not None:
            found = plain(piece.text)
        else:
            with_bos = position == 0 and _with_bos(tokenizer)
            found = tokenizer(piece.text, add_special_tokens=with_bos)["input_ids"]
        ids += found
        owners += [piece.message] * len(found)
    return ids, owners


def _end_answers(
    tokenizer: Any,
    ids: list[int],
    labels: list[int],
    owners: Sequence[int | None],
    answers: Sequence[bool],
) -> tuple[list[int], list[int]]:
    """Make the end of every answer a target."""
    special = _special_ids(tokenizer)
    ends = [i for i, told in enumerate(answers) if told and owners[i + 1 : i + 2] != [owners[i]]]
    for last in ends:
        following = range(last + 1, min(last + 1 + _END_REACH, len(ids)))
        reach = [i for i in following if owners[i] is None]
        end = next((i for i in reach if ids[i] in special), None)
        if end is not None:
            labels[last + 1 : end + 1] = ids[last + 1 : end + 1]
        elif tokenizer.eos_token_id is None:
            continue
        elif last + 1 < len(ids):
            labels[last + 1] = tokenizer.eos_token_id
        else:
            return [*ids, tokenizer.eos_token_id], [*labels, tokenizer.eos_token_id]
    return ids, labels


@lru_cache(maxsize=8)
def _special_ids(tokenizer: Any) -> frozenset[int]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(tokenizer.all_special_ids) | {
        index for index, token in added.items() if token.special
    }
