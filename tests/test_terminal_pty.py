"""`ibllm chat` in a real terminal: what a person sees, Ctrl-C, and kill -9 between turns."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import pytest
from tiny_model import save_tiny_model

pyte = pytest.importorskip("pyte", reason="needs pyte, a terminal in memory")
pytest.importorskip("prompt_toolkit", reason="needs the extra [chat]")

ROWS, COLUMNS = 40, 110
WAIT_S = 280  # on a busy machine; usually a few seconds
WORDS = 15_000  # far more than there are when Ctrl-C comes


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, arguments, variables):
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self.pid, self._handle = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, *arguments], variables)
        size = struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
        fcntl.ioctl(self._handle, termios.TIOCSWINSZ, size)

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def type(self, keys):
        os.write(self._handle, keys.encode())

    def wait(self, shows):
        """Read until `shows(text)`."""
        deadline = time.monotonic() + WAIT_S
        while not shows(self.text):
            assert time.monotonic() < deadline, self.text
            ready, _, _ = select.select([self._handle], [], [], 0.2)
            if ready:
                try:
                    data = os.read(self._handle, 65536)
                except OSError:
                    data = b""
                assert data, self.text
                self._stream.feed(data)
                if b"\x1b[6n" in data:  # prompt_toolkit asks where the cursor is
                    place = self.screen.cursor
                    self.type(f"\x1b[{place.y + 1};{place.x + 1}R")
        return self.text

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._handle)


@pytest.fixture
def start(tmp_path, tmp_path_factory):
    model = save_tiny_model(tmp_path_factory.mktemp("tiny"), n_context=2 * WORDS)
    root = str(Path(__file__).parent.parent)
    variables = {**os.environ, "PYTHONPATH": root, "XDG_DATA_HOME": str(tmp_path),
                 "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}  # fmt: skip
    running = []

    def start(*options):
        arguments = ["-m", "ibllm_tools.cli", "chat", "--model", str(model), *options]
        running.append(Terminal(arguments, variables))
        return running[-1]

    yield start
    for terminal in running:
        try:
            terminal.kill()
        except (ProcessLookupError, ChildProcessError, OSError):
            continue


def prompts(text):
    """How often the prompt stands on the screen."""
    return sum(line.startswith("›") for line in text.splitlines())


@pytest.mark.timeout(1200)
def test_a_killed_terminal_loses_nothing_and_ctrl_c_stops_the_answer_alone(start):
    first = start("--max-tokens", str(WORDS))
    assert "thread main" in first.wait(lambda text: prompts(text) == 1)
    first.type("Tell me a story\r")
    text = first.wait(lambda text: any(len(line) > 20 for line in answer_lines(text)))
    said = next(line for line in answer_lines(text) if len(line) > 20).strip()[:20]
    first.type("\x03")
    first.wait(lambda text: prompts(text.partition("(stopped)")[2]) == 1)
    first.kill()  # between two turns

    second = start("--max-tokens", "4")
    text = second.wait(lambda text: prompts(text) >= 2 and "thread main goes on" in text)
    assert "goes on (2 messages" in text
    assert "› Tell me a story" in text
    assert said in text
    second.type("And then\r")
    second.wait(lambda text: prompts(text) >= 3)
    second.type("/quit\r")
    _, status = os.waitpid(second.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def answer_lines(text):
    """Lines of letters below the question: what a tiny model says."""
    said = text.rpartition("Tell me a story")[2]
    return [line for line in said.splitlines() if line and set(line) <= set(LETTERS)]


LETTERS = "abcdefghijklmnopqrstuvwxyz "
