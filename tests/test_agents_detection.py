"""`detection` the user's way: what an answer claims, and which of it a detector confirms."""

import io

import pytest
from colour_detector import ColourDetector, squares
from expert_models import owlv2, rt_detr
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from PIL import Image
from scripted_brain import ScriptedBrain, call, result

from ibllm_tools import ConfigurationError, Media
from ibllm_tools.agent_graphs import open_graph
from ibllm_tools.agent_graphs.nouns import find_mentions, singular
from ibllm_tools.attachments import AttachmentFiles
from ibllm_tools.demo import MEDIA_FOLDER


def say(*content):
    return {"messages": [HumanMessage(list(content))]}


def run(script, *content, folder, detector=None):
    graph = open_graph(
        "detection",
        model=ScriptedBrain(script=script),
        detector=detector or ColourDetector(),
        attachments_dir=folder,
    )
    return graph.invoke(say(*content))


def verdicts(state):
    return {claim["said"]: claim["verdict"] for claim in state["report"]["claims"]}


# --- claims against what is found -----------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "answer", "there", "expected", "reliability"),
    [
        ("What is it?", "This is a dog.", ["dog"], {"a dog": "confirmed"}, 1.0),
        ("What is it?", "A puppy!", ["dog"], {"a dog": "confirmed"}, 1.0),
        ("What is it?", "This is a dog.", ["boat"], {"a dog": "contradicted"}, 0.0),
        ("What is it?", "This is a dog.", [], {"a dog": "not found"}, 0.0),
        (
            "What do you see?",
            "I see two dogs and a boat.",
            ["dog", "boat", "dog"],
            {"2 dogs": "confirmed", "a boat": "confirmed"},
            1.0,
        ),
        (
            "What do you see?",
            "Three dogs near a traffic light.",
            ["dog", "dog"],
            {"3 dogs": "contradicted", "a traffic light": "not found"},
            0.0,
        ),
        (
            "What is there?",
            "There is a dog, but there is no boat.",
            ["dog", "boat"],
            {"a dog": "confirmed", "no boat": "contradicted"},
            0.5,
        ),
        ("Is there a dog?", "No.", ["dog"], {"no dog": "contradicted"}, 0.0),
        ("Is there a dog?", "No, it is a boat.", ["boat"], None, 1.0),
        ("Do you see a boat?", "Yes.", ["boat"], {"a boat": "confirmed"}, 1.0),
        ("How many dogs are there?", "Two.", ["dog", "dog"], {"2 dogs": "confirmed"}, 1.0),
        ("How many dogs are there?", "2 dogs", ["dog"], {"2 dogs": "contradicted"}, 0.0),
        ("How many dogs are there?", "None.", [], {"no dog": "confirmed"}, 1.0),
        ("What is it?", "A unicorn.", ["dog"], {"a unicorn": "cannot be checked"}, None),
        ("What is it?", "I do not know.", ["dog"], {}, None),
    ],
)
def test_claims_are_confirmed_or_not(tmp_path, question, answer, there, expected, reliability):
    state = run([answer], question, squares(*there), folder=tmp_path)
    if expected is not None:
        assert verdicts(state) == expected
    assert state["report"]["reliability"] == reliability
    assert state["messages"][-1].text.startswith(answer)


def test_contradictions_and_what_is_left_out_are_named(tmp_path):
    script = ["I see one dog."]
    state = run(script, "What?", squares("dog", "dog", "boat"), folder=tmp_path)
    report = state["report"]
    assert report["contradictions"] == ["the answer says 1 dog; the detector finds 2"]
    assert report["unmentioned"] == {"boat": 1}
    text = state["messages"][-1].text
    assert "Reliability 0%" in text
    assert "not mentioned, but found: 1 boat" in text


def test_the_picture_shows_boxes_and_verdicts(tmp_path):
    state = run(["A dog."], "What?", squares("dog"), folder=tmp_path)
    record = state["attachments"][state["picture"]]
    assert (record["id"], record["mime_type"]) == ("image-2", "image/png")
    drawn = Image.open(io.BytesIO(AttachmentFiles(tmp_path).get(record["sha256"])))
    # The photo, enlarged to the width of the page, and two lines below it.
    assert drawn.width == 640
    assert drawn.height > 320
    colours = {colour for _, colour in drawn.convert("RGB").getcolors(2**24)}
    assert (0, 85, 164) in colours  # the box
    assert any(abs(r) + abs(g - 105) + abs(b - 92) < 12 for r, g, b in colours)  # "confirmed"


def test_several_pictures_are_checked_together(tmp_path):
    script = ["Two dogs."]
    media = [squares("dog"), squares("dog", "boat", name="more.png")]
    state = run(script, "What?", *media, folder=tmp_path)
    assert [entry["id"] for entry in state["report"]["found"]] == ["image-1", "image-2"]
    assert verdicts(state) == {"2 dogs": "confirmed"}


def test_an_open_detector_is_asked_for_the_nouns(tmp_path):
    detector = ColourDetector(any_noun=True)
    script = ["A small brown dog runs near the red boat."]
    state = run(script, "What?", squares("dog"), folder=tmp_path, detector=detector)
    assert detector.asked == [["dog", "boat"]]
    assert verdicts(state) == {"a dog": "confirmed", "a boat": "not found"}


