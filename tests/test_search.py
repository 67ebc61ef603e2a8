"""`ibllm search` and the folders that it indexes, as a person uses them."""

import base64
import json
import os
from typing import NamedTuple

import numpy as np
import pytest
from test_chat import cloud, picture, sound
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from ibllm_tools import ConfigurationError, ImageBindEmbeddings, ImageBindVectorStore
from ibllm_tools.cli import app
from ibllm_tools.errors import CheckpointError, MediaError
from ibllm_tools.vectorstores import STORE_FILE, index_folder


def write(path, medium):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(medium["base64"]))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of pictures, a sound, a shape, a folder inside, and what is no medium."""
    folder = tmp_path / "photos"
    for i in range(3):
        write(folder / f"p{i}.png", picture(i))
    write(folder / "in" / "s.wav", sound(2))
    write(folder / "in" / "c.npy", cloud(3))
    (folder / "notes.md").write_text("no medium")
    write(folder / ".hidden" / "p.png", picture(9))
    write(tmp_path / "query.wav", sound(2))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return folder


class Found(NamedTuple):
    """What `ibllm search --json` says."""

    results: list
    index: dict
    names: list


@pytest.fixture
def search(model):
    def run(*arguments):
        command = ["search", *map(str, arguments), "--model", model]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        return done

    return run


@pytest.fixture
def found(search):
    def run(*arguments):
        answer = json.loads(search(*arguments, "--json").stdout)
        results = answer["results"]
        names = [os.path.basename(result["source"]) for result in results]  # noqa: PTH119
        return Found(results, answer.get("index", {}), names)

    return run


def test_a_sound_finds_its_like_in_a_folder(search, photos):
    lines = search("query.wav", "photos", "-k", 3).stdout.splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["1.000", "audio", "photos/in/s.wav"]


def test_the_order_and_scores_are_those_of_the_embeddings(found, photos, model):
    embeddings = ImageBindEmbeddings(model=model)
    paths = [*(photos / f"p{i}.png" for i in range(3)), photos / "in/s.wav", photos / "in/c.npy"]
    vectors = np.array(embeddings.embed_media(paths))
    for query, vector in (
        ("a dog by the sea", embeddings.embed_query("a dog by the sea")),
        ("query.wav", embeddings.embed_media([photos / "in/s.wav"])[0]),
        ("photos/p1.png", vectors[1]),
    ):
        scores = vectors @ np.array(vector)
        results = found(query, photos).results
        assert [r["source"] for r in results] == [str(paths[i]) for i in np.argsort(-scores)]
        assert [r["score"] for r in results] == pytest.approx(np.sort(scores)[::-1], abs=1e-4)


def test_only_what_is_new_or_changed_is_encoded(found, photos):
    first = found("dog", photos)
    assert (first.index["files"], first.index["encoded"]) == (5, 5)
    assert found("dog", photos).index["encoded"] == 0
    write(photos / "p3.png", picture(3))
    write(photos / "p0.png", picture(7, name="other"))
    os.utime(photos / "p0.png", (1, 1))
    (photos / "p1.png").unlink()
    third = found("photos/p0.png", photos)
    assert (third.index["encoded"], third.index["removed"]) == (2, 1)
    assert third.names[0] == "p0.png"
    assert third.results[0]["score"] == pytest.approx(1, abs=1e-4)
    assert sorted(third.names) == ["c.npy", "p0.png", "p2.png", "p3.png", "s.wav"]
    assert found("dog", photos).index["encoded"] == 0


def test_unreadable_files_are_counted_and_named(search, found, photos):
    (photos / "broken.png").write_bytes(picture(0)["base64"].encode()[:50])
    (photos / "cut.wav").write_bytes(b"RIFF")
    (photos / "gone.png").symlink_to(photos / "nothing")
    (photos / "p2.png").write_bytes(b"no picture any more")
    said = search("dog", photos)
    assert "4 files cannot be read" in said.stderr
    assert all(name in said.stderr for name in ("broken.png", "cut.wav", "gone.png", "p2.png"))
    assert len(said.stdout.splitlines()) == 4
    again = found("dog", photos)
    assert sorted(again.index["unreadable"]) == ["broken.png", "cut.wav", "gone.png", "p2.png"]
    assert "p2.png" not in again.names


def test_a_file_that_becomes_unreadable_is_not_found_any_more(found, photos):
    assert "p2.png" in found("dog", photos).names
    (photos / "p2.png").write_bytes(b"no picture any more")
    second = found("dog", photos)
    assert "p2.png" not in second.names
    assert list(second.index["unreadable"]) == ["p2.png"]


def test_one_modality_can_be_asked_for(found, photos):
    assert {r["modality"] for r in found("dog", photos, "--only", "image").results} == {"image"}
    both = found("dog", photos, "--only", "audio", "--only", "point")
    assert sorted(both.names) == ["c.npy", "s.wav"]


def test_an_index_of_the_users_own_holds_several_folders(found, photos, tmp_path):
    write(tmp_path / "more" / "x.png", picture(5))
    assert found("dog", photos, "--index", tmp_path / "own").index["encoded"] == 5
    assert found("dog", "more", "--index", tmp_path / "own").names == ["x.png"]
    assert len(found("dog", photos, "--index", tmp_path / "own").names) == 5
    assert found("dog", photos, "--index", tmp_path / "own").index["encoded"] == 0
    everything = found("dog", tmp_path / "own")
    assert len(everything.names) == 6
    assert everything.index == {}
    assert not (tmp_path / "cache").exists()


def test_a_saved_store_is_searched_as_it_is(search, photos, model, tmp_path):
    store = ImageBindVectorStore(ImageBindEmbeddings(model=model))
    store.add_texts(["a note about dogs"])
    store.save_local(tmp_path / "store")
    [line] = search("a note about dogs", "store").stdout.splitlines()
    assert line == " 1.000  text      a note about dogs"


def test_nothing_is_written_beside_the_media(search, photos):
    before = sorted(photos.rglob("*"))
    search("dog", photos)
    assert sorted(photos.rglob("*")) == before


def test_an_index_of_another_encoder_is_made_anew_or_refused(
    search, photos, tmp_path, tmp_path_factory, model
):
    search("dog", photos)
    search("dog", photos, "--index", "own")
    [usual] = (tmp_path / "cache").rglob(STORE_FILE)
    other = ImageBindVectorStore(
        ImageBindEmbeddings(model=save_tiny_model(tmp_path_factory.mktemp("other"), seed=4))
    )
    other.save_local(usual.parent)
    other.save_local("own")
    assert "indexing anew" in search("dog", photos).stderr
    assert "indexing anew" not in search("dog", photos).stderr
    with pytest.raises(CheckpointError, match="index the documents again"):
        search("dog", photos, "--index", "own")


def test_a_folder_of_nothing_finds_nothing(search, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    done = search("dog", tmp_path / "empty")
    assert done.stdout == ""
    assert "found nothing" in done.stderr


@pytest.mark.parametrize(
    ("query", "where", "error"),
    [
        ("missing.wav", "photos", MediaError),
        ("photos/notes.depth.png", "photos", MediaError),
        ("dog", "nowhere", ConfigurationError),
        ("dog", "query.wav", ConfigurationError),
        ("photos/notes.md", "photos", MediaError),
    ],
)
def test_a_query_or_place_that_is_not_there_is_an_error(search, photos, query, where, error):
    with pytest.raises(error, match="expected"):
        search(query, where)


def test_an_unknown_modality_is_wrong_usage(photos):
    done = CliRunner().invoke(app, ["search", "dog", "photos", "--only", "smell"])
    assert done.exit_code == 2
    assert "smell" in done.stderr


def test_a_name_may_declare_its_modality(model, photos):
    write(photos / "room.depth.png", picture(4))
    store = ImageBindVectorStore(ImageBindEmbeddings(model=model))
    index_folder(store, photos)
    [depth] = store.documents({"modality": "depth"})
    assert depth.page_content == "room.depth.png"


def test_what_was_encoded_before_an_interruption_is_kept(model, photos, tmp_path):
    store = ImageBindVectorStore(ImageBindEmbeddings(model=model, batch_size=1))

    def interrupt(done, _):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_folder(store, photos, on_file=interrupt, save=lambda: store.save_local(tmp_path))
    again = ImageBindVectorStore.load_local(tmp_path, store.embeddings)
    assert again.count == 3
    report = index_folder(again, photos)
    assert (report.encoded, again.count) == (2, 5)
