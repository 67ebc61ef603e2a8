"""The feature store: what is written is read again, whatever happens in between."""

import base64
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from safetensors.torch import load_file
from tiny_model import save_tiny_model

from ibllm_tools.data.examples import Example, MediaRef, SourceReport
from ibllm_tools.data.store import (
    EncoderIdentity,
    FeatureStore,
    FeatureWriter,
    StoredMedium,
    StoredRow,
    identify_encoder,
    write_store,
)
from ibllm_tools.encoder import ImageBind
from ibllm_tools.engine import open_senses
from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.media import Media, MediaPolicy, load
from ibllm_tools.preprocess import PreprocessConfig

ROOT = Path(__file__).parent.parent
ASKED = {"role": "user", "content": "What is this? 这是什么？"}
JOINT = 16


@dataclass(frozen=True)
class FileOpener:
    path: Path

    def __call__(self) -> bytes:
        return self.path.read_bytes()


class Listed:
    """A source of given examples."""

    name = "listed"

    def __init__(self, examples):
        self.examples = examples
        self.report = SourceReport()

    def __iter__(self):
        self.report = SourceReport(read=len(self.examples), kept=len(self.examples))
        return iter(self.examples)


def answer(text):
    return (ASKED, {"role": "assistant", "content": text})


def picture(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    PilImage.fromarray(pixels).save(path)
    return path


def ref(path, modality="image", weight=1.0):
    return MediaRef(path.name, modality, weight, FileOpener(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def senses(folder):
    return open_senses(str(folder), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """30 pictures, two bad files, a sound."""
    place = tmp_path_factory.mktemp("media")
    for seed in range(30):
        picture(place / f"{seed}.png", seed)
    (place / "cut.png").write_bytes((place / "3.png").read_bytes()[:400])
    (place / "text.png").write_text("no picture")
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (1, 16000)).astype(np.float32)
    sound = Media.from_array(noise, "audio", rate_hz=16000)
    (place / "noise.wav").write_bytes(base64.b64decode(sound["base64"]))
    return place


@pytest.fixture(scope="module")
def examples(media):
    """Rows with one or several media, repeats, bad files and text only."""
    rows = [Example(f"p{i}", answer(f"p{i}"), (ref(media / f"{i}.png"),)) for i in range(30)]
    rows.append(Example("cut", answer("x"), (ref(media / "cut.png"),)))
    rows.append(Example("no", answer("x"), (ref(media / "text.png"), ref(media / "4.png"))))
    both = (ref(media / "0.png", weight=0.25), ref(media / "noise.wav", "audio", 0.75))
    rows.append(Example("both", answer("both"), both))
    rows += [Example(f"again{i}", answer("x"), (ref(media / f"{i}.png"),)) for i in range(10)]
    rows += [Example(f"text{i}", answer("only text")) for i in range(5)]
    random.Random(0).shuffle(rows)
    return rows


def fill(senses, examples, folder, **options):
    options = {"batch": 8, "shard_rows": 10, **options}
    return write_store(Listed(examples), senses.encoder, senses.config, folder, **options)


@pytest.fixture(scope="module")
def store(senses, examples, tmp_path_factory):
    return fill(senses, examples, tmp_path_factory.mktemp("stores") / "whole")


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_rows_hold_what_the_encoder_gives(store, senses, examples):
    kept = [example for example in examples if example.id not in {"cut", "no"}]
    assert [row.id for row in store] == [example.id for example in kept]
    for row, example in zip(store, kept, strict=True):
        assert row.messages == example.messages
        assert [m.key for m in row.media] == [m.key for m in example.media]
        assert row.weights == tuple(m.weight for m in example.media)
        assert row.modalities == tuple(m.modality for m in example.media)
        assert row.features.shape == (len(example.media), JOINT)
        assert row.features.dtype == torch.float32
        items = [load(m.block()) for m in example.media]
        for item, feature in zip(items, row.features, strict=True):
            torch.testing.assert_close(feature, senses.embed([[item]])[0], atol=2e-3, rtol=0)
        if items:  # senses.embed mixes by the weights, and then makes a unit vector
            mixed = torch.nn.functional.normalize(row.mixed(), dim=-1)
            torch.testing.assert_close(mixed, senses.embed([items])[0], atol=2e-3, rtol=0)
        else:
            assert row.mixed() is None


def test_bad_media_are_counted_and_do_not_stop_the_others(store, examples):
    *_, report = store.reports
    assert report["read"] == len(examples)
    assert report["kept"] == len(store) == len(examples) - 2
    assert report["skipped"] == {"unreadable medium": 2}
    samples = " ".join(report["samples"]["unreadable medium"])
    assert "cut.png" in samples
    assert "text.png" in samples


def test_a_medium_is_encoded_once(senses, examples, tmp_path, monkeypatch):
    seen = []
    encode = ImageBind.encode

    def counting(self, modality, x):
        seen.extend([modality] * len(x))
        return encode(self, modality, x)

    monkeypatch.setattr(ImageBind, "encode", counting)
    store = fill(senses, examples, tmp_path / "s")
    assert sorted(seen) == ["audio"] + ["image"] * 30
    assert (store.count(), store.count("image"), store.count("audio")) == (31, 30, 1)
    vectors = np.concatenate(list(store.vectors("image")))
    assert vectors.shape == (30, JOINT)
    assert len(np.unique(vectors, axis=0)) == 30
    assert store.about[0]["counts"] == {"rows": 46, "media": {"image": 30, "audio": 1}}


def test_a_store_can_be_pickled_and_indexed_from_the_end(store):
    again = pickle.loads(pickle.dumps(store))
    assert again[-1].id == store[len(store) - 1].id
    with pytest.raises(IndexError):
        store[len(store)]
    assert torch.equal(again[5].features, store[5].features)


KILLED = """
import pickle, sys
from ibllm_tools.data.store import write_store
from ibllm_tools.encoder import ImageBind
from ibllm_tools.engine import open_senses
sys.path.insert(0, sys.argv[4])
import test_feature_store as here
examples = pickle.load(open(sys.argv[2], "rb"))
senses = open_senses(sys.argv[1], device="cpu", dtype="float32")
encode = ImageBind.encode
def slow(self, modality, x):
    import time; time.sleep(0.3)
    return encode(self, modality, x)
ImageBind.encode = slow
print("ready", flush=True)
here.fill(senses, examples, sys.argv[3])
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    store, folder, senses, examples, tmp_path
):
    (tmp_path / "examples").write_bytes(pickle.dumps(examples))
    target = tmp_path / "killed"
    arguments = [folder, tmp_path / "examples", target, ROOT / "tests"]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )
    process.stdout.readline()
    while not (target / "features-00000.safetensors").is_file():
        time.sleep(0.01)
        assert process.poll() is None
    time.sleep(0.4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(CheckpointError, match="is not complete"):
        FeatureStore.open(target)
    begun = FeatureStore.open(target, partial=True)
    assert 0 < len(begun) < len(store)
    assert begun[0].id == store[0].id
    fill(senses, examples, target)
    assert contents(target) == contents(store.folders[0])


@pytest.mark.parametrize("n_blocks", range(1, 8))
def test_a_run_that_stops_after_any_block_goes_on(
    store, senses, examples, tmp_path, monkeypatch, n_blocks
):
    target, done = tmp_path / "s", []
    commit = FeatureWriter.commit

    def stopping(self):
        if len(done) == n_blocks:
            raise KeyboardInterrupt
        done.append(commit(self))

    monkeypatch.setattr(FeatureWriter, "commit", stopping)
    with pytest.raises(KeyboardInterrupt):
        fill(senses, examples, target)
    monkeypatch.undo()
    for name in ("open.features", "open.rows", "open.journal"):  # what a write in flight leaves
        with (target / name).open("ab") as file:
            file.write(b'{"torn')
    fill(senses, examples, target)
    assert contents(target) == contents(store.folders[0])


def test_a_run_stopped_while_a_shard_is_closed_goes_on(store, senses, examples, tmp_path):
    target = tmp_path / "s"
    whole = contents(store.folders[0])
    original = Path.replace

    def stop(self, other):
        if Path(other).name == "features-00001.safetensors":
            raise KeyboardInterrupt
        return original(self, other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            fill(senses, examples, target)
    fill(senses, examples, target)
    assert contents(target) == whole


def test_a_complete_store_is_not_filled_again(store, senses, examples):
    before = contents(store.folders[0])
    again = fill(senses, examples, store.folders[0])
    assert len(again) == len(store)
    assert contents(store.folders[0]) == before


def test_another_encoder_is_refused(store, senses, examples, tmp_path):
    other = open_senses(str(save_tiny_model(tmp_path / "other", seed=1)), device="cpu")
    with pytest.raises(CheckpointError, match="embed the data again with this encoder"):
        fill(other, examples, store.folders[0])
    with pytest.raises(CheckpointError, match="embed the data again"):
        store.require(identify_encoder(other.encoder, other.config))
    store.require(identify_encoder(senses.encoder, senses.config))
    sizes = PreprocessConfig(**{**senses.config.to_dict(), "image_mean": (0.0, 0.0, 0.0)})
    with pytest.raises(CheckpointError, match="embed the data again"):
        store.require(identify_encoder(senses.encoder, sizes))


def test_an_encoder_is_the_same_in_memory_elsewhere_and_in_half_width(senses, tmp_path):
    found = identify_encoder(senses.encoder, senses.config).fingerprint
    senses.encoder.save_pretrained(tmp_path / "copy")
    copy = ImageBind.from_pretrained(tmp_path / "copy", dtype=torch.bfloat16)
    assert identify_encoder(copy, senses.config).fingerprint == found
    held = ImageBind(senses.encoder.config)
    weights = {}
    for path in sorted((tmp_path / "copy").glob("*.safetensors")):
        weights |= load_file(path)
    held.load_state_dict(weights, strict=False)
    assert identify_encoder(held, senses.config).fingerprint == found


def test_a_changed_source_is_refused(senses, examples, tmp_path, monkeypatch):
    target, commit = tmp_path / "s", FeatureWriter.commit

    def stopping(self):
        commit(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureWriter, "commit", stopping)
    with pytest.raises(KeyboardInterrupt):
        fill(senses, examples, target)
    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match="the source has changed"):
        fill(senses, examples[1:], target)
    with pytest.raises(ConfigurationError, match="was begun with shard_rows 10"):
        fill(senses, examples, target, shard_rows=11)


def test_media_without_a_trunk_are_counted(senses, media, tmp_path):
    only_sound = ImageBind(
        type(senses.encoder.config)(**{**senses.encoder.config.to_dict(), "vision": None})
    )
    rows = [
        Example("a", answer("a"), (ref(media / "0.png"),)),
        Example("b", answer("b"), (ref(media / "noise.wav", "audio"),)),
    ]
    store = write_store(Listed(rows), only_sound.eval(), senses.config, tmp_path / "s")
    assert [row.id for row in store] == ["b"]
    assert store.reports[-1]["skipped"] == {"no vision trunk in the encoder": 1}


def test_a_source_of_bad_media_only_is_an_error(senses, media, tmp_path):
    rows = [Example("a", answer("a"), (ref(media / "cut.png"),))]
    with pytest.raises(ConfigurationError, match="no example was kept"):
        fill(senses, rows, tmp_path / "s")


def test_a_vector_that_is_not_finite_is_left_out_alone(senses, media, tmp_path, monkeypatch):
    encode = ImageBind.encode

    def broken(self, modality, x):
        out = encode(self, modality, x).clone()
        out[1] = torch.nan
        return out

    monkeypatch.setattr(ImageBind, "encode", broken)
    rows = [Example(f"{i}", answer("a"), (ref(media / f"{i}.png"),)) for i in range(4)]
    store = fill(senses, rows, tmp_path / "s")
    assert [row.id for row in store] == ["0", "2", "3"]
    assert store.reports[-1]["skipped"] == {"medium without a finite vector": 1}


IDENTITY = EncoderIdentity("tiny", "0123456789abcdef", 4)


def rows_with_vectors(count):
    for i in range(count):
        media = (StoredMedium(f"k{i % 7}", "image"), StoredMedium(f"s{i}", "audio", 0.5))
        generator = torch.Generator().manual_seed(i % 7)
        vectors = torch.randn(2, 4, generator=generator)
        yield StoredRow(f"r{i}", answer(str(i)), media, vectors)


def test_a_store_can_be_written_from_vectors(tmp_path):
    with FeatureWriter(tmp_path / "s", IDENTITY, shard_rows=6) as writer:
        for row in rows_with_vectors(20):
            if row.id == "r3":
                writer.skip(row.id, "too short", "2 letters")
            else:
                writer.append(row, row.features)
        store = writer.finish([{"read": 20}])
    assert [row.id for row in store] == [f"r{i}" for i in range(20) if i != 3]
    assert store.count("image") == 7
    assert store.reports[0] == {"read": 20}
    assert store.reports[-1]["skipped"] == {"too short": 1}
    expected = torch.nn.functional.normalize(next(iter(rows_with_vectors(1))).features, dim=-1)
    torch.testing.assert_close(store[0].features, expected, atol=1e-3, rtol=0)
    shards = [load_file(path) for path in sorted(store.folders[0].glob("*.safetensors"))]
    assert all(shard["features"].dtype == torch.float16 for shard in shards)


def test_vectors_that_do_not_fit_are_refused(tmp_path):
    row = next(iter(rows_with_vectors(1)))
    with FeatureWriter(tmp_path / "s", IDENTITY) as writer:
        for wrong in (torch.randn(2, 5), torch.randn(1, 4), torch.full((2, 4), torch.nan)):
            with pytest.raises(ConfigurationError, match="found vectors of shape"):
                writer.append(row, wrong)


def test_parts_of_several_processes_are_one_store(tmp_path):
    for i in range(2):
        with FeatureWriter(tmp_path / "s" / f"part-{i}-of-2", IDENTITY) as writer:
            for row in list(rows_with_vectors(10))[i::2]:
                writer.append(row, row.features)
            writer.finish()
        if i == 0:
            with pytest.raises(CheckpointError, match="has no part-1-of-2"):
                FeatureStore.open(tmp_path / "s")
    assert sorted(row.id for row in FeatureStore.open(tmp_path / "s")) == [
        f"r{i}" for i in range(10)
    ]


def test_stores_of_different_encoders_are_not_joined(tmp_path):
    for name, letter in (("a", "0"), ("b", "1")):
        identity = EncoderIdentity(name, letter * 16, 4)
        with FeatureWriter(tmp_path / name, identity) as writer:
            for row in rows_with_vectors(3):
                writer.append(row, row.features)
            writer.finish()
    with pytest.raises(CheckpointError, match="embed the data again"):
        FeatureStore.open(tmp_path / "a", tmp_path / "b")


def test_a_damaged_store_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="expected a feature store"):
        FeatureStore.open(tmp_path / "nothing")
    with FeatureWriter(tmp_path / "s", IDENTITY) as writer:
        for row in rows_with_vectors(3):
            writer.append(row, row.features)
        writer.finish()
    path = tmp_path / "s" / "features-00000.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-10], whole[:4], b"\xff" * 50):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is the copy complete"):
            FeatureStore.open(tmp_path / "s")
    path.unlink()
    with pytest.raises(CheckpointError, match="found 0 shards, expected 1"):
        FeatureStore.open(tmp_path / "s")
    about = json.loads((tmp_path / "s" / "store.json").read_text())
    (tmp_path / "s" / "store.json").write_text(json.dumps({**about, "format": 9}))
    with pytest.raises(CheckpointError, match="found format 9"):
        FeatureStore.open(tmp_path / "s")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="not empty and no feature store"):
        FeatureWriter(tmp_path, IDENTITY)


def test_limits_of_the_policy_hold(senses, media, tmp_path):
    rows = [Example(f"{i}", answer("a"), (ref(media / f"{i}.png"),)) for i in range(2)]
    picture(tmp_path / "small.png", 0)
    PilImage.new("RGB", (8, 8)).save(tmp_path / "small.png")
    rows.append(Example("small", answer("a"), (ref(tmp_path / "small.png"),)))
    store = fill(senses, rows, tmp_path / "s", policy=MediaPolicy(max_pixels=100))
    assert [row.id for row in store] == ["small"]
