"""`ImageBindEmbeddings` on a tiny random model: every modality and mixtures in one space."""

import asyncio
import base64
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from PIL import Image
from pydantic import ValidationError
from test_chat import cloud, picture, sound
from tiny_model import CONCEPTS, JOINT, save_tiny_model

from ibllm_tools import ChatImageBindLLM, ImageBindEmbeddings, Media, MediaError, MediaPolicy
from ibllm_tools.embeddings import MediaFile
from ibllm_tools.errors import CheckpointError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def embeddings(folder):
    return ImageBindEmbeddings(model=folder)


@pytest.fixture
def files(tmp_path):
    """The same picture and sound as `picture()` and `sound()`, as files."""
    paths = {"a.png": picture(), "b.wav": sound()}
    for name, medium in paths.items():
        (tmp_path / name).write_bytes(base64.b64decode(medium["base64"]))
    return tmp_path


def media():
    maps = np.random.default_rng(0).uniform(0, 1, (40, 40)).astype(np.float32)
    imu = np.random.default_rng(0).normal(size=(6, 400)).astype(np.float32)
    return [
        picture(),
        sound(),
        cloud(),
        Media.from_array(maps * 30, "depth"),
        Media.from_array(maps, "thermal"),
        Media.from_array(imu, "imu"),
        Media.from_text("a dog"),
    ]


def close(found, expected):
    return np.allclose(found, expected, atol=1e-5)


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return ImageBindEmbeddings


class TestIntegration(EmbeddingsIntegrationTests):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _folder(cls, folder):
        cls.folder = str(folder)

    @property
    def embeddings_class(self):
        return ImageBindEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": self.folder}


def test_every_modality_becomes_one_unit_vector(embeddings):
    vectors = embeddings.embed_media(media())
    assert np.shape(vectors) == (7, JOINT)
    assert all(type(value) is float for vector in vectors for value in vector)
    assert close(np.linalg.norm(vectors, axis=1), 1)
    assert np.unique(np.round(vectors, 4), axis=0).shape[0] == 7


def test_a_row_is_what_it_is_alone(folder, embeddings):
    rows = [*media(), [picture(), (sound(), 0.5)]]
    alone = [embeddings.embed_media([row])[0] for row in rows]
    for batch_size in (1, 3, 32):
        batched = ImageBindEmbeddings(model=folder, batch_size=batch_size)
        assert close(batched.embed_media(rows), alone)


def test_texts_are_media_too(embeddings):
    texts = ["dog", "a dog by the sea", ""]
    vectors = embeddings.embed_documents(texts)
    assert vectors[:2] == embeddings.embed_media([Media.from_text(text) for text in texts[:2]])
    assert embeddings.embed_query("dog") == pytest.approx(vectors[0], abs=1e-5)
    assert len(embeddings.embed_documents(["word " * 10_000])[0]) == JOINT
    assert embeddings.embed_documents([]) == embeddings.embed_media([]) == []


def test_a_mixture_lies_between_its_parts(embeddings):
    one, two, even, mostly, extras = embeddings.embed_media(
        [
            picture(),
            sound(),
            [picture(), sound()],
            [(picture(), 9), (sound(), 1)],
            [picture(weight=9), sound(weight=1)],
        ]
    )
    middle = np.add(one, two)
    assert close(even, middle / np.linalg.norm(middle))
    assert np.dot(mostly, one) > np.dot(even, one)
    assert close(mostly, extras)


def test_media_come_as_paths_blocks_and_urls(embeddings, files):
    expected = embeddings.embed_media([picture(), [(picture(), 0.3), (sound(), 0.7)]])
    path = files / "a.png"
    data_url = f"data:image/png;base64,{picture()['base64']}"
    block = {"type": "image_url", "image_url": {"url": data_url}}
    same = embeddings.embed_media([path, str(path), block, data_url, (path, 0.2), [path]])
    assert all(close(vector, expected[0]) for vector in same)
    mixture = embeddings.embed_media([[(str(path), 0.3), (files / "b.wav", 0.7)]])
    assert close(mixture[0], expected[1])


