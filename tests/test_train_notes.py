"""What stages 1 and 2 read: notes before answers, paired questions, media that change, noise."""

import json
import random

import numpy as np
import pytest
import torch

from ibllm_tools.model.prompts import NOTE, without_note
from ibllm_tools.train.data import Concept, Table
from ibllm_tools.train.knowledge import facts_for
from ibllm_tools.train.notes import draw_note_drill, encode_noted, noted_messages
from ibllm_tools.train.nothing import noise_shapes, noise_sounds, with_nothing
from ibllm_tools.train.talk import exists_pair, told_turn
from ibllm_tools.train.text_batches import make_batches
from ibllm_tools.train.tokenizer import (
    USER,
    encode_messages,
    render_chat,
    train_tokenizer,
)
from ibllm_tools.train.tool_seen import seen_chat
from ibllm_tools.train.tune import draw_changing_rows, draw_shown_rows

NAMES = (("dog", "狗"), ("cat", "猫"), ("car", "汽车"), ("piano", "钢琴"), ("sea", "海"))


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["Is there a dog? Yes, there is a dog. 这是一只狗。"] * 4, 420)


@pytest.fixture(scope="module")
def facts():
    return facts_for([Concept(i, en, zh) for i, (en, zh) in enumerate(NAMES)])


def test_an_answer_begins_with_what_is_perceived(tokenizer, facts):
    turns = [("What is this?", "This is a dog and a cat."), ("它是什么？", "狗属于动物。")]
    messages = noted_messages(turns, facts[:2], facts)
    assert [m["reasoning_content"] for m in messages[1::2]] == ["dog, cat", "dog, cat"]
    assert noted_messages(turns[:1], [], facts)[1]["reasoning_content"] == "unknown"
    text = "".join(piece for piece, _ in render_chat(messages))
    assert f"{NOTE}dog, cat{NOTE}This is a dog" in text
    assert text == tokenizer.apply_chat_template(messages, tokenize=False)


def test_a_note_puts_what_is_asked_about_before_what_is_there(facts):
    turns = [
        ("IS THERE A CAR?", "No, this is a dog and a cat."), ("有猫吗", "是的，有猫。"),
        ("Is it an animal?", "Yes, a dog is an animal."),
    ]  # fmt: skip
    notes = [m["reasoning_content"] for m in noted_messages(turns, facts[:2], facts)[1::2]]
    assert notes == ["car?dog-, car?cat-", "cat?dog-, cat?cat+", "dog, cat"]


def test_answers_whose_readers_dropped_the_notes_are_not_learned(tokenizer, facts):
    turns = [("What is this?", "This is a dog."), ("Is it a car?", "No, this is a dog.")]
    note = tokenizer.convert_tokens_to_ids(NOTE)
    seen = set()
    for seed in range(20):
        ids, learned = encode_noted(random.Random(seed), tokenizer, turns, facts[:1], facts)
        said = tokenizer.decode([i for i, flag in zip(ids, learned, strict=True) if flag])
        notes = ids.count(note)
        seen.add(notes)
        assert ("This is a dog.<|end|>" in said) == (notes == 4)
        assert said.endswith("No, this is a dog.<|end|>")
    assert seen == {2, 4}


def test_the_drill_tells_words_that_are_alike(tokenizer):
    names = [f"thing{chr(97 + i)}" for i in range(20)]
    row = draw_note_drill(random.Random(1), tokenizer, names, 400)
    assert len(row.ids) == len(row.learned) <= 400
    units = tokenizer.decode(row.ids).removesuffix("<|end|>").split("<|end|>")
    assert len(units) > 3
    for unit in units:
        _, note, said = unit.split(NOTE)
        alike = [pair[:-1].split("?") for pair in note.split(", ")]
        assert ["+" if a == b else "-" for a, b in alike] == [p[-1] for p in note.split(", ")]
        assert (said[0] in "Y是") == any(a == b for a, b in alike)


