"""`ImageBindRetriever`: LangChain's suite, and queries of any modality."""

import asyncio

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests
from pydantic import ValidationError
from test_chat import cloud, picture, sound
from tiny_model import save_tiny_model

from ibllm_tools import (
    ImageBindEmbeddings,
    ImageBindRetriever,
    ImageBindVectorStore,
    Media,
    MediaError,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    embeddings = ImageBindEmbeddings(model=save_tiny_model(tmp_path_factory.mktemp("tiny")))
    store = ImageBindVectorStore(embeddings)
    store.add_media([picture(1), sound(2), cloud(3)], ids=["picture", "sound", "cloud"])
    store.add_texts(["a dog", "the sea"], [{"modality": "text"}] * 2, ids=["dog", "sea"])
    return store


@pytest.fixture
def retriever(store):
    return ImageBindRetriever(vectorstore=store, k=3)


class TestStandard(RetrieversIntegrationTests):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _store(cls, store):
        cls.store = store

    @property
    def retriever_constructor(self):
        return ImageBindRetriever

    @property
    def retriever_constructor_params(self):
        return {"vectorstore": self.store}

    @property
    def retriever_query_example(self):
        return "a dog by the sea"


class Heard(BaseCallbackHandler):
    """What a callback is told of a query."""

    def __init__(self):
        self.queries = []

    def on_retriever_start(self, serialized, query, **_):
        self.queries.append(query)


def ids(documents):
    return [document.id for document in documents]


async def test_a_query_may_be_of_any_modality(retriever, tmp_path):
    path = tmp_path / "a.png"
    import base64

    path.write_bytes(base64.b64decode(picture(1)["base64"]))
    queries = {
        "picture": [path, picture(1), [path], [(path, 0.5)], (picture(1), 2.0)],
        "sound": [sound(2), [(sound(2), 0.1)]],
        "cloud": [cloud(3)],
        "dog": ["a dog", Media.from_text("a dog"), ["a dog"], [("a dog", 1)]],
    }
    for best, several in queries.items():
        for query in several:
            found = retriever.invoke(query)
            assert found[0].id == best
            assert len(found) == 3
            assert await retriever.ainvoke(query) == found
        assert [ids(found)[0] for found in retriever.batch(several)] == [best] * len(several)


def test_a_mixture_is_found_between_its_parts(retriever):
    for weight, best in ((0.9, "picture"), (0.1, "sound")):
        found = retriever.invoke([(picture(1), weight), (sound(2), 1 - weight)])
        assert found[0].id == best


async def test_settings_may_be_given_at_each_call(store, retriever):
    assert len(retriever.invoke("a dog", k=5)) == 5
    assert ids(retriever.invoke("a dog", filter={"modality": "audio"})) == ["sound"]
    assert ids(await retriever.ainvoke("a dog", k=5, min_score=0.999)) == ["dog"]
    own = ImageBindRetriever(vectorstore=store, filter={"modality": "text"}, min_score=0.999)
    assert ids(own.invoke("the sea")) == ["sea"]
    assert own.invoke(picture(1)) == []


def test_callbacks_hear_a_name_and_not_the_bytes(retriever, tmp_path):
    heard = Heard()
    query = [Media.from_array(*_pixels(), name="my dog.png"), ("the sea", 0.5)]
    retriever.invoke(query, {"callbacks": [heard]})
    retriever.invoke("a dog", {"callbacks": [heard]})
    assert heard.queries == ["my dog.png + the sea", "a dog"]


def _pixels():
    import numpy as np

    return np.zeros((8, 8, 3), np.uint8), "image"


def test_a_retriever_is_a_step_of_a_chain(retriever):
    chain = RunnableLambda(lambda name: {"sound": sound(2), "picture": picture(1)}[name])
    chain = chain | retriever | RunnableLambda(lambda found: found[0].id)
    assert chain.batch(["sound", "picture"]) == ["sound", "picture"]


async def test_many_tasks_get_their_own_answers(retriever):
    queries = [picture(1), sound(2), cloud(3), "a dog", "the sea"] * 6
    found = await asyncio.gather(*(retriever.ainvoke(query, k=1) for query in queries))
    assert [documents[0].id for documents in found] == [
        "picture",
        "sound",
        "cloud",
        "dog",
        "sea",
    ] * 6


@pytest.mark.parametrize("query", [[], [("", 1)], 3, [("a dog", 0)]], ids=repr)
def test_a_query_of_nothing_is_an_error(retriever, query):
    with pytest.raises(MediaError):
        retriever.invoke(query)


def test_a_block_opens_only_what_the_policy_allows(retriever, tmp_path):
    (tmp_path / "a.png").write_bytes(b"secret")
    with pytest.raises(MediaError, match="refused"):
        retriever.invoke({"type": "image", "url": (tmp_path / "a.png").as_uri()})


def test_wrong_settings_are_refused_at_once(store):
    with pytest.raises(ValidationError):
        ImageBindRetriever(vectorstore=store, k=0)
    with pytest.raises(ValidationError):
        ImageBindRetriever(vectorstore=store, top=3)