def test_pictures_are_embedded_by_the_convention_of_vector_stores(embeddings, files):
    assert close(
        embeddings.embed_image([str(files / "a.png")]), embeddings.embed_media([picture()])
    )
    with pytest.raises(MediaError):
        embeddings.embed_image([str(files / "b.wav")])


def test_a_url_is_followed_only_where_the_policy_lists_it(folder, embeddings, files):
    url = (files / "a.png").as_uri()
    with pytest.raises(MediaError):
        embeddings.embed_media([url])
    allowed = ImageBindEmbeddings(model=folder, media_policy=MediaPolicy(allowed_dirs=(files,)))
    assert close(allowed.embed_media([url]), embeddings.embed_media([picture()]))


@pytest.mark.parametrize(
    "row", [[], (picture(), 0), (picture(), float("nan")), "missing.png"], ids=repr
)
def test_a_bad_row_is_an_error(embeddings, row):
    with pytest.raises(MediaError):
        embeddings.embed_media([picture(), row])


async def test_async_gives_the_same(embeddings):
    many, text = await asyncio.gather(
        embeddings.aembed_media(media()), embeddings.aembed_query("dog")
    )
    assert close(many, embeddings.embed_media(media()))
    assert close(text, embeddings.embed_query("dog"))


def test_chat_model_and_embeddings_share_one_encoder(tmp_path):
    folder = str(save_tiny_model(tmp_path, seed=3))
    embeddings, chat = ImageBindEmbeddings(model=folder), ChatImageBindLLM(model=folder)
    before = embeddings.embed_media([picture()])
    encoder = chat._engine(folder).model.encoder
    assert encoder is embeddings._senses().encoder
    assert encoder.loaded == ["vision"]
    assert embeddings.embed_media([picture()]) == before


def test_embedding_needs_no_llm(folder, embeddings, tmp_path):
    expected = embeddings.embed_media([picture()])
    whole = shutil.copytree(folder, tmp_path / "whole")
    shutil.rmtree(whole / "llm")
    assert ImageBindEmbeddings(model=whole).embed_media([picture()]) == expected
    with pytest.raises(CheckpointError):
        ChatImageBindLLM(model=whole).invoke("hi")
    encoder = shutil.copytree(folder / "encoder", tmp_path / "encoder")
    shutil.copy(folder / "preprocessor_config.json", encoder)
    assert ImageBindEmbeddings(model=encoder).embed_media([picture()]) == expected


def test_a_missing_trunk_is_an_error_that_names_it(folder, tmp_path):
    partial = shutil.copytree(folder, tmp_path / "partial")
    (partial / "encoder" / "audio.safetensors").unlink()
    embeddings = ImageBindEmbeddings(model=partial)
    with pytest.raises(CheckpointError, match="audio"):
        embeddings.embed_media([sound()])
    assert embeddings.embed_media([picture()])


def test_a_vector_store_finds_text_by_sound(embeddings):
    store = InMemoryVectorStore(embeddings)
    names = [name for name, _ in CONCEPTS]
    store.add_texts(names)
    [vector] = embeddings.embed_media([sound()])
    found = [document.page_content for document in store.similarity_search_by_vector(vector, k=4)]
    scores = np.dot(embeddings.embed_documents(names), vector)
    assert found == [names[i] for i in np.argsort(-scores)]


def test_wrong_settings_are_refused_at_once():
    with pytest.raises(ValidationError):
        ImageBindEmbeddings(batch_size=0)
    with pytest.raises(ValidationError):
        ImageBindEmbeddings(modell="pocket")


