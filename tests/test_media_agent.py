"""`create_media_agent` the user's way: with pocket, and with a brain that follows a script."""

import inspect
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from chat_samples import picture, sound
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command
from scripted_brain import ScriptedBrain, call, result

from ibllm_tools import (
    AttachmentMiddleware,
    AttachmentStore,
    ConfigurationError,
    ImageBindLLMToolkit,
    ImageBindVectorStore,
    Media,
    create_media_agent,
)
from ibllm_tools.demo import MEDIA_FOLDER

DOG, DOG_SOUND, BOAT = (MEDIA_FOLDER / name for name in ("dog.jpg", "dog.ogg", "boat.jpg"))

VIDEO = MEDIA_FOLDER / "dog.mp4"


def thread(name="1"):
    return {"configurable": {"thread_id": name}}


def say(*content):
    return {"messages": [HumanMessage(list(content))]}


def tool_messages(state):
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]


# --- perceiving -----------------------------------------------------------------------------


def test_a_text_only_brain_perceives_through_pocket(tmp_path):
    """A photo and a sound are attached, the brain asks about both by id, and answers."""
    names = ("dog", "boat", "piano")
    right = []
    for name in names:
        ask = call("perceive", question="What is this?", attachments=["image-1"])
        brain = ScriptedBrain(script=[ask, result])
        agent = create_media_agent(brain, attachments_dir=tmp_path)
        photo = Media.from_path(MEDIA_FOLDER / f"{name}.jpg")
        state = agent.invoke(say("What is this?", photo, Media.from_path(DOG_SOUND)))
        assert (
            brain.seen[0][-1].content == f"What is this? [image-1: {name}.jpg] [audio-1: dog.ogg]"
        )
        assert "image-1" in brain.seen[0][0].text  # it is told how attachments are named
        right.append(name in state["messages"][-1].text.lower())
    assert sum(right) >= 2, right


def test_a_photo_and_a_sound_are_perceived_together(tmp_path):
    ask = call("perceive", question="What?", attachments=["image-1", "audio-1"], weights=[0.7, 0.3])
    agent = create_media_agent(ScriptedBrain(script=[ask, result]), attachments_dir=tmp_path)
    state = agent.invoke(say("What?", Media.from_path(DOG), Media.from_path(DOG_SOUND)))
    (told,) = tool_messages(state)
    assert [(used["id"], used["weight"]) for used in told.artifact["attachments"]] == [
        ("image-1", 0.7),
        ("audio-1", 0.3),
    ]
    assert told.status == "success"
    assert told.text in state["messages"][-1].text


async def test_pocket_is_a_brain_of_its_own(tmp_path):
    agent = create_media_agent(attachments_dir=tmp_path)
    state = await agent.ainvoke(say("What is in the photo?", Media.from_path(DOG)))
    assert isinstance(state["messages"][-1], AIMessage)
    assert state["messages"][0].content == "What is in the photo? [image-1: dog.jpg]"


async def test_steps_are_streamed(tmp_path):
    brain = ScriptedBrain(script=[call("find_similar", query="image-1"), result])
    agent = create_media_agent(brain, attachments_dir=tmp_path)
    media = [Media.from_path(path) for path in (DOG, BOAT, DOG_SOUND)]
    steps = [step async for step in agent.astream(say("Which fits?", *media))]
    names = [name for step in steps for name in step]
    assert names.index("model") < names.index("tools") < len(names) - 1 - names[::-1].index("model")


def test_further_tools_and_a_collection_are_taken(tmp_path):
    @tool
    def ring(bell: str) -> str:
        """Ring a bell."""
        return f"{bell} rings"

    vectors = ImageBindVectorStore.from_media([DOG, BOAT], ids=["d", "b"])
    script = [call("find_similar", query="audio-1", k=1), call("ring", bell="big"), result]
    brain = ScriptedBrain(script=script)
    agent = create_media_agent(
        brain,
        tools=[ring],
        vectorstore=vectors,
        attachments_dir=tmp_path,
        detector=False,
        recognizer=False,
    )
    state = agent.invoke(say("go", Media.from_path(DOG_SOUND)))
    assert tool_messages(state)[0].artifact["results"][0]["id"] == "d"
    assert state["messages"][-1].text == "It says: big rings"
    assert set(brain.offered) == {"perceive", "find_similar", "ring"}


