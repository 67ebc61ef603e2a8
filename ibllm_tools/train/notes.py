"""The note that an answer about media begins with: names of what is perceived.

```
<|user|>What is this?<|end|><|assistant|><|note|>cat<|note|>This is a cat.<|end|>
<|user|>Is there a dog?<|end|><|assistant|><|note|>dog?cat<|note|>No, this is a cat.<|end|>
```
The note is all that has to come from the media; the answer follows from note and question, which
a language model learns from text alone. Of a yes/no question the note holds what was asked about
right before what is there, because a tiny model tells two words apart only when they are close.
Notes are English in every language: each concept is one token there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.tokenizer import encode_messages

Turn = tuple[str, str]
KEPT = 0.6
"""Share of longer conversations whose earlier answers keep their notes."""


def note_of(facts: Sequence[Fact], asked: Fact | None = None) -> str:
    """Name what media show; where a yes/no question asks about something, that comes before."""
    names = [fact.name for fact in facts] or ["unknown"]
    return ", ".join(f"{asked.name}?{name}" if asked else name for name in names)


_YES_NO = re.compile("Yes, there is|No, this is|No, I cannot tell|是的，有|没有，这是|不，我不确定")


def asked_about(question: str, answer: str, facts: Sequence[Fact]) -> Fact | None:
    """Find the concept that a yes/no question is about; None for other questions."""
    if not _YES_NO.match(answer):
        return None
    words = question.lower()
    found = [
        (len(name), fact)
        for fact in facts
        for name in (fact.name, fact.name_zh)
        if re.search(rf"\b{name}\b" if name.isascii() else name, words)
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def noted_messages(
    turns: Sequence[Turn], shown: Sequence[Fact], facts: Sequence[Fact], *, kept: bool = True
) -> list[dict[str, Any]]:
    """Write turns as messages whose answers begin with notes.

    Args:
        turns: Questions and answers.
        shown: What the media show; empty where that is nothing known.
        facts: All facts.
        kept: Earlier answers keep their notes; else only the last has one.
    """
    messages: list[dict[str, Any]] = []
    for i, (question, answer) in enumerate(turns):
        messages.append({"role": "user", "content": question})
        said: dict[str, Any] = {"role": "assistant", "content": answer}
        if kept or i == len(turns) - 1:
            said["reasoning_content"] = note_of(shown, asked_about(question, answer, facts))
        messages.append(said)
    return messages


def encode_noted(
    rng: random.Random,
    tokenizer: PreTrainedTokenizerFast,
    turns: Sequence[Turn],
    shown: Sequence[Fact],
    facts: Sequence[Fact],
) -> tuple[list[int], list[bool]]:
    """Turn a conversation about media into ids and a mask of what is learned, with notes.

    Where earlier answers have no note, since their readers dropped it, only the last is learned.
    """
    kept = len(turns) < 2 or rng.random() < KEPT
    messages = noted_messages(turns, shown, facts, kept=kept)
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
