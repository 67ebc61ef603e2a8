"""`ibllm chat` whose threads lie in PostgreSQL, as `compose.yaml` runs it."""

import io
from urllib.parse import quote

import pytest
from rich.console import Console
from test_media_agent_postgres import server  # noqa: F401 - a fixture
from tiny_model import save_tiny_model

pytest.importorskip("prompt_toolkit", reason="needs the extra [chat]")

from ibllm_tools.cli.files import read_media
from ibllm_tools.demo import MEDIA_FOLDER
from ibllm_tools.terminal import ChatSettings, chat_in_terminal
from ibllm_tools.terminal.reading import PipedLines
from ibllm_tools.terminal.screen import Screen


def test_a_talk_goes_on_from_a_database(server, tmp_path, monkeypatch):  # noqa: F811
    place = dict(part.split("=") for part in server.split())
    host = quote(place["host"], safe="")
    address = f"postgresql://{place['user']}@/{place['dbname']}?host={host}"
    monkeypatch.setenv("IBLLM_THREADS", address)
    model = str(save_tiny_model(tmp_path / "tiny"))

    def say(*lines, files=()):
        answers, notices = io.StringIO(), io.StringIO()
        screen = Screen(Console(file=answers, width=200), Console(file=notices, width=200))
        settings = ChatSettings(model=model, folder=tmp_path / "data", files=files, max_tokens=6)
        text = "".join(f"{line}\n" for line in lines)
        went_well = chat_in_terminal(
            settings,
            lambda given: read_media(given, []),
            screen=screen,
            lines=PipedLines(io.StringIO(text)),
        )
        assert went_well, notices.getvalue()
        return answers.getvalue(), notices.getvalue()

    first, _ = say("What is this?", files=(str(MEDIA_FOLDER / "dog.jpg"),))
    _, told = say("And now?", "/attach", "/threads", "/new other", "/forget main", "/threads")
    assert "thread main goes on (2 messages" in told
    assert first.strip() in told
    assert "dog.jpg  image  weight 1  sent as image-1" in told
    assert "* main" in told
    assert "main is deleted" in told
    assert not (tmp_path / "data" / "threads.sqlite").exists()