def test_tools_are_offered_once_there_is_an_attachment_for_them(tmp_path):
    brain = ScriptedBrain(script=["ok"])
    agent = create_media_agent(
        brain, attachments_dir=tmp_path, checkpointer=InMemorySaver(), detector="x", recognizer="x"
    )
    offered = []
    for content in (["hi"], ["a", picture()], ["b", sound()], ["c", Media.from_path(VIDEO)]):
        brain.offered.clear()
        agent.invoke(say(*content), thread())
        offered.append(set(brain.offered))
    assert offered[0] == set()
    assert offered[1] == {"perceive", "detect_objects"}
    assert offered[2] == offered[1] | {"transcribe_speech", "find_similar"}
    assert offered[3] == offered[2] | {"analyze_video"}


# --- what an LLM writes opens nothing -------------------------------------------------------


@pytest.mark.parametrize(
    "named",
    ["/etc/hostname", "file:///etc/hostname", "http://127.0.0.1/x.png", "image-2", "dog.jpg"],
)
def test_hostile_names_are_refused_and_the_brain_can_go_on(tmp_path, named):
    script = [
        call("perceive", question="What is it?", attachments=[named]),
        lambda messages: call("perceive", question="?", attachments=[_first_id(messages[-1].text)]),
        result,
    ]
    agent = create_media_agent(ScriptedBrain(script=script), attachments_dir=tmp_path)
    state = agent.invoke(say("What is it?", picture(name="p.png")))
    assert [message.status for message in tool_messages(state)] == ["error", "success"]


def _first_id(refusal):
    """What a brain reads out of a refusal: `…; use one of these ids: image-1 (p.png)`."""
    return refusal.partition("ids: ")[2].split(" ")[0]


def test_attachments_of_another_thread_are_not_found(tmp_path):
    saver = InMemorySaver()
    script = ["ok", "ok", call("perceive", question="?", attachments=["image-2"]), result]
    agent = create_media_agent(
        ScriptedBrain(script=script), attachments_dir=tmp_path, checkpointer=saver
    )
    agent.invoke(say("one", picture(0), picture(1)), thread("a"))
    agent.invoke(say("two", picture(2)), thread("b"))
    state = agent.invoke(say("look at image-2"), thread("b"))
    assert "there is no attachment image-2" in tool_messages(state)[0].text


# --- limits and approval --------------------------------------------------------------------


def test_a_brain_that_never_ends_is_ended(tmp_path):
    ask = call("embed", x=1)
    agent = create_media_agent(
        ScriptedBrain(script=[ask]), attachments_dir=tmp_path, max_model_calls=3
    )
    state = agent.invoke(say("go"))
    assert len(tool_messages(state)) == 3
    assert "limit" in state["messages"][-1].text.lower()


def test_tool_calls_are_limited(tmp_path):
    ask = call("find_similar", query="image-1")
    brain = ScriptedBrain(script=[ask, ask, "enough"])
    agent = create_media_agent(brain, attachments_dir=tmp_path, max_tool_calls=1)
    state = agent.invoke(say("go", picture(0), picture(1)))
    assert [message.status for message in tool_messages(state)] == ["success", "error"]


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_human_is_asked_before_a_chosen_tool(tmp_path, decision):
    brain = ScriptedBrain(
        script=[call("perceive", question="What?", attachments=["image-1"]), result]
    )
    agent = create_media_agent(
        brain,
        attachments_dir=tmp_path,
        checkpointer=InMemorySaver(),
        interrupt_on={"perceive": True},
    )
    state = agent.invoke(say("What?", picture()), thread())
    (asked,) = state["__interrupt__"][0].value["action_requests"]
    assert asked["name"] == "perceive"
    assert asked["args"]["attachments"] == ["image-1"]
    assert not tool_messages(state)
    answer = {"type": decision}
    if decision == "reject":
        answer["message"] = "not this photo"
    state = agent.invoke(Command(resume={"decisions": [answer]}), thread())
    (told,) = tool_messages(state)
    if decision == "approve":
        assert told.artifact["attachments"] == [{"id": "image-1", "weight": 1.0}]
    else:
        assert told.artifact is None
        assert "not this photo" in told.text
    assert state["messages"][-1].text.startswith("It says")


def test_an_edited_call_is_made_as_edited(tmp_path):
    script = [call("perceive", question="What?", attachments=["image-1"]), result]
    agent = create_media_agent(
        ScriptedBrain(script=script),
        attachments_dir=tmp_path,
        checkpointer=InMemorySaver(),
        interrupt_on={"perceive": True},
    )
    agent.invoke(say("What?", picture(0), picture(1)), thread())
    edited = {"name": "perceive", "args": {"question": "?", "attachments": ["image-2"]}}
    resume = Command(resume={"decisions": [{"type": "edit", "edited_action": edited}]})
    state = agent.invoke(resume, thread())
    assert tool_messages(state)[0].artifact["attachments"][0]["id"] == "image-2"


