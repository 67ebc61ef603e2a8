"""Pocket answers sensibly: a majority over several media, so that it holds for any fair weights."""

from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

import ibllm_tools
from ibllm_tools import ChatImageBindLLM, Media

MEDIA = Path(ibllm_tools.__file__).parent / "demo_media"
SHOWN = {
    "airplane.jpg": ("airplane", "飞机"),
    "boat.jpg": ("boat", "船"),
    "dog.jpg": ("dog", "狗"),
    "motorcycle.jpg": ("motorcycle", "摩托"),
    "piano.jpg": ("piano", "钢琴"),
    "dog.ogg": ("dog", "狗"),
    "helicopter.ogg": ("helicopter", "直升机"),
    "sea.ogg": ("sea", "海"),
    "car.ply": ("car", "车"),
    "chair.ply": ("chair", "椅"),
    "fish.ply": ("fish", "鱼"),
    "dog.mp4": ("dog", "狗"),
}


@pytest.fixture(scope="module")
def chat():
    return ChatImageBindLLM(max_tokens=48)


def about(name, question):
    return [HumanMessage([question, Media.from_path(MEDIA / name)])]


def test_answers_name_what_is_shown(chat):
    answers = chat.batch([about(name, "What is this?") for name in SHOWN])
    right = [SHOWN[name][0] in a.text for name, a in zip(SHOWN, answers, strict=True)]
    assert sum(right) >= 8, [a.text for a in answers]


def test_chinese_answers_name_what_is_shown(chat):
    answers = chat.batch([about(name, "这是什么？") for name in SHOWN])
    right = [SHOWN[name][1] in a.text for name, a in zip(SHOWN, answers, strict=True)]
    assert sum(right) >= 7, [a.text for a in answers]


@pytest.mark.parametrize(
    "told",
    [
        "You are a helpful assistant.",
        "Answer in one word.",
        "You are an expert in animals. Answer with one sentence and do not guess.",
    ],
)
def test_a_system_prompt_changes_nothing_that_is_seen(chat, told):
    answers = chat.batch([[SystemMessage(told), *about(name, "What is this?")] for name in SHOWN])
    right = [SHOWN[name][0] in a.text for name, a in zip(SHOWN, answers, strict=True)]
    assert sum(right) >= 8, [a.text for a in answers]
    assert not any("{" in a.text or a.tool_calls for a in answers)


def test_a_follow_up_is_about_the_same_medium(chat):
    firsts = chat.batch([about(name, "What is this?") for name in SHOWN])
    history = [
        [*about(name, "What is this?"), first, HumanMessage("What is this?")]
        for name, first in zip(SHOWN, firsts, strict=True)
    ]
    answers = chat.batch(history)
    right = [SHOWN[name][0] in a.text for name, a in zip(SHOWN, answers, strict=True)]
    assert sum(right) >= 7, [a.text for a in answers]


def test_a_new_medium_takes_the_place_of_the_old(chat):
    names = list(SHOWN)
    pairs = list(zip(names, names[3:] + names[:3], strict=True))
    firsts = chat.batch([about(old, "What is this?") for old, _ in pairs])
    talks = [
        [*about(old, "What is this?"), first, *about(new, "And what is this?")]
        for (old, new), first in zip(pairs, firsts, strict=True)
    ]
    answers = chat.batch(talks)
    right = [SHOWN[new][0] in a.text for (_, new), a in zip(pairs, answers, strict=True)]
    assert sum(right) >= 7, [a.text for a in answers]
