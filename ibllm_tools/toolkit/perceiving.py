"""`perceive` and `analyze_video`: questions answered by a model that senses the media."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

from langchain.tools import ToolRuntime
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables.config import run_in_executor
from langchain_core.tools import BaseTool, ToolException
from PIL import Image as PilImage

from ibllm_tools.attachments.records import Attachment
from ibllm_tools.media import Media, Video
from ibllm_tools.routing.tool_texts import video_text
from ibllm_tools.toolkit.access import Access, Result, make_tool, told_to_the_model
from ibllm_tools.toolkit.experts import Experts, mono
from ibllm_tools.toolkit.schemas import PerceiveArgs, VideoArgs

PERCEIVE = (
    "Answer a question about what attachments show or sound like: images, recordings, videos, "
    "3D shapes; several are perceived together. Do not use it to count things or to find where "
    "they are, to write down speech, or for questions that need no attachment."
)
ANALYZE = (
    "Look through a video: what is in it, what is where second by second, and what is said. Do "
    "not use it for single images or for recordings without pictures."
)
MAX_SECONDS_LOOKED_AT = 60
_SHARE_OF_SOUND = 0.3


class Perceiving:
    """Holds the model that senses."""

    def __init__(self, access: Access, chat: BaseChatModel, experts: Experts) -> None:
        """Ask `chat` about attachments; `experts` add to what is told of videos."""
        self._access = access
        self._chat = chat
        self._experts = experts

    def tools(self) -> list[BaseTool]:
        """The two tools."""
        return [
            make_tool("perceive", PERCEIVE, PerceiveArgs, self.perceive, self.aperceive),
            make_tool("analyze_video", ANALYZE, VideoArgs, self.analyze_video),
        ]

    def perceive(
        self,
        question: str,
        attachments: list[str],
        weights: list[float] | None = None,
        runtime: ToolRuntime = None,  # type: ignore[assignment]
    ) -> Result:
        """Answer a question about attachments."""
        with told_to_the_model():
            asked, used = self._question(question, attachments, weights, runtime)
            return _told(self._chat.invoke(asked), used)

    async def aperceive(
        self,
        question: str,
        attachments: list[str],
        weights: list[float] | None = None,
        runtime: ToolRuntime = None,  # type: ignore[assignment]
    ) -> Result:
        """Answer a question about attachments; cancelled with its task."""
        with told_to_the_model():
            asked, used = await run_in_executor(
                None, self._question, question, attachments, weights, runtime
            )
            return _told(await self._chat.ainvoke(asked), used)

    def analyze_video(
        self,
        video: str,
        question: str = "What is in the video?",
        runtime: ToolRuntime = None,  # type: ignore[assignment]
    ) -> Result:
        """Look through a video, its sound track and what experts find in both."""
        with told_to_the_model():
            record, item = self._access.item(
                runtime, video, ("video",), "use perceive for other attachments"
            )
            assert isinstance(item, Video)
            _, media = self._access.held(runtime).media(video)
            facts = self._facts(item)
            # What experts found stands beside the answer; a small model would but repeat it.
            answer = self._chat.invoke([HumanMessage([question, *frames_and_sound(media, item)])])
            artifact = {"id": record["id"], "answer": answer.text, **facts}
            return video_text(record["id"], item.duration_s, answer.text, facts), artifact

    def _question(
        self,
        question: str,
        named: Sequence[str],
        weights: Sequence[float] | None,
        runtime: ToolRuntime | None,
    ) -> tuple[list[BaseMessage], list[dict[str, Any]]]:
        if weights is not None and len(weights) != len(named):
            raise ToolException(
                f"found {len(weights)} weights for {len(named)} attachments; expected one for "
                "each; leave weights out to count all alike"
            )
        held = self._access.held(runtime)
        given: Sequence[float | None] = weights or [None] * len(named)
        found: list[tuple[Attachment, Media]] = [
            held.media(name, weight) for name, weight in zip(named, given, strict=True)
        ]
        used = [{"id": record["id"], "weight": media.weight} for record, media in found]
        return [HumanMessage([question, *(media for _, media in found)])], used

    def _facts(self, video: Video) -> dict[str, Any]:
        """What the experts find; without experts only the length."""
        facts: dict[str, Any] = {"duration_s": round(video.duration_s, 3)}
        if self._experts.detects:
            facts["seen"] = seen_by_second(video, self._experts.labels_in)
        if self._experts.recognizes and (sound := video.audio()) is not None:
            transcript = self._experts.recognizer().transcribe(mono(sound), sound.rate_hz)
            facts["transcript"] = transcript.model_dump()
        return facts


def _told(answer: AIMessage, used: list[dict[str, Any]]) -> Result:
    model = answer.response_metadata.get("model_name", "")
    artifact = {"answer": answer.text, "attachments": used, "model": model}
    return answer.text or "Nothing could be perceived.", artifact


def frames_and_sound(media: Media, video: Video) -> list[Media]:
    """The pictures, and the sound track as a medium of its own."""
    if video.audio() is None:
        return [media]
    extras = media["extras"]
    pictures = Media({**media, "extras": {**extras, "weight": 1 - _SHARE_OF_SOUND}})
    heard = {**extras, "modality": "audio", "weight": _SHARE_OF_SOUND}
    return [pictures, Media({**media, "extras": heard})]


def seen_by_second(
    video: Video, labels_in: Callable[[PilImage.Image], dict[str, int]]
) -> list[dict[str, Any]]:
    """What a detector finds in one frame of each second; long videos are looked at less often."""
    n = min(max(1, ceil(video.duration_s)), MAX_SECONDS_LOOKED_AT)
    step = max(1.0, video.duration_s / n)
    spans = [(place * step, (place + 1) * step) for place in range(n)]
    # One span at a time, so that a long video never lies in memory as frames.
    return [
        {
            "start_s": round(start, 3),
            "objects": labels_in(PilImage.fromarray(video.frames([(start, end)], 1)[0][0])),
        }
        for start, end in spans
    ]
