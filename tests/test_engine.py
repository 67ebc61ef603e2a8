"""The engine computes answers together; each is what its request gets alone."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from engine_gates import Gate, wait_until
from engine_models import alone, answer, saying, tiny_engine, together, user
from test_model import KINDS

from ibllm_tools.decoding import Sampling
from ibllm_tools.engine import open_engine
from ibllm_tools.errors import ConfigurationError, QueueFullError

WORDS = ["dog", "sea", "car", "rain", "a bird", "two cats"]


@pytest.fixture(scope="module")
def engine():
    made = tiny_engine(slots=5, chunk=16)
    yield made
    made.close()


def request(index, max_tokens=24):
    """A request that differs from all others in prompt, media, sampling and length."""
    media = [saying(f"{WORDS[index % 6]} {index}")] if index % 4 else []
    if index % 5 == 1:
        media.append(saying("mixed", weight=0.5))
    sampling = Sampling(
        temperature=0.0 if index % 3 == 0 else 0.8,
        top_p=0.9 if index % 2 else 1.0,
        top_k=12 if index % 7 == 0 else 0,
        seed=index,
        max_tokens=max_tokens - index % 9,
        stop=("qq",) if index % 2 else (),
    )
    return user(f"Question {index}" + " and more" * (index % 8)), media, sampling


@pytest.mark.parametrize("kind", KINDS)
def test_answers_of_many_threads_are_what_each_gets_alone(kind):
    engine = tiny_engine(kind, slots=3, chunk=16)
    expected = [alone(engine, *request(i)) for i in range(8)]
    assert len(set(expected)) == 8
    found = together(8, lambda i: answer(engine, *request(i))[0])
    engine.close()
    assert found == expected


@pytest.mark.parametrize("form", [{"n_queries": 3}, {"injection_form": "words"}], ids=str)
def test_other_forms_of_injection(form):
    engine = tiny_engine(form=form, slots=3, chunk=16)
    expected = [alone(engine, *request(i)) for i in range(6)]
    found = together(6, lambda i: answer(engine, *request(i))[0])
    engine.close()
    assert found == expected


def test_thirty_two_threads_share_one_engine(engine):
    expected = [alone(engine, *request(i)) for i in range(32)]
    for _ in range(2):
        assert together(32, lambda i: answer(engine, *request(i))[0]) == expected


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_a_prompt_in_chunks_is_the_whole_prompt(chunk):
    engine = tiny_engine(slots=2, chunk=chunk)
    asked = user("A long question. " * 12), [saying("dog")], Sampling(max_tokens=12)
    assert answer(engine, *asked)[0] == alone(engine, *asked)
    engine.close()


def test_answers_join_and_leave_on_the_way(engine):
    long = user("tell"), [saying("sea")], Sampling(max_tokens=150)
    expected = alone(engine, *long)
    pieces = engine.stream(*long)
    shown = [next(pieces).text for _ in range(5)]
    for index in range(6):
        assert answer(engine, *request(index))[0] == alone(engine, *request(index))
        shown.append(next(pieces).text)
    assert "".join(shown) + "".join(piece.text for piece in pieces) == expected


def test_a_short_prompt_overtakes_a_long_one():
    engine = tiny_engine(slots=3, chunk=4)
    asked = [
        (user(text), [saying(text[:9])], Sampling(max_tokens=10))
        for text in ("long and longer " * 25, "short", "two")
    ]
    expected = [alone(engine, *one) for one in asked]
    first = []

    def work(index):
        text = answer(engine, *asked[index])[0]
        first.append(index)
        return text

    with Gate(engine, held_from=2) as gate, ThreadPoolExecutor(3) as pool:
        found = [pool.submit(work, 0)]
        wait_until(lambda: gate.steps == 2)  # the long prompt is being read
        found += [pool.submit(work, 1), pool.submit(work, 2)]
        wait_until(lambda: len(engine._scheduler._waiting) == 2)
        gate.open()
        assert [one.result() for one in found] == expected
    assert first[-1] == 0
    engine.close()


def test_a_short_answer_does_not_wait_for_a_long_one(engine):
    with Gate(engine, held_from=8) as gate, ThreadPoolExecutor(1) as pool:
        long = engine.stream(user("tell"), sampling=Sampling(max_tokens=400))
        next(long)
        wait_until(lambda: gate.steps == 8)  # held: what comes now has to wait
        short = pool.submit(answer, engine, user("short"), sampling=Sampling(max_tokens=2))
        wait_until(lambda: engine._scheduler._waiting)
        gate.open(held_from=40)
        assert short.result()[1].n_output_tokens == 2  # while the long one is held
        gate.open()
        assert sum(1 for _ in long) > 100


def test_one_piece_holds_everything_if_asked(engine):
    asked = request(5)
    (piece,) = engine.stream(*asked, whole=True)
    assert piece.text == alone(engine, *asked)
    assert piece.n_output_tokens == piece.finish.n_output_tokens > 0


def test_pieces_count_tokens_and_the_last_says_how_it_ended(engine):
    pieces = list(engine.stream(user("hi"), sampling=Sampling(max_tokens=9)))
    counts = [piece.n_output_tokens for piece in pieces]
    assert counts == sorted(counts)
    assert [piece.finish is None for piece in pieces[:-1]] == [True] * (len(pieces) - 1)
    finish = pieces[-1].finish
    assert (finish.reason, finish.n_output_tokens, counts[-1]) == ("length", 9, 9)
    assert finish.n_input_tokens == len(engine.prompt_ids(user("hi")))


def test_a_stop_text_ends_the_answer_before_it(engine):
    text, _ = answer(engine, user("hi"), sampling=Sampling(max_tokens=60))
    stop = text[20:23]
    found, finish = answer(engine, user("hi"), sampling=Sampling(max_tokens=60, stop=(stop,)))
    assert found == text[: text.index(stop)]
    assert finish.reason == "stop"
    assert finish.n_output_tokens < 60


def test_characters_of_several_tokens_come_whole(engine):
    sampling = Sampling(temperature=3.0, max_tokens=120, seed=1)
    pieces = [piece.text for piece in engine.stream(user("狗 海"), sampling=sampling)]
    assert "".join(pieces) == alone(engine, user("狗 海"), (), sampling)
    assert all(len(piece.encode()) >= len(piece) for piece in pieces)


def test_the_context_bounds_an_answer(engine):
    asked = user("x" * 480)
    room = engine.max_context - len(engine.prompt_ids(asked))
    text, finish = answer(engine, asked, sampling=Sampling(max_tokens=500))
    assert (finish.reason, finish.n_output_tokens) == ("length", room)
    assert text == alone(engine, asked, (), Sampling(max_tokens=500))
    with pytest.raises(ConfigurationError, match="context holds 512"):
        answer(engine, user("x" * 600))


def test_memory_grows_with_what_is_needed():
    engine = tiny_engine(slots=16)
    sizes = []
    make_batch = engine._scheduler._make_batch

    def watched():
        batch = make_batch()
        sizes.append(batch._cache)
        return batch

    engine._scheduler._make_batch = watched
    answer(engine, user("hi"), sampling=Sampling(max_tokens=4))
    assert (sizes[0].n_slots, sizes[0].length) == (1, 64)
    together(3, lambda i: answer(engine, user("x" * 60), sampling=Sampling(max_tokens=20)))
    assert sizes[0].n_slots in (2, 4)
    assert sizes[0].length == 128
    assert sizes[0].layers[0].keys.shape[0] == sizes[0].n_slots
    engine.close()


# time, room and leaving


def test_a_closed_iterator_leaves_its_slot_to_others():
    engine = tiny_engine(slots=1)
    for leave in (lambda stream: stream.close(), lambda stream: None):
        with Gate(engine, held_from=8) as gate:
            left = engine.stream(user("tell"), sampling=Sampling(max_tokens=480))
            next(left)
            leave(left)
            del left
            gate.open()
            text, _ = answer(engine, user("hi"), sampling=Sampling(max_tokens=5))
            assert gate.steps < 30
        assert text == alone(engine, user("hi"), (), Sampling(max_tokens=5))
    engine.close()


def test_more_than_the_queue_holds_is_refused():
    engine = tiny_engine(slots=1, queue=1)
    with Gate(engine, held_from=8):
        running = engine.stream(user("a"), sampling=Sampling(max_tokens=400))
        next(running)
        waiting = threading.Thread(target=answer, args=(engine, user("b")), daemon=True)
        waiting.start()
        wait_until(lambda: engine.n_open == 2)
        with pytest.raises(QueueFullError, match=r"2 answers under way.*at most 2"):
            next(engine.stream(user("c")))
        running.close()
    waiting.join(100)
    assert not waiting.is_alive()
    assert answer(engine, user("c"), sampling=Sampling(max_tokens=3))[1].n_output_tokens == 3
    engine.close()


def test_time_runs_out_while_writing_and_while_waiting():
    engine = tiny_engine(slots=1)
    sampling = Sampling(max_tokens=480, timeout_s=0.2)
    text, finish = answer(engine, user("tell"), sampling=sampling)
    if finish.reason == "timeout":
        assert 0 < len(text) < 480
    running = engine.stream(user("tell"), sampling=Sampling(max_tokens=480))
    next(running)
    text, finish = answer(engine, user("hi"), sampling=Sampling(timeout_s=0.05))
    assert (text, finish.reason, finish.n_output_tokens) == ("", "timeout", 0)
    running.close()
    engine.close()


@pytest.mark.parametrize("options", [{"slots": 0}, {"queue": -1}, {"chunk": 0}], ids=str)
def test_sizes_that_mean_nothing_are_refused(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        tiny_engine(**options)


def test_half_precision_runs():
    engine = tiny_engine(dtype=torch.bfloat16, slots=4)
    found = together(4, lambda i: answer(engine, *request(i))[1].n_output_tokens)
    engine.close()
    assert all(n > 0 for n in found)


def test_logprobs_are_the_models_own(engine):
    sampling = Sampling(max_tokens=6, logprobs=2, temperature=0.7, seed=0)
    pieces = list(engine.stream(user("hi"), sampling=sampling))
    found = [entry for piece in pieces for entry in piece.logprobs]
    assert "".join(entry.token for entry in found) == "".join(piece.text for piece in pieces)
    ids = engine.prompt_ids(user("hi"))
    tokens = engine.tokenizer.encode("".join(e.token for e in found), add_special_tokens=False)
    with torch.no_grad():
        logits = engine.model(torch.tensor([ids + tokens])).logits[0, len(ids) - 1 : -1]
    expected = logits.log_softmax(-1)
    for entry, row, token in zip(found, expected, tokens, strict=True):
        assert entry.logprob == pytest.approx(float(row[token]), abs=1e-3)
        assert [t.logprob for t in entry.top] == pytest.approx(
            row.topk(2).values.tolist(), abs=1e-3
        )
    assert all(not piece.logprobs for piece in engine.stream(user("hi")))


# pocket


def test_pocket_tells_many_threads_what_it_tells_each_alone():
    engine = open_engine("pocket", device="cpu", dtype="float32")

    def ask(index):
        media = [saying(WORDS[index % 6])] if index % 3 else []
        sampling = Sampling(temperature=index % 2, seed=index, max_tokens=12)
        return user(["What is this?", "Is it a dog?", "Hi!"][index % 3]), media, sampling

    expected = [answer(engine, *ask(i))[0] for i in range(16)]
    assert together(16, lambda i: answer(engine, *ask(i))[0]) == expected


def test_the_page_about_serving_runs(capsys):
    page = (Path(__file__).parent.parent / "docs" / "serving.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    exec(block, {})
    assert capsys.readouterr().out == "3\n"
