"""The tools that sense: each takes checked arguments, and gives text, pictures and values."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

from langchain_core.messages import HumanMessage
from langchain_core.runnables.config import run_in_executor
from pydantic import BaseModel

from ibllm_tools.errors import IbllmError
from ibllm_tools.mcp_server import answers, arguments
from ibllm_tools.mcp_server.answers import Answer
from ibllm_tools.mcp_server.folders import Folders
from ibllm_tools.mcp_server.held import HeldMedia
from ibllm_tools.mcp_server.settings import McpSettings
from ibllm_tools.media import Media
from ibllm_tools.toolkit import ImageBindLLMToolkit

if TYPE_CHECKING:
    from PIL import Image as PilImage

    from ibllm_tools.experts.protocols import Detector
    from ibllm_tools.experts.results import Detections


class Call(Protocol):
    """One call of a tool: what it may read, and how it tells of its progress."""

    @property
    def folders(self) -> Folders:
        """What it may read."""
        ...

    async def tell(self, done: float, total: float | None, message: str) -> None:
        """Tell of progress from the event loop."""
        ...

    def tell_soon(self, done: float, total: float | None, message: str) -> None:
        """Tell of progress from a worker thread."""
        ...


_SILENT: dict[str, Any] = {
    "text": "",
    "language": None,
    "is_speech": False,
    "segments": [],
    "model": "",
}
"""What is said in a video without a sound track."""


class ToolProblemError(IbllmError):
    """A tool could not do what was asked; the message says what can be done instead."""


@dataclass(frozen=True)
class Tool:
    """A tool as clients see it, and the function behind it."""

    name: str
    title: str
    description: str
    arguments: type[BaseModel]
    values: type[BaseModel]
    run: Callable[[Any, Call], Awaitable[Answer]]

    def described(self) -> dict[str, Any]:
        """The JSON of a tool in MCP's list."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": self.arguments.model_json_schema(),
            "outputSchema": self.values.model_json_schema(mode="serialization"),
            "annotations": {"readOnlyHint": True, "idempotentHint": True, "openWorldHint": False},
        }


