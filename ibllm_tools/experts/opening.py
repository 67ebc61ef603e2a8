"""`open_detector`, `open_recognizer`: from a checkpoint's name to an expert.

An expert that was opened holds no weights. They load at its first use, once per process, and may
be unloaded in between; the next use loads them again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibllm_tools.experts.checkpoints import POCKET_DETECTOR, POCKET_RECOGNIZER, is_shipped
from ibllm_tools.experts.registry import REGISTRY

if TYPE_CHECKING:
    from ibllm_tools.experts.protocols import Detector, Recognizer

DEFAULT_DETECTOR = POCKET_DETECTOR  # in this package; ten classes
COCO_DETECTOR = "ustc-community/dfine-small-coco"  # Apache-2.0; the 80 classes of COCO
OPEN_DETECTOR = "google/owlv2-base-patch16-ensemble"  # Apache-2.0; for any nouns
DEFAULT_RECOGNIZER = POCKET_RECOGNIZER  # in this package; English digits only
OPEN_RECOGNIZER = "openai/whisper-base"  # Apache-2.0; for any speech


def open_detector(
    checkpoint: str | None = None, device: str | None = None, dtype: str | None = None
) -> Detector:
    """Open an object detector; weights load at the first picture.

    Args:
        checkpoint: A folder or hub id of a transformers detector (RT-DETR, D-FINE, OWLv2,
            Grounding DINO, …), or a `.pt` file of ultralytics. By default the small one of
            this package, which finds ten classes.
        device: As in torch; by default an accelerator where there is one.
        dtype: By default "float32".

    Raises:
        CheckpointError: There is no such checkpoint.
        MissingExtraError: A `.pt` file is given, and ultralytics is not installed.
        ConfigurationError: There is no such device or dtype.
    """
    from ibllm_tools.experts.detection import TransformersDetector
    from ibllm_tools.experts.yolo import UltralyticsDetector, is_yolo_checkpoint

    name = checkpoint or DEFAULT_DETECTOR
    if is_yolo_checkpoint(name):
        return UltralyticsDetector(name, device, dtype)
    return TransformersDetector(name, device, dtype)


def open_recognizer(
    checkpoint: str | None = None, device: str | None = None, dtype: str | None = None
) -> Recognizer:
    """Open a speech recognizer; weights load at the first sound that is not silent.

    The one that ships knows **spoken English digits only**; it makes digits of other speech. For
    any speech name a larger one: "openai/whisper-base", "openai/whisper-large-v3-turbo", …

    Args:
        checkpoint: A folder or hub id of a transformers Whisper, or, for openai-whisper, a
            `.pt` file or a name such as "base". By default the one that ships.
        device: As in torch; by default an accelerator where there is one.
        dtype: By default bfloat16 on an accelerator (float16 for openai-whisper).

    Raises:
        CheckpointError: There is no such checkpoint.
        MissingExtraError: It is one for openai-whisper, which is not installed.
        ConfigurationError: There is no such device or dtype.
    """
    from ibllm_tools.experts.openai_speech import OpenAIRecognizer, is_openai_checkpoint
    from ibllm_tools.experts.speech import TransformersRecognizer

    name = checkpoint or DEFAULT_RECOGNIZER
    if is_openai_checkpoint(name):
        return OpenAIRecognizer(name, device, dtype)
    return TransformersRecognizer(name, device, dtype)


def has_detector() -> bool:
    """Tell whether the default detector's files are here; loads and downloads nothing."""
    return is_shipped(DEFAULT_DETECTOR)


def has_recognizer() -> bool:
    """Tell whether the default recognizer's files are here; loads and downloads nothing."""
    return is_shipped(DEFAULT_RECOGNIZER)


def set_memory_budget(n_bytes: int | None) -> None:
    """Set how many bytes of weights the experts of one device may hold.

    Args:
        n_bytes: The budget for each device; None means half of the device's memory.

    Raises:
        ConfigurationError: It is not above 0.
    """
    REGISTRY.set_budget(n_bytes)


def unload_experts() -> None:
    """Unload every expert that is not at work; the next use of one loads it again."""
    REGISTRY.unload()
