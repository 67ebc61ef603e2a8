"""The detector that ships finds and counts; its figures are counted right; its recipe runs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ibllm_tools.cli import app
from ibllm_tools.evaluate.detector import Found, Picture, average_precision, overlap
from ibllm_tools.experts import has_detector, naming, open_detector
from ibllm_tools.experts.naming import Namer, Proposals, one_box_a_thing
from ibllm_tools.experts.naming_fit import fit_namer
from ibllm_tools.train.detector import DetectorOptions, train_detector
from ibllm_tools.train.loop import Schedule

MEDIA = Path(__file__).parents[1] / "ibllm_tools" / "demo_media"
PLACES = {"left": (6, 20, 62, 76), "right": (70, 44, 124, 98)}


def scene(**things):
    """A grey picture of 128 px with demo photos at places."""
    canvas = Image.new("RGB", (128, 128), (120, 130, 125))
    for place, name in things.items():
        x0, y0, x1, y1 = PLACES[place]
        canvas.paste(Image.open(MEDIA / f"{name}.jpg").resize((x1 - x0, y1 - y0)), (x0, y0))
    return canvas


@pytest.fixture(scope="module")
def detector():
    assert has_detector()
    return open_detector()


def test_it_says_which_things_are_where(detector):
    right, n_things = 0, 0
    names = ("dog", "boat", "motorcycle", "airplane")
    for first, second in zip(names, (*names[1:], names[0]), strict=True):
        found = detector.detect(scene(left=first, right=second)).detections
        for place, name in (("left", first), ("right", second)):
            n_things += 1
            truth = np.asarray(PLACES[place], np.float32)
            boxes = np.asarray([d.box for d in found if d.label == name], np.float32)
            right += bool(len(boxes)) and overlap(truth, boxes.reshape(-1, 4)).max() >= 0.5
    assert right > n_things / 2


def test_two_of_a_thing_are_two_and_an_empty_wall_has_nothing(detector):
    counts = [
        [d.label for d in detector.detect(scene(left=name, right=name)).detections].count(name)
        for name in ("dog", "boat", "motorcycle", "airplane")
    ]
    assert sorted(counts)[2] >= 2  # of four things, two or more are counted right
    assert not detector.detect(scene()).detections


def test_nothing_is_warned_of():
    code = (
        "from PIL import Image; from ibllm_tools.experts import open_detector;"
        "print(open_detector().detect(Image.new('RGB', (128, 128))).detections)"
    )
    command = [sys.executable, "-W", "always::UserWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"
    assert "embed_dim" not in done.stderr


def test_it_knows_its_classes_and_finds_those_that_are_asked_for(detector):
    assert "dog" in detector.classes()
    found = detector.detect(scene(left="dog", right="boat"), labels=["boat"]).detections
    assert {d.label for d in found} <= {"boat"}


def test_boxes_of_one_thing_become_one_the_surest():
    boxes = torch.tensor(
        [[0, 0, 10, 10], [1, 0, 11, 10], [2, 2, 6, 6], [20, 0, 30, 10], [26, 0, 36, 10]]
    ).float()
    # The second is nearly the first, the third lies in it; the last two share little.
    assert one_box_a_thing(boxes, torch.tensor([0.9, 0.95, 0.5, 0.4, 0.6])) == [1, 4, 3]
    assert one_box_a_thing(boxes[:0], torch.zeros(0)) == []


def box(*corners):
    return np.asarray(corners, np.float32).reshape(-1, 4)


WALL = Image.new("RGB", (10, 10))


def test_what_is_asked_for_is_likelier_to_be_there(monkeypatch):
    boxes, opinions = torch.tensor([[0.0, 0.0, 9.0, 9.0]]), torch.tensor([[0.5, 0.0, -9.0]])
    seen = Proposals(boxes, opinions, torch.zeros(1, 4))
    monkeypatch.setattr(naming, "propose", lambda *_: seen)
    namer = Namer(torch.zeros(4, 4), torch.zeros(4), torch.tensor([1.0, 0.0, 0.0]))
    classes = ["cat", "dog", "boat"]
    assert namer.find(None, Image.new("RGB", (9, 9)), classes).labels == ["cat"]
    assert namer.find(None, Image.new("RGB", (9, 9)), classes, {"dog"}).labels == ["dog"]
    assert namer.find(None, Image.new("RGB", (9, 9)), classes, {"boat"}).labels == ["cat"]


def test_overlap_is_the_shared_part_of_both():
    shares = overlap(box(0, 0, 10, 10)[0], box(0, 0, 10, 10, 5, 0, 15, 10, 20, 20, 30, 30))
    assert shares == pytest.approx([1, 1 / 3, 0])


def test_average_precision_by_hand():
    pictures = [
        Picture(WALL, ["dog", "dog"], box(0, 0, 10, 10, 20, 0, 30, 10)),
        Picture(WALL, ["cat"], box(0, 0, 10, 10)),
    ]
    found = [
        Found(["dog", "dog", "dog"], [0.9, 0.8, 0.4], box(0, 0, 10, 10, 0, 0, 9, 10, 20, 0, 30, 9)),
        Found(["dog"], [0.6], box(0, 0, 10, 10)),
    ]
    # By score: right, met before, wrong picture, right: precision 1 at recall 1/2, 1/2 at 1.
    assert average_precision("dog", pictures, found) == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert average_precision("cat", pictures, found) == 0
    assert np.isnan(average_precision("bus", pictures, found))


def test_the_recipe_trains_saves_and_is_scored(tmp_path):
    pack = write_photos(tmp_path / "pack")
    tiny = Schedule(2, 1e-3, 1, save_every=1)
    options = DetectorOptions(classes=("dog", "cat"), looks=tiny, boxes=tiny, width=8)
    folder = train_detector(pack, tmp_path / "out", tmp_path / "work", options=options)
    assert steps_done(tmp_path) == 2
    again = replace(options, boxes=replace(tiny, steps=3))
    train_detector(pack, tmp_path / "out", tmp_path / "work", options=again)
    assert steps_done(tmp_path) == 3
    fit_namer(pack, folder, tmp_path / "work", n_scenes=9)
    config = json.loads((folder / "config.json").read_text())
    assert 0 < config["detection_threshold"] < 1
    arguments = ["eval", "detector", "--data", str(pack), "--model", str(folder), "--limit", "3"]
    card = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert [s["name"] for s in card["sections"]] == ["scenes", "counts"]
    assert 0 <= card["sections"][0]["measures"][0]["value"] <= 1


def steps_done(folder):
    return torch.load(folder / "work" / "boxes.ckpt", weights_only=True)["step"]


def write_photos(folder):
    """A pack of three concepts with photos alone."""
    import io

    import pandas as pd

    folder.mkdir()
    rng = np.random.default_rng(0)
    names = ["dog", "cat", "sea"]
    rows = []
    for i in range(24):
        pixels = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
        pixels[..., i % 3] += 150
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        rows.append(
            {"concept_id": i % 3, "split": "train" if i < 15 else "val", "subtype": "",
             "jpeg": buffer.getvalue(), "src_px": 64}
        )  # fmt: skip
    pd.DataFrame(rows).to_parquet(folder / "photos.parquet")
    concepts = [{"id": i, "name_en": n, "name_zh": n} for i, n in enumerate(names)]
    (folder / "concepts.json").write_text(json.dumps(concepts), encoding="utf-8")
    return folder
