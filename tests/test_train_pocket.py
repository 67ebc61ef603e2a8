"""The pocket recipe in miniature: a synthetic pack, a few steps, a kill, and the same weights."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor
from ibllm_tools.train.data import hold_out, open_table, read_concepts
from ibllm_tools.train.encoder_sizes import EncoderSizes
from ibllm_tools.train.knowledge import facts_for
from ibllm_tools.train.language import LanguageSizes
from ibllm_tools.train.loop import Schedule
from ibllm_tools.train.naming import Names
from ibllm_tools.train.pocket import PocketOptions, PocketSchedules, train_pocket

CONCEPTS = [("dog", "狗"), ("car", "汽车"), ("gizmo", "小玩意")]
TINY = Schedule(steps=4, lr=1e-3, warmup=1, save_every=2)


def write_pack(folder: Path) -> Path:
    """Write a pack of 3 concepts with 8 photos, sounds and shapes each."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = [{"id": i, "name_en": en, "name_zh": zh} for i, (en, zh) in enumerate(CONCEPTS)]
    (folder / "concepts.json").write_text(json.dumps(rows), encoding="utf-8")
    common = [
        {"concept_id": i % 3, "split": "train" if i < 21 else "val", "subtype": "kind"}
        for i in range(24)
    ]
    photos = [row | {"jpeg": jpeg(rng, row["concept_id"]), "src_px": 64} for row in common]
    sounds = [row | {"ogg": wav(rng), "group": f"g{i // 2}"} for i, row in enumerate(common)]
    shapes = [row | {"points": cloud(rng), "up": "y"} for row in common]
    text = [
        {"kind": "caption", "lang": "en", "split": "train", "instruction": "", "input": "",
         "output": f"A dog runs over hill {i} ."}
        for i in range(6)
    ]  # fmt: skip
    for name, table in {"photos": photos, "sounds": sounds, "shapes": shapes, "text": text}.items():
        pd.DataFrame(table).to_parquet(folder / f"{name}.parquet")
    return folder


def jpeg(rng, concept):
    pixels = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
    pixels[..., concept] += 180
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def wav(rng):
    import wave

    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((rng.normal(size=8000) * 3000).astype("<i2").tobytes())
    return buffer.getvalue()


def cloud(rng):
    points = rng.normal(size=(2048, 3))
    return (points / np.abs(points).max()).astype("<f2").tobytes()


def tiny_options(**changes) -> PocketOptions:
    small = {"width": 32, "n_layers": 1, "n_heads": 2}
    stem = {"stem_channels": (8, 8, 8, 16), "stem_depths": (0, 1, 1, 1)}
    encoder = EncoderSizes(
        joint_dim=32,
        n_points=256,
        text_merges=0,
        text_context=24,
        vision={**small, **stem},
        text=small,
        audio={**small, **stem},
        depth={**small, **stem},
        point={**small, "n_groups": 8, "group_size": 8, "mlp_channels": (8, 8, 16),
               "mlp_out": 16, "projection_dim": 16},
    )  # fmt: skip
    language = LanguageSizes(
        vocab_size=500, width=32, hidden=64, n_layers=2, n_heads=2,
        n_talks=40, n_facts=20, n_captions=4, n_instructions=2, n_tools=60, n_routes=12,
        n_results=12,
    )  # fmt: skip
    names = [f.name for f in dataclasses.fields(PocketSchedules)]
    options = PocketOptions(
        encoder=encoder,
        language=language,
        schedules=PocketSchedules(**dict.fromkeys(names, TINY)),
        photo_batch=8,
        other_batch=8,
        held_out=0.2,
        cache_size=9,
        ranker_steps=2,
        n_talks=30,
        n_bare=16,
    )
    return dataclasses.replace(options, **changes)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums depend on the number of threads, so both runs of a comparison take one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("data") / "pack")


@pytest.fixture(scope="module")
def shipped(pack, tmp_path_factory):
    work = tmp_path_factory.mktemp("run")
    return train_pocket(pack, work / "out", work / "work", options=tiny_options())


def test_the_recipe_writes_a_folder_that_answers_about_a_photo(shipped, pack):
    from ibllm_tools.media import Media

    model = ImageBindLLM.from_pretrained(shipped).eval()
    processor = ImageBindLLMProcessor.from_pretrained(shipped)
    photo = Media.from_bytes(jpeg(np.random.default_rng(1), 0), modality="image")
    inputs = processor("What is this?", media=[photo])
    out = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert out.shape[1] > inputs["input_ids"].shape[1]
    assert json.loads((shipped / "concepts.json").read_text(encoding="utf-8"))[0]["name_zh"] == "狗"
    assert model.cache is not None
    assert len(model.cache) == 9


def test_a_folder_is_scored_on_a_split_through_the_chat_interface(shipped, pack):
    from ibllm_tools.evaluate import evaluate

    card = evaluate(
        pack, model=str(shipped), split="val", sections=["names"], limit=2, progress=False
    )
    assert card.media == {"photos": 2, "sounds": 2, "shapes": 2}
    measured = {m.name: m for m in card.sections[0].measures}
    assert measured["photos.right"].n == measured["shapes.encoder"].n == 2
    assert measured["same_as_chat"].n == 6


def test_training_moves_every_part_that_ships(shipped):
    adapter = load_file(shipped / "adapter.safetensors")
    assert adapter["gates"].float().sub(0.5).abs().max() > 0
    lora = [x for name, x in adapter.items() if "lora_b" in name.lower()]
    assert all(torch.isfinite(x).all() for x in adapter.values())
    assert not lora or any(x.abs().max() > 0 for x in lora)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_train_pocket import tiny_options, train_pocket
train_pocket({pack!r}, {out!r}, {work!r}, options=tiny_options())
"""


def test_a_killed_run_continues_to_the_same_weights(shipped, pack, tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    script = SCRIPT.format(
        tests=str(Path(__file__).parent), pack=str(pack), out=str(out), work=str(work)
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", script], env=env)
    deadline = time.monotonic() + 60
    while not (work / "photos.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "adapter.safetensors").exists()
    train_pocket(pack, out, work, options=tiny_options())
    for name in ("adapter.safetensors", "encoder/vision.safetensors", "cache/vectors.safetensors"):
        again, once = load_file(out / name), load_file(shipped / name)
        assert again.keys() == once.keys()
        for key, value in once.items():
            torch.testing.assert_close(again[key], value, msg=f"{name} {key}")


def test_a_pack_without_its_tables_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigurationError, match=r"concepts\.json"):
        read_concepts(tmp_path)
    with pytest.raises(ConfigurationError, match="'smells'"):
        open_table(tmp_path, tmp_path, "smells", "train")


def test_held_out_sounds_of_one_recording_stay_together(pack, tmp_path):
    table = open_table(pack, tmp_path, "sounds", "train")
    kept, held = hold_out(table, "sounds", 0.4, seed=1)
    assert len(kept) + len(held) == len(table)
    assert 0 < len(held) < len(table)
    assert not set(kept.extra) & set(held.extra)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("This is a dog.", True),
        ("Two dogs.", True),
        ("It is a POODLE.", True),
        ("This is a dog and a car.", False),
        ("This is a dogma.", False),
        ("I do not know what this is.", False),
    ],
)
def test_an_answer_is_right_if_it_names_the_concept_and_no_other(pack, answer, right):
    assert Names(facts_for(read_concepts(pack))).is_right(answer, 0) is right
