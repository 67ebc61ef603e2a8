"""`ImageBindVectorStore`: LangChain's suite, media, filters, threads, and what is on the disk."""

import asyncio
import base64
import json
import shutil
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from test_chat import cloud, picture, sound
from tiny_model import save_tiny_model

from ibllm_tools import (
    ConfigurationError,
    ImageBindEmbeddings,
    ImageBindVectorStore,
    Media,
    MediaError,
)
from ibllm_tools.errors import CheckpointError, ModelError
from ibllm_tools.vectorstores import STORE_FILE

ROOT = Path(__file__).parent.parent


class TestStandard(VectorStoreIntegrationTests):
    """All 25 cases, sync and async, nothing overridden."""

    @pytest.fixture
    def vectorstore(self):
        return ImageBindVectorStore(self.get_embeddings())


class TestStandardAfterLoading(VectorStoreIntegrationTests):
    """The same of a store that was saved and loaded."""

    @pytest.fixture
    def vectorstore(self, tmp_path):
        ImageBindVectorStore(self.get_embeddings()).save_local(tmp_path)
        return ImageBindVectorStore.load_local(tmp_path, self.get_embeddings())


class Table(Embeddings):
    """Texts that are their own vectors: "1 0.5" is [1, 0.5]; words are [1, 1]."""

    def embed_documents(self, texts):
        return [self.numbers(text) for text in texts]

    def numbers(self, text):
        words = any(letter.isalpha() for letter in text.replace("nan", ""))
        return [1.0, 1.0] if words else [float(value) for value in text.split()]

    def embed_query(self, text):
        return self.embed_documents([text])[0]


class Words(DeterministicFakeEmbedding):
    """Another embedding of the same width."""

    def _get_seed(self, text):
        return len(text)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory):
    return ImageBindEmbeddings(model=save_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def files(tmp_path):
    for name, medium in {"a.png": picture(1), "b.wav": sound(2)}.items():
        (tmp_path / name).write_bytes(base64.b64decode(medium["base64"]))
    return tmp_path


@pytest.fixture
def media(embeddings, files):
    """A store of a picture, a sound, a shape, a mixture and a text."""
    store = ImageBindVectorStore(embeddings)
    rows = [files / "a.png", str(files / "b.wav"), cloud(3), [(files / "a.png", 0.5), sound(4)]]
    store.add_media(rows, ids=["a", "b", "c", "d"])
    store.add_texts(["a note"], [{"modality": "text"}], ids=["e"])
    return store


def ids(documents):
    return [document.id for document in documents]


def text_store(*texts, **metadata):
    metadatas = [{key: values[i] for key, values in metadata.items()} for i in range(len(texts))]
    return ImageBindVectorStore.from_texts(list(texts), Table(), metadatas, ids=list(texts))


# media


def test_media_say_what_they_are_and_where_they_come_from(media, files):
    a, b, c, d = media.get_by_ids(["a", "b", "c", "d"])
    assert a.metadata == {"modality": "image", "source": str(files / "a.png")}
    assert b.metadata == {"modality": "audio", "source": str(files / "b.wav")}
    assert c.metadata == {"modality": "point"}
    assert d.metadata == {"modality": "image+audio", "source": [str(files / "a.png")]}
    assert (a.page_content, b.page_content) == ("a.png", "b.wav")


@pytest.mark.parametrize(
    ("query", "best"),
    [
        (lambda files: files / "a.png", "a"),
        (lambda files: sound(2), "b"),
        (lambda files: [cloud(3)], "c"),
        (lambda files: (cloud(3), 0.2), "c"),
        (lambda files: [(picture(1), 0.5), (sound(4), 1)], "d"),
        (lambda files: "a note", "e"),
        (lambda files: [Media.from_text("a note")], "e"),
        (lambda files: [("a note", 0.7)], "e"),
    ],
    ids=["path", "media", "list", "weight", "mixture", "text", "text block", "text with weight"],
)
async def test_a_query_may_be_of_any_kind(media, files, query, best):
    query = query(files)
    found = media.similarity_search_with_score(query, k=5)
    assert found[0][0].id == best
    assert found[0][1] == pytest.approx(1, abs=1e-5)
    assert [score for _, score in found] == sorted((s for _, s in found), reverse=True)
    assert await media.asimilarity_search(query, k=5) == [document for document, _ in found]
    assert media.max_marginal_relevance_search(query, k=1)[0].id == best


def test_a_text_that_is_a_path_opens_nothing(media, files):
    """A query from an agent must not read the disk."""
    secret = str(files / "a.png")
    found = media.similarity_search_with_score(secret, k=1)
    assert found[0][1] < 0.99
    assert media.similarity_search_with_score([secret, secret], k=1)[0][1] < 0.99


def test_captions_and_metadata_of_media_are_the_callers(embeddings):
    store = ImageBindVectorStore.from_media(
        [picture()], embeddings, texts=["my dog"], metadatas=[{"year": 2020, "source": "album"}]
    )
    [document] = store.documents()
    assert document.page_content == "my dog"
    assert document.metadata == {"year": 2020, "source": "album", "modality": "image"}


def test_one_unreadable_medium_and_none_is_added(embeddings, tmp_path):
    store = ImageBindVectorStore(embeddings)
    with pytest.raises(MediaError, match=r"missing\.png"):
        store.add_media([picture(), tmp_path / "missing.png"])
    assert store.count == 0


def test_embeddings_of_texts_refuse_media():
    with pytest.raises(ConfigurationError, match="ImageBindEmbeddings"):
        text_store("1 0").add_media([picture()])
    with pytest.raises(ConfigurationError, match="ImageBindEmbeddings"):
        text_store("1 0").similarity_search(picture())


# scores, filters, diversity


def test_scores_are_cosines_whatever_the_lengths():
    store = text_store("2 0", "0 0.1", "-5 0", "3 3", "0 0")
    found = {d.id: score for d, score in store.similarity_search_with_score("10 0", k=9)}
    expected = {"2 0": 1, "0 0.1": 0, "-5 0": -1, "3 3": 0.5**0.5, "0 0": 0}
    assert found == pytest.approx(expected, abs=1e-6)
    scored = store.similarity_search_with_relevance_scores("10 0", k=9)
    relevance = {document.id: score for document, score in scored}
    assert relevance["-5 0"] == 0
    assert relevance["2 0"] == pytest.approx(1)
    strict = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.5, "k": 9}
    )
    assert ids(strict.invoke("10 0")) == ["2 0", "3 3"]