def test_approval_without_a_checkpointer_is_refused():
    with pytest.raises(ConfigurationError, match="InMemorySaver"):
        create_media_agent(ScriptedBrain(script=["x"]), interrupt_on={"perceive": True})


# --- threads that outlive their process -----------------------------------------------------

TURN = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from chat_samples import picture
    from langchain_core.messages import HumanMessage
    from langgraph.checkpoint.sqlite import SqliteSaver
    from scripted_brain import ScriptedBrain, call, result
    from ibllm_tools import create_media_agent

    def die(messages):
        os.kill(os.getpid(), signal.SIGKILL)

    script = ["A photo.", die]
    with SqliteSaver.from_conn_string({path!r}) as saver:
        agent = create_media_agent(
            ScriptedBrain(script=script), checkpointer=saver, attachments_dir={files!r}
        )
        thread = {{"configurable": {{"thread_id": "1"}}}}
        agent.invoke({{"messages": [HumanMessage(["What is this?", picture(0)])]}}, thread)
        agent.invoke({{"messages": [HumanMessage(["And this?", picture(1)])]}}, thread,
                     durability="sync")
"""


def test_a_thread_survives_kill_minus_nine_and_goes_on_in_another_process(tmp_path):
    path, files = str(tmp_path / "threads.sqlite"), str(tmp_path / "files")
    code = textwrap.dedent(TURN).format(tests=str(Path(__file__).parent), path=path, files=files)
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    script = [call("perceive", question="?", attachments=["image-1", "image-2"]), result]
    with SqliteSaver.from_conn_string(path) as saver:
        agent = create_media_agent(
            ScriptedBrain(script=script), checkpointer=saver, attachments_dir=files
        )
        before = agent.get_state(thread()).values
        told = [message.content for message in before["messages"]]
        assert told == ["What is this? [image-1]", "A photo.", "And this? [image-2]"]
        state = agent.invoke(None, thread())  # the turn that was cut off goes on
        assert [used["id"] for used in tool_messages(state)[0].artifact["attachments"]] == [
            "image-1",
            "image-2",
        ]
        assert tool_messages(state)[0].status == "success"
        state = agent.invoke(say("Once more?"), thread())
    assert len(state["messages"]) > len(before["messages"]) + 2


def test_a_waiting_human_decision_outlives_its_process(tmp_path):
    path = str(tmp_path / "threads.sqlite")

    def agent_with(saver, *script):
        return create_media_agent(
            ScriptedBrain(script=script),
            checkpointer=saver,
            attachments_dir=tmp_path / "files",
            interrupt_on={"perceive": True},
        )

    with SqliteSaver.from_conn_string(path) as saver:
        agent = agent_with(saver, call("perceive", question="?", attachments=["audio-1"]))
        assert "__interrupt__" in agent.invoke(say("What?", sound()), thread())
    with SqliteSaver.from_conn_string(path) as saver:
        resume = Command(resume={"decisions": [{"type": "approve"}]})
        state = agent_with(saver, result).invoke(resume, thread())
    assert tool_messages(state)[0].status == "success"


async def test_an_asynchronous_checkpointer_is_slim_too(tmp_path):
    photo = picture(0)
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "t.sqlite")) as saver:
        agent = create_media_agent(
            ScriptedBrain(script=["ok"]), checkpointer=saver, attachments_dir=tmp_path / "files"
        )
        await agent.ainvoke(say("What?", photo), thread())
        state = await agent.aget_state(thread())
    assert list(state.values["attachments"]) == ["image-1"]
    held = b"".join(file.read_bytes() for file in tmp_path.glob("t.sqlite*"))
    assert photo["base64"][:200].encode() not in held


# --- documentation --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "documented",
    [AttachmentStore, ImageBindLLMToolkit, AttachmentMiddleware, create_media_agent],
    ids=lambda documented: documented.__name__,
)
def test_the_code_in_a_docstring_runs(documented, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for path in MEDIA_FOLDER.iterdir():
        shutil.copy(path, tmp_path)
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", inspect.getdoc(documented), re.DOTALL)
    for block in blocks:
        exec(textwrap.dedent(block), names)
    assert capsys.readouterr().out.strip()
