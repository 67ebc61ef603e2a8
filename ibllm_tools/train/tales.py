"""Stories and poems at toy length, in several forms and two languages."""

from __future__ import annotations

import random

from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.phrasing import upper_first

_STORIES = (
    "One day {who} found {a} {place}. {sound} {Who} smiled all day.",
    (
        "Once upon a time there was {a}. {Who} saw it {place} and stayed for an hour. {use} "
        "In the evening {who} went home happy."
    ),
    (
        "{Who} had a dream about {a}. In the dream, the {n} {scene}. {sound} "
        "Then {who} woke up and laughed."
    ),
    (
        "Last summer {who} looked for {a} everywhere. At last it was there, {place}. {use} "
        "It was a good summer."
    ),
    'It was a quiet morning. {Who} walked slowly and saw {a}. {use} "How nice," said {who}.',
    "Far away, {place}, there was {a}. Nobody knew it but {who}. {sound} It was their secret.",
)
_STORIES_ZH = (
    "从前，{who}在{place}遇到了{z}。{sound}{who}很高兴。",
    "有一天，{who}看到了{z}，它{scene}。{use}{who}笑了一整天。",
    "{who}做了一个关于{z}的梦。梦里，{z}{scene}。{sound}醒来以后，{who}很开心。",
    "去年夏天，{who}到处找{z}，最后在{place}找到了。{use}那是一个美好的夏天。",
    "一个安静的早晨，{who}慢慢走着，看见了{z}。{use}“真好！”{who}说。",
)
_POEMS = (
    "{A} {scene},\nI look and I stay,\nit brightens my day.",
    "Oh {n}, dear {n},\nI am glad you are here.\n{sound}\nThat is all I hear.",
    "I went out to see,\nand what did I find?\n{A} {place},\nso gentle and kind.",
    "{A} in the morning,\n{a} in the night,\nI think of you often,\nyou make my heart light.",
    "{use}\nHow good, how true!\nOh little {n},\nI sing for you.",
)
_POEMS_ZH = (
    "{z}啊{z}，\n你{scene}，\n我喜欢你。",
    "清晨看见{z}，\n夜里想起{z}，\n心里多欢喜。",
    "{sound}\n我静静地听，\n满心都高兴。",
    "在{place}，\n有我爱的{z}。\n{use}\n真好啊真好！",
    "小小的{z}，\n美美的梦，\n陪我到天明。",
)
_WHO = ("Anna", "Tom", "Mia", "Leo", "Sara", "a child", "my friend")
_WHO_ZH = ("小明", "小红", "小丽", "一个孩子", "我的朋友", "阿强")


def story(rng: random.Random, fact: Fact, *, chinese: bool) -> str:
    """Tell a story of two to four sentences."""
    who = rng.choice(_WHO_ZH if chinese else _WHO)
    return _fill(rng.choice(_STORIES_ZH if chinese else _STORIES), fact, who, chinese=chinese)


def poem(rng: random.Random, fact: Fact, *, chinese: bool) -> str:
    """Write a poem of three or four lines."""
    return _fill(rng.choice(_POEMS_ZH if chinese else _POEMS), fact, "", chinese=chinese)


def _fill(text: str, fact: Fact, who: str, *, chinese: bool) -> str:
    if chinese:
        return text.format(
            who=who, z=fact.name_zh, place=fact.place_zh, scene=fact.scene_zh,
            sound=fact.sound_zh, use=fact.use_zh,
        )  # fmt: skip
    return text.format(
        who=who, Who=upper_first(who), a=fact.phrase, A=upper_first(fact.phrase), n=fact.name,
        place=fact.place, scene=fact.scene, sound=fact.sound, use=fact.use,
    )  # fmt: skip
