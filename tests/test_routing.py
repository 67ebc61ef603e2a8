"""Routing: a model's choice is held to a closed set; nouns, ids and lines of results are code's."""

import json
import random

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from scripted_brain import ScriptedBrain
from typer.testing import CliRunner

from ibllm_tools import ChatImageBindLLM
from ibllm_tools.chat_models.tools import make_plan
from ibllm_tools.cli import app
from ibllm_tools.evaluate.routing import evaluate_routing
from ibllm_tools.routing import (
    ANSWER_PROMPT,
    EXPERTS,
    ROUTER_PROMPT,
    Adviser,
    Route,
    Router,
    answer_messages,
    asked_kinds,
    asked_nouns,
    fitting,
    held_templates,
    ids_in,
    place_of,
    router_messages,
    routing_cases,
    say_likeness,
    say_objects,
    say_pair,
    say_speech,
    shipped_adviser,
    template_of,
)
from ibllm_tools.routing.words import known_nouns
from ibllm_tools.train.data import Concept
from ibllm_tools.train.knowledge import facts_for
from ibllm_tools.train.language import is_allowed
from ibllm_tools.train.route_adviser import train_adviser
from ibllm_tools.train.route_talk import draw_route_chats, draw_routed, route_tool
from ibllm_tools.train.route_words import phrases

FACTS = facts_for(
    [Concept(i, noun.name, noun.name_zh) for i, noun in enumerate(known_nouns().values())]
)


class Brain(ScriptedBrain):
    def bind_tools(self, tools, **kwargs):
        return self


def route_call(*experts):
    call = {"name": "Route", "args": {"experts": list(experts)}, "id": "1"}
    return AIMessage("", tool_calls=[call])


# --- the router -----------------------------------------------------------------------------


def test_the_model_reads_the_question_and_ids_and_nothing_else():
    brain = Brain(script=[route_call("detector")])
    assert Router(brain).route("How many dogs?", ["image-1"]).experts == ["detector"]
    assert brain.seen == [[SystemMessage(ROUTER_PROMPT), HumanMessage("How many dogs? [image-1]")]]


@pytest.mark.parametrize(
    "said",
    ["I would ask the detector.", route_call("internet"), route_call(), AIMessage("")],
)
def test_what_is_no_route_is_answered_directly(said):
    assert Router(Brain(script=[said])).route("What?", ["image-1"]).experts == ["answer"]


async def test_many_questions_and_async_give_the_same():
    brain = Brain(script=[route_call("speech")])
    assert (await Router(brain).aroute("What is said?", ["audio-1"])).experts == ["speech"]
    routes = Router(brain).route_all([("What is said?", ["audio-1"]), ("Hi", ["image-1"])])
    assert [route.experts for route in routes] == [["speech"], ["answer"]]


def test_without_attachments_no_model_is_asked():
    brain = Brain(script=[route_call("detector")])
    assert Router(brain).route("How many?", []).experts == ["none"]
    assert brain.seen == []


@pytest.mark.parametrize(
    ("chosen", "ids", "kept"),
    [
        (["speech", "detector", "detector"], ["image-1", "audio-1"], ["detector", "speech"]),
        (["speech"], ["video-1"], ["speech"]),
        (["detector"], ["audio-1"], ["answer"]),
        (["similarity"], ["image-1"], ["answer"]),
        (["none", "detector"], ["image-1"], ["detector"]),
        (["none"], ["image-1"], ["none"]),
        ([], ["image-1"], ["answer"]),
    ],
)
def test_experts_need_something_to_work_on(chosen, ids, kept):
    assert fitting(chosen, ids) == kept


def test_a_long_question_is_shortened_in_the_middle():
    text = router_messages("a" * 5000 + "? How many?", ["image-1"])[1]["content"]
    assert len(text) < 1300
    assert text.endswith("How many? [image-1]")


