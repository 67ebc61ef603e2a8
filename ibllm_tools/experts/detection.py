"""Object detection by transformers: fixed classes, or any nouns.

```
RT-DETR, D-FINE, DETR, YOLOS, …   picture          -> boxes of the checkpoint's own classes
OWLv2, OWL-ViT                    picture, nouns   -> boxes of "a photo of a NOUN"
Grounding DINO, MM Grounding DINO picture, nouns   -> boxes of the nouns in "noun. noun."
```
Pictures are prepared by transformers' Pillow image processors: torchvision is not needed.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibllm_tools.errors import ConfigurationError, MissingExtraError
from ibllm_tools.experts.boxes import RawBoxes, to_detections, without_doubles
from ibllm_tools.experts.checkpoints import (
    find_source,
    load_whole,
    loading,
    module_bytes,
    stored_bytes,
)
from ibllm_tools.experts.classes import choose_classes
from ibllm_tools.experts.inputs import check_labels, check_threshold, to_rgb
from ibllm_tools.experts.naming import NAMING_FILE, Namer
from ibllm_tools.experts.registry import REGISTRY, ExpertKey, Loaded, Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image as PilImage
    from torch import Tensor

    from ibllm_tools.experts.results import Detections

OWL = {"owlv2", "owlvit"}
GROUNDING = {"grounding-dino", "mm-grounding-dino"}
# Scores of the families mean different things; these are their authors' usual thresholds.
FIXED_THRESHOLD, OWL_THRESHOLD, GROUNDING_THRESHOLD = 0.5, 0.2, 0.3


@dataclass(frozen=True)
class _Parts:
    """A loaded model with what prepares its inputs, and perhaps names its boxes."""

    model: Any
    processor: Any
    namer: Namer | None = None

    @property
    def kind(self) -> str:
        return str(self.model.config.model_type)

    @property
    def is_open(self) -> bool:
        return self.kind in OWL | GROUNDING

    def names(self) -> list[str]:
        """The classes by number; "N/A" stands for numbers without a class."""
        by_number = {int(i): str(name) for i, name in self.model.config.id2label.items()}
        return [by_number.get(i, "N/A") for i in range(max(by_number) + 1)]


class TransformersDetector:
    """A detector of the transformers library; its weights load at the first picture.

    Args:
        checkpoint: A folder or a hub id.
        device: As in torch; by default an accelerator where there is one.
        dtype: By default float32, since boxes need more than the 8 bits of bfloat16.
        registry: Where the loaded model is kept.

    Raises:
        CheckpointError: The checkpoint is a path where nothing is.
        ConfigurationError: There is no such device or dtype.
    """

    def __init__(
        self,
        checkpoint: str,
        device: str | None = None,
        dtype: str | None = None,
        registry: Registry = REGISTRY,
    ) -> None:
        from ibllm_tools.engine import Placement

        self.checkpoint = checkpoint
        self._source = find_source(checkpoint)
        self._place = Placement.choose(device, dtype or "float32")
        self._registry = registry
        self.key = ExpertKey(self._source, str(self._place.device), str(self._place.dtype))

    def detect(
        self,
        image: PilImage.Image,
        labels: Sequence[str] | None = None,
        threshold: float | None = None,
    ) -> Detections:
        """Find objects; see `protocols.Detector`."""
        picture, nouns = to_rgb(image), check_labels(labels)
        check_threshold(threshold, 0.0)
        with self._use() as parts:
            find = _find_nouns if parts.is_open else _find_classes
            return find(parts, picture, nouns, threshold, self.checkpoint)

    def classes(self) -> tuple[str, ...] | None:
        """Return the classes that it knows, loading it if need be; None if any noun will do."""
        with self._use() as parts:
            return None if parts.is_open else _class_names(parts)

    def _use(self) -> AbstractContextManager[_Parts]:
        return self._registry.use(self.key, self._load, stored_bytes(self._source))

    def _load(self) -> Loaded:
        from transformers import (
            AutoConfig,
            AutoModelForObjectDetection,
            AutoModelForZeroShotObjectDetection,
            AutoProcessor,
        )

        with loading(self.checkpoint, "a detector of transformers"):
            kind = AutoConfig.from_pretrained(self._source, trust_remote_code=False).model_type
            if kind in OWL and find_spec("scipy") is None:  # its picture processor needs it
                raise MissingExtraError("scipy", "experts")
            is_open = kind in OWL | GROUNDING
            family = AutoModelForZeroShotObjectDetection if is_open else AutoModelForObjectDetection
            model = load_whole(family, self._source, dtype=self._place.dtype)
            # The Pillow versions, also where torchvision is installed: the same on every machine.
            processor = AutoProcessor.from_pretrained(
                self._source, backend="pil", trust_remote_code=False
            )
            folder = Path(self._source)
            namer = Namer.load(folder) if (folder / NAMING_FILE).is_file() else None
        model = model.to(self._place.device).eval()
        return Loaded(_Parts(model, processor, namer), module_bytes(model))


def _class_names(parts: _Parts) -> tuple[str, ...]:
    return tuple(name for name in parts.names() if name not in {"N/A", "no-object"})


def _find_classes(
    parts: _Parts,
    picture: PilImage.Image,
    nouns: list[str] | None,
    threshold: float | None,
    model: str,
) -> Detections:
    classes = _class_names(parts)
    wanted = set(classes) if nouns is None else choose_classes(nouns, classes, model)
    own = getattr(parts.model.config, "detection_threshold", FIXED_THRESHOLD)
    threshold = check_threshold(threshold, float(own))
    outputs = _run(parts, parts.processor(images=picture, return_tensors="pt"))
    if parts.namer:
        named = parts.namer.find(outputs, picture, parts.names(), wanted if nouns else ())
        kept = [
            i
            for i, label in enumerate(named.labels)
            if label in wanted and float(named.scores[i]) >= threshold
        ]
        raw = RawBoxes(named.boxes[kept], named.scores[kept], [named.labels[i] for i in kept])
        return to_detections(raw, picture.size, model)
    (found,) = parts.processor.post_process_object_detection(
        outputs, threshold=threshold, target_sizes=[(picture.height, picture.width)]
    )
    names = parts.names()
    labels = [names[i] if i < len(names) else "N/A" for i in found["labels"].tolist()]
    keep = [i for i, label in enumerate(labels) if label in wanted]
    raw = RawBoxes(found["boxes"][keep], found["scores"][keep], [labels[i] for i in keep])
    return to_detections(raw, picture.size, model)


def _find_nouns(
    parts: _Parts,
    picture: PilImage.Image,
    nouns: list[str] | None,
    threshold: float | None,
    model: str,
) -> Detections:
    if nouns is None:
        raise ConfigurationError(
            f"{model} finds whatever it is asked for, and was asked for nothing; pass labels, "
            'such as labels=["dog", "ball"]'
        )
    find = _find_by_owl if parts.kind in OWL else _find_by_grounding
    return without_doubles(
        to_detections(find(parts, picture, nouns, threshold), picture.size, model)
    )


def _find_by_owl(
    parts: _Parts, picture: PilImage.Image, nouns: list[str], threshold: float | None
) -> RawBoxes:
    prompts = [f"a photo of a {noun}" for noun in nouns]
    inputs = parts.processor(text=[prompts], images=picture, return_tensors="pt", truncation=True)
    (found,) = parts.processor.post_process_grounded_object_detection(
        _run(parts, inputs),
        threshold=check_threshold(threshold, OWL_THRESHOLD),
        target_sizes=[(picture.height, picture.width)],
    )
    return RawBoxes(found["boxes"], found["scores"], [nouns[i] for i in found["labels"].tolist()])


def _find_by_grounding(
    parts: _Parts, picture: PilImage.Image, nouns: list[str], threshold: float | None
) -> RawBoxes:
    """Score each box by the words of each noun: the surest word of a noun counts.

    The library's own post-processing glues all words above a threshold to one label, which may
    mix two nouns; here a box has the noun that it fits best.
    """
    import torch

    text = "".join(f"{noun.lower()}. " for noun in nouns).strip()
    inputs = parts.processor(images=picture, text=text, return_tensors="pt")
    spans = _token_spans(parts.processor.tokenizer, text, inputs["input_ids"])
    outputs = _run(parts, inputs)
    words = outputs.logits[0].float().sigmoid()  # (Q, T): boxes by tokens of the prompt
    by_noun = torch.stack([words[:, span].amax(1) for span in spans], dim=1)  # (Q, nouns)
    scores, best = by_noun.max(dim=1)
    keep = scores > check_threshold(threshold, GROUNDING_THRESHOLD)
    centre, size = outputs.pred_boxes[0][keep].float().split(2, dim=1)
    scale = torch.tensor([picture.width, picture.height] * 2, device=centre.device)
    boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1) * scale
    return RawBoxes(boxes, scores[keep], [nouns[i] for i in best[keep].tolist()])


def _token_spans(tokenizer: Any, text: str, input_ids: Tensor) -> list[list[int]]:
    """The positions of each noun's tokens in the prompt "noun. noun."."""
    encoded = tokenizer(text, return_offsets_mapping=True)
    n_read = min(input_ids.shape[1], len(encoded["input_ids"]))
    spans = []
    for match in re.finditer(r"[^.]+", text):
        start, stop = match.span()
        inside = [
            i
            for i, (first, last) in enumerate(encoded["offset_mapping"][:n_read])
            if first < last and start <= first and last <= stop
        ]
        if not inside:
            raise ConfigurationError(
                f"labels: {match.group().strip()!r} lies beyond the {n_read} tokens that the model "
                "reads; ask for fewer at once"
            )
        spans.append(inside)
    return spans


def _run(parts: _Parts, inputs: Any) -> Any:
    import torch

    model = parts.model
    placed = inputs.to(model.device)
    placed["pixel_values"] = placed["pixel_values"].to(model.dtype)
    with torch.inference_mode():
        return model(**placed)
