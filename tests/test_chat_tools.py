"""Tools of the chat model: what a call may be, how it streams, and that results are used.

What holds by construction is tested on a tiny random model, whose choices are as bad as can be;
what a model must understand on pocket, as a majority of several cases.
"""

import json

import pytest
from chat_samples import ask, picture
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from tiny_model import save_tiny_model
from typing_extensions import TypedDict

from ibllm_tools import ChatImageBindLLM, ConfigurationError
from ibllm_tools.grammar import SchemaError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"), n_context=4096)


@pytest.fixture(scope="module")
def chat(folder):
    return ChatImageBindLLM(model=folder, max_tokens=120)


@pytest.fixture(scope="module")
def pocket():
    return ChatImageBindLLM()


@tool
def set_lamp(room: str, level: int) -> str:
    """Set the light of a room."""
    return f"{room} is at {level}"


@tool
def ring_bell() -> str:
    """Ring the bell."""
    return "ding"


class Parcel(BaseModel):
    """Send a parcel."""

    to: str = Field(description="who gets it", max_length=12)
    grams: int = Field(ge=1, le=9000)


class Ticket(TypedDict):
    """Buy a ticket."""

    city: str


def water(plant: str, litres: float = 1.0) -> str:
    """Water a plant.

    Args:
        plant: Which plant.
        litres: How much water.
    """
    return f"{plant} has {litres} l"


