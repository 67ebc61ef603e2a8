"""`ibllm agent`, run as a person runs it."""

import io
import json
import sys

import pytest
from api_server import document, lamp_server
from expert_models import rt_detr
from PIL import Image

from ibllm_tools.agent_graphs import NAMES
from ibllm_tools.cli import main
from ibllm_tools.demo import MEDIA_FOLDER


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return rt_detr(tmp_path_factory.mktemp("detector"))


@pytest.fixture
def agent(monkeypatch, capsys, tmp_path):
    """Run `ibllm agent` in this process: its status, stdout and stderr."""
    monkeypatch.chdir(MEDIA_FOLDER)
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["ibllm", "agent", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_steps_are_shown_beside_the_answer(agent, detector, tmp_path):
    saved = tmp_path / "verdict.png"
    status, out, err = agent(
        *("detection", "dog.jpg", "What is in the photo?", "--detector", detector),
        *("--save", saved),
    )
    assert status == 0, err
    shown = [line.split()[0] for line in err.splitlines() if line.strip()]
    assert [step for step in shown if step in {"attach", "answer", "nouns", "detect"}] == [
        *("attach", "answer", "nouns", "detect")
    ]
    assert "Reliability" in out
    assert "attach" not in out
    assert Image.open(saved).format == "PNG"


def test_an_answer_is_told_though_there_is_no_picture_to_save(agent, tmp_path):
    status, out, err = agent("dialog", "Good morning!", "--save", tmp_path / "none.png")
    assert status == 1
    assert out.strip()
    assert "found no picture" in err


def test_json_is_for_programs(agent, detector):
    status, out, _ = agent(
        *("modality_experts", "dog.mp4", "What happens?", "--detector", detector),
        *("--recognizer", "none", "--json"),
    )
    told = json.loads(out)
    assert status == 0
    assert (told["agent"], told["question"], told["picture"]) == (
        *("modality_experts", "What happens?"),
        None,
    )
    assert told["answer"]
    assert told["steps"][0]["step"] == "attach"
    assert len(told["report"]["facts"]["video-1"]["seen"]) == 4
    assert told["attachments"]["video-1"] == "dog.mp4"


def test_a_conversation_is_kept(agent, detector, tmp_path):
    place = ("--thread", "t", "--threads", tmp_path / "t.sqlite", "--detector", detector)
    first, _, err = agent("detection", "dog.jpg", "What is this?", *place)
    status, out, err = agent("detection", "Is there a bus?", "--json", *place)
    assert (first, status) == (0, 0), err
    told = json.loads(out)
    assert [entry["id"] for entry in told["report"]["found"]] == ["image-1"]
    assert told["steps"][0]["text"] == "nothing new is attached"


@pytest.fixture
def lamps(socket_enabled, tmp_path):
    with lamp_server() as server:
        path = tmp_path / "lamps.json"
        path.write_text(json.dumps(document(server.url)))
        yield server, path


def test_an_api_is_controlled_within_a_persons_limits(agent, lamps):
    """Pocket may call or not; what is never done without leave is asserted."""
    server, path = lamps
    reach = ("--openapi", path, "--host", server.host)
    status, _, err = agent("api_control", "Get the price of the lamp l7.", *reach)
    assert status == 0, err
    assert "offer" in err
    assert {verb for verb, *_ in server.seen} <= {"GET"}
    # Nobody sits at this terminal, so what changes something is rejected; --yes approves it.
    for yes in ([], ["--yes"]):
        server.seen.clear()
        question = "Use order_lamp to order 2 lamps with lamp_id l7."
        status, out, err = agent("api_control", question, *reach, "--json", *yes)
        assert status == 0, err
        steps = json.loads(out)["steps"]
        approvals = [step["text"] for step in steps if step["step"] == "approval"]
        posted = [verb for verb, *_ in server.seen if verb == "POST"]
        assert all(text.startswith("approved" if yes else "rejected") for text in approvals)
        assert len(posted) == (len(approvals) if yes else 0)


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["painter", "dog.jpg", "What?"], 1, "expected one of api_control, detection"),
        (["detection", "dog.jpg"], 2, "expected a question after the files"),
        (["detection", "cat.jpg", "What?"], 1, "cat.jpg"),
        (["detection"], 2, "Missing argument"),
        (["detection", "dog.jpg", "What?", "--detector", "none"], 1, "detector=False"),
        (["detection", "dog.jpg", "What?", "--detector", "./no/such"], 1, "./no/such"),
        (["detection", "dog.jpg", "What?", "--host", "x.org"], 2, "are for api_control"),
        (["api_control", "What?"], 2, "needs --openapi"),
        (["detection", "What?", "--save", "x.png"], 1, "found no picture to write"),
    ],
)
def test_wrong_usage_is_told(agent, arguments, status, reason):
    found, out, err = agent(*arguments)
    assert found == status
    assert reason in " ".join((out + err).split())


def test_a_host_that_is_not_allowed_is_refused(agent, lamps):
    server, path = lamps
    status, _, err = agent("api_control", "What?", "--openapi", path, "--host", "example.com")
    assert status == 1
    assert server.host in err
    assert "--host" in err
    assert server.seen == []


def test_every_agent_is_named_in_the_help(agent):
    status, out, _ = agent("--help")
    assert status == 0
    assert all(name in " ".join(out.split()) for name in NAMES)
