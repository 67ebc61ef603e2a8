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
from ibllm_tools.routing import asked_kinds, asked_nouns, conclude, conclude_speech, is_chinese
from ibllm_tools.routing.tool_texts import Thing, objects_text, places_of, speech_text
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
            artifact: dict[str, Any] = {"id": record["id"], **found.model_dump()}
            if found.detections:
                from ibllm_tools.experts import draw_detections

                drawn = draw_detections(item.pixels, found)
                artifact["media"] = [_png(drawn, f"objects in {record['id']}.png")]
            told = _found(found, record["id"], question, labels or (), detector.classes())
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
            return _said(found, record["id"], question_in(runtime)), artifact


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


def things_in(found: Detections) -> list[Thing]:
    """What a detector found, as texts tell it."""
    return [(thing.label, thing.score, thing.box) for thing in found.detections]


def places_in(found: Detections, *, chinese: bool) -> dict[str, list[str]]:
    """Where each thing is, from left to right."""
    return places_of(things_in(found), (found.width_px, found.height_px), chinese=chinese)


def _found(
    found: Detections,
    id_: str,
    question: str,
    labels: Sequence[str],
    classes: Sequence[str] | None,
) -> str:
    """Tell what was found, by the words of the question unless the LLM has given labels."""
    chinese = is_chinese(question)
    asked = labels or asked_nouns(question, classes or found.counts())
    so = "" if labels else conclude(question, places_in(found, chinese=chinese), classes)
    kinds = [] if labels else asked_kinds(question)
    size = (found.width_px, found.height_px)
    return objects_text(id_, things_in(found), size, asked, kinds=kinds, chinese=chinese, so=so)


def _said(found: Transcript, id_: str, question: str) -> str:
    text = found.text if found.is_speech else ""
    parts = [(part.start_s, part.end_s, part.text) for part in found.segments]
    chinese, so = is_chinese(question), conclude_speech(question, text)
    return speech_text(id_, text, found.language, parts, chinese=chinese, so=so)


def _png(picture: PilImage.Image, name: str) -> Media:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    return Media.from_bytes(buffer.getvalue(), modality="image", name=name)
