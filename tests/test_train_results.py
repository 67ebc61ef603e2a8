"""Rows that teach answers from tools' results: what they say stands in the results."""

import json
import random
import re

import pytest

from ibllm_tools.routing import known_nouns
from ibllm_tools.train.data import Concept
from ibllm_tools.train.knowledge import facts_for
from ibllm_tools.train.language import is_allowed
from ibllm_tools.train.result_json import tell_json
from ibllm_tools.train.result_talk import draw_result_chats, encode_results, result_rows
from ibllm_tools.train.tokenizer import train_tokenizer

FACTS = facts_for(
    [Concept(i, noun.name, noun.name_zh) for i, noun in enumerate(known_nouns().values())]
)
TOOLKIT = {"detect_objects", "transcribe_speech", "find_similar", "perceive", "analyze_video"}


@pytest.fixture(scope="module")
def chats():
    return draw_result_chats(random.Random(5), FACTS, 300)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["What do you see? A dog, a cat.", "图里有几只狗？"], 700)


def told(chat):
    """What a row's answer can be taken from."""
    return "\n".join(message["content"] for message in chat.messages[:-1])


def test_answers_repeat_numbers_ids_and_quoted_words_of_the_results(chats):
    answers = [chat for chat in chats if not chat.messages[-1].get("tool_calls")]
    assert len(answers) > 200
    for chat in answers:
        said = chat.messages[-1]["content"]
        assert said.endswith((".", "。", "!", "?"))
        for exact in re.findall(r'[a-z]+-\d+|\d+\.\d+|".+?"|“.+?”|\d+', said):
            assert exact.strip('"“”') in told(chat), chat
    assert any("，所以" in chat.messages[-1]["content"] for chat in answers)
    assert any(", so " in chat.messages[-1]["content"] for chat in answers)


def test_errors_become_apologies(chats):
    failed = [chat for chat in chats if chat.messages[-2]["content"].startswith("Error: ")]
    assert len(failed) > 5
    for chat in failed:
        assert chat.messages[-1]["content"].startswith(("Sorry, that did not work: ", "抱歉"))


def test_tools_are_listed_until_they_are_called(chats):
    calls = [chat for chat in chats if chat.messages[-1].get("tool_calls")]
    assert calls
    for chat in chats:
        names = [tool["function"]["name"] for tool in chat.tools]
        last = [c["function"] for c in chat.messages[-1].get("tool_calls", ())]
        before = [
            c["function"]["name"] for m in chat.messages[:-1] for c in m.get("tool_calls", ())
        ]
        by_toolkit = set(before) <= TOOLKIT
        if not last and by_toolkit:
            assert not names
        if last:
            assert not set(names) & set(before)
        for call in last:
            fields = next(t for t in chat.tools if t["function"]["name"] == call["name"])
            [(field, schema)] = fields["function"]["parameters"]["properties"].items()
            assert call["arguments"][field] in schema.get("enum", [call["arguments"][field]])


def test_what_a_web_api_returns_is_told_under_its_names():
    lamps = [{"id": "l7", "price": 37}, {"id": "l9", "price": 58}]
    told = {
        '{"price": 58, "order_day": "Friday"}': "The price is 58 and the order day is Friday.",
        '{"deleted": "/lamps/l7"}': "Done, deleted: /lamps/l7.",
        json.dumps(lamps): "Found: l7 (price 37), l9 (price 58).",
        "[]": "Nothing was found.",
    }
    for returned, answer in told.items():
        assert tell_json(json.loads(returned), chinese=False) == answer
    assert tell_json({"price": 58}, chinese=True) == "price是58。"


def test_only_the_last_message_is_learned(chats, tokenizer):
    for chat, row in zip(chats[:40], encode_results(tokenizer, chats[:40]), strict=True):
        learned = tokenizer.decode([i for i, on in zip(row.ids, row.learned, strict=True) if on])
        said = chat.messages[-1]
        if said["content"]:
            assert learned == said["content"] + "<|end|>"
        else:
            assert json.loads(learned.removeprefix("<|call|>").removesuffix("<|end|>"))["name"]


def test_rows_of_tools_sense_media_where_there_are_concepts(tokenizer):
    rows = result_rows(random.Random(2), tokenizer, FACTS, 60, concepts=[3, 4])
    assert 25 < sum(row.has_media for row in rows) < 60
    assert {row.shown[0] for row in rows if row.has_media} <= {3, 4, -1}
    assert not any(row.has_media for row in result_rows(random.Random(2), tokenizer, FACTS, 30))


def test_no_row_holds_a_prompt_of_a_standard_suite(chats):
    texts = [json.dumps(chat.messages, ensure_ascii=False) for chat in chats]
    assert sum(not is_allowed(text) for text in texts) <= 3
