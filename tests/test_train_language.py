"""Pocket's language model before it has senses: tokenizer, chat format, drills, heads, rows."""

import json
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from ibllm_tools.train.data import Concept
from ibllm_tools.train.drills import draw_drill_rows
from ibllm_tools.train.knowledge import facts_for
from ibllm_tools.train.language import (
    FORBIDDEN,
    LanguageSizes,
    build_language_model,
    draw_text,
    pick_instructions,
    train_language,
)
from ibllm_tools.train.loop import Run, Schedule
from ibllm_tools.train.text_batches import IGNORED, make_batches
from ibllm_tools.train.tokenizer import (
    CALL,
    NAME_OPENS,
    SPECIAL_TOKENS,
    TOOL_MARKS,
    encode_messages,
    encode_text,
    render_chat,
    train_tokenizer,
)
from ibllm_tools.train.tool_talk import TASKS, draw_tool_chats, draw_tool_rows, test_cases
from ibllm_tools.train.tool_words import is_held

LINES = ["Show me the dog.", "这是一只狗。", 'open the file "notes"', "weather report forecast"] * 3
SIZES = LanguageSizes(
    vocab_size=420, width=96, hidden=64, n_layers=5, n_heads=3, n_context=512,
    n_talks=12, n_facts=8, n_captions=2, n_instructions=2, n_tools=16, n_routes=12, n_results=12,
    batch_tokens=960,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(LINES, 420)


@pytest.fixture(scope="module")
def facts():
    names = (("dog", "狗"), ("cat", "猫"), ("car", "汽车"), ("piano", "钢琴"), ("sea", "海"))
    return facts_for([Concept(i, en, zh) for i, (en, zh) in enumerate(names)])


def written(chat) -> str:
    return "".join(text for text, _ in render_chat(chat.messages, chat.tools))


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_encoded_as_the_chat_template_writes_them(tokenizer, seed):
    for chat in draw_tool_chats(random.Random(seed), 40, [[("Hi", "Hello")]]):
        ids, said = encode_messages(tokenizer, chat.messages, chat.tools)
        expected = tokenizer.apply_chat_template(
            [dict(m) for m in chat.messages], tools=list(chat.tools) or None, return_dict=True
        )["input_ids"]
        assert ids == expected
        assert len(said) == len(ids)
        assert said[-1]
        assert not said[0]


def test_the_template_takes_tool_calls_in_every_form(tokenizer):
    arguments = {"city": "奥斯陆", "days": 3, "exact": True}
    as_text = json.dumps(arguments, ensure_ascii=False)
    forms = (
        {"type": "function", "function": {"name": "zorb", "arguments": arguments}},
        {"type": "function", "function": {"name": "zorb", "arguments": as_text}},
        {"name": "zorb", "args": arguments, "id": "1"},
    )  # fmt: skip
    for call in forms:
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "Go"}, {"type": "image"}]},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "fine", "tool_call_id": "1"},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert text == (
            '<|bos|><|user|>Go<|end|><|assistant|><|call|>{"name": "zorb", "arguments": '
            '{"city": "奥斯陆", "days": 3, "exact": true}}<|end|><|tool|>fine<|end|><|assistant|>'
        )
        pieces = "".join(piece for piece, _ in render_chat(messages))
        assert text == pieces + "<|assistant|>"


def test_the_template_shows_nested_schemas_and_a_system_message_before_the_tools(tokenizer):
    spot = {"type": "object", "properties": {"x": {"type": "number"}}}
    properties = {
        "unit": {"enum": ["c", "f"], "type": "string"},
        "when": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "a day"},
        "spots": {"type": "array", "items": spot},
        "free": {},
        "either": {"type": ["string", "integer"]},
    }  # fmt: skip
    function = {
        "name": "zorb",
        "description": "Reads it",
        "parameters": {"type": "object", "properties": properties, "required": ["unit"]},
    }
    tools = [{"type": "function", "function": function}] * 17
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    shown = (
        'zorb(unit: "c"|"f", when?: string|null (a day), spots?: [{x?: number}], free?: any, '
        "either?: string|integer) Reads it"
    )
    assert text.startswith(f"<|bos|><|system|>Be brief.<|1|>{shown}<|2|>{shown}")
    assert text.endswith(f"<|16|>{shown}<|1|>{shown}<|end|><|user|>Hi<|end|>")
    assert text == "".join(piece for piece, _ in render_chat(messages, tools))


def test_any_text_survives_and_copies_alike_wherever_it_stands(tokenizer):
    text = 'Zorb "你好東京" getWeather HTTPServer 12345\n\tñ ありがとう 🙂 {"name": "x"}'
    assert tokenizer.decode(encode_text(tokenizer, text)) == text
    for span in ("Oslo", "New York", "你好啊", "ありがとう", "image-1", "-205", "getWeather"):
        alone = encode_text(tokenizer, span)
        for frame in ('say "{}".', "[{}: x.jpg]", '{{"city": "{}"}}', "叫“{}”的"):
            ids = encode_text(tokenizer, frame.format(span))
            assert any(ids[i : i + len(alone)] == alone for i in range(len(ids))), (span, frame)
    assert len(encode_text(tokenizer, "2026")) == 4


