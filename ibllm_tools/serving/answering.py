"""From a chat request to its answers: whole, or as events while they come.

```
ChatRequest ─ prepare (a thread) ─ chat_models.Request x n ─ merge ─ (choice, chunk) ─┬─ whole
                                                                                     └─ events
```
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ibllm_tools.chat_models import ChatImageBindLLM
from ibllm_tools.chat_models.messages import REASONING
from ibllm_tools.chat_models.request import make_request
from ibllm_tools.chat_models.settings import ANSWER_SETTINGS, merge_settings
from ibllm_tools.checkpoints import fingerprint
from ibllm_tools.engine import Engine, open_engine
from ibllm_tools.serving.conversation import to_langchain
from ibllm_tools.serving.replies import new_id, usage_of
from ibllm_tools.serving.wire import AllowedChoice, NamedTool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from langchain_core.messages import AIMessageChunk

    from ibllm_tools.chat_models.request import Request
    from ibllm_tools.serving.replies import ChatCompletion, FinishReason, Logprobs, Said, Usage
    from ibllm_tools.serving.settings import ServeSettings
    from ibllm_tools.serving.wire import ChatRequest

LEAST_TEMPERATURE = 1e-3  # below it, float32 scores overflow, and the choice is greedy anyway
LEAST_TOP_P = 1e-9  # OpenAI's 0: the likeliest token alone
_REASONS: dict[str, FinishReason] = {"stop": "stop", "tool_calls": "tool_calls"}


@dataclass
class Took:
    """What the answers to one request took."""

    n_prompt: int = 0
    n_completion: int = 0
    n_reasoning: int = 0

    def add(self, message: AIMessageChunk) -> None:
        """Count what the last chunk of an answer says; the answers share one prompt."""
        usage = message.usage_metadata
        if usage is not None:
            self.n_prompt = usage["input_tokens"]
            self.n_completion += usage["output_tokens"]
            details: Any = usage.get("output_token_details", {})
            self.n_reasoning += details.get("reasoning", 0)


@dataclass
class Answers:
    """The answers to one request, on their way.

    Attributes:
        requests: One for each answer.
        model: What the client calls the model.
        print_of: OpenAI's `system_fingerprint`.
        shows_usage: Whether events end with the usage.
        took: What they have taken so far.
    """

    requests: Sequence[Request]
    model: str
    print_of: str
    shows_usage: bool = False
    took: Took = field(default_factory=Took)

    async def whole(self) -> ChatCompletion:
        """Wait for all answers."""
        said = [_Whole() for _ in self.requests]
        async with aclosing(merge(self.requests, whole=True)) as parts:
            async for index, message in parts:
                self.took.add(message)
                said[index].add(message)
        return {
            "id": new_id("chatcmpl-"),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model,
            "choices": [
                {
                    "index": index,
                    "message": one.message(),
                    "logprobs": one.logprobs(),
                    "finish_reason": one.reason,
                }
                for index, one in enumerate(said)
            ],
            "usage": self.usage,
            "service_tier": "default",
            "system_fingerprint": self.print_of,
        }

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        """Give the events of all answers as they come."""
        head: dict[str, Any] = {
            "id": new_id("chatcmpl-"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": self.print_of,
        }
        if self.shows_usage:
            head["usage"] = None
        begun: set[int] = set()
        async with aclosing(merge(self.requests, whole=False)) as parts:
            async for index, message in parts:
                self.took.add(message)
                delta = _delta(message)
                if index not in begun:
                    begun.add(index)
                    yield {**head, "choices": [_choice(index, _opening(delta))]}
                logprobs = _logprobs(message.response_metadata)
                if delta or logprobs:
                    yield {**head, "choices": [_choice(index, delta, logprobs)]}
                if reason := message.response_metadata.get("finish_reason"):
                    ended = _REASONS.get(reason, "length")
                    yield {**head, "choices": [_choice(index, {}, None, ended)]}
        if self.shows_usage:
            yield {**head, "choices": [], "usage": self.usage}

    @property
    def usage(self) -> Usage:
        """What the answers took, in OpenAI's words."""
        took = self.took
        media = self.requests[0].media_counts
        return usage_of(took.n_prompt, took.n_completion, took.n_reasoning, media)


