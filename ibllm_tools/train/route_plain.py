"""Rows for questions that need no media although some are there: talk, facts, what nobody sees."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from ibllm_tools.routing import held_templates, plain_messages, template_of
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.route_words import fill, phrases, put
from ibllm_tools.train.talk_facts import knowledge_turn
from ibllm_tools.train.talk_small import small_talk_turn
from ibllm_tools.train.tool_talk import ToolChat

CHINESE_SHARE = 0.36
_CANNOT = "I cannot tell that from the media."
_CANNOT_ZH = "这从媒体里看不出来。"
_WELCOME, _WELCOME_ZH = "You are welcome.", "不客气。"
_THANKS = (
    "Thanks for your help.", "Thanks for everything.", "Many thanks to you!", "Thank you, Pocket.",
    "Thanks, that helped.", "I thank you for your help.", "Thank you for helping me.",
    "Thanks so much!", "Thank you ever so much.", "That was very kind of you, thank you.",
    "Thank you for the answers.", "I appreciate your help.", "Much obliged!", "Thanks again!",
)  # fmt: skip
_THANKS_ZH = ("谢谢你的帮助。", "感谢你！", "太谢谢你了。", "多谢你帮忙。", "谢谢，辛苦了。")
_FINE, _FINE_ZH = "I am fine, thank you.", "我很好，谢谢。"
_HOW = (
    "Hi, how are you?", "Hello there, how are you doing?", "Good morning, how are you?",
    "Hey, how is it going?", "How are things today?", "Hello Pocket, how do you do?",
    "Good evening! How was your day?", "Are you well today?",
)  # fmt: skip
_HOW_ZH = ("你好，最近好吗？", "您好，今天过得好吗？", "嗨，你还好吗？", "早上好，你怎么样？")
_MOST = 0.4
"""Share of questions about the media that no medium answers."""


def draw_plain(rng: random.Random, facts: Sequence[Fact]) -> ToolChat:
    """Draw a question that is answered without the media."""
    chinese = rng.random() < CHINESE_SHARE
    share = rng.random()
    if share < _MOST:
        question, said = _unknowable(rng, facts, chinese=chinese)
    elif share < _MOST + 0.3:
        question, said = knowledge_turn(rng, facts, chinese)
    elif share < _MOST + 0.42:
        question, said = small_talk_turn(rng, chinese)
    else:
        question, said = _polite(rng, chinese=chinese)
    return ToolChat((*plain_messages(question), {"role": "assistant", "content": said}))


def _polite(rng: random.Random, *, chinese: bool) -> tuple[str, str]:
    """Thanks and greetings in many words."""
    if rng.random() < 0.5:
        return rng.choice(_THANKS_ZH if chinese else _THANKS), _WELCOME_ZH if chinese else _WELCOME
    return rng.choice(_HOW_ZH if chinese else _HOW), _FINE_ZH if chinese else _FINE


def _unknowable(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> tuple[str, str]:
    """A question about media that no medium answers."""
    question = put(
        rng,
        fill(rng, rng.choice(_about_media(chinese=chinese)), facts, ["image-1"]),
        chinese=chinese,
    )
    return question, _CANNOT_ZH if chinese else _CANNOT


@cache
def _about_media(*, chinese: bool) -> tuple[str, ...]:
    """Templates of such questions."""
    about = ("{m}", "{u}", "{i}", "the {s}", "这{n}", "{n}的主人", "{n}多少钱", "拍照")
    return tuple(
        t
        for t in phrases("none_zh" if chinese else "none")
        if any(slot in t for slot in about)
        and template_of(t) not in held_templates()
        and t[-1] in "?？"
        and "I " not in t
        and "我" not in t
    )
