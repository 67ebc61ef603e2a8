"""Many calls of the chat model at once: async, cancelled, in batches, several answers, seeds."""

import asyncio
import threading

import pytest
from chat_samples import ask, cloud, picture, sound
from engine_gates import Gate
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from tiny_model import CONTEXT, save_tiny_model

from ibllm_tools import ChatImageBindLLM, ConfigurationError, MediaError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def chat(folder):
    return ChatImageBindLLM(model=folder, max_tokens=12)


def prompts():
    media = [picture(0), sound(0), cloud(0), picture(1), sound(1), cloud(1)]
    return [ask(f"question {i}", medium) for i, medium in enumerate(media)]


class Rows:
    """How many rows each forward call of the model has."""

    def __init__(self, chat):
        self.sizes = []
        model = chat._engine(chat.model).model
        self._hook = model.llm.register_forward_hook(self._count, with_kwargs=True)

    def _count(self, module, args, kwargs, output):
        self.sizes.append(output.logits.shape[0])

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._hook.remove()


# --- async ----------------------------------------------------------------------------------


async def test_async_answers_are_those_of_threads(chat):
    asked = prompts()
    answers = await asyncio.gather(*[chat.ainvoke(prompt) for prompt in asked])
    assert [a.text for a in answers] == [chat.invoke(prompt).text for prompt in asked]
    streamed = [chunk async for chunk in chat.astream(asked[0])]
    whole = streamed[0]
    for chunk in streamed[1:]:
        whole += chunk
    assert whole.text == answers[0].text
    assert whole.usage_metadata == answers[0].usage_metadata


async def test_a_loop_goes_on_while_tokens_come(folder):
    chat = ChatImageBindLLM(model=folder, max_tokens=100)

    async def answer():
        return [chunk async for chunk in chat.astream("hi")]

    with Gate(chat._engine(chat.model), held_from=8) as gate:
        task = asyncio.create_task(answer())
        while gate.steps < 8:
            await asyncio.sleep(0.001)
        gate.open()  # only a loop that is free comes to this
        assert len(await task) > 50


async def test_no_thread_waits_for_an_async_answer(folder):
    chat = ChatImageBindLLM(model=folder, max_tokens=20)
    engine = chat._engine(chat.model)
    before = threading.active_count()
    with Gate(engine, held_from=8) as gate:
        tasks = [asyncio.create_task(chat.ainvoke(f"hi {i}")) for i in range(40)]
        while gate.steps < 8 or engine.n_open < 40:
            await asyncio.sleep(0.01)
        assert threading.active_count() <= before + 8  # those that read the requests
        gate.open()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("way", ["ainvoke", "astream", "abatch"])
async def test_a_cancelled_task_ends_the_work(folder, way):
    chat = ChatImageBindLLM(model=folder, max_tokens=CONTEXT - 100)
    await chat.ainvoke("hi", max_tokens=2)

    async def answer():
        if way == "astream":
            return [chunk async for chunk in chat.astream("hi")]
        return await (chat.ainvoke("hi") if way == "ainvoke" else chat.abatch(["hi", "ho"]))

    with Gate(chat._engine(chat.model), held_from=8) as gate:
        task = asyncio.create_task(answer())
        while gate.steps < 8:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()
        assert (await chat.ainvoke("hi", max_tokens=3)).text
        assert gate.steps < 30


async def test_a_stream_that_is_left_ends_the_work(folder):
    chat = ChatImageBindLLM(model=folder, max_tokens=CONTEXT - 100)
    await chat.ainvoke("hi", max_tokens=2)
    with Gate(chat._engine(chat.model), held_from=8) as gate:
        stream = chat.astream("hi")
        for _ in range(3):
            await anext(stream)
        await stream.aclose()
        gate.open()
        await chat.ainvoke("hi", max_tokens=2)
        assert gate.steps < 20


async def test_an_error_of_one_async_call_is_its_own(chat):
    bad = ask("hm", {"type": "image", "base64": "%%%", "mime_type": "image/png"})
    results = await asyncio.gather(
        chat.ainvoke("hi"), chat.ainvoke(bad), chat.ainvoke("ho"), return_exceptions=True
    )
    assert isinstance(results[1], MediaError)
    assert [r.text for r in results[::2]] == [chat.invoke(t).text for t in ("hi", "ho")]


# --- batches --------------------------------------------------------------------------------


def test_a_batch_is_answered_together(chat):
    asked = [f"question {i}" for i in range(12)]
    alone = [chat.invoke(prompt).text for prompt in asked]
    with Rows(chat) as rows:
        answers = chat.batch(asked)
    assert [answer.text for answer in answers] == alone
    assert max(rows.sizes) >= 6
    assert len(rows.sizes) < 12 * 12 * 0.7


async def test_an_async_batch_is_answered_together(chat):
    asked = [f"question {i}" for i in range(12)]
    with Rows(chat) as rows:
        answers = await chat.abatch(asked)
    assert [a.text for a in answers] == [chat.invoke(prompt).text for prompt in asked]
    assert max(rows.sizes) >= 6


@pytest.mark.parametrize("limit", [1, 2])
async def test_max_concurrency_is_kept(chat, limit):
    asked = [f"question {i}" for i in range(6)]
    config = {"max_concurrency": limit}
    with Rows(chat) as rows:
        await chat.abatch(asked, config)
        chat.batch(asked, config)
        chat.batch(asked, [config] * 6)
    assert max(rows.sizes) <= limit