def test_filters_find_as_many_as_asked_for():
    texts = [f"1 {i}" for i in range(50)]
    store = text_store(*texts, i=list(range(50)), kind=["even", "odd"] * 25)
    odd = store.similarity_search("1 0", k=3, filter={"kind": "odd"})
    assert ids(odd) == ["1 1", "1 3", "1 5"]
    assert ids(store.similarity_search("1 0", 2, lambda d: d.metadata["i"] > 40)) == [
        "1 41",
        "1 42",
    ]
    some = store.similarity_search("1 0", k=9, filter={"i": [3, 49, 77], "kind": ["odd"]})
    assert ids(some) == ["1 3", "1 49"]
    assert store.similarity_search("1 0", filter={"missing": None}) == []
    assert ids(store.similarity_search("1 0", k=1, filter={})) == ["1 0"]
    assert ids(store.documents({"i": 7})) == ["1 7"]
    for search in (store.max_marginal_relevance_search, store.similarity_search):
        assert {d.metadata["kind"] for d in search("1 0", k=5, filter={"kind": "odd"})} == {"odd"}


@pytest.mark.parametrize("wrong", [{"i": {"$gt": 3}}, {"$and": []}, "kind"], ids=repr)
def test_a_filter_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="expected"):
        text_store("1 0").similarity_search("1 0", filter=wrong)


async def test_diverse_results_are_those_of_langchains_own_store():
    values = np.random.default_rng(0).normal(size=(40, 3))
    texts = [" ".join(map(str, row)) for row in values]
    ours = ImageBindVectorStore.from_texts(texts, Table())
    theirs = InMemoryVectorStore.from_texts(texts, Table())
    for weight in (0.0, 0.3, 0.5, 1.0):
        found = ours.max_marginal_relevance_search("1 2 3", k=6, fetch_k=20, lambda_mult=weight)
        expected = theirs.max_marginal_relevance_search(
            "1 2 3", k=6, fetch_k=20, lambda_mult=weight
        )
        assert [d.page_content for d in found] == [d.page_content for d in expected]
        again = await ours.amax_marginal_relevance_search(
            "1 2 3", k=6, fetch_k=20, lambda_mult=weight
        )
        assert again == found


@pytest.mark.parametrize("k", [0, 1, 2, 10])
def test_at_most_k_are_found(k):
    store = text_store("1 0", "0 1")
    assert len(store.similarity_search("1 0", k=k)) == min(k, 2)
    assert len(store.max_marginal_relevance_search("1 0", k=k)) == min(k, 2)


# what is kept


