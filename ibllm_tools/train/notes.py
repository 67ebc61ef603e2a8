"""The note that an answer about media begins with: names of what is perceived.

```
<|user|>Is there a dog?<|end|><|assistant|><|note|>cat<|note|>No, this is a cat.<|end|>
```
The note is all that has to come from the media; the answer follows from note and question, which
a language model learns from text alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.naming import is_chinese
from ibllm_tools.train.tokenizer import encode_messages

Turn = tuple[str, str]
KEPT = 0.6
"""Share of longer conversations whose earlier answers keep their notes."""


def note_of(facts: Sequence[Fact], *, chinese: bool) -> str:
    """Name what media show, in the language of the answer."""
    if chinese:
        return "，".join(fact.name_zh for fact in facts) or "未知"
    return ", ".join(fact.name for fact in facts) or "unknown"


def noted_messages(
    turns: Sequence[Turn], facts: Sequence[Fact], *, kept: bool = True
) -> list[dict[str, Any]]:
    """Write turns as messages whose answers begin with notes.

    Args:
        turns: Questions and answers.
        facts: What the media show; empty where that is nothing known.
        kept: Earlier answers keep their notes; else only the last has one.
    """
    messages: list[dict[str, Any]] = []
    for i, (question, answer) in enumerate(turns):
        messages.append({"role": "user", "content": question})
        said: dict[str, Any] = {"role": "assistant", "content": answer}
        if kept or i == len(turns) - 1:
            said["reasoning_content"] = note_of(facts, chinese=is_chinese(answer))
        messages.append(said)
    return messages


def encode_noted(
    rng: random.Random,
    tokenizer: PreTrainedTokenizerFast,
    turns: Sequence[Turn],
    facts: Sequence[Fact],
) -> tuple[list[int], list[bool]]:
    """Turn a conversation about media into ids and a mask of what is learned, with notes.

    Where earlier answers have no note, since their readers dropped it, only the last is learned.
    """
    kept = len(turns) < 2 or rng.random() < KEPT
    messages = noted_messages(turns, facts, kept=kept)
    ids, learned = encode_messages(tokenizer, messages)
    if not kept:
        start = len(encode_messages(tokenizer, messages[:-1])[0])
        learned[:start] = [False] * start
    return ids, learned


def without_note(ids: Sequence[int], note_id: int) -> list[int]:
    """Cut the note off generated ids."""
    ids = list(ids)
    if note_id not in ids:
        return ids
    last = len(ids) - 1 - ids[::-1].index(note_id)
    return ids[last + 1 :]