def test_a_batch_of_a_whole_chain_is_answered_together(chat):
    chain = ChatPromptTemplate.from_messages([("user", "about {x}")]) | chat | StrOutputParser()
    with Rows(chat) as rows:
        answers = chain.batch([{"x": str(i)} for i in range(12)])
    assert answers == [chat.invoke(f"about {i}").text for i in range(12)]
    assert max(rows.sizes) >= 6


def test_a_batch_longer_than_the_engines_queue_is_answered(chat):
    answers = chat.batch([f"q{i}" for i in range(400)], max_tokens=2)
    assert len(answers) == 400
    assert all(answer.text for answer in answers)


async def test_an_async_batch_longer_than_the_engines_queue_is_answered(chat):
    answers = await chat.abatch([f"q{i}" for i in range(400)], max_tokens=2)
    assert all(answer.text for answer in answers)


def test_errors_in_a_batch_are_returned_where_asked_for(chat):
    bad = ask("hm", {"type": "image", "base64": "%%%", "mime_type": "image/png"})
    first, second = chat.batch([bad, "hi"], return_exceptions=True)
    assert isinstance(first, MediaError)
    assert second.text == chat.invoke("hi").text


def test_threads_with_their_own_media_and_seeds_get_what_they_get_alone(chat):
    def answer(i):
        prompt = prompts()[i % 6]
        return chat.invoke(prompt, temperature=1.5, seed=i).text

    alone = [answer(i) for i in range(18)]
    found = [None] * 18
    threads = [
        threading.Thread(target=lambda i=i: found.__setitem__(i, answer(i))) for i in range(18)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


# --- several answers, seeds, probabilities --------------------------------------------------


def test_n_answers_come_from_one_call(chat):
    result = chat.generate([[HumanMessage("hi")]], n=3, temperature=3.0, seed=5)
    texts = [generation.message.text for generation in result.generations[0]]
    assert len(set(texts)) == 3
    again = [chat.invoke("hi", temperature=3.0, seed=5 + i).text for i in range(3)]
    assert texts == again
    assert chat.invoke("hi", n=3, temperature=3.0, seed=5).text == texts[0]


async def test_n_answers_come_without_threads_too(chat):
    with Rows(chat) as rows:
        result = await chat.agenerate([[HumanMessage("hi")]], n=3, temperature=3.0, seed=5)
    assert max(rows.sizes) == 3
    plain = chat.generate([[HumanMessage("hi")]], n=3, temperature=3.0, seed=5)
    ours, theirs = ([g.message.text for g in r.generations[0]] for r in (result, plain))
    assert ours == theirs


def test_several_answers_cannot_be_streamed(chat, folder):
    with pytest.raises(ConfigurationError, match="n is 2"):
        next(chat.stream("hi", n=2))
    with pytest.raises(ValueError, match="n is 2"):
        ChatImageBindLLM(model=folder, n=2, streaming=True)
    with pytest.raises(ConfigurationError, match="n is 0"):
        chat.invoke("hi", n=0)


def test_without_a_seed_answers_differ(chat):
    assert len({chat.invoke("hi", temperature=5.0).text for _ in range(4)}) > 1


def test_logprobs_have_openais_form(chat):
    answer = chat.invoke("hi", logprobs=True, top_logprobs=3)
    content = answer.response_metadata["logprobs"]["content"]
    assert len(content) == answer.usage_metadata["output_tokens"] == 12
    assert b"".join(bytes(entry["bytes"]) for entry in content).decode() == answer.text
    for entry in content:
        assert set(entry) == {"token", "bytes", "logprob", "top_logprobs"}
        best = [top["logprob"] for top in entry["top_logprobs"]]
        assert len(best) == 3
        assert best == sorted(best, reverse=True)
        assert entry["logprob"] == pytest.approx(best[0])  # greedy
        assert max(best) < 0
    assert "logprobs" not in chat.invoke("hi").response_metadata


def test_logprobs_are_the_models_own_and_add_up_when_streamed(chat):
    options = {"logprobs": True, "temperature": 3.0, "seed": 1}
    answer = chat.invoke("hi", **options)
    content = answer.response_metadata["logprobs"]["content"]
    assert all(entry["top_logprobs"] == [] for entry in content)
    greedy = chat.invoke("hi", logprobs=True).response_metadata["logprobs"]["content"]
    first = chat.invoke("hi", logprobs=True, top_logprobs=20).response_metadata["logprobs"]
    likely = {t["token"]: t["logprob"] for t in first["content"][0]["top_logprobs"]}
    assert likely.get(content[0]["token"], content[0]["logprob"]) == pytest.approx(
        content[0]["logprob"], abs=1e-4
    )
    assert greedy[0]["logprob"] == pytest.approx(max(likely.values()), abs=1e-4)
    chunks = list(chat.stream("hi", **options))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.response_metadata == answer.response_metadata


def test_too_many_alternatives_are_refused(chat):
    with pytest.raises(ConfigurationError, match="top_logprobs is 21"):
        chat.invoke("hi", top_logprobs=21)


def test_langchains_usage_callback_counts_tokens(chat):
    counter = UsageMetadataCallbackHandler()
    answers = chat.batch(["hi", "ho"], config={"callbacks": [counter]})
    [usage] = counter.usage_metadata.values()
    assert usage["total_tokens"] == sum(a.usage_metadata["total_tokens"] for a in answers)


def test_chunks_come_while_the_answer_is_computed(folder):
    chat = ChatImageBindLLM(model=folder, max_tokens=300)
    with Gate(chat._engine(chat.model), held_from=8) as gate:
        stream = chat.stream("hi")
        next(stream)
        assert gate.steps <= 8
        gate.open()
        assert len(list(stream)) > 100
