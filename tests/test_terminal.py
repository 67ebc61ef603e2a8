"""`ibllm chat` through pipes and a keyboard of prompt_toolkit: commands, threads, agents."""

import asyncio
import base64
import io
import json
import sqlite3
import stat

import pytest
from chat_samples import picture, sound
from rich.console import Console
from tiny_model import save_tiny_model

pytest.importorskip("prompt_toolkit", reason="needs the extra [chat]")
pytest.importorskip("langgraph.checkpoint.sqlite", reason="needs the extra [chat]")

from langchain_core.messages import HumanMessage
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from ibllm_tools import ConfigurationError
from ibllm_tools.attachments.files import AttachmentFiles
from ibllm_tools.attachments.threads import open_threads
from ibllm_tools.cli.files import read_media
from ibllm_tools.demo import MEDIA_FOLDER
from ibllm_tools.terminal import ChatSettings, chat_in_terminal
from ibllm_tools.terminal.brains import Brains
from ibllm_tools.terminal.commands import Command, read_line
from ibllm_tools.terminal.reading import PipedLines, TypedLines, _completer
from ibllm_tools.terminal.screen import Screen, legible
from ibllm_tools.terminal.talking import history, talk


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "noise.png").write_bytes(base64.b64decode(picture()["base64"]))
    (tmp_path / "tone.wav").write_bytes(base64.b64decode(sound()["base64"]))
    return tmp_path


def read_files(files):
    return read_media(files, [])


class Chat:
    """Runs the chat on lines; what it says comes as answers and as notices."""

    def __init__(self, folder, model):
        self.folder = folder / "data"
        self.options = {"folder": self.folder, "threads": str(self.folder / "threads.sqlite"),
                        "model": model, "max_tokens": 6}  # fmt: skip

    def say(self, *lines, **options):
        text = "".join(f"{line}\n" for line in lines)
        return self.run(PipedLines(io.StringIO(text)), **options)

    def run(self, lines, **options):
        answers, notices = io.StringIO(), io.StringIO()
        screen = Screen(Console(file=answers, width=200), Console(file=notices, width=200))
        settings = ChatSettings(**{**self.options, **options})
        self.went_well = chat_in_terminal(settings, read_files, screen=screen, lines=lines)
        return answers.getvalue(), notices.getvalue()

    def messages(self, thread="main"):
        async def read():
            files = AttachmentFiles(self.folder / "attachments")
            async with open_threads(self.options["threads"], files) as saver:
                settings = ChatSettings(**self.options)
                graph = Brains(settings, saver).plain()
                return await history(graph, {"configurable": {"thread_id": thread}})

        return asyncio.run(read())


@pytest.fixture
def chat(folder, model):
    return Chat(folder, model)


def test_a_talk_goes_on_where_it_ended(chat, folder):
    first, _ = chat.say("What is this?", files=(str(folder / "noise.png"),))
    second, told = chat.say("And now?")
    assert len(first.splitlines()) == len(second.splitlines()) == 1
    assert "thread main goes on (2 messages" in told
    assert "› What is this?" in told
    assert first.strip() in told
    messages, held = chat.messages()
    assert [m.type for m in messages] == ["human", "ai", "human", "ai"]
    assert [record["name"] for record in held.values()] == ["noise.png"]
    assert chat.went_well


def test_threads_hold_no_bytes_and_are_for_this_user_alone(chat, folder):
    big = picture(seed=1)
    pixels = base64.b64decode(big["base64"])
    (folder / "big.png").write_bytes(pixels)
    chat.say("What is this?", files=(str(folder / "big.png"),))
    database = chat.folder / "threads.sqlite"
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    stored = b"".join(path.read_bytes() for path in chat.folder.glob("threads.sqlite*"))
    assert pixels[100:200] not in stored
    assert big["base64"][100:300].encode() not in stored
    kept = [path for path in (chat.folder / "attachments").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in kept] == [pixels]


def test_weights_change_what_is_perceived_before_and_after_sending(chat, folder):
    files = (f"{folder}/noise.png@0.5", f"{folder}/tone.wav")
    one, told = chat.say("What?", "/weight tone.wav 0.01", "What?", "/attach", files=files)
    assert "tone.wav  audio  weight 0.01  sent as audio-1" in told
    assert "noise.png  image  weight 0.5  sent as image-1" in told
    before, after = one.splitlines()
    assert before != after
    _, held = chat.messages()
    assert held["audio-1"]["weight"] == 0.01
    two, _ = chat.say("/weight 2 0.01", "What?", thread="other", files=files)
    three, _ = chat.say("/weight 2 5", "What?", thread="third", files=files)
    assert two != three


def test_what_is_detached_is_not_perceived(chat, folder):
    files = (f"{folder}/noise.png", f"{folder}/tone.wav")
    alone, _ = chat.say("What?", thread="alone", files=files[:1])
    fewer, told = chat.say("/detach tone.wav", "What?", thread="fewer", files=files)
    both, told = chat.say("What?", "/detach audio-1", "/attach", thread="both", files=files)
    assert alone == fewer != both
    assert told.count("tone.wav") == 2  # as it was attached and detached, and no more
    messages, _ = chat.messages("both")
    assert messages[0].additional_kwargs["attachments"] == ["image-1"]