class SensingTools:
    """Perception with the models of the settings; nothing is loaded before the first call."""

    def __init__(self, settings: McpSettings) -> None:
        """Hold the models; each is shared by all calls."""
        self._settings = settings
        self._experts = settings.experts()
        self._embeddings = settings.comparer()

    def tools(self) -> list[Tool]:
        """The tools; those of experts where there are such."""
        tools = [
            Tool(
                "perceive",
                "Look and listen",
                "Answer a question about images, sounds, videos, 3D shapes or depth pictures; "
                "several media are perceived together, each by its weight. Not for counting, "
                "positions or the words of speech.",
                arguments.PerceiveArgs,
                answers.Perceived,
                self.perceive,
            ),
            Tool(
                "analyze_video",
                "Look through a video",
                "Look through a video: what is in it, what is where second by second, and what "
                "is said. Not for single images, nor for recordings without pictures.",
                arguments.VideoArgs,
                answers.Watched,
                self.analyze_video,
            ),
            Tool(
                "embed_media",
                "Compute a vector",
                "Turn media (or a weighted mixture) into a vector of the space that images, "
                "sounds, shapes and texts share. For programs; tells an LLM nothing.",
                arguments.EmbedArgs,
                answers.Embedded,
                self.embed_media,
            ),
        ]
        return tools + self._expert_tools()

    def _expert_tools(self) -> list[Tool]:
        tools = []
        if self._experts.detects:
            tools.append(
                Tool(
                    "detect_objects",
                    "Find objects",
                    "Find objects in an image: how many of what there are, and where (boxes in "
                    "pixels); returns the picture with its boxes.",
                    arguments.DetectArgs,
                    answers.Found,
                    self.detect_objects,
                )
            )
        if self._experts.recognizes:
            tools.append(
                Tool(
                    "transcribe_speech",
                    "Write down speech",
                    "Write down the words that people say in a recording, or in the sound track "
                    "of a video, with times in seconds. Music and noises have no words.",
                    arguments.TranscribeArgs,
                    answers.Heard,
                    self.transcribe_speech,
                )
            )
        return tools

    async def perceive(self, given: arguments.PerceiveArgs, call: Call) -> Answer:
        """Answer a question about media; told token by token, cancelled with its task."""
        media = await self._read(given.media, call)
        question = HumanMessage([given.question, *media])
        whole = None
        n = 0
        async for chunk in self._settings.chat.astream([question]):
            whole = chunk if whole is None else whole + chunk
            n += 1
            await call.tell(1 + n, None, f"{n} pieces of the answer")
        answer = "" if whole is None else whole.text
        meta = {} if whole is None else whole.response_metadata
        noted = "" if whole is None else whole.additional_kwargs.get("reasoning_content", "")
        values = answers.Perceived(
            answer=answer,
            perceived=str(noted).strip(),
            media=answers.used(media),
            model=str(meta.get("model_name", "")),
        )
        return Answer(answer or "Nothing could be perceived.", values)

    async def analyze_video(self, given: arguments.VideoArgs, call: Call) -> Answer:
        """Look through a video; each second looked at is told."""
        media = await self._read([given.video], call)
        text, found = await self._ask(
            "analyze_video", "video", media[0], call, question=given.question
        )
        values = answers.Watched(
            name=media[0].name,
            answer=found["answer"],
            duration_s=found["duration_s"],
            seen=found.get("seen"),
            transcript=found.get("transcript"),
        )
        return Answer(text, values)

    async def detect_objects(self, given: arguments.DetectArgs, call: Call) -> Answer:
        """Find objects, and draw their boxes."""
        media = await self._read([given.image], call)
        text, found = await self._ask(
            "detect_objects",
            "image",
            media[0],
            call,
            labels=given.labels,
            threshold=given.threshold,
        )
        drawn, name = found.pop("media", ()), found.pop("id")
        counts: dict[str, int] = {}
        for thing in found["detections"]:
            counts[thing["label"]] = counts.get(thing["label"], 0) + 1
        values = answers.Found(name=name, counts=counts, **found)
        return Answer(text, values, _pictures(drawn) if given.draw else ())

    async def transcribe_speech(self, given: arguments.TranscribeArgs, call: Call) -> Answer:
        """Write down speech."""
        media = await self._read([given.audio], call)
        text, found = await self._ask(
            "transcribe_speech", "audio", media[0], call, language=given.language
        )
        drawn, name = found.pop("media", ()), found.pop("id")
        values = answers.Heard(name=name, **(_SILENT | found))
        return Answer(text, values, _pictures(drawn) if given.draw else ())

    async def embed_media(self, given: arguments.EmbedArgs, call: Call) -> Answer:
        """Compute the vector of a mixture."""
        media = await self._read(given.media, call)
        vector = (await self._embeddings.aembed_media([list(media)]))[0]
        values = answers.Embedded(
            vector=vector, media=answers.used(media), model=self._embeddings.model
        )
        names = ", ".join(m.name for m in media)
        return Answer(f"A vector of {len(vector)} numbers for {names}.", values)

    async def _read(self, given: Sequence[arguments.MediaArg], call: Call) -> list[Media]:
        """Read media in a worker thread."""

        def read() -> list[Media]:
            return [medium.read(call.folders, self._settings.limits) for medium in given]

        media = await run_in_executor(None, read)
        await call.tell(1, None, "media read")
        return media

    async def _ask(
        self, name: str, slot: str, medium: Media, call: Call, **args: Any
    ) -> tuple[str, dict[str, Any]]:
        """Call a tool of the toolkit about a medium that is held for this call alone.

        Args:
            name: The tool.
            slot: The argument that takes the medium's id.
            medium: What it is about.
            call: The client's call.
            **args: Further arguments.

        Raises:
            ToolProblemError: The tool says that it cannot do this.
        """
        held = HeldMedia(self._settings.limits)
        id_ = held.add(medium)
        stop = Event()
        kit = ImageBindLLMToolkit(
            chat=self._settings.chat,
            embeddings=self._embeddings,
            detector=self._detector(call, stop),
            recognizer=self._experts.recognizer() if self._experts.recognizes else False,
            attachments=held,
            media_policy=self._settings.limits,
        )
        tool = next(tool for tool in kit.get_tools() if tool.name == name)
        request = {"type": "tool_call", "id": name, "name": name, "args": {slot: id_, **args}}
        try:
            message = await tool.ainvoke(request)
        except asyncio.CancelledError:
            stop.set()
            raise
        if message.status == "error":
            raise ToolProblemError(message.text)
        return message.text, dict(message.artifact)

    def _detector(self, call: Call, stop: Event) -> Detector | bool:
        return _Told(self._experts.detector(), call, stop) if self._experts.detects else False


class _Told:
    """A detector that tells of each picture, and stops when its call was cancelled."""

    def __init__(self, inner: Detector, call: Call, stop: Event) -> None:
        self._inner = inner
        self._call = call
        self._stop = stop
        self._n = 0

    def detect(
        self,
        image: PilImage.Image,
        labels: Sequence[str] | None = None,
        threshold: float | None = None,
    ) -> Detections:
        if self._stop.is_set():
            raise ToolProblemError("cancelled")
        found = self._inner.detect(image, labels, threshold)
        self._n += 1
        self._call.tell_soon(1 + self._n, None, f"{self._n} pictures looked at")
        return found

    def classes(self) -> tuple[str, ...] | None:
        return self._inner.classes()


def _pictures(blocks: Sequence[Media]) -> list[bytes]:
    return [answers.jpeg_of(block) for block in blocks]
