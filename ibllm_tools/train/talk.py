"""Generated conversations about the concepts: questions and answers in English and Chinese.

Every function takes a random source and returns plain text, so that any number of rows can
be drawn and the same seed draws the same rows. This file puts turns together; the turns are
in `talk_seen` (about media), `talk_facts` (about concepts) and `talk_small` (about nothing).

```
first turn: what is it, is there ..., how many ...  ── small talk, other facts ──  "and where does it live?"
```
"""  # noqa: E501

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ibllm_tools.train import talk_facts
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.talk_facts import Turn, translate_turn
from ibllm_tools.train.talk_pairs import compare_turn, two_turn
from ibllm_tools.train.talk_seen import (
    Scene,
    about_turn,
    count_turn,
    detail_turn,
    doubt,
    exists_pair,
    exists_turn,
    happening_turn,
    join_names_zh,
    join_phrases,
    pair_turn,
    told_turn,
    what_turn,
)
from ibllm_tools.train.talk_small import small_talk_turn

__all__ = [
    "CHINESE_SHARE",
    "Scene",
    "Turn",
    "about_turn",
    "blind_talk",
    "compare_turn",
    "count_turn",
    "detail_turn",
    "exists_pair",
    "exists_turn",
    "happening_turn",
    "join_names_zh",
    "join_phrases",
    "knowledge_talk",
    "knowledge_turn",
    "pair_turn",
    "small_talk_turn",
    "talk",
    "told_turn",
    "translate_turn",
    "what_turn",
]
CHINESE_SHARE = 0.42
LONGEST = 5
_OTHER_TONGUE = 0.05
_IN_CHINESE = (" Answer in Chinese.", " Please answer in Chinese.", " Reply in Chinese.")
_IN_ENGLISH = ("请用英语回答。", "用英文回答。")


def talk(rng: random.Random, scene: Scene, facts: Sequence[Fact]) -> list[Turn]:
    """Draw one conversation about the media of a row: one to five turns.

    Later turns may refer to the media, with talk about other things between.
    """
    chinese = rng.random() < CHINESE_SHARE
    turns = [_first_turn(rng, scene, facts, chinese)]
    share = rng.random()
    n_more = 0 if share < 0.5 else 1 if share < 0.7 else 2 if share < 0.9 else 3
    for i in range(n_more):
        last = i == n_more - 1
        turns.append(_later_turn(rng, scene, facts, chinese, aside=not last and n_more > 1))
    return turns[:LONGEST]


def _first_turn(rng: random.Random, scene: Scene, facts: Sequence[Fact], chinese: bool) -> Turn:
    if rng.random() < _OTHER_TONGUE:
        return _other_tongue(rng, scene, chinese)
    makers: list[tuple[float, Callable[[], Turn]]] = [
        (5.0, lambda: what_turn(rng, scene, chinese)),
        (3.5, lambda: exists_turn(rng, scene, facts, chinese)),
        (0.8, lambda: happening_turn(rng, scene, chinese)),
        (0.6, lambda: count_turn(rng, scene, facts, chinese)),
        (0.3, lambda: detail_turn(rng, scene, chinese)),
    ]
    if len(scene.facts) == 2:
        makers.append((1.5, lambda: pair_turn(rng, scene, chinese)))
    else:
        makers.append((2.0, lambda: about_turn(rng, scene, chinese)))
    return rng.choices([maker for _, maker in makers], [weight for weight, _ in makers])[0]()


def _later_turn(
    rng: random.Random, scene: Scene, facts: Sequence[Fact], chinese: bool, *, aside: bool
) -> Turn:
    """Draw a turn that refers to the media, or one aside."""
    if aside and rng.random() < 0.65:
        if rng.random() < 0.6:
            return small_talk_turn(rng, chinese)
        return knowledge_turn(rng, facts, chinese)
    share = rng.random()
    if share < 0.15:
        return what_turn(rng, scene, chinese)
    if share < 0.35:
        return exists_turn(rng, scene, facts, chinese)
    if share < 0.4:
        return count_turn(rng, scene, facts, chinese)
    if len(scene.facts) == 2:
        return pair_turn(rng, scene, chinese)
    return about_turn(rng, scene, chinese)


def _other_tongue(rng: random.Random, scene: Scene, chinese: bool) -> Turn:
    """Ask in one language for an answer in the other."""
    question = "这是什么？" if chinese else rng.choice(("What is this?", "What do you see?"))
    question += rng.choice(_IN_ENGLISH if chinese else _IN_CHINESE)
    if not scene.facts:
        return question, doubt(rng, scene, not chinese)
    if chinese:
        return question, f"This is {join_phrases(scene.facts)}."
    return question, f"这是{join_names_zh(scene.facts)}。"


def blind_talk(rng: random.Random, facts: Sequence[Fact]) -> list[Turn]:
    """Draw questions about media where none are attached."""
    chinese, blind = rng.random() < CHINESE_SHARE, Scene((), blind=True)
    makers: tuple[Callable[[], Turn], ...] = (
        lambda: what_turn(rng, blind, chinese),
        lambda: what_turn(rng, blind, chinese),
        lambda: about_turn(rng, blind, chinese),
        lambda: exists_turn(rng, blind, facts, chinese),
        lambda: count_turn(rng, blind, facts, chinese),
    )
    return [rng.choice(makers)()]


def knowledge_talk(rng: random.Random, facts: Sequence[Fact]) -> list[Turn]:
    """Draw a conversation that needs no media: facts, comparisons, small talk.

    A later "and where does it live?" refers to the concept that was named before.
    """
    chinese = rng.random() < CHINESE_SHARE
    if rng.random() < 0.15:
        return [small_talk_turn(rng, chinese) for _ in range(rng.choice((1, 1, 2)))]
    share = rng.random()
    if share < 0.15:
        return [told_turn(rng, facts, chinese)]
    if share < 0.5:
        return [knowledge_turn(rng, facts, chinese)]
    if share < 0.7:
        return [knowledge_turn(rng, facts, chinese), knowledge_turn(rng, facts, chinese)]
    return _named_talk(rng, facts, chinese)


def knowledge_turn(rng: random.Random, facts: Sequence[Fact], chinese: bool) -> Turn:
    """A question about one or two concepts that it names, so that no media are needed."""
    if rng.random() < 0.22 and len(facts) > 1:
        first, second = rng.sample(list(facts), 2)
        return two_turn(rng, first, second, chinese=chinese)
    return talk_facts.knowledge_turn(rng, facts, chinese)


def _named_talk(rng: random.Random, facts: Sequence[Fact], chinese: bool) -> list[Turn]:
    """Talk about one named concept, then about `it`."""
    fact = rng.choice(facts)
    scene = Scene((fact,))
    if chinese:
        asked = rng.choice(("我有{n}。", "我昨天看见了{n}。", "我喜欢{n}。")).format(n=fact.name_zh)
        turns = [(asked, f"好的，{fact.name_zh}属于{fact.kind_zh}。")]
    else:
        asked = rng.choice(("I saw {n} yesterday.", "I like {n}.", "Let us talk about {n}."))
        name = fact.plural if asked.startswith("I like") and fact.size_m else fact.phrase
        turns = [(asked.format(n=name), f"Good, let us talk about {fact.phrase}.")]
    if rng.random() < 0.3:
        turns.append(small_talk_turn(rng, chinese))
    turns.append(about_turn(rng, scene, chinese))
    return turns