def test_the_model_is_not_asked_where_the_adviser_is_sure():
    brain = Brain(script=[route_call("none")])
    router = Router(brain, shipped_adviser())
    asked = [("How many dogs are in the picture?", ["image-1"]), ("Zyx qwv?", ["image-1"])]
    assert [r.experts for r in router.route_all(asked)] == [["detector"], ["none"]]
    assert [messages[1].text for messages in brain.seen] == ["Zyx qwv? [image-1]"]


def test_the_adviser_is_right_where_it_is_sure():
    adviser = shipped_adviser()
    told = [(c, *adviser.advise(c.question, c.ids)) for c in routing_cases()]
    sure = [set(route) == set(c.experts) for c, route, chance in told if chance >= adviser.sure]
    assert len(sure) > 0.6 * len(told)
    assert sum(sure) >= 0.96 * len(sure)


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("What do you see in the picture, and which words are said?",
         "What do you see in the picture"),
        ("图片里是什么？录音里说了什么？", "图片里是什么？"),
        ("What is this?", "What is this?"),
        ("How many dogs are in the picture?", "How many dogs are in the picture?"),
    ],
)  # fmt: skip
def test_the_senses_are_asked_their_part_of_a_question(question, part):
    assert shipped_adviser().part_for("answer", question, ["image-1", "audio-1"]) == part


def test_an_adviser_learns_from_rows_and_survives_a_file(tmp_path):
    adviser = train_adviser(FACTS, n_rows=600, n_steps=120)
    adviser.save(tmp_path / "adviser.safetensors")
    again = Adviser.load(tmp_path / "adviser.safetensors")
    asked = "How many dogs are there?", ["image-1"]
    assert again.advise(*asked)[0] == adviser.advise(*asked)[0]
    assert "detector" in again.advise(*asked)[0]
    assert "speech" in again.advise("What is said?", ["audio-1"])[0]


# --- what code reads in a question ----------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "classes", "nouns"),
    [
        ("How many dogs and puppies?", None, ["dog"]),
        ("Where are the men and the bus?", None, ["person", "bus"]),
        ("a motorbike, not a bike", None, ["motorcycle", "bicycle"]),
        ("Is the hotdog a dog?", None, ["dog"]),
        ("有几只小狗和公共汽车？", None, ["dog", "bus"]),
        ("How many traffic lights are there?", ["traffic light", "car"], ["traffic light"]),
        ("How many unicorns?", None, []),
        ("BOXES of cherries", ["cherry", "box"], ["box", "cherry"]),
    ],
)
def test_nouns_are_found_in_plurals_synonyms_and_chinese(question, classes, nouns):
    assert asked_nouns(question, classes) == nouns


def test_kinds_and_ids():
    assert asked_kinds("How many animals and vehicles?") == ["animal", "vehicle"]
    assert ids_in("Is image-12 like image-1, or [audio-1]?", ["image-1", "audio-1"]) == [
        "image-1",
        "audio-1",
    ]


def test_places_are_ninths():
    assert place_of((0, 0, 10, 10), 90, 90) == "top left"
    assert place_of((40, 40, 50, 50), 90, 90) == "middle"
    assert place_of((80, 40, 90, 50), 90, 90, chinese=True) == "右"
    assert place_of((80, 80, 120, 120), 90, 90) == "bottom right"  # a box beyond the edge


def test_lines_of_results():
    places = {"dog": ["left", "right"], "cat": ["top"]}
    assert say_objects("image-1", places, ["dog"]) == "detector, image-1: 2 dogs (left, right)"
    assert say_objects("image-1", places, ["cat", "cow"]) == (
        "detector, image-1: 1 in all: 1 cat (top), no cows"
    )
    assert say_objects("image-1", {}) == "detector, image-1: nothing"
    assert (
        say_objects("image-1", {"dog": ["左"]}, ["dog"], chinese=True) == "检测，image-1：狗1（左）"
    )
    assert say_objects("image-1", places, ["dog"], so="no").endswith("2 dogs (left, right), so no")
    assert say_speech("audio-1", " seven  four ") == 'speech, audio-1, 2 words: "seven four"'
    assert say_speech("a", "one", so="yes") == 'speech, a, 1 word: "one", so yes'
    assert say_speech("audio-1", "") == "speech, audio-1: nobody speaks"
    assert say_likeness("image-1", {"image-2": 0.1, "image-3": 0.9}) == (
        "similarity to image-1: image-3 0.90, image-2 0.10"
    )
    assert say_pair("image-1", "image-2", 0.9, high=True).endswith("0.90 (high)")


