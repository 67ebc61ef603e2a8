"""What each expert finds for a question: lines for the answering model, and facts for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ibllm_tools.agent_graphs.comparing import compare, comparison_of
from ibllm_tools.agent_graphs.nouns import find_mentions
from ibllm_tools.attachments.records import Attachment, media_of
from ibllm_tools.chat_models import ChatImageBindLLM
from ibllm_tools.embeddings import ImageBindEmbeddings
from ibllm_tools.media import Audio, Image, Item, Video, load
from ibllm_tools.routing import (
    asked_kinds,
    asked_nouns,
    conclude,
    conclude_speech,
    is_chinese,
    known_nouns,
    say_objects,
    say_speech,
)
from ibllm_tools.routing.tool_texts import of_kinds
from ibllm_tools.toolkit.experts import mono, places_in

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from PIL import Image as PilImage

    from ibllm_tools.agent_graphs.state import Shelf
    from ibllm_tools.toolkit.experts import Experts

_MAX_FRAMES = 12
Found = tuple[str, dict[str, Any]]
"""A line and its facts."""


class Finder:
    """The experts at work on attachments."""

    def __init__(self, experts: Experts, perceiver: BaseChatModel, shelf: Shelf) -> None:
        """Detect and listen by `experts`, compare in the space of `perceiver`."""
        self.experts = experts
        self._embeddings = _embeddings(perceiver)
        self._shelf = shelf

    def detect(self, question: str, record: Attachment) -> Found:
        """Look for what a question names, or for everything, in a picture or a video.

        Raises:
            IbllmError: The picture cannot be read, or the detector not be loaded.
        """
        detector = self.experts.detector()
        classes = detector.classes()
        item = self.item(record)
        nouns = _nouns(question) if classes is None else classes
        asked = asked_nouns(question, nouns)
        labels = nouns if classes is None else asked or None
        looked = (detector.detect(frame, labels) for frame in _frames(item))
        found = max(looked, key=lambda one: len(one.detections))
        chinese = is_chinese(question)
        places = of_kinds(places_in(found, chinese=chinese), asked_kinds(question), asked)
        so = conclude(question, places, nouns)
        line = say_objects(record["id"], places, asked, chinese=chinese, so=so)
        return line, found.model_dump(mode="json")

    def listen(self, question: str, record: Attachment) -> Found:
        """Write down what is said in a recording or a sound track.

        Raises:
            IbllmError: The sound cannot be read, or the recogniser not be loaded.
        """
        item = self.item(record)
        sound = item.audio() if isinstance(item, Video) else item
        if not isinstance(sound, Audio):  # a video without a sound track
            return _heard(question, record, ""), {}
        found = self.experts.recognizer().transcribe(mono(sound), sound.rate_hz)
        line = _heard(question, record, found.text if found.is_speech else "")
        return line, found.model_dump(mode="json")

    def compare(self, question: str, held: dict[str, Attachment], newest: Sequence[str]) -> Found:
        """Say which attachments are alike.

        Raises:
            IbllmError: An attachment cannot be read.
        """
        wanted = comparison_of(question, list(held), newest)

        def vector_of(named: str) -> list[float]:
            if named not in held:
                return self._embeddings.embed_query(named)
            return self._embeddings.embed_media([self._media(held[named])])[0]

        line, scores = compare(question, wanted, vector_of, held)
        return line, {"query": wanted.query, "scores": scores}

    def item(self, record: Attachment) -> Item:
        """Decode an attachment under the policy."""
        return load(self._media(record), self._shelf.policy)

    def _media(self, record: Attachment) -> Any:
        return media_of(record, self._shelf.files.get(record["sha256"]))


def _heard(question: str, record: Attachment, text: str) -> str:
    """The line of a transcript, with what follows from it for the question."""
    so = conclude_speech(question, text)
    return say_speech(record["id"], text, chinese=is_chinese(question), so=so)


def _embeddings(perceiver: BaseChatModel) -> ImageBindEmbeddings:
    if isinstance(perceiver, ChatImageBindLLM):
        return ImageBindEmbeddings(
            model=perceiver.model, device=perceiver.device, dtype=perceiver.dtype
        )
    return ImageBindEmbeddings()


def _frames(item: Item) -> Iterator[PilImage.Image]:
    """A picture itself, or frames of a video, spread over its length, one at a time."""
    from PIL import Image as PilImage

    if isinstance(item, Image):
        yield item.pixels
        return
    assert isinstance(item, Video)
    n = min(_MAX_FRAMES, max(1, round(item.duration_s)))
    step = item.duration_s / n
    for i in range(n):
        yield PilImage.fromarray(item.frames([(i * step, (i + 1) * step)], 1)[0][0])


def _nouns(question: str) -> list[str]:
    """What an open-vocabulary detector is asked for: any nouns, or all that are known."""
    known = asked_nouns(question)
    others = [m.label for m in find_mentions(question, None) if not is_chinese(m.label)]
    kept = [label for label in others if not asked_nouns(label)]
    return [*known, *kept] or list(known_nouns())