class ServedModel:
    """One model that is served, under one name; loads at its first use."""

    def __init__(self, name: str, source: str, settings: ServeSettings) -> None:
        self.name = name
        self.source = source
        self.created = int(time.time())
        self._settings = settings
        # Defaults of a request are those of the chat model.
        chat = ChatImageBindLLM(model=source, timeout=settings.timeout_s)
        self._defaults = {key: getattr(chat, key) for key in (*ANSWER_SETTINGS, "stop")}
        self._defaults["model"] = name

    def engine(self) -> Engine:
        """The engine, which all models of one source share."""
        return open_engine(self.source, self._settings.device, self._settings.dtype)

    @property
    def n_open(self) -> int:
        """Answers of it that are under way."""
        return self.engine().n_open

    @cached_property
    def print_of(self) -> str:
        """A short text that changes with the model's files or the place where it runs."""
        placed = (fingerprint(self.source), self._settings.device, self._settings.dtype)
        return f"fp_{hashlib.sha256(repr(placed).encode()).hexdigest()[:10]}"

    def prepare(self, asked: ChatRequest) -> Answers:
        """Read a request with its media; takes a while, so call it in a thread.

        Raises:
            IbllmError: A medium, a schema or a setting does not fit.
            ApiError: The messages do not fit.
        """
        settings = merge_settings(self._defaults, _stops(asked), _settings(asked))
        messages = to_langchain(asked.messages)
        request = make_request(self.engine(), messages, settings, self._settings.policy)
        shows_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return Answers(request.variants(settings["n"]), self.name, self.print_of, shows_usage)


def _settings(asked: ChatRequest) -> dict[str, Any]:
    """The settings of a call in the chat model's terms; what is not given stays at its default."""
    temperature, top_p = asked.temperature, asked.top_p
    if temperature is not None and temperature < LEAST_TEMPERATURE:
        temperature = 0.0
    tools, choice = _offered(asked)
    given = {
        "logprobs": asked.logprobs,
        "max_tokens": asked.max_completion_tokens or asked.max_tokens,
        "n": asked.n,
        "seed": asked.seed,
        "temperature": temperature,
        "top_k": asked.top_k,
        "top_logprobs": asked.top_logprobs,
        "top_p": None if top_p is None else max(top_p, LEAST_TOP_P),
        "parallel_tool_calls": asked.parallel_tool_calls,
        "response_format": _format(asked),
        "tool_choice": choice,
        "tools": tools,
        "visual_cache": _cache(asked),
    }
    return {name: value for name, value in given.items() if value is not None}


def _stops(asked: ChatRequest) -> list[str]:
    given = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    return [text for text in given if text]


def _format(asked: ChatRequest) -> dict[str, Any] | None:
    held = asked.response_format
    return None if held is None else held.model_dump(by_alias=True, exclude_none=True)


def _cache(asked: ChatRequest) -> bool | dict[str, Any] | None:
    cache = asked.visual_cache
    return cache if cache is None or isinstance(cache, bool) else cache.model_dump()


def _offered(asked: ChatRequest) -> tuple[list[dict[str, Any]] | None, Any]:
    """The tools of a request and its choice among them; `allowed_tools` leaves only some."""
    tools = [tool.model_dump(exclude_none=True) for tool in asked.tools or ()]
    choice: Any = asked.tool_choice
    if isinstance(choice, AllowedChoice):
        names = {tool.function.name for tool in choice.allowed_tools.tools}
        tools = [tool for tool in tools if tool["function"]["name"] in names]
        choice = choice.allowed_tools.mode
    elif isinstance(choice, NamedTool):
        choice = choice.model_dump()
    return tools or None, choice


