"""Object detection by ultralytics YOLO, behind the extra `[detect]`.

**ultralytics is licensed under AGPL-3.0** (or a paid licence of its makers), and so are the
weights that they publish: whoever offers a service with it must offer the source of that service.
This package is Apache-2.0, does not contain it, and imports it only when a YOLO checkpoint is
opened. `TransformersDetector` is the permissive way to the same result.

What it does by itself is switched off: analytics, downloads, and the installing of packages. Its
checkpoints are pickles; they are read by its own restricted loader (`weights_only=True`).
"""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ibllm_tools.errors import CheckpointError, MissingExtraError
from ibllm_tools.experts.boxes import MAX_DETECTIONS, RawBoxes, to_detections
from ibllm_tools.experts.checkpoints import find_file, loading, module_bytes, stored_bytes
from ibllm_tools.experts.classes import choose_classes
from ibllm_tools.experts.inputs import check_labels, check_threshold, to_rgb
from ibllm_tools.experts.registry import REGISTRY, ExpertKey, Loaded, Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image as PilImage

    from ibllm_tools.experts.results import Detections

THRESHOLD = 0.25  # ultralytics' own
SWITCHES = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SAFE_LOAD": "true",
}


def is_yolo_checkpoint(checkpoint: str) -> bool:
    """Tell whether this is a checkpoint file of ultralytics."""
    return checkpoint.endswith(".pt")


class UltralyticsDetector:
    """A YOLO detector; its weights load at the first picture.

    Args:
        checkpoint: A `.pt` file that exists; nothing is downloaded.
        device: As in torch; by default an accelerator where there is one.
        dtype: "float16" for half precision on a GPU, else float32.
        registry: Where the loaded model is kept.

    Raises:
        MissingExtraError: ultralytics is not installed.
        CheckpointError: There is no such file.
        ConfigurationError: There is no such device or dtype.
    """

    def __init__(
        self,
        checkpoint: str,
        device: str | None = None,
        dtype: str | None = None,
        registry: Registry = REGISTRY,
    ) -> None:
        if find_spec("ultralytics") is None:
            raise MissingExtraError("ultralytics", "detect")
        from ibllm_tools.engine import Placement

        self.checkpoint = checkpoint
        self._source = find_file(checkpoint, "a YOLO `.pt` file")
        self._place = Placement.choose(device, dtype or "float32")
        self._registry = registry
        self.key = ExpertKey(
            self._source, str(self._place.device), str(self._place.dtype), "ultralytics"
        )

    def detect(
        self,
        image: PilImage.Image,
        labels: Sequence[str] | None = None,
        threshold: float | None = None,
    ) -> Detections:
        """Find objects of the checkpoint's classes; see `protocols.Detector`."""
        picture, nouns = to_rgb(image), check_labels(labels)
        least = check_threshold(threshold, THRESHOLD)
        with self._use() as model:
            names: dict[int, str] = {int(i): str(name) for i, name in model.names.items()}
            numbers = None
            if nouns is not None:
                wanted = choose_classes(nouns, list(names.values()), self.checkpoint)
                numbers = [i for i, name in names.items() if name in wanted]
            raw = self._predict(model, picture, least, numbers)
        return to_detections(raw, picture.size, self.checkpoint)

    def classes(self) -> tuple[str, ...] | None:
        """Return the classes that it knows, loading it if need be."""
        with self._use() as model:
            return tuple(str(name) for name in model.names.values())

    def _predict(
        self, model: Any, picture: PilImage.Image, threshold: float, numbers: list[int] | None
    ) -> RawBoxes:
        (result,) = model.predict(
            picture,
            conf=threshold,
            classes=numbers,
            max_det=MAX_DETECTIONS,
            device=str(self._place.device),
            half=str(self._place.dtype) == "torch.float16",
            verbose=False,
            save=False,
        )
        # Off the device at once; a kept result would hold the picture and all its tensors.
        found = result.boxes.cpu()
        labels = [str(model.names[int(i)]) for i in found.cls.tolist()]
        return RawBoxes(found.xyxy, found.conf, labels)

    def _use(self) -> AbstractContextManager[Any]:
        return self._registry.use(self.key, self._load, stored_bytes(self._source))

    def _load(self) -> Loaded:
        yolo = _import_quietly()
        with loading(self.checkpoint, "a YOLO detector of ultralytics"):
            model = yolo(self._source)
            if model.task != "detect":
                raise CheckpointError(
                    f"{self.checkpoint} is a YOLO model for the task {model.task!r}; expected "
                    "'detect'"
                )
            model.to(self._place.device)
        return Loaded(model, module_bytes(model.model))


def _import_quietly() -> Any:
    """Import ultralytics with everything switched off that it would do by itself.

    Raises:
        CheckpointError: This release has no restricted loader, or was imported without it.
    """
    for name, value in SWITCHES.items():
        os.environ[name] = value
    if "YOLO_CONFIG_DIR" not in os.environ:
        os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="ibllm-yolo-")
    with loading("ultralytics", "a package that works here"):
        from ultralytics import YOLO, settings
        from ultralytics.nn import tasks

        settings.update(sync=False)
    if not hasattr(tasks, "SAFE_LOAD"):
        raise CheckpointError(
            "this release of ultralytics runs whatever code a checkpoint holds; run "
            "`pip install -U ultralytics`, which brings its restricted loader"
        )
    tasks.SAFE_LOAD = True  # also where somebody imported it before
    return YOLO
