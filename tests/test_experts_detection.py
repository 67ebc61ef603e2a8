"""Detectors of transformers on tiny checkpoints and a real photo: boxes, nouns, threads, errors."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import expert_models
import numpy as np
import pytest
import torch
from PIL import Image

from ibllm_tools.errors import (
    CheckpointError,
    ConfigurationError,
    MediaError,
    MissingExtraError,
    ModelError,
)
from ibllm_tools.experts import (
    Detector,
    has_detector,
    open_detector,
    set_memory_budget,
    unload_experts,
)
from ibllm_tools.experts.boxes import RawBoxes, overlap, to_detections
from ibllm_tools.experts.registry import REGISTRY

PHOTO = Path(__file__).parents[1] / "ibllm_tools" / "demo_media" / "dog.jpg"
FIXED = ("rt_detr", "d_fine")
OPEN = ("owlv2", "grounding_dino")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("detectors")
    return {name: getattr(expert_models, name)(root / name) for name in (*FIXED, *OPEN)}


@pytest.fixture(autouse=True)
def _unload():
    unload_experts()
    yield
    set_memory_budget(None)
    unload_experts()


@pytest.fixture(scope="module")
def photo():
    return Image.open(PHOTO).convert("RGB")


def labels_for(name):
    return ["red dog", "bus"] if name in OPEN else None


@pytest.mark.parametrize("name", [*FIXED, *OPEN])
def test_boxes_lie_in_the_picture_the_surest_first(checkpoints, photo, name):
    detector = open_detector(checkpoints[name], device="cpu")
    assert isinstance(detector, Detector)
    found = detector.detect(photo, labels_for(name), threshold=0.0)
    assert (found.width_px, found.height_px) == photo.size
    assert found.model == checkpoints[name]
    assert found.detections
    assert sum(found.counts().values()) == len(found.detections)
    names = set(labels_for(name) or expert_models.NAMES.values())
    for each in found.detections:
        x0, y0, x1, y1 = each.box
        assert 0 <= x0 < x1 <= photo.width
        assert 0 <= y0 < y1 <= photo.height
        assert each.label in names
    scores = [each.score for each in found.detections]
    assert scores == sorted(scores, reverse=True)
    least = (scores[0] + scores[-1]) / 2
    fewer = detector.detect(photo, labels_for(name), threshold=least)
    assert all(each.score >= least for each in fewer.detections)
    assert len(fewer.detections) < len(found.detections)


@pytest.mark.parametrize("name", ["d_fine", "grounding_dino"])
def test_eight_threads_share_one_load_and_get_what_one_gets(checkpoints, photo, name, monkeypatch):
    pictures = [photo.rotate(15 * turn) for turn in range(8)]
    detector, loads = open_detector(checkpoints[name], device="cpu"), []
    kind = type(detector)
    load = kind._load
    monkeypatch.setattr(kind, "_load", lambda self: loads.append(1) or load(self))
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(
                lambda picture: open_detector(checkpoints[name], device="cpu").detect(
                    picture, labels_for(name), 0.0
                ),
                pictures,
            )
        )
    assert len(loads) == 1
    alone = [detector.detect(picture, labels_for(name), 0.0) for picture in pictures]
    assert together == alone
    assert len(loads) == 1
    assert alone[0] != alone[1]


@pytest.mark.parametrize("name", FIXED)
def test_fixed_classes_equal_an_own_reading_of_the_model(checkpoints, photo, name):
    import transformers

    model = transformers.AutoModelForObjectDetection.from_pretrained(checkpoints[name]).eval()
    pixels = np.asarray(photo.resize((64, 64), Image.Resampling.BILINEAR), np.float32) / 255
    with torch.inference_mode():
        out = model(pixel_values=torch.from_numpy(pixels).permute(2, 0, 1)[None])
    scores = out.logits[0].sigmoid().numpy()  # (queries, classes)
    query, number = np.unravel_index(scores.argmax(), scores.shape)
    cx, cy, w, h = out.pred_boxes[0, query].tolist()
    box = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
    best = open_detector(checkpoints[name], device="cpu").detect(photo, threshold=0.0).detections[0]
    assert best.label == expert_models.NAMES[number]
    assert best.score == pytest.approx(scores.max(), abs=1e-3)
    size = np.array([photo.width, photo.height] * 2)
    assert np.abs(np.array(best.box) - np.clip(box, 0, 1) * size).max() < 1.0


def test_owl_boxes_of_a_wide_picture_are_on_its_scale(checkpoints, photo):
    """OWLv2 sees a square that is padded below: its boxes are parts of the longer side."""
    import transformers

    wide = photo.resize((300, 100))
    processor = transformers.AutoProcessor.from_pretrained(checkpoints["owlv2"], backend="pil")
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(checkpoints["owlv2"])
    inputs = processor(text=[["a photo of a dog"]], images=wide, return_tensors="pt")
    with torch.inference_mode():
        out = model.eval()(**inputs)
    cx, cy, w, h = out.pred_boxes[0].double().numpy().T * 300
    boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)
    boxes = boxes.clip(0, [300, 100, 300, 100])
    found = open_detector(checkpoints["owlv2"], device="cpu").detect(wide, ["dog"], 0.0)
    assert found.detections
    for each in found.detections:
        assert np.abs(boxes - np.array(each.box)).max(axis=1).min() < 0.1


def test_a_box_has_the_noun_whose_words_it_fits_best(checkpoints, photo):
    import transformers

    folder, nouns = checkpoints["grounding_dino"], ["red dog", "bus", "fire"]
    processor = transformers.AutoProcessor.from_pretrained(folder, backend="pil")
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    inputs = processor(images=photo, text="red dog. bus. fire.", return_tensors="pt")
    tokens = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    assert tokens == ["[CLS]", "red", "dog", ".", "bus", ".", "fire", ".", "[SEP]"]
    with torch.inference_mode():
        words = model(**inputs).logits[0].sigmoid().numpy()
    by_noun = np.stack([words[:, 1:3].max(1), words[:, 4], words[:, 6]], axis=1)
    found = open_detector(folder, device="cpu").detect(photo, nouns, threshold=0.0)
    best = found.detections[0]
    rows = np.flatnonzero(np.abs(by_noun.max(1) - best.score) < 1e-4)
    assert best.score == pytest.approx(by_noun.max(), abs=1e-4)
    assert best.label in {nouns[i] for i in by_noun[rows].argmax(1)}


def test_labels_choose_among_the_classes(checkpoints, photo):
    detector = open_detector(checkpoints["d_fine"], device="cpu")
    every = detector.detect(photo, threshold=0.0)
    dogs = detector.detect(photo, ["Dogs"], threshold=0.0)
    assert dogs.detections == [each for each in every.detections if each.label == "dog"]
    assert dogs.detections
    both = detector.detect(photo, ["the bus", "traffic lights", "dog"], threshold=0.0)
    assert both == every
    assert detector.classes() == ("dog", "bus", "traffic light")


def test_an_unknown_noun_is_an_error_that_says_what_can_be_asked(checkpoints, photo):
    detector = open_detector(checkpoints["rt_detr"], device="cpu")
    with pytest.raises(ConfigurationError, match=r"'wombat'.*dog, bus, traffic light.*OWLv2"):
        detector.detect(photo, ["dog", "wombat"])


def test_an_open_detector_takes_any_noun_and_needs_one(checkpoints, photo):
    detector = open_detector(checkpoints["owlv2"], device="cpu")
    assert detector.classes() is None
    assert detector.detect(photo, ["wombat"], 0.0).detections[0].label == "wombat"
    with pytest.raises(ConfigurationError, match="pass labels"):
        detector.detect(photo)


def test_open_detectors_report_no_object_twice(checkpoints, photo):
    found = open_detector(checkpoints["owlv2"], device="cpu").detect(photo, ["dog"], 0.0)
    boxes = [each.box for each in found.detections]
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert pairs
    assert max(overlap(a, b) for a, b in pairs) <= 0.5


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "I;16", "F"])
def test_a_picture_of_any_mode_will_do(checkpoints, photo, mode):
    if mode in {"I;16", "F"}:
        grey = np.asarray(photo.convert("L"))
        values = grey.astype(np.uint16) * 257 if mode == "I;16" else grey.astype(np.float32) / 255
        picture = Image.fromarray(values)
    else:
        picture = photo.convert(mode)
    assert picture.mode == mode
    detector = open_detector(checkpoints["rt_detr"], device="cpu")
    found = detector.detect(picture, threshold=0.0)
    if mode == "RGBA":  # opaque: the same picture
        assert found == detector.detect(photo, threshold=0.0)
    if mode in {"I;16", "F"}:
        assert found == detector.detect(photo.convert("L"), threshold=0.0)
    assert found.width_px == photo.width


@pytest.mark.parametrize(
    ("image", "match"),
    [(Image.new("L", (2, 100)), "20 : 1"), (Image.new("1", (8000, 7000)), "50,000,000")],
)
def test_pictures_beyond_the_limits_are_refused_unloaded(checkpoints, image, match):
    with pytest.raises(MediaError, match=match):
        open_detector(checkpoints["rt_detr"], device="cpu").detect(image)
    assert REGISTRY.loaded() == []


@pytest.mark.parametrize(
    ("labels", "threshold", "match"),
    [
        ([], None, "1 to 64"),
        ([f"thing {i}" for i in range(65)], None, "found 65"),
        (["x" * 81], None, "81 characters"),
        ([" . "], None, "0 characters"),
        ("dog", None, "expected a list"),
        (["dog"], 1.5, "0 to 1"),
        (["dog"], float("nan"), "0 to 1"),
    ],
)
def test_bad_questions_are_refused_unloaded(checkpoints, photo, labels, threshold, match):
    with pytest.raises(ConfigurationError, match=match):
        open_detector(checkpoints["owlv2"], device="cpu").detect(photo, labels, threshold)
    assert REGISTRY.loaded() == []


def test_a_full_stop_in_a_noun_makes_no_second_noun(checkpoints, photo):
    detector = open_detector(checkpoints["grounding_dino"], device="cpu")
    found = detector.detect(photo, ["red. dog", "bus"], 0.0)
    assert found == detector.detect(photo, ["red dog", "bus"], 0.0)


def test_a_budget_for_one_keeps_the_last_used(checkpoints, photo):
    detectors = [open_detector(checkpoints[name], device="cpu") for name in FIXED]
    for detector in detectors:
        detector.detect(photo)
    sizes = REGISTRY.n_bytes("cpu")
    assert REGISTRY.loaded() == [detector.key for detector in detectors]
    set_memory_budget(sizes - 1)
    assert REGISTRY.loaded() == [detectors[1].key]
    detectors[0].detect(photo)
    assert REGISTRY.loaded() == [detectors[0].key]
    assert REGISTRY.n_bytes("cpu") < sizes
    set_memory_budget(1000)
    with pytest.raises(ConfigurationError, match="GiB"):
        detectors[1].detect(photo)


def test_a_missing_checkpoint_says_so_at_once(tmp_path):
    with pytest.raises(CheckpointError, match="no folder here and no hub id"):
        open_detector("./nowhere/at/all")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_detector(str(tmp_path))
    with pytest.raises(ConfigurationError, match="cannot be used here"):
        open_detector("some/model", device="cuda:99")


def test_a_hub_id_that_cannot_be_reached_says_what_to_do(photo):
    with pytest.raises(CheckpointError, match=r"nobody/nothing.*download it first"):
        open_detector("nobody/nothing", device="cpu").detect(photo)
    assert has_detector() is True


def test_broken_weights_and_pickles_are_checkpoint_errors(checkpoints, photo, tmp_path):
    folder = shutil.copytree(checkpoints["rt_detr"], tmp_path / "broken")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="broken"):
        open_detector(str(folder), device="cpu").detect(photo)
    weights.unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="broken"):
        open_detector(str(folder), device="cpu").detect(photo)
    assert REGISTRY.n_bytes("cpu") == 0


def test_missing_weights_are_an_error_and_not_random_numbers(checkpoints, photo, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(checkpoints["d_fine"], tmp_path / "partial")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if name.endswith("encoder_attn.sampling_offsets.weight"))
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 weights of a DFine.*sampling_offsets"):
        open_detector(str(folder), device="cpu").detect(photo)


def test_boxes_of_nan_are_a_model_error():
    raw = RawBoxes(torch.tensor([[0, 0, float("nan"), 1]]), torch.ones(1), ["dog"])
    with pytest.raises(ModelError, match="NaN"):
        to_detections(raw, (10, 10), "model")


@pytest.mark.skipif(find_spec("ultralytics") is not None, reason="ultralytics is installed here")
def test_yolo_without_its_extra_says_how_to_get_it():
    with pytest.raises(MissingExtraError, match=r"pip install 'ibllm-tools\[detect\]'"):
        open_detector("yolo11n.pt")