def test_training_and_test_sides_share_no_names_parameters_or_values():
    rows = draw_tool_chats(random.Random(5), 400)
    trained = {t["function"]["name"] for row in rows for t in row.tools}
    assert not any(is_held(name) for name in trained)
    for task in TASKS:
        for case in test_cases(task, 20, 1):
            names = {tool["function"]["name"] for tool in case.tools}
            assert all(is_held(name) for name in names)
            if case.call:
                assert case.call["name"] in names
    assert test_cases("choose", 5, 3) == test_cases("choose", 5, 3)


def test_test_cases_hold_what_their_answers_need():
    for case in test_cases("quoted", 30, 0):
        (value,) = case.call["arguments"].values()
        assert value in case.messages[-1]["content"]
        assert case.script in ("latin", "han", "kana")
    for case in test_cases("attachment", 30, 0):
        assert any(f"[{v}" in case.messages[-1]["content"] for v in case.call["arguments"].values())
    assert {len(c.tools) for c in test_cases("choose", 60, 0)} <= {2, 3, 4}
    assert {len(c.tools) for c in test_cases("choose_many", 60, 0)} <= {5, 6, 7, 8}


def test_no_row_holds_a_prompt_or_tool_of_the_public_suites(facts):
    pack = [
        {"kind": "instruction", "instruction": question, "input": "", "output": answer}
        for question, answer in (("Tell me a joke about cats.", "Ha."), ("A river?", "The Nile."))
    ]
    assert [turns[0][1] for turns in pick_instructions(random.Random(0), pack, 9)] == ["The Nile."]
    drawn = draw_text(random.Random(0), facts, pack, SIZES)
    chats = draw_tool_chats(random.Random(1), 600)
    text = "\n".join([*drawn.lines(), *map(written, chats)]).lower()
    for phrase in FORBIDDEN:
        assert phrase not in text


def test_drills_can_be_known_by_looking(tokenizer):
    rows = draw_drill_rows(random.Random(0), tokenizer, 40)
    for row in rows:
        assert len(row.ids) <= 160
        first = row.learned.index(True)
        opened = {tokenizer.convert_tokens_to_ids(t) for t in (CALL, NAME_OPENS)}
        known = [t for t, learned in zip(row.ids, row.learned, strict=True) if learned]
        glue = set(encode_text(tokenizer, '{}"(): .')) | opened | set(tokenizer.all_special_ids)
        glue.add(tokenizer.convert_tokens_to_ids('", "arguments": {'))
        assert all(t in row.ids[:first] or t in glue for t in known)


def test_the_built_in_heads_choose_and_copy_before_any_training(tokenizer):
    torch.manual_seed(0)
    sizes = LanguageSizes(n_layers=5)
    model = build_language_model(sizes, tokenizer).eval()
    assert type(model) is LlamaForCausalLM
    drills = draw_drill_rows(random.Random(2), tokenizer, 120)
    call = tokenizer.convert_tokens_to_ids(CALL)
    rows = [r for r in drills if call in r.ids]
    batch = make_batches(rows, tokenizer.pad_token_id, 960)[-1]
    with torch.no_grad():
        attention = model(input_ids=batch.ids, output_attentions=True).attentions
    marks = torch.isin(batch.ids, torch.tensor(tokenizer.convert_tokens_to_ids(list(TOOL_MARKS))))
    opens = batch.ids == tokenizer.convert_tokens_to_ids(NAME_OPENS)
    row, place = opens.nonzero()[:, 0], opens.nonzero()[:, 1]
    after_mark = marks.roll(1, dims=1)[row]
    share = (attention[4][row, 0, place] * after_mark).sum(1)
    assert share.mean() > 0.6  # a name begins with the first token of a tool
    before = attention[0][:, 0].diagonal(offset=-1, dim1=1, dim2=2)
    assert before.mean() > 0.95


class DyingRun(Run):
    """Dies before its third step."""

    def step_seed(self, stage: str, step: int) -> int:
        if step == 2:
            raise KeyboardInterrupt
        return super().step_seed(stage, step)


def test_a_killed_language_run_continues_exactly(tmp_path, facts):
    def train(run):
        return train_language(run, SIZES, Schedule(4, 1e-3, 1, save_every=1), facts, [])

    torch.set_num_threads(1)
    whole, tokenizer = train(Run(tmp_path / "whole", 3))
    with pytest.raises(KeyboardInterrupt):
        train(DyingRun(tmp_path / "killed", 3))
    assert torch.load(tmp_path / "killed" / "language.ckpt", weights_only=True)["step"] == 2
    again, _ = train(Run(tmp_path / "killed", 3))
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    again.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    ids = torch.tensor([encode_text(AutoTokenizer.from_pretrained(tmp_path / "saved"), "Show me")])
    assert torch.allclose(loaded(ids).logits, whole(ids).logits, atol=1e-4)


def test_rows_for_the_senses_are_padded_rows_with_answers_to_learn(tokenizer):
    rows = draw_tool_rows(random.Random(0), tokenizer, 12)
    for batch in make_batches(rows, tokenizer.pad_token_id, 1920):
        assert batch.ids.numel() == 1920
        learned = batch.labels != IGNORED
        assert learned.any(dim=1).all()
        assert (batch.ids[learned] == batch.labels[learned]).all()


def test_special_tokens_are_one_token_each(tokenizer):
    for token in SPECIAL_TOKENS:
        assert len(encode_text(tokenizer, token)) == 1
