"""Hand-written tools: every line is whole, and held-out wording stays out of training."""

import random
from pathlib import Path

import pytest

from ibllm_tools.train import tool_words
from ibllm_tools.train.language import FORBIDDEN
from ibllm_tools.train.tool_intents import is_held_topic, topic_intent
from ibllm_tools.train.tool_pairs import draw_pair, is_held_pair, pair_intent, read_pairs
from ibllm_tools.train.tool_talk import draw_tool_chats
from ibllm_tools.train.tool_words import World, read_topics

KINDS = {
    "place", "item", "food", "quoted", "integer", "person",
    "image", "audio", "video", "shape", "media", "none",
}  # fmt: skip
LISTS = {"languages", "currencies", "days", "hours", "colours"}


def test_every_topic_is_whole_and_no_name_repeats():
    names = [name for topic in read_topics() for name in topic.names]
    assert len(read_topics()) >= 320
    assert len(set(names)) == len(names)
    for topic in read_topics():
        assert topic.kind in KINDS
        assert len(topic.names) >= 3
        assert len(topic.questions) >= 4
        assert len(topic.questions_zh) >= 3
        assert topic.kind == "none" or len(topic.params) >= 3
        for asked in (*topic.questions, *topic.questions_zh):
            assert ("{v}" in asked) == (topic.kind != "none")


def test_every_pair_is_whole_and_asks_for_all_its_arguments():
    topics = {name for topic in read_topics() for name in topic.names}
    names = [name for pair in read_pairs() for name in pair.names]
    assert len(set(names)) == len(names)
    assert not topics & set(names)
    for pair in read_pairs():
        assert set(pair.kinds) <= KINDS | LISTS
        assert len(pair.params) == len(pair.kinds) >= 2
        for asked in (*pair.questions[0], *pair.questions[1]):
            for letter in "abc"[: len(pair.kinds)]:
                assert f"{{{letter}}}" in asked, asked


@pytest.mark.parametrize("name", ["tool_topics.psv", "tool_pairs.psv"])
def test_no_line_holds_a_prompt_of_the_public_suites(name):
    text = (Path(tool_words.__file__).parent / name).read_text(encoding="utf-8").lower()
    assert not [phrase for phrase in FORBIDDEN if phrase in text]


@pytest.mark.parametrize("test", [False, True])
@pytest.mark.parametrize("chinese", [False, True])
def test_a_pair_names_every_argument_in_its_question(test, chinese):
    world = World(random.Random(4), test=test)
    for _ in range(200):
        intent = pair_intent(world, draw_pair(world), chinese=chinese)
        schema = intent.tool["function"]["parameters"]
        assert "{" not in intent.question
        assert list(intent.arguments) == schema["required"]
        assert len({str(v) for v in intent.arguments.values()}) == len(intent.arguments)
        assert all(str(v) in intent.question for v in intent.arguments.values())


def test_held_topics_and_pairs_appear_in_tests_only():
    held = {p.topic for p in read_pairs() if is_held_pair(p)}
    open_ = {p.topic for p in read_pairs() if not is_held_pair(p)}
    train = {draw_pair(World(random.Random(s))).topic for s in range(300)}
    test = {draw_pair(World(random.Random(s), test=True)).topic for s in range(300)}
    assert train <= open_
    assert held - open_ <= test
    assert sum(is_held_topic(t) for t in read_topics()) >= 20


def test_the_last_question_of_a_topic_is_asked_in_tests_only():
    for topic in (t for t in read_topics() if t.kind == "none"):
        seen = {
            topic_intent(World(random.Random(s)), topic, chinese=False).question for s in range(20)
        }
        assert topic.questions[-1] not in seen
        tested = topic_intent(World(random.Random(0), test=True), topic, chinese=False)
        assert tested.question == topic.questions[-1]


def test_training_rows_call_tools_of_several_arguments():
    chats = draw_tool_chats(random.Random(3), 600)
    sizes = [
        len(call["function"]["arguments"])
        for chat in chats
        for message in chat.messages
        for call in message.get("tool_calls", ())
    ]
    assert sizes.count(2) > 50
