"""What is told about a concept, and questions about concepts that need no media.

Place, sound, use, kind, the other language's word, stories, poems.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ibllm_tools.train.knowledge import (
    KIND_PHRASES,
    KINDS,
    Fact,
    are_alien,
)
from ibllm_tools.train.phrasing import dress, upper_first
from ibllm_tools.train.seen_words import texts
from ibllm_tools.train.tales import poem, story

Turn = tuple[str, str]
"""One question and its answer."""

_ITS = ("it", "它")
_LIVING = ("animal", "human", "plant")


def ask_topic(rng: random.Random, topic: str, it: str, fact: Fact | None, *, chinese: bool) -> str:
    """Word a question about one topic.

    Args:
        rng: Random source.
        topic: What `draw_topic` draws.
        it: "it", "它", or a concept's phrase or Chinese name.
        fact: What it is about, so that only living things are said to live; None if unknown.
        chinese: The language.
    """
    frames = texts(f"topic_{topic}", chinese=chinese)
    living = fact is None or fact.kind in _LIVING
    if topic == "place" and living and rng.random() < 0.35:
        lives = texts("lives", chinese=chinese)
        frames = lives if it in _ITS else (lives[0], lives[2])
    elif it in _ITS and rng.random() < 0.2:
        frames = texts(f"it_only_{topic}", chinese=chinese)
    question = rng.choice(frames).format(it=it)
    if it in _ITS and rng.random() < 0.25:
        question = _follow(rng, question, chinese=chinese)
    return dress(rng, question, chinese=chinese)


def _follow(rng: random.Random, question: str, *, chinese: bool) -> str:
    if chinese:
        return (
            question
            if question[0] in "那再来"
            else rng.choice(("那", "那么，", "还有，")) + question
        )
    before = rng.choice(("And ", "And ", "OK, and ", "Also: ", "Then ", "By the way, "))
    return before + question[:1].lower() + question[1:]


def draw_topic(rng: random.Random, *, chinese: bool) -> str:
    """Draw what to ask about."""
    names = ("sound", "use", "place", "kind", "english" if chinese else "chinese", "story", "poem",
             "about")  # fmt: skip
    return rng.choices(names, (4, 3, 4, 3, 2.5, 1, 1, 1.5))[0]


def tell(rng: random.Random, fact: Fact, topic: str, *, chinese: bool) -> str:
    """Say one thing about a fact."""
    if topic == "story":
        return story(rng, fact, chinese=chinese)
    if topic == "poem":
        return poem(rng, fact, chinese=chinese)
    return (_tell_zh if chinese else _tell_en)(fact, topic)


def _tell_en(fact: Fact, topic: str) -> str:
    name, kind = upper_first(fact.phrase), KIND_PHRASES[fact.kind]
    place = f"You can find {fact.phrase} {fact.place}."
    answers = {
        "sound": fact.sound if "no sound" not in fact.sound else f"{fact.sound} {fact.use}",
        "use": fact.use,
        "place": place,
        "kind": f"{name} is {kind}.",
        "chinese": f"{name} is {fact.name_zh} in Chinese.",
        "about": f"{name} is {kind}. {place} {fact.use}",
    }
    return answers[topic]


def _tell_zh(fact: Fact, topic: str) -> str:
    zh = fact.name_zh
    place = f"{zh}常在{fact.place_zh}。"
    answers = {
        "sound": fact.sound_zh
        if "不出声" not in fact.sound_zh
        else f"{fact.sound_zh}{fact.use_zh}",
        "use": fact.use_zh,
        "place": place,
        "kind": f"{zh}属于{fact.kind_zh}。",
        "english": f"{zh}的英语是 {fact.name}。",
        "about": f"{zh}属于{fact.kind_zh}。{place}{fact.use_zh}",
    }
    return answers[topic]


def knowledge_turn(rng: random.Random, facts: Sequence[Fact], chinese: bool) -> Turn:
    """A question about concepts that are named, so that no media are needed."""
    share = rng.random()
    if share < 0.15:
        return is_a_turn(rng, rng.choice(facts), chinese=chinese)
    fact = rng.choice(facts)
    if share < 0.25:
        return translate_turn(rng, fact, chinese=chinese)
    topic = draw_topic(rng, chinese=chinese)
    it = fact.name_zh if chinese else fact.phrase
    question = ask_topic(rng, topic, it, fact, chinese=chinese)
    return question, tell(rng, fact, topic, chinese=chinese)


def translate_turn(rng: random.Random, fact: Fact, *, chinese: bool) -> Turn:
    """Ask for the word in the language of the question."""
    if chinese:
        frames = ("{n} 用中文怎么说？", "{n} 是什么意思？", "英语单词 {n} 的中文是什么？")
        question = rng.choice(frames).format(n=fact.name)
        return dress(rng, question, chinese=True), f"{fact.name} 的中文是{fact.name_zh}。"
    frames = ("What does {z} mean?", "What is {z} in English?", "Translate {z} into English.")
    question = rng.choice(frames).format(z=fact.name_zh)
    return dress(rng, question, chinese=False), f"{fact.name_zh} means {fact.phrase}."


def is_a_turn(rng: random.Random, fact: Fact, *, chinese: bool, it: str = "") -> Turn:
    """Ask whether a concept is of a kind; half yes, and a no is never arguable.

    Args:
        rng: Random source.
        fact: The concept.
        chinese: The language.
        it: How the question calls it; its own name by default.
    """
    kind = fact.kind
    if rng.random() < 0.5:
        kind = rng.choice([k for k in KINDS if are_alien(k, fact.kind)])
    if chinese:
        frames = ("{it}是{k}吗？", "{it}属于{k}吗？", "{it}算不算{k}？")
        question = rng.choice(frames).format(it=it or fact.name_zh, k=KINDS[kind])
        told = f"{fact.name_zh}属于{fact.kind_zh}。"
        return dress(rng, question, chinese=True), (
            "是的，" if kind == fact.kind else "不是，"
        ) + told
    frames = ("Is {it} {k}?", "Would you say {it} is {k}?", "Is it true that {it} is {k}?")
    question = rng.choice(frames).format(it=it or fact.phrase, k=KIND_PHRASES[kind])
    told = f"{fact.phrase} is {KIND_PHRASES[fact.kind]}."
    return dress(rng, question, chinese=False), ("Yes, " if kind == fact.kind else "No, ") + told