def test_a_row_that_cannot_be_read_takes_the_place_of_its_vector(embeddings, files):
    rows = [picture(), files / "none.png", MediaFile(files / "b.wav"), [], {"type": "text"}]
    found = list(embeddings.iter_rows(row for row in rows))
    assert [isinstance(row, MediaError) for row in found] == [False, True, False, True, True]
    assert "none.png" in str(found[1])
    assert [found[i].modalities for i in (0, 2)] == [("image",), ("audio",)]
    assert close([found[i].vector for i in (0, 2)], embeddings.embed_media([picture(), sound()]))


def test_a_trunk_that_is_missing_concerns_its_own_rows_only(folder, tmp_path):
    partial = shutil.copytree(folder, tmp_path / "partial")
    (partial / "encoder" / "audio.safetensors").unlink()
    embeddings = ImageBindEmbeddings(model=partial)
    found = list(embeddings.iter_rows([picture(), sound(), picture(1)]))
    assert isinstance(found[1], CheckpointError)
    expected = embeddings.embed_media([picture(), picture(1)])
    assert close([found[0].vector, found[2].vector], expected)


def test_a_file_may_be_declared_and_weighted(embeddings, files):
    depth, again, mixture, expected = embeddings.embed_media(
        [
            MediaFile(files / "a.png", "depth"),
            Media.from_path(files / "a.png", modality="depth"),
            [MediaFile(files / "a.png", weight=3), MediaFile(files / "b.wav")],
            [(picture(), 0.75), (sound(), 0.25)],
        ]
    )
    assert close(depth, again)
    assert close(mixture, expected)


def test_memory_does_not_grow_with_the_number_of_media(folder, tmp_path):
    """Thirty pictures of 3 megapixels take 260 MiB when they are decoded all at once."""
    big = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    path = tmp_path / "big.jpg"
    Image.fromarray(big).resize((2000, 1500)).save(path, quality=30)
    code = (
        "import resource, sys; from ibllm_tools import ImageBindEmbeddings\n"
        "embeddings = ImageBindEmbeddings(model=sys.argv[1])\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "embeddings.embed_media([sys.argv[2]] * 3); before = peak()\n"
        "embeddings.embed_media([sys.argv[2]] * 30); print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert float(done.stdout) < 100  # MiB


async def test_a_cancelled_call_stops_its_thread(embeddings):
    read = []

    class Counted(dict):
        def get(self, *key):
            read.append(1)
            return super().get(*key)

    rows = [Counted(picture(0)) for _ in range(2000)]
    task = asyncio.create_task(embeddings.aembed_media(rows))
    while not read:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    seen = -1
    while len(read) > seen:  # until nothing more is read
        seen = len(read)
        await asyncio.sleep(0.5)
    assert seen < 2000


async def test_the_event_loop_runs_on_while_media_are_embedded(embeddings):
    task = asyncio.create_task(embeddings.aembed_media([picture(i) for i in range(150)]))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.002)
        ticks += 1
    assert len(await task) == 150
    assert ticks > 5


async def test_queries_of_any_kind(embeddings, files):
    text = embeddings.embed_query("a.png")
    for query in ("a.png", ["a.png"], [("a.png", 0.4)]):
        assert close(embeddings.embed_mixed_query(query), text)
        assert close(await embeddings.aembed_mixed_query(query), text)
    photo = embeddings.embed_media([picture()])[0]
    assert close(embeddings.embed_mixed_query(files / "a.png"), photo)
    assert close((await embeddings.aembed_image([str(files / "a.png")]))[0], photo)


def test_a_fingerprint_tells_encoders_apart(folder, embeddings, tmp_path):
    print_of = embeddings.fingerprint()
    copy = ImageBindEmbeddings(model=shutil.copytree(folder, tmp_path / "copy"))
    half = ImageBindEmbeddings(model=folder, dtype="bfloat16")
    other = ImageBindEmbeddings(model=save_tiny_model(tmp_path / "other", seed=9))
    assert copy.fingerprint() == half.fingerprint() == print_of
    assert other.fingerprint() != print_of
