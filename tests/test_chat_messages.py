"""How messages of every form are heard: roles, calls, results, blocks, and media turn by turn."""

import base64
import json

import pytest
from chat_samples import ask, cloud, picture, sound
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from tiny_model import save_tiny_model

from ibllm_tools import ChatImageBindLLM, MediaError, count_text_tokens


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("tiny"), n_context=4096)
    return ChatImageBindLLM(model=folder, max_tokens=40)


def called(*calls):
    names = [{"name": name, "args": args, "id": str(i)} for i, (name, args) in enumerate(calls)]
    return AIMessage("", tool_calls=names)


def said(chat, *messages):
    return chat.invoke(list(messages)).text


# --- media of each turn ---------------------------------------------------------------------


def talk(*turns):
    """Questions with their media, and between them answers."""
    spoken = [HumanMessage([text, *media]) for text, *media in turns]
    return [m for human in spoken for m in (human, AIMessage("yes"))][:-1]


def test_a_follow_up_question_keeps_the_picture(chat):
    kept = said(chat, *talk(["one", picture()], ["two"]))
    assert kept != said(chat, *talk(["one"], ["two"]))
    assert kept != said(chat, *talk(["one", sound()], ["two"]))


def test_each_turn_keeps_the_media_that_it_was_given(chat):
    """The first turn's picture is still heard in the third, where it was said."""
    first = said(chat, *talk(["one", picture()], ["two", sound()]))
    other = said(chat, *talk(["one", cloud()], ["two", sound()]))
    latest = said(chat, *talk(["one", picture()], ["two", cloud()]))
    assert len({first, other, latest}) == 3


def test_the_first_media_hold_for_what_was_said_before_them(chat):
    """A chat about one medium is the released behaviour, whichever turn brings it."""
    early = said(chat, *talk(["one", picture()], ["two"]))
    late = said(chat, *talk(["one"], ["two", picture()]))
    assert early == late


def test_media_of_messages_in_a_row_are_one_turns_mixture(chat):
    apart = [HumanMessage(["a", picture()]), HumanMessage(["b", sound()])]
    assert said(chat, *apart) == said(chat, *ask("a\nb", picture(), sound()))


def test_a_tools_picture_is_that_turns(chat):
    history = [HumanMessage("draw it"), called(("draw", {}))]
    plain = said(chat, *history, ToolMessage(["done"], tool_call_id="0"))
    drawn = said(chat, *history, ToolMessage(["done", picture()], tool_call_id="0"))
    other = said(chat, *history, ToolMessage(["done", sound()], tool_call_id="0"))
    assert len({plain, drawn, other}) == 3


def test_media_of_results_in_a_row_are_mixed(chat):
    history = [HumanMessage("draw both"), called(("draw", {}), ("draw", {}))]

    def results(*media):
        return [ToolMessage(["done", m], tool_call_id=str(i)) for i, m in enumerate(media)]

    both = said(chat, *history, *results(sound(), picture()))
    assert both != said(chat, *history, *results(cloud(), picture()))
    usage = chat.invoke([*history, *results(sound(), picture())]).usage_metadata
    assert usage["input_token_details"] == {"audio": 1, "image": 1}


# --- results of tools -----------------------------------------------------------------------


def test_a_tools_words_are_heard(chat):
    history = [HumanMessage("how many?"), called(("count", {"of": "dogs"}))]
    answers = {said(chat, *history, ToolMessage(text, tool_call_id="0")) for text in ("3", "12")}
    assert len(answers) == 2


def test_an_error_of_a_tool_is_told_from_a_result(chat):
    history = [HumanMessage("how many?"), called(("count", {}))]
    result = ToolMessage("no dogs", tool_call_id="0")
    failed = ToolMessage("no dogs", tool_call_id="0", status="error")
    named = ToolMessage("Error: no dogs", tool_call_id="0")
    assert said(chat, *history, failed) == said(chat, *history, named)
    assert said(chat, *history, failed) != said(chat, *history, result)


@pytest.mark.parametrize("medium", [sound(), cloud(), picture()], ids=["audio", "point", "image"])
def test_media_of_a_tool_survive_langgraphs_tool_node(chat, medium):
    """The node writes blocks that it does not know as JSON; they are read back, not charged."""

    @tool
    def record() -> list:
        """Record something."""
        return [{"type": "text", "text": "done"}, dict(medium)]

    call = called(("record", {}))
    graph = StateGraph(MessagesState).add_node("tools", ToolNode([record]))
    app = graph.add_edge(START, "tools").compile()
    *_, message = app.invoke({"messages": [call]})["messages"]
    history = [HumanMessage("record it"), call]
    plain = ToolMessage(["done", medium], tool_call_id="0", name="record")
    assert said(chat, *history, message) == said(chat, *history, plain)


def test_json_of_a_tool_that_names_a_file_or_an_address_opens_nothing(chat):
    for place in ("file:///etc/passwd", "https://example.com/dog.jpg"):
        written = json.dumps([{"type": "image", "url": place}])
        message = ToolMessage(written, tool_call_id="0")
        answer = chat.invoke([HumanMessage("hm"), called(("look", {})), message])
        assert "input_token_details" not in answer.usage_metadata