# --- steps, turns, refusals -----------------------------------------------------------------


def test_every_node_tells_its_step(tmp_path):
    ask = call("perceive", question="What?", attachments=["image-1"])
    graph = open_graph(
        "detection",
        model=ScriptedBrain(script=[ask, "A dog."]),
        detector=ColourDetector(),
        attachments_dir=tmp_path,
    )
    steps = [step["step"] for step in graph.stream(say("?", squares("dog")), stream_mode="custom")]
    assert steps == ["attach", "call", "result", "answer", "nouns", "detect", "check"]


def test_a_follow_up_is_about_the_same_picture(tmp_path):
    graph = open_graph(
        "detection",
        model=ScriptedBrain(script=["A dog.", "No."]),
        detector=ColourDetector(),
        attachments_dir=tmp_path,
        checkpointer=InMemorySaver(),
    )
    thread = {"configurable": {"thread_id": "1"}}
    graph.invoke(say("What?", squares("dog")), thread)
    state = graph.invoke(say("Is there a boat?"), thread)
    assert verdicts(state) == {"no boat": "confirmed"}
    assert [entry["id"] for entry in state["report"]["found"]] == ["image-1"]


def test_without_a_picture_one_is_asked_for(tmp_path):
    script = ["never said"]
    sound = Media.from_path(MEDIA_FOLDER / "dog.ogg")
    for content in (["What?"], ["What?", sound]):
        state = run(script, *content, folder=tmp_path)
        assert "attach a picture" in state["messages"][-1].text
        assert isinstance(state["messages"][-1], AIMessage)


def test_a_path_in_a_message_is_refused_and_told(tmp_path):
    block = {"type": "image", "url": "file:///etc/hostname"}
    state = run(["never said"], "What?", block, folder=tmp_path)
    assert "refused attachment" in state["messages"][-1].text
    assert state["attachments"] == {}


def test_what_a_brain_writes_opens_nothing(tmp_path):
    """An LLM that names a path, an address or an unknown id is told so, and goes on."""
    for named in ("/etc/hostname", "http://127.0.0.1/x.png", "image-7"):
        script = [call("perceive", question="?", attachments=[named]), result]
        state = run(script, "What?", squares("dog"), folder=tmp_path)
        assert "image-1" in state["report"]["answer"]
        assert list(state["attachments"]) == ["image-1", "image-2"]


def test_without_a_detector_there_is_no_such_agent():
    with pytest.raises(ConfigurationError, match="detector=False"):
        open_graph("detection", detector=False)
    with pytest.raises(ConfigurationError, match="modality_experts"):
        open_graph("detections")


async def test_pocket_and_real_checkpoints(tmp_path):
    """The real chain on a real photo: pocket answers, RT-DETR and OWLv2 (untrained) look."""
    photo = Media.from_path(MEDIA_FOLDER / "dog.jpg")
    for make in (rt_detr, owlv2):
        detector = make(tmp_path / make.__name__)
        graph = open_graph("detection", detector=detector, attachments_dir=tmp_path / "kept")
        state = await graph.ainvoke(say("What is in this photo?", photo))
        assert state["report"]["answer"]
        assert state["messages"][-1].text.startswith(state["report"]["answer"])
        assert all(entry["model"] == detector for entry in state["report"]["found"])


# --- nouns ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("A dog barks at the mailman.", ["dog", "mailman"]),
        ("Two children are playing with a yellow ball in the grass.", ["child", "ball", "grass"]),
        ("This is a picture of the sea.", ["sea"]),
        ("I do not see anything here.", []),
        ("An old wooden chair and three cups", ["chair", "cup"]),
        ("The bus, a tree and some houses", ["bus", "tree", "house"]),
        ("", []),
    ],
)
def test_any_noun_is_found_by_rule(text, labels):
    assert [mention.label for mention in find_mentions(text, None)] == labels


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two dogs", (2, False)),
        ("12 small dogs", (12, False)),
        ("a dog", (None, False)),
        ("dogs", (None, False)),
        ("one of the dogs", (None, False)),
        ("no dogs", (None, True)),
        ("It isn't a dog.", (None, True)),
        ("There is not a single dog.", (None, True)),
        ("no boat but a dog", (None, False)),
        ("without the dog", (None, True)),
        ("no boat near a dog", (None, False)),
        ("three boats, a dog", (None, False)),
    ],
)
def test_numbers_and_denials_belong_to_their_noun(text, expected):
    (mention,) = [m for m in find_mentions(text, ["dog", "boat"]) if m.label == "dog"]
    assert (mention.count, mention.denied) == expected


def test_classes_of_several_words_and_synonyms():
    found = find_mentions("A man waits at two Traffic Lights", ["person", "traffic light"])
    assert [(m.label, m.count) for m in found if m.known] == [
        ("person", None),
        ("traffic light", 2),
    ]
    assert [singular(word) for word in ("boxes", "puppies", "bus", "men", "glasses", "dress")] == [
        *("box", "puppy", "bus", "man", "glass", "dress")
    ]