def test_what_callers_hold_is_not_what_is_stored():
    metadata = {"tags": ["a"]}
    store = ImageBindVectorStore.from_texts(["1 0"], Table(), [metadata], ids=["x"])
    metadata["tags"].append("b")
    store.get_by_ids(["x"])[0].metadata["tags"].append("c")
    store.similarity_search("1 0")[0].metadata.clear()
    assert store.get_by_ids(["x"])[0].metadata == {"tags": ["a"]}


def test_ids_may_repeat_and_be_partly_given():
    store = ImageBindVectorStore(Table())
    assert store.add_texts(["1 0", "0 1"], ids=["x", "x"]) == ["x", "x"]
    assert [d.page_content for d in store.documents()] == ["0 1"]
    given = store.add_documents([Document("1 1", id="y"), Document("2 1")])
    assert given[0] == "y"
    assert len(given[1]) > 20
    assert ids(store.get_by_ids(["y", "no", "x", "y"])) == ["y", "x"]
    assert store.delete(["x", "no"])
    assert store.count == 2
    assert store.delete()
    assert store.count == 0
    assert store.similarity_search("1 0") == []


def test_wrong_input_changes_nothing():
    store = text_store("1 0", "0 1")
    with pytest.raises(ConfigurationError, match="width 3"):
        store.add_texts(["1 2 3"], ids=["1 0"])
    with pytest.raises(ConfigurationError, match="equal width"):
        store.add_texts(["5 5", "1 2 3"])
    with pytest.raises(ModelError):
        store.add_texts(["5 5", "nan 1"])
    with pytest.raises(ConfigurationError, match="1 metadatas for 2"):
        store.add_texts(["1 1", "2 2"], [{}])
    with pytest.raises(ConfigurationError, match="1 ids for 2"):
        store.add_texts(["1 1", "2 2"], ids=["x"])
    with pytest.raises(ConfigurationError, match="width 3"):
        store.similarity_search("1 2 3")
    assert ids(store.similarity_search("1 0", k=9)) == ["1 0", "0 1"]
    assert store.get_by_ids(["1 0"])[0].page_content == "1 0"


# threads and tasks


def test_threads_see_every_change_whole():
    """Writers replace a pair of documents again and again; readers always see one whole pair."""
    store = text_store("1 0", "0 1", version=[0, 0])
    stop = False

    def write(version):
        store.add_texts(["1 0", "0 1"], [{"version": version}] * 2, ids=["1 0", "0 1"])

    def read():
        seen = 0
        while not stop:
            found = store.similarity_search("1 1", k=2)
            assert sorted(ids(found)) == ["0 1", "1 0"]
            assert len({d.metadata["version"] for d in found}) == 1
            seen += 1
        return seen

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        list(pool.map(write, range(1, 150)))
        stop = True
        assert all(reader.result() > 0 for reader in readers)
    assert store.count == 2


def test_threads_that_add_and_delete_leave_what_they_should():
    store = ImageBindVectorStore(Table())

    def work(thread):
        for i in range(40):
            store.add_texts([f"{thread} {i}"], ids=[f"{thread}-{i}"])
            if i % 2:
                store.delete([f"{thread}-{i}"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(1, 9)))
    expected = {f"{thread}-{i}" for thread in range(1, 9) for i in range(0, 40, 2)}
    assert set(ids(store.documents())) == expected
    assert set(ids(store.similarity_search("1 1", k=999))) == expected


async def test_a_cancelled_call_adds_nothing_and_leaves_the_loop_free(embeddings):
    store = ImageBindVectorStore(embeddings)
    ticks = 0
    task = asyncio.create_task(store.aadd_media([picture(0)] * 3000))
    for _ in range(5):
        await asyncio.sleep(0.01)
        ticks += 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.3)
    assert ticks == 5
    assert store.count == 0
    assert await store.aadd_media([picture()], ids=["x"]) == ["x"]


# the disk


def test_a_saved_store_is_the_same_when_loaded(media, embeddings, tmp_path):
    folder = tmp_path / "new" / "store"
    media.save_local(folder)
    again = ImageBindVectorStore.load_local(folder, embeddings)
    assert again.documents() == media.documents()
    for query in ("a note", picture(9)):
        found = again.similarity_search_with_score(query, k=9)
        expected = media.similarity_search_with_score(query, k=9)
        assert ids(d for d, _ in found) == ids(d for d, _ in expected)
        assert [s for _, s in found] == pytest.approx([s for _, s in expected], abs=1e-6)
    again.add_media([picture(7)], ids=["new"])
    again.delete(["a"])
    again.save_local(folder)
    assert ids(ImageBindVectorStore.load_local(folder, embeddings).documents()) == [
        "b",
        "c",
        "d",
        "e",
        "new",
    ]
    assert [path.name for path in folder.iterdir()] == [STORE_FILE]


