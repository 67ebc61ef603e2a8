"""From a question to an answer on the page, piece by piece, with the steps that led to it.

```
Talk ─┬─ directly: ChatImageBindLLM.astream ── text, thoughts ── neighbours in the cache
      └─ a graph: create_media_agent, perception ── steps, boxes, text
```
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibllm_tools.attachments.files import AttachmentFiles
from ibllm_tools.errors import IbllmError
from ibllm_tools.ui.neighbours import Sensor, as_markdown
from ibllm_tools.ui.talk import Talk, new_file, plain
from ibllm_tools.ui.words import words_of

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage

    from ibllm_tools.cache import CacheSettings
    from ibllm_tools.media import Media, MediaPolicy

WAYS = DIRECT, TOOLS, PERCEPTION = "direct", "tools", "perception"
_MAX_STEP_CHARS = 2000
_N_GRAPHS = 8
_SPEAKERS = {"model", "answer"}  # the nodes whose text is meant for people

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choices:
    """How one question is to be answered.

    Attributes:
        way: "direct", "tools" or "perception".
        cache: The visual cache's settings, or False.
        temperature: 0 takes the likeliest token.
        max_tokens: Longest answer.
        language: Of the page, not of the answer.
    """

    way: str = DIRECT
    cache: CacheSettings | bool = False
    temperature: float = 0.0
    max_tokens: int = 256
    language: str = "en"

    @property
    def words(self) -> dict[str, str]:
        """The page's words."""
        return words_of(self.language)


class Answerer:
    """Answers the questions of all sessions with one model."""

    def __init__(
        self,
        sensor: Sensor,
        policy: MediaPolicy,
        files: AttachmentFiles,
        shown: Path,
        experts: Mapping[str, Any] | None = None,
    ) -> None:
        """Answer with the model of `sensor`.

        Args:
            sensor: The model.
            policy: Limits on media.
            files: Where agents keep attachments; browsers cannot read there.
            shown: Where files for browsers go.
            experts: `detector` and `recognizer` as `create_media_agent` takes them.
        """
        self.sensor = sensor
        self._policy = policy
        self._files = files
        self._shown = shown
        self.experts = dict(experts or {})
        self._graph = lru_cache(_N_GRAPHS)(self._make_graph)

    async def answer(
        self, talk: Talk, question: str, media: list[Media], choices: Choices
    ) -> AsyncGenerator[str, None]:
        """Answer the question that `talk` already shows.

        Whoever stops iterating stops the work; what was said by then stays.

        Yields:
            A line about the answer, or "", whenever there is something new to show.
        """
        from langchain_core.messages import AIMessage, HumanMessage

        asked, answer = HumanMessage([question, *media]), AIMessage("")
        before = list(talk.history)
        talk.history += [asked, answer]
        line = ""
        way = self._directly if choices.way == DIRECT else self._by_graph
        try:
            async with aclosing(way(talk, answer, choices)) as news:
                async for line in news:
                    yield line
            if choices.way == DIRECT and choices.cache is not False:
                await self._show_neighbours(talk, media, choices)
                yield line
        except IbllmError as error:
            talk.problem(choices.words, str(error))
            yield ""
        except Exception as error:
            log.exception("a question on the page failed")
            talk.problem(choices.words, choices.words["inside"].format(kind=type(error).__name__))
            yield ""
        finally:
            for message in talk.shown:
                if "status" in message.get("metadata", {}):
                    message["metadata"]["status"] = "done"  # also where someone stopped it
            if not answer.text:
                talk.history[:] = before  # nothing was answered: the next question stands alone

    async def _directly(
        self, talk: Talk, answer: AIMessage, choices: Choices
    ) -> AsyncGenerator[str, None]:
        pace = _Pace()
        bubble: dict[str, Any] | None = None
        thought: dict[str, Any] | None = None
        stream: Any = self.chat(choices).astream(talk.history[:-1])
        async with aclosing(stream) as chunks:
            async for chunk in chunks:
                if thinking := chunk.additional_kwargs.get("reasoning_content"):
                    title = choices.words["thinking"]
                    thought = thought or talk.show("", title=title, status="pending")
                    thought["content"] += thinking
                if chunk.text:
                    bubble = bubble or talk.show("")
                    bubble["content"] += chunk.text
                    answer.content = bubble["content"]
                pace.count(chunk)
                if pace.is_due():
                    yield ""
        yield pace.line(choices.words)

    async def _show_neighbours(self, talk: Talk, media: list[Media], choices: Choices) -> None:
        from ibllm_tools.cache import CacheSettings

        settings = choices.cache
        assert isinstance(settings, CacheSettings)
        found = await asyncio.to_thread(self.sensor.look, media, settings, self._policy)
        if found:
            title = choices.words["neighbours"]
            table = as_markdown(found, choices.words, choices.language)
            talk.show(table, title=title, status="done")

    async def _by_graph(
        self, talk: Talk, answer: AIMessage, choices: Choices
    ) -> AsyncGenerator[str, None]:
        graph = await asyncio.to_thread(self._graph, replace(choices, language="en"))
        pace, run = _Pace(), _Run(talk, answer, choices.words, self)
        # A graph writes ids into messages: it gets copies.
        messages = [message.model_copy() for message in talk.history[:-1]]
        stream = graph.astream(
            {"messages": messages}, stream_mode=["messages", "updates", "custom", "values"]
        )
        async with aclosing(stream) as events:
            async for kind, event in events:
                if kind == "messages":
                    run.tokens(*event)
                    pace.count(event[0])
                elif kind == "updates":
                    run.update(event)
                elif kind == "custom":
                    run.step(event)
                else:
                    run.state = event
                if kind != "values" and (kind != "messages" or pace.is_due()):
                    yield ""
        run.finish()
        yield ""

    def chat(self, choices: Choices) -> BaseChatModel:
        """The model that answers."""
        from dataclasses import asdict

        from ibllm_tools.chat_models import ChatImageBindLLM

        cache = choices.cache
        return ChatImageBindLLM(
            model=self.sensor.model,
            device=self.sensor.device,
            dtype=self.sensor.dtype,
            temperature=choices.temperature,
            max_tokens=choices.max_tokens,
            visual_cache=cache if isinstance(cache, bool) else asdict(cache),
            media_policy=self._policy,
        )

    def _make_graph(self, choices: Choices) -> Any:
        options: dict[str, Any] = {
            **self.experts,
            "attachments_dir": self._files.folder,
            "media_policy": self._policy,
        }
        if choices.way == PERCEPTION:
            from ibllm_tools.agent_graphs.perception import create_graph

            return create_graph(self.chat(choices), **options)
        from ibllm_tools.media_agent import create_media_agent

        return create_media_agent(self.chat(choices), **options)

    def picture(self, sha256: str, name: str) -> dict[str, str]:
        """Put a picture that a tool made where the browser can read it."""
        target = new_file(self._shown, name)
        target.write_bytes(self._files.get(sha256))
        return {"path": str(target), "alt_text": name}


