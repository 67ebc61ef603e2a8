"""A brain that senses media itself is offered the tools that its question needs, with ids alone."""

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

from ibllm_tools import ChatImageBindLLM, Media, create_media_agent


@tool
def lamp(state: str) -> str:
    """Switch the lamp of the room on or off."""
    return state


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    """What the model is offered, by question and media."""
    from langchain.agents.middleware import wrap_model_call

    seen = []

    @wrap_model_call
    def watch(request, handler):
        seen.append([t if isinstance(t, dict) else t.name for t in request.tools])
        return handler(request)

    folder = tmp_path_factory.mktemp("attachments")
    agent = create_media_agent(
        ChatImageBindLLM(max_tokens=40), tools=[lamp], attachments_dir=folder, middleware=[watch],
        max_model_calls=2,
    )  # fmt: skip

    def ask(question, *names):
        seen.clear()
        media = [Media.from_path(f"tests/media/{name}") for name in names]
        state = agent.invoke({"messages": [HumanMessage([question, *media])]})
        return list(seen), state

    return ask


def names_of(tools):
    return [t["function"]["name"] if isinstance(t, dict) else t for t in tools]


def test_what_is_seen_needs_no_tool(offered):
    rounds, state = offered("What is this?", "dog.jpg")
    assert names_of(rounds[0]) == ["lamp"]
    assert "dog" in state["messages"][-1].text


def test_a_count_needs_the_detector_and_an_id_that_is_there(offered):
    rounds, state = offered("How many dogs are in the picture?", "dog.jpg")
    assert set(names_of(rounds[0])) == {"lamp", "detect_objects"}
    [detect] = [t for t in rounds[0] if isinstance(t, dict)]
    fields = detect["function"]["parameters"]["properties"]
    assert fields == {"image": {**fields["image"], "enum": ["image-1"]}}
    calls = [c for m in state["messages"] for c in getattr(m, "tool_calls", [])]
    assert all(c["args"]["image"] == "image-1" for c in calls if c["name"] == "detect_objects")
    assert "detect_objects" not in names_of(rounds[-1]) or len(rounds) == 1


def test_an_id_that_the_question_names_is_the_only_choice(offered):
    rounds, _ = offered("Which one is most similar to audio-1?", "dog.jpg", "dog.ogg", "car.ply")
    [similar] = [t for t in rounds[0] if isinstance(t, dict)]
    assert similar["function"]["parameters"]["properties"]["query"]["enum"] == ["audio-1"]


def test_spoken_words_need_the_recognizer(offered):
    rounds, _ = offered("What does the speaker say in the recording?", "dog.ogg")
    assert "transcribe_speech" in names_of(rounds[0])
    assert "perceive" not in names_of(rounds[0])


def test_a_small_brain_reads_its_own_turn(tmp_path):
    """Ids are read where a tool takes them; calls and results of earlier turns are not."""
    from langchain.agents.middleware import wrap_model_call
    from langgraph.checkpoint.memory import InMemorySaver

    seen = []

    @wrap_model_call
    def watch(request, handler):
        seen.append([(m.type, m.text) for m in request.messages])
        return handler(request)

    agent = create_media_agent(
        ChatImageBindLLM(max_tokens=40), attachments_dir=tmp_path, middleware=[watch],
        checkpointer=InMemorySaver(),
    )  # fmt: skip
    thread = {"configurable": {"thread_id": "1"}}

    def ask(question, *names):
        seen.clear()
        media = [Media.from_path(f"tests/media/{name}") for name in names]
        agent.invoke({"messages": [HumanMessage([question, *media])]}, thread)
        return list(seen)

    assert ask("How many dogs are in the picture?", "dog.jpg")[0] == [
        ("human", "How many dogs are in the picture? [image-1: dog.jpg]")
    ]
    [told] = ask("And what do you hear?", "dog.ogg")
    assert [kind for kind, _ in told] == ["human", "ai", "human"]
    assert told[0][1] == "How many dogs are in the picture?"
    assert told[2][1] == "And what do you hear?"
