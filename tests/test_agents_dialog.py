"""`dialog` the user's way: a photo, then a recording, then questions about both, turn by turn."""

import pytest
from colour_detector import ColourDetector, squares
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from scripted_brain import ScriptedBrain, call, result

from ibllm_tools import ConfigurationError, Media
from ibllm_tools.agent_graphs import open_graph
from ibllm_tools.demo import MEDIA_FOLDER

THREAD = {"configurable": {"thread_id": "1"}}


def say(*content):
    return {"messages": [HumanMessage(list(content))]}


def dialog(script, folder, **settings):
    brain = ScriptedBrain(script=script)
    graph = open_graph(
        "dialog",
        model=brain,
        attachments_dir=folder,
        checkpointer=InMemorySaver(),
        **{"detector": ColourDetector(), "recognizer": False, **settings},
    )
    return brain, graph


def test_media_of_earlier_turns_are_named_by_id(tmp_path):
    script = ["A picture.", "A sound.", call("detect_objects", image="image-1"), result]
    brain, graph = dialog(script, tmp_path)
    graph.invoke(say("What is this?", squares("dog", "dog")), THREAD)
    graph.invoke(say("And this?", Media.from_path(MEDIA_FOLDER / "sea.ogg")), THREAD)
    state = graph.invoke(say("How many dogs were in the first one?"), THREAD)
    assert "2 dog" in state["messages"][-1].text
    assert {"image-1", "audio-1"} <= set(state["attachments"])
    assert any("[audio-1: sea.ogg]" in message.text for message in brain.seen[-1])


def test_calls_and_results_are_told_as_steps(tmp_path):
    _, graph = dialog([call("detect_objects", image="image-1"), result], tmp_path)
    events = list(graph.stream(say("Dogs?", squares("dog")), THREAD, stream_mode="custom"))
    assert [event["step"] for event in events] == ["call", "result"]
    assert events[0]["text"] == 'detect_objects(image="image-1")'


def test_pictures_that_tools_drew_are_not_compared(tmp_path):
    first = [call("detect_objects", image="image-1"), "One."]
    _, graph = dialog([*first, call("find_similar", query="audio-1"), result], tmp_path)
    state = graph.invoke(say("How many dogs?", squares("dog")), THREAD)
    assert set(state["attachments"]) == {"image-1", "image-2"}
    sound = Media.from_path(MEDIA_FOLDER / "sea.ogg")
    state = graph.invoke(say("Which picture fits this?", sound), THREAD)
    [found] = [m for m in state["messages"] if getattr(m, "name", "") == "find_similar"]
    assert [entry["id"] for entry in found.artifact["results"]] == ["image-1"]


def test_two_that_are_asked_about_are_told_first(tmp_path):
    first = ["A dog.", call("find_similar", query="image-1"), result]
    _, graph = dialog(first, tmp_path)
    graph.invoke(say("What?", squares("dog"), squares("boat")), THREAD)
    sound = Media.from_path(MEDIA_FOLDER / "sea.ogg")
    state = graph.invoke(say("Are image-1 and audio-1 alike?", sound), THREAD)
    line, _, ranked = state["messages"][-2].text.splitlines()
    assert line.startswith("similarity of image-1 and audio-1: ")
    assert "image-2" in ranked


def test_what_a_model_makes_up_opens_nothing(tmp_path):
    script = [call("detect_objects", image="/etc/passwd"), result]
    _, graph = dialog(script, tmp_path)
    state = graph.invoke(say("Dogs?", squares("dog")), THREAD)
    assert "image-1" in state["messages"][-1].text
    assert state["messages"][-2].status == "error"


def test_options_of_the_media_agent_pass_through(tmp_path):
    brain = ScriptedBrain(script=["ok"])
    with pytest.raises(ConfigurationError, match="found no checkpointer"):
        open_graph(
            "dialog",
            model=brain,
            attachments_dir=tmp_path,
            interrupt_on={"perceive": True},
        )