async def merge(
    requests: Sequence[Request], *, whole: bool
) -> AsyncGenerator[tuple[int, AIMessageChunk]]:
    """Give the chunks of several answers as they come, each with its answer's number.

    Where one fails, or this generator is closed, all of them leave the engine.
    """
    entries: asyncio.Queue[tuple[int, AIMessageChunk] | Exception | None] = asyncio.Queue()

    async def pump(index: int, request: Request) -> None:
        try:
            async with aclosing(request.achunks(whole=whole)) as chunks:
                async for chunk in chunks:
                    message: Any = chunk.message
                    entries.put_nowait((index, message))
            entries.put_nowait(None)
        except Exception as error:  # noqa: BLE001 - it is raised on the other side
            entries.put_nowait(error)

    tasks = [asyncio.create_task(pump(i, request)) for i, request in enumerate(requests)]
    try:
        async for entry in _until_all_ended(entries, len(tasks)):
            yield entry
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_all_ended(
    entries: asyncio.Queue[tuple[int, AIMessageChunk] | Exception | None], n_left: int
) -> AsyncIterator[tuple[int, AIMessageChunk]]:
    while n_left:
        entry = await entries.get()
        if isinstance(entry, Exception):
            raise entry
        if entry is None:
            n_left -= 1
        else:
            yield entry


class _Whole:
    """Puts the chunks of one answer together."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: dict[int, Any] = {}
        self._logprobs: list[Any] = []
        self.reason: FinishReason = "stop"

    def add(self, chunk: AIMessageChunk) -> None:
        delta = _delta(chunk)
        self._texts.append(delta.get("content") or "")
        self._thoughts.append(delta.get("reasoning_content", ""))
        for part in delta.get("tool_calls", ()):
            index = part.pop("index")
            if index in self._calls:
                self._calls[index]["function"]["arguments"] += part["function"]["arguments"]
            else:
                self._calls[index] = part
        logprobs = _logprobs(chunk.response_metadata)
        self._logprobs += logprobs["content"] if logprobs else []
        if found := chunk.response_metadata.get("finish_reason"):
            self.reason = _REASONS.get(found, "length")

    def message(self) -> Said:
        text = "".join(self._texts)
        said: Said = {
            "role": "assistant",
            "content": text if text or not self._calls else None,
            "refusal": None,
            "annotations": [],
        }
        if thought := "".join(self._thoughts):
            said["reasoning_content"] = thought
        if self._calls:
            said["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        return said

    def logprobs(self) -> Logprobs | None:
        return {"content": self._logprobs, "refusal": None} if self._logprobs else None


def _delta(message: AIMessageChunk) -> Said:
    """What a chunk adds to an answer."""
    delta: Said = {}
    if message.content:
        delta["content"] = str(message.content)
    if thought := message.additional_kwargs.get(REASONING):
        delta["reasoning_content"] = thought
    if message.tool_call_chunks:
        delta["tool_calls"] = [_call(part) for part in message.tool_call_chunks]
    return delta


def _call(part: Any) -> Any:
    arguments = part["args"] or ""
    if part["id"] is None:
        return {"index": part["index"], "function": {"arguments": arguments}}
    function = {"name": part["name"], "arguments": arguments}
    return {"index": part["index"], "id": part["id"], "type": "function", "function": function}


def _opening(delta: Said) -> Said:
    """The first delta of an answer, which has the role; a call alone comes without text."""
    calls_only = "tool_calls" in delta and "content" not in delta
    return {"role": "assistant", "content": None if calls_only else "", "refusal": None}


def _logprobs(metadata: dict[str, Any]) -> Logprobs | None:
    held = metadata.get("logprobs")
    return {"content": held["content"], "refusal": None} if held else None


def _choice(
    index: int,
    delta: Said,
    logprobs: Logprobs | None = None,
    reason: FinishReason | None = None,
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
