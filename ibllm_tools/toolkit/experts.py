"""`detect_objects` and `transcribe_speech`: what a detector and a recognizer find."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from langchain.tools import ToolRuntime
from langchain_core.tools import BaseTool
from numpy.typing import NDArray
from PIL import Image as PilImage

from ibllm_tools.media import Audio, Image, Media, Video
from ibllm_tools.routing import asked_nouns, is_chinese, place_of, say_objects, say_speech
from ibllm_tools.toolkit.access import Access, Result, make_tool, question_in, told_to_the_model
from ibllm_tools.toolkit.schemas import DetectArgs, TranscribeArgs

if TYPE_CHECKING:
    from ibllm_tools.experts.protocols import Detector, Recognizer
    from ibllm_tools.experts.results import Detections, Transcript

DETECT = (
    "Find objects in an image: how many of what there are, and where (boxes in pixels). Do not "
    "use it to ask what an image means or to describe it, nor for recordings and videos."
)
TRANSCRIBE = (
    "Write down the words that people say in a recording, or in the sound track of a video, with "
    "times in seconds. Do not use it to tell what a noise is; music and noises have no words."
)
DIGITS_ONLY = "It knows spoken English digits only, and makes digits of any other speech."
_MAX_LISTED = 30


class Experts:
    """A detector and a recognizer; each is opened at its first use, or not at all."""

    def __init__(
        self, detector: Detector | str | bool | None, recognizer: Recognizer | str | bool | None
    ) -> None:
        """Take experts, checkpoints, True for what ships, False for none, None for either."""
        self._detector = _ships("detector") if detector is None else detector
        self._recognizer = _ships("recognizer") if recognizer is None else recognizer
        self.hears_digits_only = self._recognizer in (True, "pocket_recognizer")

    @property
    def detects(self) -> bool:
        """Whether there is a detector."""
        return self._detector is not False

    @property
    def recognizes(self) -> bool:
        """Whether there is a recognizer."""
        return self._recognizer is not False

    def detector(self) -> Detector:
        """The detector.

        Raises:
            CheckpointError: Its checkpoint is missing.
            MissingExtraError: A package that it needs is not installed.
        """
        if isinstance(self._detector, (str, bool)):
            from ibllm_tools.experts import open_detector

            self._detector = open_detector(_checkpoint(self._detector))
        return self._detector

    def recognizer(self) -> Recognizer:
        """The recognizer; raises as `detector` does."""
        if isinstance(self._recognizer, (str, bool)):
            from ibllm_tools.experts import open_recognizer

            self._recognizer = open_recognizer(_checkpoint(self._recognizer))
        return self._recognizer

    def labels_in(self, picture: PilImage.Image) -> dict[str, int]:
        """How many of what are in a picture."""
        return self.detector().detect(picture).counts()


class ExpertTools:
    """The tools around the experts."""

    def __init__(self, access: Access, experts: Experts) -> None:
        """Hold the experts."""
        self._access = access
        self._experts = experts

    def tools(self) -> list[BaseTool]:
        """A tool for each expert that is there."""
        tools: list[BaseTool] = []
        if self._experts.detects:
            tools.append(make_tool("detect_objects", DETECT, DetectArgs, self.detect_objects))
        if self._experts.recognizes:
            limit = f" {DIGITS_ONLY}" if self._experts.hears_digits_only else ""
            about = TRANSCRIBE + limit
            tools.append(
                make_tool("transcribe_speech", about, TranscribeArgs, self.transcribe_speech)
            )
        return tools

    def detect_objects(
        self,
        image: str,
        labels: list[str] | None = None,
        threshold: float | None = None,
        runtime: ToolRuntime = None,  # type: ignore[assignment]
    ) -> Result:
        """Find objects, and draw their boxes."""
        with told_to_the_model():
            record, item = self._access.item(
                runtime, image, ("image",), "use analyze_video for videos and perceive for others"
            )
            assert isinstance(item, Image)
            detector, question = self._experts.detector(), question_in(runtime)
            found = detector.detect(item.pixels, labels or None, threshold)
            asked = labels or asked_nouns(question, detector.classes() or found.counts())
            artifact: dict[str, Any] = {"id": record["id"], **found.model_dump()}
            if found.detections:
                from ibllm_tools.experts import draw_detections

                drawn = draw_detections(item.pixels, found)
                artifact["media"] = [_png(drawn, f"objects in {record['id']}.png")]
            told = tell_found(found, record["id"], asked, chinese=is_chinese(question))
            return told, artifact

    def transcribe_speech(
        self,
        audio: str,
        language: str | None = None,
        runtime: ToolRuntime = None,  # type: ignore[assignment]
    ) -> Result:
        """Write down speech, and draw its words over the wave."""
        with told_to_the_model():
            record, item = self._access.item(
                runtime, audio, ("audio", "video"), "use perceive for other attachments"
            )
            sound = item.audio() if isinstance(item, Video) else item
            if not isinstance(sound, Audio):
                return f"{record['id']} has no sound track.", {"id": record["id"]}
            samples = mono(sound)
            found = self._experts.recognizer().transcribe(samples, sound.rate_hz, language)
            artifact: dict[str, Any] = {"id": record["id"], **found.model_dump()}
            if found.is_speech:
                from ibllm_tools.experts import draw_transcript

                drawn = draw_transcript(samples, sound.rate_hz, found)
                artifact["media"] = [_png(drawn, f"words of {record['id']}.png")]
            chinese = is_chinese(question_in(runtime))
            return tell_said(found, record["id"], chinese=chinese), artifact


def mono(sound: Audio) -> NDArray[np.float32]:
    """(S,) the mean of a sound's channels."""
    mean: NDArray[np.float32] = sound.samples.mean(axis=0, dtype=np.float32)
    return mean


