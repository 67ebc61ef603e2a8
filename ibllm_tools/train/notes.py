"""The note that an answer about media begins with: names of what is perceived.

```
<|user|>What is this?<|end|><|assistant|><|note|>cat<|note|>This is a cat.<|end|>
<|user|>Is there a dog?<|end|><|assistant|><|note|>dog?cat-<|note|>No, this is a cat.<|end|>
```
The note is all that has to come from the media; the answer follows from note and question, which
a language model learns from text alone. Of a yes/no question the note holds what was asked about
right before what is there, and `+` or `-` right after: where a word repeats, the heads that copy
see it, so that even a tiny model can tell. Notes are English in every language: each concept is one
token there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from ibllm_tools.model.prompts import NOTE
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.system_talk import led
from ibllm_tools.train.text_batches import Row
from ibllm_tools.train.tokenizer import END, encode_messages, encode_text

Turn = tuple[str, str]
KEPT = 0.6
"""Share of longer conversations whose earlier answers keep their notes."""


def note_of(facts: Sequence[Fact], asked: Fact | None = None) -> str:
    """Name what media show; where a yes/no question asks about something, that comes before."""
    if asked is None:
        return ", ".join(fact.name for fact in facts) or "unknown"
    return compared(asked.name, [fact.name for fact in facts] or ["unknown"])


def compared(asked: str, names: Sequence[str]) -> str:
    """Write the note of a yes/no question: `dog?cat-, dog?dog+`."""
    return ", ".join(f"{asked}?{name}{'+' if name == asked else '-'}" for name in names)


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

    Some begin with a system prompt.

    Where earlier answers have no note, since their readers dropped it, only the last is learned.
    """
    kept = len(turns) < 2 or rng.random() < KEPT
    messages = led(rng, noted_messages(turns, shown, facts, kept=kept))
    ids, learned = encode_messages(tokenizer, messages)
    if not kept:
        start = len(encode_messages(tokenizer, messages[:-1])[0])
        learned[:start] = [False] * start
    return ids, learned


def draw_note_drill(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, names: Sequence[str], longest: int
) -> Row:
    """Many notes of yes/no questions in a row, each with the first word of its answer.

    `<|note|>dog?cat-<|note|>No<|end|><|note|>bus?sea-, bus?bus+<|note|>Yes<|end|>...`: talk asks
    too rarely whether words are alike for that to be learned there.
    """
    ids: list[int] = []
    learned: list[bool] = []
    yes, no = rng.choice((("Yes", "No"), ("是的", "没有")))
    left = rng.sample(list(names), len(names))  # a word that came before would be recognised
    while len(left) > 2:
        asked, other = left.pop(), left.pop()
        shown = [asked if rng.random() < 0.5 else other]
        if rng.random() < 0.3:
            shown.insert(rng.randint(0, 1), left.pop())
        note = encode_text(tokenizer, f"{NOTE}{compared(asked, shown)}{NOTE}")
        said = encode_text(tokenizer, yes if asked in shown else no)[:1]
        unit = [*note, *said, *encode_text(tokenizer, END)]
        if len(ids) + len(unit) > longest:
            break
        verdicts = encode_text(tokenizer, "+-")
        ids += unit
        learned += [*(token in verdicts for token in note), True, False]
    return Row(ids, learned)
