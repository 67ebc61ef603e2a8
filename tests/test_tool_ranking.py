"""The ranking of tools: the likely one comes first, plain talk fits none, it can be trained."""

import copy
import random
import re

import numpy as np
import pytest

from ibllm_tools.engine import open_engine
from ibllm_tools.errors import CheckpointError
from ibllm_tools.model import ImageBindLLMProcessor
from ibllm_tools.model.tool_ranking import FITS, VECTORS_FILE, WORDS_FILE, ToolRanker, describe
from ibllm_tools.train.loop import Run
from ibllm_tools.train.tool_ranker import train_ranker
from ibllm_tools.train.tool_talk import test_cases as draw_cases
from ibllm_tools.train.tool_wishes import any_intent
from ibllm_tools.train.tool_words import World


def tool(name, description, **fields):
    parameters = {"type": "object", "properties": {k: {"type": v} for k, v in fields.items()}}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


TOOLS = [
    tool("fetch_headlines", "Latest news of the day"),
    tool("inboxReader", "Shows new e-mail of the user"),
    tool("thermo_ctl", "Sets how warm the room is", degrees="integer"),
    tool("find-flights", "Looks for plane tickets between two airports", to="string"),
]


@pytest.fixture(scope="module")
def ranker():
    return ImageBindLLMProcessor.from_pretrained("ibllm_tools/pocket").tool_ranker


def asked(text):
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ("Do I have any unread messages?", "inboxReader"),
        ("I am freezing, make the bedroom warmer.", "thermo_ctl"),
        ("I need a ticket to fly to Oslo.", "find-flights"),
        ("What happened in the world today? Any news?", "fetch_headlines"),
    ],
)
def test_the_tool_that_is_asked_for_comes_first(ranker, request_, name):
    listed = ranker.arrange(asked(request_), TOOLS)
    assert listed[0]["function"]["name"] == name
    assert sorted(t["function"]["name"] for t in listed) == sorted(
        t["function"]["name"] for t in TOOLS
    )


def test_plain_talk_fits_no_tool_and_a_wish_fits_one(ranker):
    plain = ["Good morning!", "Tell me a story about a frog.", "Thank you so much.", "你好！"]
    fitting = [any(t[FITS] for t in ranker.arrange(asked(text), TOOLS)) for text in plain]
    assert not any(fitting)
    assert ranker.arrange(asked("Read my new e-mail to me."), TOOLS)[0][FITS]


def test_most_held_out_requests_find_their_tool(ranker):
    cases = draw_cases("choose", 60, 3)
    right = [
        ranker.arrange(c.messages, c.tools)[0]["function"]["name"] == c.call["name"] for c in cases
    ]
    assert np.mean(right) > 0.8


def test_the_given_tools_stay_as_they_are(ranker):
    before = copy.deepcopy(TOOLS)
    ranker.arrange(asked("Read my e-mail."), TOOLS)
    assert before == TOOLS
    assert ranker.arrange([{"role": "system", "content": "x"}], TOOLS)[0]["function"]
    assert ranker.arrange(asked(""), []) == []


def test_it_is_saved_and_loaded_with_the_processor(ranker, tmp_path):
    processor = ImageBindLLMProcessor.from_pretrained("ibllm_tools/pocket")
    processor.save_pretrained(tmp_path)
    again = ImageBindLLMProcessor.from_pretrained(tmp_path).tool_ranker
    request_ = "How warm is it in here? 室内多少度"
    assert np.allclose(again.scores(request_, TOOLS), ranker.scores(request_, TOOLS), atol=0.05)


@pytest.mark.parametrize("name", [VECTORS_FILE, WORDS_FILE])
def test_a_damaged_folder_is_refused_with_the_way_out(ranker, tmp_path, name):
    ranker.save(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="copy the model again"):
        ToolRanker.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match="copy the model again"):
        ToolRanker.load(tmp_path)


def test_pocket_reads_the_likely_tool_first_and_others_read_them_as_given():
    engine = open_engine()
    talk = asked("Do I have any unread messages?")
    text = engine.tokenizer.decode(engine.prompt_ids(talk, TOOLS))
    places = [text.index(t["function"]["name"]) for t in TOOLS]
    assert min(places) == places[1]
    plain = ImageBindLLMProcessor(engine.tokenizer)
    assert plain.arrange(talk, TOOLS) == TOOLS


def test_training_teaches_which_requests_need_a_tool(tmp_path):
    world = World(random.Random(1))
    wishes = [any_intent(world) for _ in range(320)]
    told = " ".join(f"{w.question} {describe(w.tool)}" for w in wishes).lower()
    words = ["[UNK]", *dict.fromkeys(re.findall(r"[a-z]+", told))]
    vectors = np.random.default_rng(0).normal(size=(len(words), 48)).astype(np.float32)
    ones = np.ones(len(words), np.float32)
    fresh = ToolRanker(words, vectors, 0.3 * ones * (np.arange(len(words)) > 0), ones, 2.0, 3.0)
    plain = ["hello there", "good night"]
    trained = train_ranker(Run(tmp_path, 0), plain, fresh, steps=40)

    def fitting(ranker, texts):
        tools = [w.tool for w in wishes[:6]]
        return np.mean([ranker.arrange(asked(text), tools)[0][FITS] for text in texts])

    questions = [w.question for w in wishes[:6]]
    assert fitting(fresh, questions) < 0.5 <= fitting(trained, questions)
    assert fitting(trained, plain) == 0
