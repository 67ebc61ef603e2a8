"""ultralytics YOLO on a real photo, with a checkpoint made here; runs where it is installed.

It is installed in a virtual environment of its own, since torchvision beside CPU torch breaks
transformers. There, `tvshim.py` (named by TVSHIM) may stand in for torchvision's operators.
"""

import os
import runpy
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.experts import Detector, open_detector, unload_experts
from ibllm_tools.experts.registry import REGISTRY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("ultralytics") is None, reason="the extra [detect] (ultralytics) is missing"
    ),
]
PHOTO = Path(__file__).parents[1] / "ibllm_tools" / "demo_media" / "dog.jpg"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    if "TVSHIM" in os.environ:
        runpy.run_path(os.environ["TVSHIM"])["install"]()
    from ibllm_tools.experts.yolo import _import_quietly

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("yolo") / "made.pt"
    model = _import_quietly()("yolo11n.yaml")
    model.model.names = {i: "dog" if i == 16 else f"class {i}" for i in range(80)}
    model.save(path)
    return str(path)


@pytest.fixture(autouse=True)
def _unload():
    unload_experts()
    yield
    unload_experts()


@pytest.fixture(scope="module")
def photo():
    return Image.open(PHOTO).convert("RGB")


def test_boxes_on_a_photo(checkpoint, photo):
    detector = open_detector(checkpoint, device="cpu")
    assert isinstance(detector, Detector)
    found = detector.detect(photo, threshold=0.0)
    assert found.detections
    assert (found.width_px, found.height_px) == photo.size
    classes = detector.classes()
    assert len(classes) == 80
    assert "dog" in classes
    for each in found.detections:
        x0, y0, x1, y1 = each.box
        assert 0 <= x0 < x1 <= photo.width
        assert 0 <= y0 < y1 <= photo.height
        assert each.label in classes
    assert detector.detect(photo, threshold=1.0).detections == []


def test_labels_choose_among_the_classes(checkpoint, photo):
    detector = open_detector(checkpoint, device="cpu")
    best = detector.detect(photo, threshold=0.0).detections[0]
    chosen = detector.detect(photo, [best.label.upper()], threshold=0.0)
    assert chosen.detections[0] == best
    assert {each.label for each in chosen.detections} == {best.label}
    with pytest.raises(ConfigurationError, match="'wombat'"):
        detector.detect(photo, ["wombat"])


def test_threads_share_one_load_and_get_what_one_gets(checkpoint, photo):
    pictures = [photo.rotate(15 * turn) for turn in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(
                lambda picture: open_detector(checkpoint, device="cpu").detect(
                    picture, threshold=0.0
                ),
                pictures,
            )
        )
    detector = open_detector(checkpoint, device="cpu")
    assert together == [detector.detect(picture, threshold=0.0) for picture in pictures]
    assert [key.backend for key in REGISTRY.loaded()] == ["ultralytics"]


def test_what_it_would_do_by_itself_is_off(checkpoint):
    from ultralytics import settings
    from ultralytics.utils import AUTOINSTALL, is_online

    assert settings["sync"] is False
    assert AUTOINSTALL is False
    assert is_online() is False


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(checkpoint, photo, tmp_path):
    mark, evil = tmp_path / "mark", tmp_path / "evil.pt"
    torch.save({"model": Payload(mark)}, evil)
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        open_detector(str(evil), device="cpu").detect(photo)
    assert not mark.exists()


def test_a_missing_file_is_not_fetched():
    with pytest.raises(CheckpointError, match="Nothing is downloaded"):
        open_detector("yolo11n.pt")