def test_the_model_is_not_told_what_a_file_is_called(chat, folder):
    (folder / "dog.png").write_bytes((folder / "noise.png").read_bytes())
    named, _ = chat.say("What?", thread="a", files=(str(folder / "dog.png"),))
    other, _ = chat.say("What?", thread="b", files=(str(folder / "noise.png"),))
    assert named == other


def test_the_cache_is_set_by_words(chat, folder):
    files = (f"{folder}/tone.wav",)
    lines = (
        "/cache",
        "What?",
        "/cache on",
        "What?",
        "/cache k 2 alpha 1",
        "/cache t x",
        "/cache k 0",
    )
    _, told = chat.say(*lines, files=files)
    assert "cache as the model has it" in told
    assert "cache on" in told
    assert "cache k 2 t 20 alpha 1" in told
    assert "found 'x'; expected a number" in told
    assert "cache k: found 0, expected at least 1" in told
    assert not chat.went_well  # in a pipe, a command that failed is a failure


def test_a_cache_that_is_on_changes_the_answer(chat, folder):
    files = (f"{folder}/tone.wav",)
    off, _ = chat.say("/cache off", "What?", thread="off", files=files)
    on, _ = chat.say("/cache k 3 t 1 alpha 1", "What?", thread="on", files=files)
    assert off != on


def test_the_media_agent_goes_on_with_the_same_thread(folder):
    chat = Chat(folder, "pocket")  # it can call tools
    chat.options["max_tokens"] = 64
    chat.say("What is this?", files=(f"{folder}/noise.png",))
    answers, told = chat.say("/agent", "What is it?", "/agent off", "And?", "/agent nobody")
    assert "media answers" in told
    assert "found no agent 'nobody'; expected one of media," in told
    messages, held = chat.messages()
    assert [m.text for m in messages if m.type == "human"][1:] == ["What is it?", "And?"]
    assert list(held) == ["image-1"]
    assert len(answers.splitlines()) == 2


def test_threads_are_listed_left_and_deleted(chat, folder):
    chat.say("What?", files=(f"{folder}/noise.png",))
    _, told = chat.say("/new trip", "Hello?", "/threads", "/thread main", "/new trip", "/new ../x")
    assert "* trip" in told
    assert "  main" in told
    assert "thread main goes on (2 messages" in told
    assert "/thread trip goes on with it" in told
    assert "found the thread name '../x'" in told
    _, told = chat.say("/forget trip", "/forget trip", "/threads", "/new")
    assert "trip is deleted" in told
    assert "found no thread 'trip'" in told
    assert "thread talk-1" in told
    with sqlite3.connect(chat.options["threads"]) as database:
        assert {row[0] for row in database.execute("select thread_id from checkpoints")} == {"main"}


def test_a_talk_and_its_media_are_saved(chat, folder):
    out, copy = folder / "talk.json", folder / "copy.png"
    chat.say("What?", f"/save {out}", f"/save {folder}/talk.md", f"/save image-1 {copy}",
             files=(f"{folder}/noise.png@0.5",))  # fmt: skip
    saved = json.loads(out.read_text(encoding="utf-8"))
    assert [message["role"] for message in saved["messages"]] == ["human", "ai"]
    assert saved["messages"][0]["attachments"] == ["image-1"]
    assert "- image-1: noise.png (image, weight 0.5)" in (folder / "talk.md").read_text()
    assert copy.read_bytes() == (folder / "noise.png").read_bytes()
    _, told = chat.say(f"/save {out}", f"/save -f {out}", f"/save {folder}/talk.doc", "/save",
                       f"/save {folder}/nowhere/talk.md", f"/save audio-1 {copy}",
                       "/save -f image-1 /dev/null")  # fmt: skip
    assert "writes over it" in " ".join(told.split())  # lines end where the screen does
    assert f"saved {out}" in told
    assert "expected .md or .json" in told
    assert "/save: expected [-f] [ID] FILE" in told
    assert "cannot be written" in told
    assert "no attachment 'audio-1'" in told
    assert "/dev/null: found a folder or device" in told


def test_what_cannot_be_used_is_told_and_the_talk_goes_on(chat, folder):
    (folder / "cut.png").write_bytes((folder / "noise.png").read_bytes()[:200])
    answers, told = chat.say(
        f"/attach {folder}/cut.png", "/attach nothing.png", "/attach -", "/nonsense",
        "/attach 'open", "/threads all", "/weight 2", "/detach", "", "Hello?", "//usr is a folder",
    )  # fmt: skip
    for problem in (
        "cut.png: found",
        "nothing.png: found no readable file",
        "standard input is the talk itself",
        "found no command /nonsense",
        "found a quote without its end",
        "/threads: found 'all'; expected nothing",
        "found no attachment; /attach FILE adds one",
    ):
        assert problem in told
    assert len(answers.splitlines()) == 2
    messages, held = chat.messages()
    assert [m.text for m in messages if m.type == "human"] == ["Hello?", "/usr is a folder"]
    assert not held