# --- the test's questions and the rows of training -------------------------------------------


def test_there_are_enough_questions_of_every_route_in_both_languages():
    cases = routing_cases()
    assert len(cases) >= 300
    single = [case.experts[0] for case in cases if len(case.experts) == 1]
    assert min(single.count(expert) for expert in EXPERTS) >= 50
    assert len(cases) - len(single) >= 25
    assert len({case.question for case in cases}) == len(cases)
    assert all(fitting(case.experts, case.ids) == list(case.experts) for case in cases)


def test_there_are_enough_templates_of_every_route():
    for expert in EXPERTS:
        assert len(phrases(expert)) >= 60
        assert len(phrases(f"{expert}_zh")) >= 25


def test_a_template_is_what_is_left_without_fillers():
    assert template_of("How many dogs are in the photo?") == template_of(
        "how many {n} are in the {m}"
    )
    assert template_of("图里有几只狗？") != template_of("图里有几只狗在睡？")


def test_no_training_question_has_a_template_of_the_test():
    rng = random.Random(5)
    drawn = [draw_routed(rng, FACTS, chinese=rng.random() < 0.4) for _ in range(1500)]
    shared = {q for q, _, _ in drawn} & {case.question for case in routing_cases()}
    assert not shared
    assert sum(template_of(q) in held_templates() for q, _, _ in drawn) <= 2


def test_rows_are_what_the_model_sees_at_run_time():
    bound = ChatImageBindLLM().with_structured_output(Route).first
    plan = make_plan(None, None, None, bound.kwargs["response_format"])
    assert (plan.tools, plan.choice) == ((route_tool(),), "Route")
    chats = draw_route_chats(random.Random(1), FACTS, 80)
    routed = [c for c in chats if c.tools]
    assert {c.messages[0]["content"] for c in routed} == {ROUTER_PROMPT}
    assert all(c.tools == (route_tool(),) for c in routed)
    read = [c for c in chats if c.messages[0]["content"] == ANSWER_PROMPT]
    for chat in read:
        question, _, lines = chat.messages[1]["content"].partition("\nResults:\n")
        assert answer_messages(question, lines.split("\n")) == list(chat.messages[:2])


def test_rows_hold_no_prompt_of_a_standard_suite_and_route_within_the_set():
    chats = draw_route_chats(random.Random(2), FACTS, 400)
    refused = [c for c in chats if not is_allowed(json.dumps(c.messages, ensure_ascii=False))]
    assert len(refused) <= 4
    for chat in chats:
        for call in chat.messages[-1].get("tool_calls", ()):
            Route.model_validate(call["function"]["arguments"])


# --- the figure -----------------------------------------------------------------------------


def test_a_brain_that_knows_the_routes_is_scored_right():
    cases = routing_cases()[::12]
    right = [route_call(*case.experts) for case in cases]
    right[0] = route_call("similarity")

    def say(messages):
        asked = messages[1].text
        return next(r for c, r in zip(cases, right, strict=True) if asked.startswith(c.question))

    card = evaluate_routing(Brain(script=[say]), "scripted", cases=cases)
    [section] = card.sections
    assert section.measures[0].value == pytest.approx(1 - 1 / len(cases))
    [wrong] = section.details["wrong"]
    assert wrong["question"] == cases[0].question
    assert json.loads(card.to_json())["sections"][0]["name"] == "routing"


def test_the_command_is_there():
    for name in ("routing", "tasks"):
        shown = CliRunner().invoke(app, ["eval", name, "--help"])
        assert shown.exit_code == 0
        assert "--wrong" in shown.output