class _Run:
    """Shows what a graph does: its text, its calls with their results, its steps."""

    def __init__(
        self, talk: Talk, answer: AIMessage, words: dict[str, str], answerer: Answerer
    ) -> None:
        self.state: Mapping[str, Any] = {}
        self._talk = talk
        self._answer = answer
        self._words = words
        self._answerer = answerer
        self._bubble: dict[str, Any] | None = None
        self._steps: dict[str, Any] | None = None
        self._calls: dict[str, dict[str, Any]] = {}

    def tokens(self, chunk: Any, about: Mapping[str, Any]) -> None:
        """Text of the agent itself, as it comes; tools may run models of their own."""
        if about.get("langgraph_node") not in _SPEAKERS or chunk.type != "AIMessageChunk":
            return
        if chunk.text:
            self._bubble = self._bubble or self._talk.show("")
            self._bubble["content"] += chunk.text
            self._answer.content = self._bubble["content"]

    def update(self, event: Mapping[str, Any]) -> None:
        """Calls and results among the messages that a node added."""
        for update in event.values():
            messages = update.get("messages", []) if isinstance(update, Mapping) else []
            for message in messages if isinstance(messages, list) else [messages]:
                kind = getattr(message, "type", "")
                if kind == "ai" and message.tool_calls:
                    self._bubble = None
                    for call in message.tool_calls:
                        self._call(call)
                elif kind == "tool":
                    self._result(message)

    def step(self, event: Any) -> None:
        """A step that a graph tells of itself, in one list."""
        if isinstance(event, Mapping) and event.get("step", "answer") != "answer":
            if self._steps is None:
                title = self._words["steps"]
                self._steps = self._talk.show("", title=title, status="pending")
            text = plain(str(event.get("text", ""))[:_MAX_STEP_CHARS])
            self._steps["content"] += f"- **{plain(str(event['step']))}** {text}\n"

    def finish(self) -> None:
        """Show the answer as it is in the end, and the picture if there is one."""
        picture = self.state.get("attachments", {}).get(self.state.get("picture") or "")
        if picture:
            self._talk.show(self._answerer.picture(picture["sha256"], picture["name"]))
        new = takewhile(lambda m: m.type != "human", reversed(self.state.get("messages", [])))
        said = next((m.text for m in new if m.type == "ai" and m.text), "")
        if said:
            if self._bubble is not None:
                self._talk.drop(self._bubble)
            self._answer.content = self._talk.show(said)["content"]

    def _call(self, call: Mapping[str, Any]) -> None:
        given = ", ".join(
            f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in call["args"].items()
        )
        shown = self._talk.show("", title=call["name"], status="pending")
        shown["metadata"]["log"] = given[:_MAX_STEP_CHARS]
        self._calls[call["id"] or ""] = shown

    def _result(self, message: Any) -> None:
        shown = self._calls.pop(message.tool_call_id, None)
        if shown is None:  # another node gave it a tag: the same result again
            return
        shown["content"] = _as_code(message.text[:_MAX_STEP_CHARS])
        shown["metadata"]["status"] = "done"
        artifact = message.artifact if isinstance(message.artifact, Mapping) else {}
        for block in artifact.get("media") or []:
            if isinstance(block, Mapping) and block.get("type") == "attachment":
                self._talk.show(self._answerer.picture(block["sha256"], block["name"]))


class _Pace:
    """Counts tokens, and lets the page be drawn at most 15 times a second."""

    def __init__(self) -> None:
        self._started = self._drawn = time.perf_counter()
        self._first: float | None = None
        self._n_tokens = 0

    def count(self, chunk: Any) -> None:
        if chunk.text and self._first is None:
            self._first = time.perf_counter()
        usage = getattr(chunk, "usage_metadata", None)
        self._n_tokens += usage["output_tokens"] if usage else 0

    def is_due(self) -> bool:
        now = time.perf_counter()
        if now - self._drawn < 1 / 15:
            return False
        self._drawn = now
        return True

    def line(self, words: dict[str, str]) -> str:
        if self._first is None:
            return ""
        spent = time.perf_counter() - self._first
        rate = (self._n_tokens - 1) / spent if self._n_tokens > 1 and spent > 0 else 0.0
        return words["timing"].format(first=self._first - self._started, rate=rate)


def _as_code(text: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"