OPENAI = {
    "type": "function",
    "function": {
        "name": "move",
        "description": "Move a piece.",
        "parameters": {
            "type": "object",
            "properties": {"piece": {"enum": ["king", "rook"]}, "far": {"type": "boolean"}},
            "required": ["piece", "far"],
        },
    },
}
ANTHROPIC = {
    "name": "paint",
    "description": "Paint a thing.",
    "input_schema": {
        "type": "object",
        "properties": {"colour": {"type": "string", "pattern": "^#[0-9a-f]{6}$"}},
        "required": ["colour"],
    },
}
JSON_SCHEMA = {
    "title": "fold",
    "description": "Fold paper.",
    "type": "object",
    "properties": {"times": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["times"],
}
KINDS = [set_lamp, ring_bell, Parcel, Ticket, water, OPENAI, ANTHROPIC, JSON_SCHEMA]
NAMES = ["set_lamp", "ring_bell", "Parcel", "Ticket", "water", "move", "paint", "fold"]


def joined(stream):
    chunks = list(stream)
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole, chunks


def bare(calls):
    """Calls without their ids, which are new each time."""
    return [(call["name"], call["args"]) for call in calls]


# --- what holds for any model ---------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), list(zip(KINDS, NAMES, strict=True)), ids=NAMES)
def test_a_tool_of_any_kind_is_called_with_what_its_schema_allows(chat, kind, name):
    answer = chat.bind_tools([kind], tool_choice=name).invoke("go on", temperature=2.0, seed=3)
    [call] = answer.tool_calls
    assert call["name"] == name
    assert call["id"]
    assert answer.invalid_tool_calls == []
    assert answer.text == ""
    # A string that the model would have gone on with was closed for want of tokens.
    assert answer.response_metadata["finish_reason"] in {"tool_calls", "length"}
    checks = {
        "set_lamp": lambda a: set_lamp.invoke({**call, "type": "tool_call"}).status == "success",
        "ring_bell": lambda a: a == {},
        "Parcel": lambda a: Parcel(**a),
        "Ticket": lambda a: isinstance(a["city"], str),
        "water": lambda a: water(**a),
        "move": lambda a: a["piece"] in {"king", "rook"} and isinstance(a["far"], bool),
        "paint": lambda a: a["colour"][0] == "#" and int(a["colour"][1:], 16) >= 0,
        "fold": lambda a: 1 <= a["times"] <= 7,
    }
    assert checks[name](call["args"])


@pytest.mark.parametrize("choice", ["any", "required", True, {"type": "any"}], ids=str)
def test_a_required_call_comes(chat, choice):
    answer = chat.bind_tools([set_lamp, ring_bell], tool_choice=choice).invoke("hi")
    assert answer.tool_calls
    assert {call["name"] for call in answer.tool_calls} <= {"set_lamp", "ring_bell"}


@pytest.mark.parametrize(
    "choice",
    [
        "ring_bell",
        {"type": "function", "function": {"name": "ring_bell"}},
        {"type": "tool", "name": "ring_bell"},
    ],
    ids=["name", "openai", "anthropic"],
)
def test_a_named_call_comes_once(chat, choice):
    answer = chat.bind_tools([set_lamp, ring_bell], tool_choice=choice).invoke("hi")
    assert bare(answer.tool_calls) == [("ring_bell", {})]
    assert answer.response_metadata["finish_reason"] == "tool_calls"


def test_no_call_comes_where_none_may(chat):
    answers = [
        chat.bind_tools([ring_bell], tool_choice="none").invoke("hi", temperature=3.0, seed=seed)
        for seed in range(5)
    ]
    assert not any(answer.tool_calls for answer in answers)
    assert any(answer.text for answer in answers)


def test_parallel_calls_are_allowed_and_forbidden(chat):
    def n_calls(seed, *, parallel):
        bound = chat.bind_tools(
            [ring_bell, OPENAI], tool_choice="any", parallel_tool_calls=parallel
        )
        return len(bound.invoke("hi", temperature=4.0, seed=seed, max_tokens=300).tool_calls)

    assert any(n_calls(seed, parallel=True) > 1 for seed in range(6))
    assert {n_calls(seed, parallel=False) for seed in range(3)} == {1}


@pytest.mark.parametrize("budget", [90, 100, 120])
def test_a_call_closes_within_its_budget(chat, budget):
    """A string that the schema leaves open could go on for ever."""
    for seed in range(3):
        bound = chat.bind_tools([set_lamp], tool_choice="any")
        answer = bound.invoke("hi", temperature=2.0, seed=seed, max_tokens=budget)
        assert answer.tool_calls
        assert answer.invalid_tool_calls == []
        assert answer.usage_metadata["output_tokens"] <= budget


def test_a_budget_that_no_call_fits_is_refused(chat):
    with pytest.raises(ConfigurationError, match="max_tokens"):
        chat.bind_tools([set_lamp], tool_choice="any").invoke("hi", max_tokens=5)


def test_streamed_calls_add_up_to_the_answers(chat):
    bound = chat.bind_tools([set_lamp, ring_bell], tool_choice="any")
    whole, chunks = joined(bound.stream("hi"))
    answer = bound.invoke("hi")
    assert bare(whole.tool_calls) == bare(answer.tool_calls)
    assert whole.usage_metadata == answer.usage_metadata
    assert whole.response_metadata == answer.response_metadata
    parts = [part for chunk in chunks for part in chunk.tool_call_chunks]
    first = [part for part in parts if part["name"]]
    assert len(first) == len(answer.tool_calls)
    assert all(part["id"] for part in first)
    assert {part["id"] for part in parts} - {part["id"] for part in first} <= {None}
    assert {part["index"] for part in parts} == set(range(len(first)))
    written = "".join(part["args"] for part in parts if part["index"] == 0)
    assert json.loads(written) == answer.tool_calls[0]["args"]


def test_long_arguments_come_in_many_chunks(chat):
    bound = chat.bind_tools([Ticket], tool_choice="any")
    parts = [chunk for chunk in bound.stream("hi") if chunk.tool_call_chunks]
    assert len(parts) > 5


def test_streaming_as_a_setting_gives_the_same_calls(folder, chat):
    streaming = ChatImageBindLLM(model=folder, max_tokens=120, streaming=True)
    bound = [c.bind_tools([set_lamp], tool_choice="any") for c in (chat, streaming)]
    plain, streamed = (b.invoke("hi") for b in bound)
    assert bare(streamed.tool_calls) == bare(plain.tool_calls)


def test_calls_are_content_blocks_of_v1(folder):
    blocky = ChatImageBindLLM(model=folder, max_tokens=120, output_version="v1")
    bound = blocky.bind_tools([ring_bell], tool_choice="any", parallel_tool_calls=False)
    answer = bound.invoke("hi")
    assert [block["type"] for block in answer.content] == ["tool_call"]
    whole, _ = joined(bound.stream("hi"))
    assert isinstance(whole, AIMessageChunk)
    assert [block["type"] for block in whole.content_blocks] == ["tool_call"]


def test_a_stop_text_ends_text_but_never_a_call(chat):
    bound = chat.bind_tools([set_lamp], tool_choice="any")
    stopped = bound.invoke("hi", stop=['"', "{", "a"])
    assert bare(stopped.tool_calls) == bare(bound.invoke("hi").tool_calls)
    free = chat.bind_tools([ring_bell], tool_choice="none")
    text = free.invoke("hi").text
    cut = free.invoke("hi", stop=[text[3:5]])
    assert cut.text == text[: text.index(text[3:5])]
    assert cut.response_metadata["finish_reason"] == "stop"


def test_a_call_depends_on_the_tools_and_the_medium(chat):
    def answer(tools, *content):
        return chat.bind_tools(tools, tool_choice="Ticket").invoke(ask(*content)).tool_calls[0]

    plain = answer([Ticket], "where?")["args"]
    assert plain != answer([Ticket], "where?", picture())["args"]
    assert plain != answer([Ticket, set_lamp], "where?")["args"]


def test_a_keyword_that_cannot_be_enforced_is_named(chat):
    schema = {
        "title": "pick",
        "type": "object",
        "properties": {"x": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}},
        "required": ["x"],
    }
    with pytest.raises(SchemaError, match="uniqueItems"):
        chat.bind_tools([schema], tool_choice="any").invoke("hi")


