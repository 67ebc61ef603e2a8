"""The toolkit: tools that take ids, errors that an LLM can act on, media that survive."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from chat_samples import picture, sound
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests
from scripted_brain import ScriptedBrain, call, result
from tiny_model import save_tiny_model

from ibllm_tools import (
    AttachmentMiddleware,
    AttachmentStore,
    ChatImageBindLLM,
    ImageBindLLMToolkit,
    ImageBindVectorStore,
    Media,
)
from ibllm_tools.demo import MEDIA_FOLDER as DEMO_MEDIA
from ibllm_tools.experts import has_detector, has_recognizer
from ibllm_tools.experts.results import Detection, Detections, Segment, Transcript


class SquareFinder:
    """A detector of our own: finds the bright square."""

    def detect(self, image, labels=None, threshold=None):
        grey = np.asarray(image.convert("L"))
        ys, xs = np.nonzero(grey > 200)
        box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
        found = [Detection(label="square", score=0.9, box=box)] if len(xs) > 4 else []
        return Detections(
            detections=found, width_px=image.width, height_px=image.height, model="own"
        )

    def classes(self):
        return ("square",)


class LoudnessReader:
    """A recognizer of our own: hears "loud" where there is anything to hear."""

    def transcribe(self, samples, rate_hz, language=None):
        loud = float(np.abs(samples).max()) > 0.01
        end = len(samples) / rate_hz
        segment = Segment(text="loud", start_s=0, end_s=end, words=[], no_speech=0.1)
        return Transcript(
            text="loud" if loud else "",
            language="en" if loud else None,
            segments=[segment] if loud else [],
            is_speech=loud,
            model="own",
        )


def square():
    pixels = np.zeros((50, 60, 3), np.uint8)
    pixels[10:30, 20:40] = 255
    return Media.from_array(pixels, "image", name="square.png")


@cache
def made():
    """A tiny chat model, a store with attachments, and the tools around them."""
    folder = Path(tempfile.mkdtemp(prefix="toolkit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    chat = ChatImageBindLLM(model=save_tiny_model(folder / "tiny", n_context=4096), max_tokens=12)
    store = AttachmentStore(folder / "files")
    silence = Media.from_array(np.zeros(800), "audio", rate_hz=8000)
    video = Media.from_path(DEMO_MEDIA / "dog.mp4")
    for media in (square(), sound(0), video, picture(1), silence):
        store.add(media)
    kit = ImageBindLLMToolkit(
        chat=chat, attachments=store, detector=SquareFinder(), recognizer=LoudnessReader()
    )
    return chat, store, {tool.name: tool for tool in kit.get_tools()}


@pytest.fixture
def chat():
    return made()[0]


@pytest.fixture
def store():
    return made()[1]


@pytest.fixture
def tools():
    return made()[2]


def run(tool, **args):
    return tool.invoke({"name": tool.name, "args": args, "id": "1", "type": "tool_call"})


ARGUMENTS = {
    "perceive": {"question": "What is it?", "attachments": ["image-1", "audio-1"]},
    "analyze_video": {"video": "video-1", "question": "What is in it?"},
    "detect_objects": {"image": "image-1"},
    "transcribe_speech": {"audio": "audio-1"},
    "find_similar": {"query": "image-1", "k": 2},
    "embed_media": {"attachment": "image-1"},
}


# --- what tools say of themselves -----------------------------------------------------------


def test_tools_are_offered_as_experts_are_there(chat, tools):
    assert set(tools) == set(ARGUMENTS)
    usual = {tool.name for tool in ImageBindLLMToolkit(chat=chat).get_tools()}
    assert ("detect_objects" in usual) is has_detector()
    assert ("transcribe_speech" in usual) is has_recognizer()
    bare = ImageBindLLMToolkit(chat=chat, detector=False, recognizer=False).get_tools()
    assert {tool.name for tool in bare} == set(ARGUMENTS) - {"detect_objects", "transcribe_speech"}


def test_every_tool_says_when_not_to_use_it_and_hides_its_runtime(tools):
    for tool in tools.values():
        assert "not" in tool.description
        schema = convert_to_openai_tool(tool)["function"]["parameters"]
        assert "runtime" not in schema["properties"]
        assert all("description" in field for field in schema["properties"].values())


# --- what they return -----------------------------------------------------------------------


def test_perceive_weighs_attachments(tools, chat, store):
    light = run(tools["perceive"], question="hm?", attachments=["image-1", "image-2"])
    heavy = run(
        tools["perceive"], question="hm?", attachments=["image-1", "image-2"], weights=[0.1, 9]
    )
    assert heavy.artifact["attachments"] == [
        {"id": "image-1", "weight": 0.1},
        {"id": "image-2", "weight": 9.0},
    ]
    asked = HumanMessage(["hm?", {**square()}, {**picture(1)}])
    assert light.content == chat.invoke([asked]).text
    assert light.artifact["model"] == str(chat.model)


def test_perceive_takes_a_lone_id(tools):
    assert run(tools["perceive"], question="hm?", attachments="image-1").status == "success"


def test_detected_objects_are_counted_placed_and_drawn(tools):
    found = run(tools["detect_objects"], image="image-1")
    assert found.content == (
        "detector, image-1: 1 square (middle)\n"
        "boxes (pixels of 60 x 50): square 0.90 (20, 10, 40, 30)"
    )
    assert found.artifact["detections"][0]["box"] == (20, 10, 40, 30)
    (drawn,) = found.artifact["media"]
    assert drawn["type"] == "image"


def test_speech_is_written_down_and_silence_is_told(tools):
    found = run(tools["transcribe_speech"], audio="audio-1")
    assert found.content == 'speech, audio-1, 1 word: "loud"\nlanguage: en'
    assert found.artifact["segments"][0]["end_s"] == pytest.approx(0.5)
    assert found.artifact["media"][0]["type"] == "image"
    assert (
        run(tools["transcribe_speech"], audio="audio-2").content == "speech, audio-2: nobody speaks"
    )


def test_a_video_is_looked_through_with_its_sound(tools):
    found = run(tools["analyze_video"], video="video-1")
    assert found.content.startswith("video-1 lasts ")
    assert found.artifact["duration_s"] > 1
    assert [entry["start_s"] for entry in found.artifact["seen"]][:2] == [0, 1]
    assert found.artifact["answer"] in found.content


def test_embeddings_are_unit_vectors(tools):
    found = run(tools["embed_media"], attachment="image-1")
    assert np.linalg.norm(found.artifact["vector"]) == pytest.approx(1, abs=1e-3)
    json.dumps(found.artifact)


def test_similar_attachments_are_ranked(tools):
    found = run(tools["find_similar"], query="image-1", k=3)
    scores = [entry["score"] for entry in found.artifact["results"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert "image-1" not in [entry["id"] for entry in found.artifact["results"]]


def test_pocket_finds_the_sound_of_a_photo_and_words_find_both(tmp_path):
    store = AttachmentStore(tmp_path)
    for name in ("dog.jpg", "boat.jpg", "dog.ogg", "sea.ogg", "car.ply"):
        store.add(Media.from_path(DEMO_MEDIA / name))
    kit = ImageBindLLMToolkit(attachments=store)
    find = {tool.name: tool for tool in kit.get_tools()}["find_similar"]
    assert "dog.ogg" in run(find, query="image-1", k=1).content
    assert "car.ply" in run(find, query="a car", k=1).content


def test_a_collection_is_searched_in_place_of_attachments(tmp_path):
    vectors = ImageBindVectorStore.from_media(
        [DEMO_MEDIA / "dog.jpg", DEMO_MEDIA / "boat.jpg"], ids=["d", "b"]
    )
    store = AttachmentStore(tmp_path)
    store.add(Media.from_path(DEMO_MEDIA / "dog.ogg"))
    kit = ImageBindLLMToolkit(attachments=store, vectorstore=vectors)
    find = {tool.name: tool for tool in kit.get_tools()}["find_similar"]
    found = run(find, query="audio-1", k=1)
    assert [entry["id"] for entry in found.artifact["results"]] == ["d"]


# --- errors ---------------------------------------------------------------------------------

HOSTILE = [
    "/etc/passwd",
    "../../etc/shadow",
    "file:///etc/passwd",
    "http://169.254.169.254/latest/meta-data",
    "data:image/png;base64,AAAA",
    "C:\\Windows\\win.ini",
    "~/.ssh/id_rsa",
    "photo.jpg",
    "image-1/../../x",
    "image-1:http://example.com/x.png",
]


NO_IDS = ["", "IMAGE", "a" * 5000]  # for `find_similar` these are words to search by
REFUSED = [
    (name, named)
    for name in sorted(ARGUMENTS)
    for named in [*HOSTILE, "image-99", *([] if name == "find_similar" else NO_IDS)]
]


@pytest.mark.parametrize(("name", "named"), REFUSED)
def test_what_is_no_id_is_refused_and_the_ids_are_told(tools, name, named):
    key = {"perceive": "attachments", "find_similar": "query", "embed_media": "attachment"}
    field = key.get(name, next(iter(ARGUMENTS[name])))
    told = run(tools[name], **{**ARGUMENTS[name], field: named})
    assert isinstance(told, ToolMessage)
    assert told.status == "error"
    assert "image-1 (square.png)" in told.content
    assert len(told.content) < 500
    if named in HOSTILE[:6]:
        assert "is a path or URL" in told.content


def test_a_tag_is_taken_for_its_id(tools):
    found = run(tools["embed_media"], attachment="[image-1: square.png]")
    assert found.artifact["id"] == "image-1"


@pytest.mark.parametrize(
    ("name", "args", "told"),
    [
        ("detect_objects", {"image": "audio-1"}, "takes image"),
        ("transcribe_speech", {"audio": "image-1"}, "use perceive"),
        ("analyze_video", {"video": "image-1"}, "use perceive"),
        ("perceive", {"question": "?", "attachments": ["image-1"], "weights": [1, 2]}, "2 weights"),
    ],
)
def test_wrong_uses_say_what_to_do(tools, name, args, told):
    message = run(tools[name], **args)
    assert message.status == "error"
    assert told in message.content


def test_without_attachments_the_llm_is_told_to_ask_for_one(chat, tmp_path):
    kit = ImageBindLLMToolkit(chat=chat, attachments=AttachmentStore(tmp_path))
    message = run(kit.get_tools()[0], question="?", attachments=["image-1"])
    assert "ask the user to attach one" in message.content


def test_a_missing_checkpoint_is_an_answer_and_no_crash(chat, store, tmp_path):
    kit = ImageBindLLMToolkit(chat=chat, attachments=store, detector=str(tmp_path / "none"))
    tools = {tool.name: tool for tool in kit.get_tools()}
    message = run(tools["detect_objects"], image="image-1")
    assert message.status == "error"
    assert "none" in message.content


# --- in an agent ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_ids_of_the_conversation_are_found_in_an_agent(chat, tmp_path, way):
    kit = ImageBindLLMToolkit(chat=chat, detector=SquareFinder())
    script = [
        call("detect_objects", image="image-1"),
        call("perceive", question="hm?", attachments=["image-2", "audio-1"]),
        result,
    ]
    brain = ScriptedBrain(script=script)
    middleware = AttachmentMiddleware(tmp_path)
    agent = create_agent(brain, kit.get_tools(), middleware=[middleware])
    question = {"messages": [HumanMessage(["How many?", square(), sound()])]}
    state = agent.invoke(question) if way == "invoke" else await agent.ainvoke(question)
    tooled = [m for m in state["messages"] if isinstance(m, ToolMessage)]
    assert [m.status for m in tooled] == ["success", "success"]
    # The picture with boxes is an attachment too, so that the next call can name it.
    assert "[image-2: objects in image-1.png]" in tooled[0].content
    assert state["attachments"]["image-2"]["mime_type"] == "image/png"
    assert "base64" not in json.dumps(tooled[0].artifact)


# --- LangChain's standard suites ------------------------------------------------------------


class _Suite:
    name = ""

    @property
    def tool_constructor(self):
        return made()[2][self.name]

    @property
    def tool_invoke_params_example(self):
        return ARGUMENTS[self.name]


class TestPerceiveUnit(_Suite, ToolsUnitTests):
    name = "perceive"


class TestPerceive(_Suite, ToolsIntegrationTests):
    name = "perceive"


class TestDetectUnit(_Suite, ToolsUnitTests):
    name = "detect_objects"


class TestDetect(_Suite, ToolsIntegrationTests):
    name = "detect_objects"


class TestTranscribeUnit(_Suite, ToolsUnitTests):
    name = "transcribe_speech"


class TestTranscribe(_Suite, ToolsIntegrationTests):
    name = "transcribe_speech"


class TestSimilarUnit(_Suite, ToolsUnitTests):
    name = "find_similar"


class TestSimilar(_Suite, ToolsIntegrationTests):
    name = "find_similar"


class TestEmbedUnit(_Suite, ToolsUnitTests):
    name = "embed_media"


class TestEmbed(_Suite, ToolsIntegrationTests):
    name = "embed_media"


class TestVideoUnit(_Suite, ToolsUnitTests):
    name = "analyze_video"


class TestVideo(_Suite, ToolsIntegrationTests):
    name = "analyze_video"
