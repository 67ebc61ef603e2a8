"""`modality_experts` the user's way: what experts find in a video goes to the LLM as context."""

import io
import threading

import pytest
from colour_detector import ColourDetector, squares
from expert_models import RATE_HZ, rt_detr, tones, whisper
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from PIL import Image
from scripted_brain import ScriptedBrain
from tone_video import ToneRecognizer, tone_video

from ibllm_tools import Media
from ibllm_tools.agent_graphs import open_graph
from ibllm_tools.attachments import AttachmentFiles
from ibllm_tools.demo import MEDIA_FOLDER
from ibllm_tools.experts import open_detector, open_recognizer

SECONDS = [["dog"], ["dog", "dog"], ["boat"]]


def say(*content):
    return {"messages": [HumanMessage(list(content))]}


def make(folder, script=("It is so.",), **options):
    brain = ScriptedBrain(script=list(script))
    experts = {"detector": ColourDetector(), "recognizer": ToneRecognizer()}
    settings = {"model": brain, "attachments_dir": folder, **experts, **options}
    return brain, open_graph("modality_experts", **settings)


@pytest.fixture(scope="module")
def video():
    return tone_video(SECONDS, ["low", "high"])


@pytest.fixture(scope="module")
def looked(tmp_path_factory, video):
    """One run: what the brain was told, the steps, the last state, and the folder of bytes."""
    folder = tmp_path_factory.mktemp("kept")
    brain, graph = make(folder)
    steps, state = [], {}
    for kind, event in graph.stream(say("What happens?", video), stream_mode=["custom", "values"]):
        steps += [event["step"]] if kind == "custom" else []
        state = event if kind == "values" else state
    return brain.seen[0][-1].text, steps, state, folder


def test_objects_by_time_and_speech_reach_the_brain(looked):
    told, _, state, _ = looked
    asked, head, sensed, *lines = told.splitlines()
    assert (asked, head) == ("What happens?", "Results:")
    assert sensed.startswith("senses: ")
    assert lines == [
        "detector, video-1: 2 dogs (left, middle)",
        "video-1: Objects by time: 0 s: 1 dog; 1 s: 2 dogs; 2 s: 1 boat.",
        'speech, video-1, 2 words: "low high"',
    ]
    report = state["report"]
    assert report["answer"] == state["messages"][-1].text == "It is so."
    assert report["perceived"]
    facts = report["facts"]["video-1"]
    assert [entry["objects"] for entry in facts["seen"]] == [{"dog": 1}, {"dog": 2}, {"boat": 1}]
    assert facts["transcript"]["segments"][0]["words"][1]["text"] == "high"


def test_the_picture_is_a_timeline(looked):
    _, _, state, folder = looked
    record = state["attachments"][state["picture"]]
    drawn = Image.open(io.BytesIO(AttachmentFiles(folder).get(record["sha256"])))
    assert (record["id"], drawn.width) == ("image-1", 1200)
    # Three frames side by side; the wave is below.
    tiles = [drawn.crop((x + 40, 40, x + 160, 90)).convert("RGB") for x in range(24, 1176, 384)]
    assert [len(tile.getcolors(2**16)) > 8 for tile in tiles] == [True, True, True]


def test_both_experts_work_before_the_answer(looked):
    _, steps, _, _ = looked
    assert steps[0] == "attach"
    assert set(steps[1:4]) == {"sense", "look", "listen"}
    assert steps[4:] == ["answer", "draw"]


def test_photos_and_recordings_are_media_too(tmp_path):
    brain, graph = make(tmp_path)
    sound = Media.from_path(MEDIA_FOLDER / "dog.ogg")
    state = graph.invoke(say("What?", squares("boat"), sound))
    told = brain.seen[0][-1].text
    assert "detector, image-1: 1 boat" in told
    assert "audio-1" in state["report"]["facts"]


def test_experts_can_be_left_out(tmp_path, video):
    brain, graph = make(tmp_path, detector=False, recognizer=False)
    state = graph.invoke(say("What?", video))
    assert len(brain.seen[0][-1].text.splitlines()) == 3  # question, head, senses
    assert state["report"]["facts"] == {}
    assert state["picture"] == ""


def test_another_question_forgets_what_was_found_before(tmp_path):
    _, graph = make(tmp_path, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    graph.invoke(say("What?", squares("dog")), thread)
    state = graph.invoke(say("And here?", squares("boat")), thread)
    assert [line[:15] for line in state["report"]["context"]] == ["detector, image"]
    assert list(state["report"]["facts"]) == ["image-3"]  # image-2 is a picture of image-1


def test_of_speech_its_words_are_told_alone(tmp_path):
    brain, graph = make(tmp_path)
    spoken = Media.from_array(tones(["low", "middle"]), "audio", rate_hz=RATE_HZ)
    graph.invoke(say("What is said?", spoken))
    told = 'What is said?\nResults:\nspeech, audio-1, 2 words: "low middle"'
    assert brain.seen[0][-1].text == told


def test_a_model_with_eyes_looks_for_itself(tmp_path):
    brain = ScriptedBrain(script=["I see it."], profile={"image_inputs": True})
    settings = {"recognizer": False, "attachments_dir": tmp_path}
    graph = open_graph("modality_experts", model=brain, detector=ColourDetector(), **settings)
    state = graph.invoke(say("What?", squares("boat")))
    text, picture = brain.seen[0][-1].content
    assert text.startswith("What?\nResults:\ndetector, image-1: 1 boat")
    assert (picture["type"], picture["mime_type"]) == ("image", "image/png")
    assert state["report"]["perceived"] == ""


def test_without_media_some_are_asked_for(tmp_path):
    _, graph = make(tmp_path)
    assert "attach" in graph.invoke(say("What?"))["messages"][-1].text


async def test_pocket_answers_about_a_real_video(tmp_path):
    """Frames and sound of a real clip, real detector and recogniser checkpoints (untrained)."""
    detector, recognizer = rt_detr(tmp_path / "d"), whisper(tmp_path / "w", n_steps=1)
    graph = open_graph(
        "modality_experts", detector=detector, recognizer=recognizer, attachments_dir=tmp_path
    )
    video = Media.from_path(MEDIA_FOLDER / "dog.mp4")
    state = await graph.ainvoke(say("What is happening?", video))
    assert state["messages"][-1].text
    facts = state["report"]["facts"]["video-1"]
    assert [entry["start_s"] for entry in facts["seen"]] == [0.0, 1.0, 2.0, 3.0]
    assert facts["transcript"]["model"] == recognizer


def test_models_that_load_at_once_load_whole(tmp_path):
    """transformers switches settings of the process while it loads; loads must not meet."""
    picture = Image.open(MEDIA_FOLDER / "dog.jpg")
    failed = []

    def run(work):
        try:
            work()
        except Exception as error:
            failed.append(error)

    for place in range(2):
        detector = open_detector(rt_detr(tmp_path / f"d{place}"))
        recognizer = open_recognizer(whisper(tmp_path / f"w{place}", n_steps=1))
        works = [
            lambda detector=detector: detector.detect(picture),
            lambda recognizer=recognizer: recognizer.transcribe(tones(["low"]), RATE_HZ),
        ]
        threads = [threading.Thread(target=run, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
