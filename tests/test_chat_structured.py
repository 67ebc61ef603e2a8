"""Structured output of the chat model: every kind of schema, every method, and what fields hold."""

import json
from typing import Literal

import pytest
from chat_samples import ask, picture
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import StructuredTool
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as OldModel
from tiny_model import save_tiny_model
from typing_extensions import TypedDict

from ibllm_tools import ChatImageBindLLM, ConfigurationError


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("tiny"), n_context=4096)
    return ChatImageBindLLM(model=folder, max_tokens=150)


class Leaf(BaseModel):
    """A leaf of a tree."""

    tree: str = Field(description="which tree it fell from")
    colour: Literal["green", "red", "brown"]
    length_cm: int = Field(ge=1, le=40)
    holes: int | None = None


class OldLeaf(OldModel):
    """A leaf of a tree."""

    tree: str
    fresh: bool


class TypedLeaf(TypedDict):
    """A leaf of a tree."""

    tree: str
    fresh: bool


DICT = {
    "title": "leaf",
    "type": "object",
    "properties": {"tree": {"type": "string"}, "fresh": {"type": "boolean"}},
    "required": ["tree", "fresh"],
}
UNTITLED = {key: value for key, value in DICT.items() if key != "title"}
SCHEMAS = {"v2": Leaf, "v1": OldLeaf, "typed": TypedLeaf, "dict": DICT, "untitled": UNTITLED}
METHODS = ["json_schema", "function_calling", "json_mode"]


def fits(schema, found):
    if isinstance(schema, type) and issubclass(schema, BaseModel | OldModel):
        return isinstance(found, schema)
    return isinstance(found["tree"], str) and isinstance(found["fresh"], bool) and len(found) == 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_an_answer_is_an_object_of_its_schema(chat, schema, method):
    bound = chat.with_structured_output(schema, method=method)
    assert fits(schema, bound.invoke("tell me", temperature=2.0, seed=1))
    *_, last = bound.stream("tell me")
    assert fits(schema, last)


async def test_the_same_comes_without_a_thread(chat):
    bound = chat.with_structured_output(Leaf)
    assert await bound.ainvoke("tell me") == bound.invoke("tell me")


@pytest.mark.parametrize("method", METHODS)
def test_raw_answers_come_along(chat, method):
    bound = chat.with_structured_output(Leaf, method=method, include_raw=True)
    found = bound.invoke("tell me")
    assert set(found) == {"raw", "parsed", "parsing_error"}
    assert isinstance(found["raw"], AIMessage)
    assert isinstance(found["parsed"], Leaf)
    assert found["parsing_error"] is None
    called = method == "function_calling"
    assert bool(found["raw"].tool_calls) is called
    text = json.dumps(found["raw"].tool_calls[0]["args"]) if called else found["raw"].text
    assert Leaf(**json.loads(text)) == found["parsed"]


def test_a_raw_answer_that_does_not_parse_says_why(chat):
    class Odd(BaseModel):
        """What the class refuses though the schema allows it."""

        size: int

        def __init__(self, **data):
            raise ValueError("never")

    found = chat.with_structured_output(Odd, include_raw=True).invoke("hi")
    assert found["parsed"] is None
    assert "never" in str(found["parsing_error"])
    assert isinstance(json.loads(found["raw"].text)["size"], int)


class Tree(BaseModel):
    """A tree whose branches are trees."""

    name: str = Field(max_length=3)
    branches: list["Tree"] = Field(max_length=2)


@pytest.mark.parametrize("method", METHODS)
def test_a_class_may_hold_itself(chat, method):
    bound = chat.with_structured_output(Tree, method=method)
    found = [bound.invoke("grow", temperature=3.0, seed=s, max_tokens=400) for s in range(4)]
    assert all(isinstance(tree, Tree) for tree in found)
    assert any(tree.branches for tree in found)


def test_a_tool_may_take_what_holds_itself(chat):
    def plant(tree: Tree) -> str:
        """Plant a tree."""
        return tree.name

    bound = chat.bind_tools([StructuredTool.from_function(plant)], tool_choice="plant")
    [call] = bound.invoke("grow", temperature=2.0, seed=2).tool_calls
    assert Tree(**call["args"]["tree"])


