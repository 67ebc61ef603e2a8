"""Experts: specialised models beside the LLM, for what it cannot tell by itself.

```
open_detector("folder or hub id").detect(picture, ["dog"])  -> Detections: boxes in pixels
open_recognizer("folder or hub id").transcribe(sound, 16000) -> Transcript: words in seconds
draw_detections(picture, detections), draw_transcript(sound, 16000, transcript) -> pictures

opening ─┬─ detection (transformers), yolo (ultralytics) ─ classes, boxes ─┬─ results ─ drawing
         └─ speech (transformers), openai_speech ─ words, hearing ─────────┘
            all of them: inputs (limits), registry (one load, budget, locks), checkpoints
```
One registry keeps what is loaded for the whole process. Importing this package loads no torch.
"""

from __future__ import annotations

from ibllm_tools.experts.drawing import draw_detections, draw_transcript
from ibllm_tools.experts.opening import (
    DEFAULT_DETECTOR,
    DEFAULT_RECOGNIZER,
    OPEN_DETECTOR,
    has_detector,
    has_recognizer,
    open_detector,
    open_recognizer,
    set_memory_budget,
    unload_experts,
)
from ibllm_tools.experts.protocols import Detector, Recognizer
from ibllm_tools.experts.results import Detection, Detections, Segment, Transcript, Word

__all__ = [
    "DEFAULT_DETECTOR",
    "DEFAULT_RECOGNIZER",
    "OPEN_DETECTOR",
    "Detection",
    "Detections",
    "Detector",
    "Recognizer",
    "Segment",
    "Transcript",
    "Word",
    "draw_detections",
    "draw_transcript",
    "has_detector",
    "has_recognizer",
    "open_detector",
    "open_recognizer",
    "set_memory_budget",
    "unload_experts",
]
