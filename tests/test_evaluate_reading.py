"""How answers are read, how shares are counted, and forced calls: no trained weights needed."""

import json

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ibllm_tools.evaluate.forced import (
    OPENING,
    Skeleton,
    Vocabulary,
    can_call,
    force_calls,
    held_properties,
)
from ibllm_tools.evaluate.reading import AnswerNames, FactReader, refuses_to_count, says_yes
from ibllm_tools.evaluate.results import Target, ratio, share
from ibllm_tools.evaluate.tales import is_compared
from ibllm_tools.train.data import Concept
from ibllm_tools.train.knowledge import facts_for

FACTS = facts_for(
    [Concept(i, *pair) for i, pair in enumerate([("dog", "狗"), ("cow", "牛"), ("house", "房子")])]
)


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("Yes, there is a dog.", True),
        ("No, this is a cow.", False),
        ("There is a dog.", None),
        ("是的，有狗。", True),
        ("没有，这是牛。", False),
        ("不是，这是牛。", False),
    ],
)
def test_yes_and_no_are_read_from_the_first_word(answer, yes):
    assert says_yes(answer) is yes


@pytest.mark.parametrize(
    ("answer", "unsure"),
    [
        ("I do not know what this is.", True),
        ("I am not sure.", True),
        ("我不知道这是什么。", True),
        ("I am not sure, but this may be a dog.", False),
        ("This is a dog.", False),
        ("Something grey.", False),
    ],
)
def test_not_knowing_is_to_say_so_and_to_name_nothing(answer, unsure):
    assert AnswerNames(FACTS).is_unsure(answer) is unsure


def test_a_fact_is_right_by_its_words_and_not_by_the_name_in_it():
    sound = FactReader(FACTS, "sound", chinese=False)
    assert sound.matches(FACTS[0].sound, 0)
    assert not sound.matches(FACTS[0].sound, 1)
    assert not sound.matches(FACTS[0].sound.replace("dog", "cow"), 1)
    assert not sound.matches("A dog.", 0)
    place = FactReader(FACTS, "place", chinese=True)
    assert place.matches(f"牛常在{FACTS[1].place_zh}。", 1)
    assert not place.matches(f"牛常在{FACTS[1].place_zh}。", 2)


def test_counting_is_refused_in_words():
    assert refuses_to_count("I cannot count things, but I notice a dog.")
    assert refuses_to_count("我不会数数，但我注意到狗。")
    assert not refuses_to_count("There are three dogs.")


def test_a_comparison_is_right_if_the_bigger_one_stands_first():
    dog, _, house = FACTS
    assert is_compared("A house is bigger than a dog.", dog, house)
    assert not is_compared("A dog is bigger than a house.", dog, house)
    assert not is_compared("A dog and a house.", dog, house)


def test_an_interval_holds_the_share_and_widens_where_rows_belong_together():
    flags = np.tile([1.0, 0.0, 1.0, 1.0], 25)
    alone = share("x", "x", flags)
    assert alone.value == 0.75
    assert alone.low < 0.75 < alone.high
    assert 0.62 < alone.low < 0.70
    blocks = np.repeat([1.0, 0.0, 1.0, 1.0], 25)
    together = share("x", "x", blocks, groups=np.repeat(range(4), 25))
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_a_ratio_counts_only_rows_that_have_a_say():
    given = ratio("x", "x", [1, 0, 0], [1, 1, 0], target=Target(low=0.6))
    assert (given.n, given.value, given.mark) == (2, 0.5, "missed")
    nothing = ratio("x", "x", [0.0], [0.0])
    assert (nothing.n, nothing.value, nothing.mark) == (0, None, "no data")
    assert Target(low=0.45, high=0.55).is_met(0.5)
    assert not Target(high=0.1).is_met(0.2)


# forced calls


def tool(name, **properties):
    fields = {key: {"type": kind} for key, kind in properties.items()}
    parameters = {"type": "object", "properties": fields, "required": list(fields)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [
    tool("get_weather", city="string", days="integer"),
    tool("get", id="string"),
    tool("switch", on="boolean", level="number", tags="array"),
    tool("stop"),
]
OFFERED = {t["function"]["name"]: held_properties(t) for t in TOOLS}
CALLS = [
    {"name": "get_weather", "arguments": {"city": 'Zürich, 3 "old"', "days": -12}},
    {"name": "get", "arguments": {"id": "image-1"}},
    {"name": "get", "arguments": {"id": "东京 カメラ"}},
    {"name": "switch", "arguments": {"on": False, "level": 2.5, "tags": ["a", [1]]}},
    {"name": "stop", "arguments": {}},
]


@pytest.fixture(scope="module")
def tokenizer():
    from ibllm_tools.train.tokenizer import train_tokenizer

    lines = [json.dumps(call, ensure_ascii=False) for call in CALLS] * 3
    return train_tokenizer([*lines, "What is the weather in Paris?"], 420)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: str(call["arguments"])[:20])
def test_a_model_that_knows_the_call_writes_it_through_the_skeleton(tokenizer, call):
    """The gold tokens get the highest logits: the skeleton must let all of them pass."""
    text = json.dumps(call, ensure_ascii=False) + tokenizer.eos_token
    gold = tokenizer(OPENING + text.removeprefix('{"name": "'), add_special_tokens=False)
    words = Vocabulary(tokenizer)
    skip = len(words.encode(OPENING))
    row = Skeleton(words, OFFERED)
    for token in gold["input_ids"][skip:]:
        assert not row.done
        logits = torch.zeros(len(tokenizer))
        logits[token] = 1.0
        assert row.choose(logits) == token
    assert row.done
    assert row.call().arguments == call["arguments"]
    assert row.call().name == call["name"]


@pytest.mark.parametrize("seed", range(3))
def test_any_logits_give_a_whole_call_of_an_offered_tool(tokenizer, seed):
    words, noise = Vocabulary(tokenizer), torch.Generator().manual_seed(seed)
    row = Skeleton(words, {"get": OFFERED["get"], "get_weather": OFFERED["get_weather"]})
    for _ in range(400):
        if row.done:
            break
        row.choose(torch.randn(len(tokenizer), generator=noise))
    assert row.done
    call = row.call()
    assert call.name in {"get", "get_weather"}
    assert call.arguments is None or call.arguments.keys() == OFFERED[call.name].keys()


def test_a_batch_decodes_the_calls_that_each_row_gets_alone(tokenizer):
    from ibllm_tools.engine import Engine
    from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor

    torch.manual_seed(0)
    llm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, initializer_range=0.3, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        )
    )  # fmt: skip
    model = ImageBindLLM.from_llm(llm, joint_dim=16).eval()
    engine = Engine(model, ImageBindLLMProcessor(tokenizer))
    assert can_call(engine)
    questions = ["What is the weather in Paris?", "Hi", "东京"]
    prompts = [engine.prompt_ids([{"role": "user", "content": q}], TOOLS) for q in questions]
    together = force_calls(engine, prompts, [OFFERED] * 3)
    alone = [force_calls(engine, [prompt], [OFFERED])[0] for prompt in prompts]
    assert [d.call.text for d in together] == [d.call.text for d in alone]
    assert [d.wants_call for d in together] == [d.wants_call for d in alone]
    assert all(d.call.name in OFFERED for d in together)