def test_anthropics_calls_and_results_are_heard_as_langchains(chat):
    theirs = [
        HumanMessage("how many?"),
        AIMessage([{"type": "tool_use", "id": "0", "name": "count", "input": {"of": "dogs"}}]),
        HumanMessage(
            [
                {"type": "tool_result", "tool_use_id": "0", "content": "3", "is_error": False},
                {"type": "text", "text": "so?"},
            ]
        ),
    ]
    ours = [
        HumanMessage("how many?"),
        called(("count", {"of": "dogs"})),
        ToolMessage("3", tool_call_id="0"),
        HumanMessage("so?"),
    ]
    assert said(chat, *theirs) == said(chat, *ours)
    alone = [*theirs[:2], HumanMessage(theirs[2].content[:1])]
    assert said(chat, *alone) == said(chat, *ours[:3])


# --- blocks of every form -------------------------------------------------------------------


def spellings(medium, kind, mime):
    data = medium["base64"]
    url = f"data:{mime};base64,{data}"
    standard = {"type": kind, "base64": data, "mime_type": mime}
    older = {"type": kind, "source_type": "base64", "data": data, "mime_type": mime}
    both = [medium, standard, older, {"type": kind, "url": url}]
    wrapped = {"type": "non_standard", "value": standard}
    if kind == "audio":
        name = mime.partition("/")[2]
        return [
            *both,
            wrapped,
            {"type": "input_audio", "input_audio": {"data": data, "format": name}},
        ]
    source = {"type": "base64", "media_type": mime, "data": data}
    return [
        *both,
        wrapped,
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": url},
        {"type": "image", "source": source},
    ]


@pytest.mark.parametrize(
    ("medium", "kind", "mime"),
    [(picture(), "image", "image/png"), (sound(), "audio", "audio/wav")],
    ids=["image", "audio"],
)
def test_a_medium_means_the_same_in_every_spelling(chat, medium, kind, mime):
    answers = {said(chat, *ask("what is it?", block)) for block in spellings(medium, kind, mime)}
    assert len(answers) == 1
    assert answers != {said(chat, HumanMessage("what is it?"))}


def test_answers_of_output_version_v1_are_heard_as_plain_ones(chat):
    blocky = ChatImageBindLLM(model=chat.model, max_tokens=40, output_version="v1")
    first = blocky.invoke("hi")
    assert first.content == [{"type": "text", "text": chat.invoke("hi").text}]
    streamed = AIMessageChunk([])
    for chunk in blocky.stream("hi"):
        streamed += chunk
    assert [b["type"] for b in streamed.content] == ["text"]
    history = [HumanMessage("hi"), first, HumanMessage("and?")]
    plain = [HumanMessage("hi"), AIMessage(first.text), HumanMessage("and?")]
    assert said(chat, *history) == said(chat, *plain)


def test_a_plain_text_document_is_read(chat):
    data = base64.b64encode(b"a dog").decode()
    document = {"type": "text-plain", "mime_type": "text/plain", "base64": data}
    assert said(chat, *ask("hm", document)) == said(chat, HumanMessage("hm\na dog"))


def test_a_pdf_is_refused_with_a_reason(chat):
    pdf = base64.b64encode(b"%PDF-1.4\n").decode()
    for block in (
        {"type": "file", "base64": pdf, "mime_type": "application/pdf"},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{pdf}"}},
    ):
        with pytest.raises(MediaError, match="expected"):
            chat.invoke(ask("read it", block))
    assert chat.profile["pdf_inputs"] is False


def test_roles_by_their_names(chat):
    theirs = [ChatMessage("be brief", role="developer"), ChatMessage("hi", role="user")]
    assert said(chat, *theirs) == said(chat, SystemMessage("be brief"), HumanMessage("hi"))


# --- counting -------------------------------------------------------------------------------


def long_talk():
    return [m for i in range(4) for m in (*ask(f"question {i}", sound(i)), AIMessage("yes"))]


def test_media_cost_nothing_when_tokens_are_counted(chat):
    heard, plain = (
        long_talk(),
        [m for i in range(4) for m in (*ask(f"question {i}"), AIMessage("yes"))],
    )
    assert count_tokens_approximately(heard) > 10_000
    assert count_text_tokens(heard) == count_text_tokens(plain) < 100
    n_tokens = chat.get_num_tokens_from_messages(heard)
    assert n_tokens == chat.get_num_tokens_from_messages(plain)
    assert n_tokens == chat.invoke(heard).usage_metadata["input_tokens"]


def test_a_result_that_holds_media_as_json_costs_its_text_alone(chat):
    written = json.dumps([{"type": "text", "text": "done"}, dict(sound())])
    results = [ToolMessage(text, tool_call_id="0") for text in (written, "done")]
    assert count_text_tokens(results[:1]) == count_text_tokens(results[1:])


@pytest.mark.parametrize("by", ["model", "estimate"])
def test_trimming_keeps_what_fits(chat, by):
    counter = chat if by == "model" else count_text_tokens
    count = chat.get_num_tokens_from_messages if by == "model" else count_text_tokens
    heard = long_talk()
    room = count(heard) - 1
    kept = trim_messages(heard, max_tokens=room, token_counter=counter, start_on="human")
    assert 2 <= len(kept) < len(heard)
    assert kept == heard[-len(kept) :]


def test_tools_are_counted_with_the_prompt(chat):
    @tool
    def count(of: str) -> int:
        """Count things."""
        return 3

    message = [HumanMessage("how many dogs?")]
    bare = chat.get_num_tokens_from_messages(message)
    offered = chat.get_num_tokens_from_messages(message, tools=[count])
    assert offered > bare + len("count")
    answer = chat.bind_tools([count]).invoke(message)
    assert answer.usage_metadata["input_tokens"] == offered
