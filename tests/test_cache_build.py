"""`ibllm embed --out STORE`, `ibllm cache build` and `info`, run as a person runs them."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from test_cli import Done, complaint, shown
from tiny_model import JOINT, save_tiny_model

from ibllm_tools import ChatImageBindLLM, ImageBindEmbeddings, Media
from ibllm_tools.cache import CacheSettings, VisualCache, build_cache, recall_at
from ibllm_tools.cli import main
from ibllm_tools.data.store import FeatureStore
from ibllm_tools.errors import ConfigurationError

ROOT = Path(__file__).parent.parent
PICTURES = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def ibllm(model, tmp_path, monkeypatch, capsys):
    """Run a command in this process and in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["ibllm", *map(str, arguments), "--model", str(model)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code or 0, *capsys.readouterr())

    return run


def png(seed):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    PilImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of pictures with captions, a bad one, and a sound."""
    place = tmp_path_factory.mktemp("data") / "photos"
    place.mkdir()
    for i in range(PICTURES):
        (place / f"{i:02}.png").write_bytes(png(i))
        (place / f"{i:02}.txt").write_text(f"picture {i}")
    (place / "bad.png").write_bytes(png(0)[:100])
    (place / "bad.txt").write_text("cut off")
    shutil.copy(ROOT / "ibllm_tools" / "demo_media" / "dog.ogg", place / "dog.ogg")
    (place / "dog.txt").write_text("a dog")
    return place


def test_embed_fills_a_store(ibllm, photos, model, tmp_path):
    text = shown(ibllm("embed", photos, "--out", "store"))
    assert f"store: {PICTURES + 1} examples ({PICTURES} image, 1 audio)" in text
    assert "1 skipped: unreadable medium" in text
    assert "bad.png" in text
    store = FeatureStore.open(tmp_path / "store")
    assert store.encoder.name == str(model)
    row = store[3]
    assert row.messages[-1] == {"role": "assistant", "content": "picture 3"}
    expected = ImageBindEmbeddings(model=str(model)).embed_media([photos / "03.png"])
    np.testing.assert_allclose(row.features.numpy(), expected, atol=2e-3)
    again = json.loads(shown(ibllm("embed", photos, "--out", "store", "--json")))
    assert again["rows"] == PICTURES + 1
    assert again["media"] == {"image": PICTURES, "audio": 1}


def test_several_processes_fill_one_store(ibllm, photos, tmp_path):
    whole = [row.id for row in FeatureStore.open(_store(ibllm, photos))]
    for i in (1, 0):
        shown(ibllm("embed", photos, "--out", "parts", "--shard", f"{i}/2"))
    assert sorted(row.id for row in FeatureStore.open(tmp_path / "parts")) == sorted(whole)
    done = ibllm("embed", photos, "--out", "parts", "--shard", "2/2")
    assert done.returncode == 2
    assert "expected I/N" in done.stderr


def _store(ibllm, photos):
    shown(ibllm("embed", photos, "--out", "store"))
    return "store"


def test_embed_takes_a_folder_without_captions(ibllm, photos, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for i in range(3):
        shutil.copy(photos / f"{i:02}.png", bare)
    shown(ibllm("embed", "bare", "--out", "store"))
    store = FeatureStore.open(tmp_path / "store")
    assert [row.id for row in store] == ["00.png", "01.png", "02.png"]
    assert store[0].messages == ()


def test_embed_goes_on_after_a_kill(ibllm, photos, model, tmp_path):
    command = ["embed", str(photos), "--out", "killed", "--model", str(model), "--batch", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ibllm_tools.cli", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    journal = tmp_path / "killed" / "open.journal"
    while not (journal.is_file() and journal.stat().st_size):
        time.sleep(0.005)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "is not complete" in complaint(ibllm("cache", "build", "killed", "--out", "c"))
    for out in ("killed", "whole"):
        shown(ibllm("embed", photos, "--out", out, "--batch", "2"))
    files = [p.name for p in sorted((tmp_path / "whole").iterdir())]
    assert files == [p.name for p in sorted((tmp_path / "killed").iterdir())]
    for name in files:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def nearest_itself(folder, model, paths):
    cache = VisualCache.load(folder)
    vectors = torch.tensor(ImageBindEmbeddings(model=str(model)).embed_media(paths))
    similarities, _, _ = cache.search(vectors, 1)
    return len(cache), similarities[:, 0]


def test_a_cache_of_a_folder_holds_its_pictures(ibllm, photos, model, tmp_path):
    text = shown(ibllm("cache", "build", photos, "--out", "cache"))
    assert f"cache: {PICTURES} vectors of {JOINT} values, exact" in text
    assert "--cache-dir cache" in text
    pictures = sorted(photos.glob("[0-9]*.png"))
    count, similarities = nearest_itself(tmp_path / "cache", model, pictures)
    assert count == PICTURES
    assert (similarities > 0.999).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]
    assert "exists" in complaint(ibllm("cache", "build", photos, "--out", "cache"))


def test_a_cache_of_tar_shards_and_of_a_store(ibllm, photos, model, tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"0000{shard}.tar", "w") as tar:
            for i in range(shard * 12, shard * 12 + 12):
                for suffix in ("png", "txt"):
                    tar.add(photos / f"{i:02}.{suffix}", f"{i:02}.{suffix}")
    spec = tmp_path / "{00000..00001}.tar"
    shown(ibllm("cache", "build", spec, "--out", "tars", "--store", "kept"))
    shown(ibllm("cache", "build", "kept", "--out", "stored"))
    pictures = sorted(photos.glob("[0-9]*.png"))
    for folder in ("tars", "stored"):
        count, similarities = nearest_itself(tmp_path / folder, model, pictures)
        assert count == PICTURES
        assert (similarities > 0.999).all()


def test_a_store_with_sounds_gives_a_cache_of_pictures_or_of_sounds(ibllm, photos, tmp_path):
    store = _store(ibllm, photos)
    pictures = json.loads(shown(ibllm("cache", "build", store, "--out", "a", "--json")))
    assert pictures["vectors"] == PICTURES
    command = ("cache", "build", store, "--out")
    sounds = json.loads(shown(ibllm(*command, "b", "--modality", "audio", "--json")))
    assert sounds["vectors"] == 1
    few = json.loads(shown(ibllm(*command, "c", "--limit", "5", "--json")))
    assert few["vectors"] == 5
    assert "found no depth features" in complaint(ibllm(*command, "d", "--modality", "depth"))


def test_a_compressed_cache_says_its_recall(ibllm, photos, tmp_path):
    command = ("cache", "build", photos, "--out", "c", "--form", "compressed")
    text = shown(ibllm(*command, "--n-lists", "2", "--n-probe", "2"))
    assert "compressed" in text
    assert "2 lists, 2 looked into" in text
    assert "of the true 10 nearest" in text
    about = json.loads(_info(ibllm, "c"))
    assert (about["form"], about["vectors"], about["n_lists"]) == ("compressed", PICTURES, 2)
    assert about["bytes"] == sum(path.stat().st_size for path in (tmp_path / "c").iterdir())
    done = ibllm(*command[:3], "--out", "d", *command[5:], "--n-lists", "99")
    assert done.returncode == 1
    assert "found 99 for 24 vectors" in done.stderr


def _info(ibllm, folder):
    """`cache info` takes no --model, so the fixture's is not given."""
    done = subprocess.run(
        [sys.executable, "-m", "ibllm_tools.cli", "cache", "info", folder, "--json"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def table():
    """4,000 unit vectors around 40 centres."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(40, 48, generator=generator)
    chosen = torch.randint(40, (4000,), generator=generator)
    noise = torch.randn(4000, 48, generator=generator)
    vectors = torch.nn.functional.normalize(centres[chosen] + 0.8 * noise, dim=-1)
    return vectors.half().numpy()


def test_a_cache_merged_on_disk_equals_one_built_in_memory(table, tmp_path):
    def blocks():
        return (table[i : i + 700] for i in range(0, len(table), 700))

    whole = build_cache(blocks, tmp_path / "whole", "compressed")
    merged = build_cache(blocks, tmp_path / "merged", "compressed", chunk_rows=900)
    assert [p.name for p in sorted((tmp_path / "merged").iterdir())] == [
        "cache.json",
        "index.faiss",
    ]
    assert (tmp_path / "merged/index.faiss").read_bytes() == (
        tmp_path / "whole/index.faiss"
    ).read_bytes()
    exact = build_cache(blocks, tmp_path / "exact")
    assert exact.kind == "exact"
    assert recall_at(exact, blocks, 10) > 0.99
    assert recall_at(merged, blocks, 10) == recall_at(whole, blocks, 10) > 0.9
    queries = torch.randn(7, 48)
    assert torch.equal(merged.search(queries, 5)[1], whole.search(queries, 5)[1])


def test_recall_counts_what_is_missed(table, tmp_path):
    def blocks():
        return [table]

    narrow = build_cache(blocks, tmp_path / "narrow", "compressed", n_lists=64, n_probe=1)
    wide = build_cache(blocks, tmp_path / "wide", "compressed", n_lists=64, n_probe=64)
    assert recall_at(narrow, blocks, 10) < recall_at(wide, blocks, 10)
    assert recall_at(wide, blocks, 10) > 0.95


def test_a_mapped_cache_can_be_saved_elsewhere(table, tmp_path):
    cache = build_cache(lambda: [table], tmp_path / "a", "compressed")
    expected = cache.search(torch.ones(1, 48), 5)[1]
    cache.save(tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    assert torch.equal(VisualCache.load(tmp_path / "b").search(torch.ones(1, 48), 5)[1], expected)


def test_a_cache_needs_vectors_and_a_new_folder(tmp_path, table):
    with pytest.raises(ConfigurationError, match="no vectors"):
        build_cache(list, tmp_path / "a")
    with pytest.raises(ConfigurationError, match="exists"):
        build_cache(lambda: [table], tmp_path)


def test_ask_and_chat_use_a_cache_of_another_folder(ibllm, photos, model, tmp_path):
    shown(ibllm("cache", "build", photos, "--out", "cache"))
    question = ("ask", "hi", photos / "dog.ogg", "--max-tokens", "12")
    plain = shown(ibllm(*question, "--no-cache"))
    cached = shown(ibllm(*question, "--cache-dir", "cache"))
    assert cached != plain
    settings = {"folder": str(tmp_path / "cache")}
    chat = ChatImageBindLLM(model=str(model), max_tokens=12, visual_cache=settings)
    content = ["hi", Media.from_path(photos / "dog.ogg")]
    assert chat.invoke([{"role": "user", "content": content}]).text == cached.rstrip("\n")
    assert CacheSettings(**settings).k == 10
    assert "cache.json" in complaint(ibllm(*question, "--cache-dir", "nowhere"))