@pytest.mark.parametrize("choice", ["fly", {"type": "function", "function": {"name": "fly"}}])
def test_a_choice_that_names_no_tool_is_refused(chat, choice):
    with pytest.raises(ConfigurationError, match="set_lamp"):
        chat.bind_tools([set_lamp], tool_choice=choice)


def test_what_a_provider_would_run_is_refused(chat):
    with pytest.raises(ConfigurationError, match="web_search"):
        chat.bind_tools([{"type": "web_search_preview"}])
    with pytest.raises(ConfigurationError, match="no tools"):
        chat.invoke("hi", tool_choice="any")


# --- what pocket understands ----------------------------------------------------------------

ORDERS = [
    ("Send a parcel to 'Ada Lovelace'.", "to", "Ada Lovelace"),
    ("Send a parcel to 'Old Mill Farm'.", "to", "Old Mill Farm"),
    ("Send a parcel to 'Jonas Berg'.", "to", "Jonas Berg"),
    ("Send a parcel to 'Team Blue'.", "to", "Team Blue"),
    ("Send a parcel to '林小雨'.", "to", "林小雨"),
]


class Sending(BaseModel):
    """Send a parcel to somebody."""

    to: str = Field(description="name of the receiver")


def test_pocket_copies_what_was_asked_into_a_call(pocket):
    bound = pocket.bind_tools([Sending], tool_choice="any")
    given = [bound.invoke(order).tool_calls[0]["args"] for order, _, _ in ORDERS]
    right = [args[key] == value for args, (_, key, value) in zip(given, ORDERS, strict=True)]
    assert sum(right) >= 3, given


RESULTS = [
    ("What is the price of the lamp?", "find_price", {"item": "lamp"}, "37 coins", "37"),
    ("What time does the ferry leave?", "find_time", {"of": "ferry"}, "It is 09:45.", "09:45"),
    ("Find the owner of the boat.", "find_owner", {"boat": "Heron"}, '{"owner": "Mira"}', "Mira"),
    ("Count the guests.", "count_guests", {}, "214", "214"),
    ("What is the weight of the crate?", "weigh", {"what": "crate"}, "18 kg", "18"),
]


def test_pocket_uses_a_tools_result_in_its_answer(pocket):
    answers = []
    for question, name, args, result, _ in RESULTS:
        properties = {key: {"type": "string"} for key in args}
        offered = {
            "title": name,
            "description": name.replace("_", " ").capitalize() + ".",
            "type": "object",
            "properties": properties,
        }
        call = {"name": name, "args": args, "id": "1"}
        history = [
            HumanMessage(question),
            AIMessage("", tool_calls=[call]),
            ToolMessage(result, tool_call_id="1"),
        ]
        answers.append(pocket.bind_tools([offered]).invoke(history).text)
    right = [wanted in answer for answer, (*_, wanted) in zip(answers, RESULTS, strict=True)]
    assert sum(right) >= 3, answers


def test_pocket_leaves_a_plain_question_without_a_call(pocket):
    bound = pocket.bind_tools([Sending])
    answers = [bound.invoke(text) for text in ("Hello!", "How are you?", "Thank you!")]
    assert sum(not answer.tool_calls for answer in answers) >= 2
