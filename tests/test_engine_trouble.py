"""What goes wrong for one answer goes wrong for that one alone; nobody waits for ever."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_models import alone, answer, saying, tiny_engine, together, user

from ibllm_tools.decoding import Sampling
from ibllm_tools.errors import EngineClosedError, ModelError

ROOT = Path(__file__).parent.parent
SIZE = 260


class Allowing:
    """A constraint that lets some tokens through, in turn; also the state of an answer."""

    marks = frozenset()
    finished = forced = False

    def __init__(self, *tokens, fault=None, ends=False, forced=False):
        self.tokens, self.fault, self.ends, self.closes = tokens, fault, ends, forced
        self.taken = []

    def begin(self, max_tokens):
        if self.fault == "begin":
            raise ValueError("begin fails")
        return Allowing(*self.tokens, fault=self.fault, ends=self.ends, forced=self.closes)

    def allowed(self):
        if self.fault == "allowed" and len(self.taken) == 3:
            raise ValueError("allowed fails")
        if self.fault == "nothing":
            return np.zeros(SIZE // 32 + 1, np.int32)
        bits = np.zeros((SIZE // 32 + 1) * 32, np.uint8)
        bits[self.tokens[len(self.taken) % len(self.tokens)]] = 1
        return np.packbits(bits, bitorder="little").view(np.int32)

    def take(self, token):
        if self.fault == "take" and len(self.taken) == 3:
            raise ValueError("take fails")
        self.taken.append(token)
        self.finished = self.ends and len(self.taken) == len(self.tokens)
        self.forced = self.finished and self.closes
        return token


@pytest.fixture(scope="module")
def engine():
    made = tiny_engine(slots=8, chunk=64)
    yield made
    made.close()


def tokens_of(engine, text):
    return engine.tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("fault", ["begin", "allowed", "take", "nothing"])
def test_a_constraint_that_fails_ends_its_own_answer_alone(engine, fault):
    asked = [(user(f"q{i}"), [saying(f"m{i}")], Sampling(max_tokens=30)) for i in range(6)]
    expected = [alone(engine, *one) for one in asked]

    def work(index):
        if index < 6:
            return answer(engine, *asked[index])[0]
        faulty = Allowing(9, fault=fault)
        with pytest.raises((ValueError, ModelError), match=f"{fault} fails|no finite numbers"):
            answer(engine, user("bad"), constraint=faulty)
        return None

    assert together(8, work)[:6] == expected
    assert answer(engine, *asked[0])[0] == expected[0]


def test_media_that_are_no_numbers_spoil_no_other_answer(engine, monkeypatch):
    read = engine._injection

    def broken(rows, cache):
        injection = read(rows, cache)
        is_bad = any(item.text == "bad" for row in rows for item in row)
        return injection * torch.nan if is_bad else injection

    monkeypatch.setattr(engine, "_injection", broken)
    asked = [(user(f"q{i}"), [saying(f"m{i}")], Sampling(max_tokens=40)) for i in range(7)]
    expected = [alone(engine, *one) for one in asked]

    def work(index):
        if index < 7:
            return answer(engine, *asked[index])[0]
        with pytest.raises(ModelError, match="no finite numbers"):
            answer(engine, user("bad"), [saying("bad")])
        return None

    for _ in range(3):  # the slot of the bad one is used again
        assert together(8, work)[:7] == expected


def test_a_failed_call_is_repeated_for_each_answer_alone(engine, monkeypatch):
    forward = engine.model.forward
    (bad,) = tokens_of(engine, "Z")  # never chosen freely

    def failing(*args, **options):
        if (options["input_ids"] == bad).any():
            raise RuntimeError("Z cannot be computed")
        return forward(*args, **options)

    asked = [(user(f"q{i}"), [], Sampling(max_tokens=20)) for i in range(5)]
    expected = [alone(engine, *one) for one in asked]
    monkeypatch.setattr(engine.model, "forward", failing)
    in_prompt = (user("xZx"),), {}
    in_answer = (user("x"),), {"constraint": Allowing(9, 9, bad)}

    def work(index):
        if index < 5:
            return answer(engine, *asked[index])[0]
        args, options = (in_prompt, in_answer)[index - 5]
        with pytest.raises(RuntimeError, match="Z cannot"):
            answer(engine, *args, **options)
        return None

    assert together(7, work)[:5] == expected


def test_a_constraint_says_what_is_written_and_when_it_ends(engine):
    tokens = tokens_of(engine, "abc")
    text, finish = answer(engine, user("x"), constraint=Allowing(*tokens, ends=True))
    assert (text, finish.reason, finish.n_output_tokens) == ("abc", "stop", 3)
    text, finish = answer(engine, user("x"), constraint=Allowing(*tokens, ends=True, forced=True))
    assert (text, finish.reason) == ("abc", "length")
    (end,) = engine.end_ids
    text, finish = answer(engine, user("x"), constraint=Allowing(*tokens, end))
    assert (text, finish.reason, finish.n_output_tokens) == ("abc", "stop", 3)


def test_special_tokens_that_a_constraint_calls_marks_are_shown(engine):
    mark = engine.tokenizer.convert_tokens_to_ids("<|user|>")
    constraint = Allowing(mark, *tokens_of(engine, "a"), ends=True)
    assert answer(engine, user("x"), constraint=constraint)[0] == "a"

    class Marked(Allowing):
        marks = frozenset([mark])

    constraint = Marked(mark, *tokens_of(engine, "a"), ends=True)
    assert answer(engine, user("x"), constraint=constraint)[0] == "<|user|>a"


# closing, the process's end, forks


def test_closing_ends_answers_with_an_error_and_use_starts_it_again():
    engine = tiny_engine(slots=1)
    running = engine.stream(user("tell"), sampling=Sampling(max_tokens=480))
    next(running)
    failed = []

    def wait():
        try:
            answer(engine, user("waits"))
        except EngineClosedError as error:
            failed.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    while engine._scheduler._n_open < 2:
        time.sleep(0.01)
    engine.close()
    with pytest.raises(EngineClosedError, match="ask again"):
        list(running)
    waiting.join(100)
    assert failed
    assert answer(engine, user("x"), sampling=Sampling(max_tokens=3))[1].n_output_tokens == 3
    engine.close()
    engine.close()


def run(code, *, timeout=100):
    """Run code in a fresh process, with this folder's helpers."""
    code = textwrap.dedent(code)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_process_ends_at_once_with_answers_under_way():
    out, err = run("""
        import threading
        from engine_models import answer, tiny_engine, user
        from ibllm_tools.decoding import Sampling
        engine = tiny_engine()
        def work():
            try:
                answer(engine, user("tell"), sampling=Sampling(max_tokens=480))
            except Exception:
                pass
        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        next(engine.stream(user("x")))
        print("end")
    """)
    assert out == "end\n"
    assert not err.strip() or "Error" not in err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_goes_on_with_the_same_engine(engine):
    asked = user("tell"), [], Sampling(max_tokens=100)
    expected = alone(engine, *asked)
    running = engine.stream(*asked)
    shown = [next(running).text for _ in range(3)]
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        code = 1
        try:
            code = 0 if answer(engine, *asked)[0] == expected else 2
        finally:
            os._exit(code)
    shown += [piece.text for piece in running]
    assert "".join(shown) == expected
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_thread_ends_when_there_is_nothing_to_do(monkeypatch):
    from ibllm_tools.engine import scheduler

    monkeypatch.setattr(scheduler, "IDLE_S", 0.05)
    engine = tiny_engine()
    asked = user("x"), [], Sampling(max_tokens=3)
    first = answer(engine, *asked)
    deadline = time.monotonic() + 60
    while engine._scheduler._thread is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert engine._scheduler._thread is None
    assert answer(engine, *asked) == first
    engine.close()
