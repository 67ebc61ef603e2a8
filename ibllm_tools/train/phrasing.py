"""How people put a question: polite words around it, lower case, a missing question mark.

Knows no facts. Every function takes a random source; the same seed gives the same words.
"""

from __future__ import annotations

import random

POLITE = (
    *("Please, ", "Hey, ", "Hi! ", "Hello, ", "So, ", "Well, ", "OK, ", "Now, ", "Look: "),
    *("Quick question: ", "Excuse me, ", "One question: ", "Tell me, ", "Say, ", "Look at this. "),
    *("Here is something. ", "I am curious. ", "Let me ask: ", "Listen. ", "Alright, ", "Hmm, "),
)
THANKS = (" Thanks.", " Thank you!", " Please.", " Answer briefly.", " Just tell me.", " I wonder.")
POLITE_ZH = (
    *(
        "请问，",
        "请问",
        "你好，",
        "麻烦你，",
        "那么，",
        "嗯，",
        "你看，",
        "来，",
        "好，",
        "帮我看看，",
    ),
    *("我想知道，", "我想问一下，", "告诉我，", "请看，", "请听，", "问你，", "打扰一下，"),
)
THANKS_ZH = ("谢谢。", "谢谢你。", "请回答。", "请简单回答。", "拜托了。")


def dress(rng: random.Random, question: str, *, chinese: bool) -> str:
    """Put a question as different people would type it.

    Args:
        rng: Random source.
        question: With its punctuation.
        chinese: Its language.
    """
    return _dress_zh(rng, question) if chinese else _dress_en(rng, question)


def _dress_en(rng: random.Random, question: str) -> str:
    if rng.random() < 0.2:
        before = rng.choice(POLITE)
        question = before + (question if before[-2] in ".!" else lower_first(question))
    if rng.random() < 0.12:
        question += rng.choice(THANKS)
    if rng.random() < 0.15:
        question = question.lower()
    if rng.random() < 0.15:
        question = question.rstrip("?.!")
    elif rng.random() < 0.04:
        question = question.rstrip("?.!") + rng.choice(("??", "?!", " ?", "...", "!"))
    if rng.random() < 0.02:
        question = question.upper()
    return question


def _dress_zh(rng: random.Random, question: str) -> str:
    if rng.random() < 0.2:
        question = rng.choice(POLITE_ZH) + question
    if rng.random() < 0.08 and question.endswith("？"):
        question = question[:-1] + rng.choice(("呢？", "呀？", "啊？"))
        question = question.replace("吗呢", "吗").replace("吗呀", "吗").replace("吗啊", "吗")
    if rng.random() < 0.1:
        question += rng.choice(THANKS_ZH)
    if rng.random() < 0.15:
        question = question.rstrip("？。！")
    elif rng.random() < 0.06:
        question = question.replace("？", "?").replace("，", ",")
    return question


def lower_first(text: str) -> str:
    """Make the first letter small, but for "I" and names of languages."""
    word = text.split(" ", 1)[0].split("'", maxsplit=1)[0]
    return text if word in ("I", "English", "Chinese") else text[:1].lower() + text[1:]


def upper_first(text: str) -> str:
    """Make the first letter large."""
    return text[:1].upper() + text[1:]