def test_json_mode_without_a_schema_gives_any_object(chat):
    bound = chat.with_structured_output(method="json_mode")
    for seed in range(3):
        assert isinstance(bound.invoke("hi", temperature=2.0, seed=seed), dict)


def test_response_format_as_agents_and_clients_send_it(chat):
    named = {"type": "json_schema", "json_schema": {"name": "leaf", "schema": DICT, "strict": True}}
    assert fits(DICT, json.loads(chat.invoke("hi", response_format=named).text))
    free = chat.invoke("hi", response_format={"type": "json_object"}).text
    assert isinstance(json.loads(free), dict)
    assert chat.invoke("hi", response_format={"type": "text"}).text == chat.invoke("hi").text
    with pytest.raises(ConfigurationError, match="json_schema"):
        chat.invoke("hi", response_format={"type": "xml"})


def test_a_list_may_be_asked_for(chat):
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}
    wanted = {"type": "json_schema", "json_schema": {"name": "flags", "schema": schema}}
    found = json.loads(chat.invoke("hi", response_format=wanted).text)
    assert 2 <= len(found) <= 3
    assert set(found) <= {True, False}


def test_a_schema_together_with_tools_gives_a_call_or_the_object(chat):
    tool = {"title": "ring", "description": "Ring.", "type": "object", "properties": {}}
    wanted = {"type": "json_schema", "json_schema": {"name": "leaf", "schema": DICT}}
    bound = chat.bind_tools([tool], response_format=wanted)
    kinds = set()
    for seed in range(12):
        answer = bound.invoke("hi", temperature=5.0, seed=seed)
        kinds.add(bool(answer.tool_calls))
        if not answer.tool_calls:
            assert fits(DICT, json.loads(answer.text))
            assert answer.response_metadata["finish_reason"] in {"stop", "length"}
    assert kinds == {True, False}


def test_json_text_is_streamed_as_text(chat):
    wanted = {"type": "json_schema", "json_schema": {"name": "leaf", "schema": DICT}}
    chunks = list(chat.stream("hi", response_format=wanted))
    assert not any(chunk.tool_call_chunks for chunk in chunks)
    assert len([chunk for chunk in chunks if chunk.text]) > 5
    assert "".join(chunk.text for chunk in chunks) == chat.invoke("hi", response_format=wanted).text


def test_an_object_depends_on_the_medium(chat):
    bound = chat.with_structured_output(Leaf)
    assert bound.invoke(ask("hm", picture())) != bound.invoke(ask("hm", picture(1)))


@pytest.mark.parametrize("budget", [90, 120])
def test_json_closes_within_its_budget(chat, budget):
    class Tale(BaseModel):
        """A tale without end."""

        lines: list[str]

    for seed in range(3):
        bound = chat.with_structured_output(Tale)
        assert isinstance(bound.invoke("hi", temperature=2, seed=seed, max_tokens=budget), Tale)


def test_what_cannot_be_meant_is_refused(chat):
    with pytest.raises(ConfigurationError, match="needs a schema"):
        chat.with_structured_output()
    with pytest.raises(ConfigurationError, match="json_mode"):
        chat.with_structured_output(Leaf, method="xml")


# --- what pocket understands ----------------------------------------------------------------


class Reminder(BaseModel):
    """A reminder to write down."""

    text: str = Field(description="what to remember")


class Order(BaseModel):
    """An order of some pieces."""

    amount: int = Field(description="how many pieces")


def majority(found, wanted):
    return sum(a == b for a, b in zip(found, wanted, strict=True)) > len(wanted) / 2


def test_pocket_writes_what_was_said_into_a_field():
    bound = ChatImageBindLLM().with_structured_output(Reminder)
    wanted = ["water the plants", "call Nora", "pay the rent", "feed the cat", "buy ink"]
    found = [bound.invoke(f"Remember this: '{text}'").text for text in wanted]
    assert majority(found, wanted), found


def test_pocket_writes_numbers_into_a_field():
    bound = ChatImageBindLLM().with_structured_output(Order)
    wanted = [7, 42, 15, 380, 6]
    found = [bound.invoke([HumanMessage(f"Order {n} pieces, please.")]).amount for n in wanted]
    assert majority(found, wanted), found