def test_a_note_is_cut_off_generated_ids(tokenizer):
    note = tokenizer.convert_tokens_to_ids(NOTE)
    assert without_note([note, 40, 41, note, 50, 51], tokenizer) == [50, 51]
    assert without_note([50, 51], tokenizer) == [50, 51]


def test_paired_questions_have_both_answers(facts):
    dog, cat, car = facts[:3]
    for chinese in (False, True):
        yes, no = exists_pair(random.Random(3), [dog], [cat, car], dog, chinese)
        assert yes[0] == no[0]
        assert yes[1].startswith("是" if chinese else "Yes")
        assert no[1].startswith("没有" if chinese else "No")


def test_what_is_told_answers_the_question(facts):
    rng = random.Random(0)
    answers = []
    for _ in range(200):
        question, answer = told_turn(rng, facts, chinese=False)
        told, asked = (
            question.lower().split(". ", 1) if ". " in question else question.split(": ", 1)
        )
        named = [f.name for f in facts if f.name in asked.split(". ")[-1].replace("?", "").split()]
        if answer.startswith("Yes") and named:
            assert any(name in told for name in named)
        answers.append(answer.split(",")[0])
    assert set(answers) == {"Yes", "No"}
    assert 0.35 < answers.count("Yes") / len(answers) < 0.65


def test_rows_ask_the_same_of_different_media(tokenizer, facts):
    rows = draw_shown_rows(random.Random(1), facts, list(range(5)), tokenizer, 80)
    by_question: dict[str, set[tuple[int, int]]] = {}
    for row in rows[:20]:  # the pairs; a system prompt may stand before either
        question = tokenizer.decode(row.ids).split("<|user|>")[1].split("<|assistant|>")[0]
        by_question.setdefault(question, set()).add(row.shown)
    assert all(len(shown) > 1 for shown in by_question.values())
    led = ["<|system|>" in tokenizer.decode(row.ids) for row in rows]
    assert any(led)
    assert not all(led)
    assert all(row.has_media for row in rows)


def test_a_later_turn_brings_other_media(tokenizer, facts):
    rows = draw_changing_rows(random.Random(2), facts, list(range(5)), tokenizer, 12)
    for row in rows:
        assert tokenizer.decode([row.ids[row.later_from]]) == USER
    batch = make_batches(rows, tokenizer.pad_token_id, 960)[0]
    index, starts = batch.media_index, batch.later_from
    assert torch.equal(index.sum(1), batch.ids.shape[1] - starts)
    assert (index[torch.arange(len(starts)), starts - 1] == 0).all()


def test_calls_hold_what_is_seen(tokenizer, facts):
    rng = random.Random(5)
    for i in range(60):
        fact = facts[i % 5]
        chat = seen_chat(rng, fact)
        call = chat.messages[-1]["tool_calls"][0]["function"]
        tool = next(t for t in chat.tools if t["function"]["name"] == call["name"])
        properties = tool["function"]["parameters"]["properties"]
        assert list(call["arguments"]) == list(properties)
        for key, value in call["arguments"].items():
            assert value in properties[key].get("enum", [value])
        assert json.dumps(call["arguments"])
        assert encode_messages(tokenizer, chat.messages, chat.tools)[0]
    assert "unknown" in str([seen_chat(rng, None).messages[-1] for _ in range(5)])


def test_noise_is_one_more_class():
    waves, clouds = noise_sounds(12, 4000, seed=0), noise_shapes(8, 64, seed=0)
    assert waves.dtype == np.int16
    assert not waves[0].any()  # silence
    assert np.abs(waves[1]).max() > 50
    assert np.allclose(np.linalg.norm(clouds, axis=2).max(axis=1), 1, atol=1e-5)
    table = Table(clouds[:3].astype(np.float16), np.full(3, 64), np.arange(3), ["a"] * 3, [""] * 3)
    longer = with_nothing(table, clouds, concept=3)
    assert longer.concept.tolist() == [0, 1, 2] + [3] * 8
    assert longer.values.dtype == np.float16
    assert len(longer) == len(longer.values) == len(longer.subtype) == 11