def _ships(expert: str) -> bool:
    """Whether an expert comes with the package; loads nothing."""
    try:
        tells = getattr(import_module("ibllm_tools.experts"), f"has_{expert}", None)
    except ImportError:
        return False
    return tells is not None and bool(tells())


def _checkpoint(given: str | bool) -> str | None:
    return given if isinstance(given, str) else None


def places_in(found: Detections, *, chinese: bool) -> dict[str, list[str]]:
    """Where each thing is, from left to right."""
    places: dict[str, list[str]] = {}
    ordered = sorted(found.detections, key=lambda thing: thing.box[0] + thing.box[2])
    for label in found.counts():
        places[label] = [
            place_of(thing.box, found.width_px, found.height_px, chinese=chinese)
            for thing in ordered
            if thing.label == label
        ]
    return places


def tell_found(
    found: Detections, id_: str, asked: Sequence[str] = (), *, chinese: bool = False
) -> str:
    """Tell an LLM what is in a picture: a line that it can repeat, and the boxes.

    Args:
        found: By the detector.
        id_: Of the picture.
        asked: Things that were asked about; the first line is about these alone.
        chinese: The language of the first line.
    """
    told = say_objects(id_, places_in(found, chinese=chinese), asked, chinese=chinese)
    if not found.detections:
        return told
    boxes = [
        f"{thing.label} {thing.score:.2f} ({', '.join(f'{edge:.0f}' for edge in thing.box)})"
        for thing in found.detections[:_MAX_LISTED]
    ]
    size = f"{found.width_px} x {found.height_px}"
    return f"{told}\nboxes (pixels of {size}): {'; '.join(boxes)}"


def tell_said(found: Transcript, id_: str, *, chinese: bool = False) -> str:
    """Tell an LLM what is said in a recording: a line that it can repeat, and the times."""
    told = say_speech(id_, found.text if found.is_speech else "", chinese=chinese)
    if not found.is_speech:
        return told
    lines = [f"language: {found.language}"] if found.language else []
    if len(found.segments) > 1:
        parts = found.segments[:_MAX_LISTED]
        lines += [f"{part.start_s:.1f}-{part.end_s:.1f} s: {part.text}" for part in parts]
    return "\n".join([told, *lines])


def _png(picture: PilImage.Image, name: str) -> Media:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    return Media.from_bytes(buffer.getvalue(), modality="image", name=name)
