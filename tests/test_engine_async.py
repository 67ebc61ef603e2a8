"""The engine in asyncio: many tasks at once, and tasks that are cancelled."""

import asyncio
import contextlib

import pytest
from engine_gates import Gate
from engine_models import alone, answer, saying, tiny_engine, user

from ibllm_tools.decoding import Sampling
from ibllm_tools.errors import ConfigurationError, QueueFullError


@pytest.fixture(scope="module")
def engine():
    made = tiny_engine(slots=4, chunk=32)
    yield made
    made.close()


async def gathered(engine, *args, **options):
    return "".join([piece.text async for piece in engine.astream(*args, **options)])


async def test_many_tasks_get_what_each_gets_alone(engine):
    asked = [
        (user(f"q{i}"), [saying(f"m{i}")], Sampling(temperature=i % 2, seed=i, max_tokens=20))
        for i in range(12)
    ]
    found = await asyncio.gather(*(gathered(engine, *one) for one in asked))
    assert found == [alone(engine, *one) for one in asked]
    assert await gathered(engine, *asked[3], whole=True) == found[3]


async def test_the_loop_is_free_while_an_answer_is_computed(engine):
    with Gate(engine, held_from=8) as gate:
        task = asyncio.create_task(gathered(engine, user("tell"), (), Sampling(max_tokens=300)))
        while gate.steps < 8:
            await asyncio.sleep(0.001)
        gate.open()  # only a loop that is free comes to this
        assert len(await task) > 250


async def test_a_cancelled_task_leaves_its_slot():
    engine = tiny_engine(slots=1)
    begun = asyncio.Event()

    async def endless():
        async for _ in engine.astream(user("tell"), (), Sampling(max_tokens=480)):
            begun.set()

    with Gate(engine, held_from=8) as gate:
        task = asyncio.create_task(endless())
        await begun.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        gate.open()
        await gathered(engine, user("x"), (), Sampling(max_tokens=2))
        assert gate.steps < 20
    assert engine._scheduler._n_open == 0
    engine.close()


async def test_a_task_that_is_cancelled_while_it_waits_is_never_computed():
    engine = tiny_engine(slots=1)
    running = engine.astream(user("tell"), (), Sampling(max_tokens=480))
    with Gate(engine, held_from=8):
        await anext(running)
        tasks = [asyncio.create_task(gathered(engine, user(f"w{i}"))) for i in range(5)]
        while engine.n_open < 6:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert engine._scheduler._n_open == 1
        await running.aclose()
    assert engine._scheduler._n_open == 0
    engine.close()


async def test_errors_arrive_in_the_task():
    engine = tiny_engine(slots=1, queue=0)
    with pytest.raises(ConfigurationError, match="context"):
        await gathered(engine, user("x" * 600))
    running = engine.astream(user("tell"), (), Sampling(max_tokens=480))
    with Gate(engine, held_from=8):
        await anext(running)
        with pytest.raises(QueueFullError):
            await gathered(engine, user("x"))
        await running.aclose()
    engine.close()


def test_one_engine_serves_loops_one_after_another_and_threads(engine):
    asked = user("x"), [saying("dog")], Sampling(max_tokens=10)
    expected = alone(engine, *asked)
    for _ in range(2):
        assert asyncio.run(gathered(engine, *asked)) == expected
    assert answer(engine, *asked)[0] == expected


def test_a_loop_that_ends_in_the_middle_of_an_answer_harms_nobody(engine):
    async def first_piece():
        running = engine.astream(user("tell"), (), Sampling(max_tokens=480))
        return await anext(running)

    for _ in range(3):
        assert asyncio.run(first_piece()).text
    asked = user("x"), [], Sampling(max_tokens=10)
    assert answer(engine, *asked)[0] == alone(engine, *asked)