def test_an_empty_store_is_saved_too(embeddings, tmp_path):
    ImageBindVectorStore(embeddings).save_local(tmp_path)
    store = ImageBindVectorStore.load_local(tmp_path, embeddings)
    assert store.similarity_search("dog") == []
    assert store.add_texts(["dog"], ids=["x"]) == ["x"]


def test_a_store_is_plain_data(media, tmp_path):
    media.save_local(tmp_path)
    with zipfile.ZipFile(tmp_path / STORE_FILE) as archive:
        documents = archive.read("documents.jsonl").splitlines()
        with archive.open("vectors.npy") as file:
            vectors = np.lib.format.read_array(file, allow_pickle=False)
    assert [json.loads(line)["id"] for line in documents] == ["a", "b", "c", "d", "e"]
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_store_of_another_encoder_is_refused(media, tmp_path, tmp_path_factory):
    media.save_local(tmp_path)
    other = save_tiny_model(tmp_path_factory.mktemp("other"), seed=5)
    with pytest.raises(CheckpointError, match="index the documents again"):
        ImageBindVectorStore.load_local(tmp_path, ImageBindEmbeddings(model=other))
    with pytest.raises(CheckpointError, match="Table"):
        ImageBindVectorStore.load_local(tmp_path, Table())
    text_only = DeterministicFakeEmbedding(size=6)
    ImageBindVectorStore.from_texts(["x"], text_only).save_local(tmp_path)
    with pytest.raises(CheckpointError, match="Words"):
        ImageBindVectorStore.load_local(tmp_path, Words(size=6))
    assert ImageBindVectorStore.load_local(tmp_path, text_only).count == 1


def test_the_same_encoder_elsewhere_is_accepted(media, embeddings, tmp_path):
    media.save_local(tmp_path / "store")
    moved = shutil.copytree(embeddings.model, tmp_path / "moved")
    store = ImageBindVectorStore.load_local(tmp_path / "store", ImageBindEmbeddings(model=moved))
    assert store.count == 5


def test_metadata_that_json_cannot_hold_is_an_error_and_the_old_file_stays(tmp_path):
    store = text_store("1 0")
    store.save_local(tmp_path)
    before = (tmp_path / STORE_FILE).read_bytes()
    store.add_texts(["0 1"], [{"when": object()}], ids=["odd"])
    with pytest.raises(ConfigurationError, match="'odd'"):
        store.save_local(tmp_path)
    assert (tmp_path / STORE_FILE).read_bytes() == before


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def damage_flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def damage_text(path):
    path.write_text("no store")


def damage_rows(path):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["documents.jsonl"] += members["documents.jsonl"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("damage", [Path.unlink, damage_cut, damage_flip, damage_text, damage_rows])
def test_a_damaged_store_is_an_error_that_says_so(tmp_path, damage):
    text_store(*[f"1 {i}" for i in range(200)]).save_local(tmp_path)
    damage(tmp_path / STORE_FILE)
    with pytest.raises(CheckpointError, match=r"store\.zip"):
        ImageBindVectorStore.load_local(tmp_path, Table())


SAVE_FOR_EVER = """
import pathlib, sys
import numpy as np
from ibllm_tools.vectorstores.records import Record
from ibllm_tools.vectorstores.storage import write_store
version = 0
while True:
    version += 1
    records = [Record(str(i), str(i), {"version": version}) for i in range(200)]
    vectors = np.full((200, 2), version, np.float32)
    probe = {"name": "Table", "probe": [1.0, 1.0]}
    write_store(pathlib.Path(sys.argv[1]), probe, records, vectors)
    print(version, flush=True)
"""


def test_a_process_that_is_killed_while_saving_leaves_a_whole_store(tmp_path):
    for wait_s in (0.07, 0.16):
        command = [sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout.readline() == b"1\n"
            time.sleep(wait_s)
            process.kill()
            said = int(process.stdout.read().split()[-1])
        store = ImageBindVectorStore.load_local(tmp_path, Table())
        assert store.count == 200
        [version] = {document.metadata["version"] for document in store.documents()}
        assert said <= version <= said + 1


def test_readers_never_see_a_half_written_store(tmp_path):
    store = text_store(*[f"1 {i}" for i in range(100)])
    store.save_local(tmp_path)

    def read(_):
        return ImageBindVectorStore.load_local(tmp_path, Table()).count

    with ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(read, i) for i in range(40)]
        for _ in range(20):
            store.save_local(tmp_path)
        assert {count.result() for count in counts} == {100}