def test_a_medium_that_the_model_cannot_sense_is_refused(chat, folder, tmp_path):
    answers, told = chat.say(f"/attach {MEDIA_FOLDER}/car.ply:imu", model=chat.options["model"])
    assert "car.ply" in told
    assert not answers


def test_long_talks_fit_the_context(chat):
    long = "a long story " * 12  # about 160 tokens: one token is a byte
    answers, told = chat.say(*[f"{n} {long}" for n in range(6)])
    assert len(answers.splitlines()) == 6
    assert chat.went_well, told


def test_a_turn_that_was_cut_off_is_closed_when_the_talk_goes_on(chat):
    chat.say("Hello?")

    async def cut_off():
        async with open_threads(chat.options["threads"]) as saver:
            graph = Brains(ChatSettings(**chat.options), saver).plain()
            config = {"configurable": {"thread_id": "main"}}
            async for _ in talk(graph, HumanMessage("Lost?"), config):
                break  # the question is saved, and nobody answers

    asyncio.run(cut_off())
    _, told = chat.say("Still there?")
    assert "(no answer: the program ended)" in told
    messages, _ = chat.messages()
    assert [m.type for m in messages] == ["human", "ai"] * 3
    assert messages[3].additional_kwargs["stopped"]


def test_a_talk_that_cannot_be_kept_does_not_begin(chat, folder):
    (folder / "file").write_text("no folder")
    with pytest.raises(ConfigurationError, match="XDG_DATA_HOME"):
        chat.say("Hello?", folder=folder / "file" / "data")


def test_for_a_person_lines_end_between_words():
    shown = io.StringIO()
    narrow = Console(file=shown, width=30, force_terminal=True, color_system=None)
    Screen(narrow).fail("nofile.png: found no readable file; check its permissions")
    lines = [line.rstrip() for line in shown.getvalue().splitlines()]
    assert lines == ["nofile.png: found no readable", "file; check its permissions"]


def test_control_characters_of_a_model_do_not_reach_the_terminal():
    assert legible("a\x1b[2Jb\x07\u202ec\n\td") == "a[2Jbc\n\td"


def test_typed_lines_have_keys_and_completion(chat, folder):
    path = folder / "noise.png"
    with create_pipe_input() as keyboard:
        lines = TypedLines(folder / "typed", lambda: "", keyboard=keyboard, display=DummyOutput())
        keyboard.send_text("one\x1b\rtwo\r")  # Alt-Enter makes a second line
        keyboard.send_text(f"/attach {path}\r")
        keyboard.send_text("give up\x03")  # Ctrl-C
        keyboard.send_text(f"{path}\r")  # a file that is dropped on the terminal
        keyboard.send_text("\x04")  # Ctrl-D
        _, told = chat.run(lines)
    messages, _ = chat.messages()
    assert [m.text for m in messages if m.type == "human"] == ["one\ntwo"]
    assert told.count("noise.png  image  weight 1  waits") == 2
    assert "the thread stays" in told
    assert "+one" in (folder / "typed").read_text()
    assert stat.S_IMODE((folder / "typed").stat().st_mode) == 0o600


def test_commands_files_and_agents_are_completed(folder):
    def completed(text):
        found = _completer().get_completions(Document(text), CompleteEvent())
        return [text[: len(text) + c.start_position] + c.text for c in found]

    assert completed("/th") == ["/threads ", "/thread "]
    assert completed(f"/attach {folder}/no") == [f"/attach {folder}/noise.png"]
    assert completed("/agent me") == ["/agent media"]
    assert completed("What") == []


def test_what_a_line_means(folder):
    path = str(folder / "noise.png")
    assert read_line(f"'{path}'", drops=True) == Command("attach", (path,))
    assert read_line(path, drops=True) == Command("attach", (path,))
    assert read_line(f"file://{path}", drops=True) == Command("attach", (path,))
    with pytest.raises(ConfigurationError, match="found no command"):
        read_line(path)  # in a pipe, nothing opens a file but /attach
    assert read_line("/attach 'a b.png'@0.5") == Command("attach", ("a b.png@0.5",))
    assert read_line("  ") is None


def test_problems_of_the_start_are_wrong_usage_or_failure(chat):
    with pytest.raises(ConfigurationError, match="found no agent"):
        chat.say("Hello?", agent="nobody")
    with pytest.raises(ConfigurationError, match="thread name"):
        chat.say("Hello?", thread="a/b")


def test_the_steps_of_an_agent_and_what_it_makes_are_told(folder):
    chat = Chat(folder, "pocket")
    video = str(MEDIA_FOLDER / "dog.mp4")
    out = folder / "timeline.png"
    answers, told = chat.say(
        "What is in the video?", f"/save image-1 {out}", agent="modality_experts", files=(video,)
    )
    assert len(answers.strip().splitlines()) == 1
    assert "→ attach: [video-1: dog.mp4]" in told
    assert "→ sense: " in told
    assert "made image-1 (" in told
    assert out.read_bytes().startswith(b"\x89PNG")
