"""Pieces of an answer to LangChain's chunks and messages.

```
Piece -> ChunkWriter.push (call markup -> tool-call chunks, stop texts) -> ChatGenerationChunk
                                                    ... collect -> ChatGeneration
```
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk

from ibllm_tools.chat_models.messages import REASONING
from ibllm_tools.chat_models.provider import PROVIDER
from ibllm_tools.decoding import StopText
from ibllm_tools.engine import Finish

if TYPE_CHECKING:
    from langchain_core.messages.ai import UsageMetadata

    from ibllm_tools.chat_models.calls import Said
    from ibllm_tools.chat_models.request import Request
    from ibllm_tools.decoding import TokenLogprob
    from ibllm_tools.engine import Piece


@dataclass
class _Parts:
    """What one piece adds to an answer: text, thoughts, and parts of calls by their index."""

    text: str = ""
    reasoning: str = ""
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)


class ChunkWriter:
    """Turns the pieces of one answer into chunks; `done` says that no further piece is needed."""

    def __init__(self, request: Request) -> None:
        """Write the answer to `request`."""
        self._request = request
        self._calls = request.call_reader()
        self._stops = StopText(request.stop)
        self.done = False

    def push(self, piece: Piece) -> Iterator[ChatGenerationChunk]:
        """Yield the chunks that a piece brings; with the last one comes what the answer took."""
        parts = _Parts(reasoning=piece.reasoning)
        self._read(piece.text, parts)
        if piece.finish is not None:
            self._read_rest(parts)
        if parts.text or parts.reasoning or parts.calls or piece.logprobs:
            yield _chunk(parts, piece.logprobs)
        if self._stops.found:
            self.done = True
            yield self._last("stop", piece.finish or self._finish(piece))
        elif piece.finish is not None:
            called = self._calls is not None and self._calls.n_calls > 0
            reason = piece.finish.reason
            yield self._last("tool_calls" if called and reason == "stop" else reason, piece.finish)

    def _finish(self, piece: Piece) -> Finish:
        """What an answer took that is ended here, before the engine ends it."""
        n_input = self._request.n_input_tokens()
        return Finish("stop", n_input, piece.n_output_tokens, piece.n_reasoning_tokens)

    def _read(self, text: str, parts: _Parts) -> None:
        if self._calls is None:
            parts.text += text
        else:
            self._take(self._calls.feed(text), parts)

    def _read_rest(self, parts: _Parts) -> None:
        if self._calls is not None:
            self._take(self._calls.close(), parts)
        if not self._stops.found:
            parts.text += self._stops.flush()

    def _take(self, said: Iterable[Said], parts: _Parts) -> None:
        for part in said:
            if self._stops.found:
                return
            if part.index is None:
                parts.text += self._stops.push(part.text)
                continue
            parts.text += self._stops.flush()  # what could become a stop text ends at a call
            call = parts.calls.setdefault(part.index, {"name": None, "id": None, "args": ""})
            if part.name is not None:
                call.update(name=part.name, id=part.call_id)
            call["args"] += part.text

    def _last(self, reason: str, took: Finish) -> ChatGenerationChunk:
        # Names and counts come once, in this chunk: LangChain adds up what several chunks say.
        usage: UsageMetadata = {
            "input_tokens": took.n_input_tokens,
            "output_tokens": took.n_output_tokens,
            "total_tokens": took.n_input_tokens + took.n_output_tokens,
        }
        if self._request.media_counts:
            usage["input_token_details"] = dict(self._request.media_counts)  # type: ignore[typeddict-item]
        if took.n_reasoning_tokens:
            usage["output_token_details"] = {"reasoning": took.n_reasoning_tokens}
        metadata = {
            "model_name": self._request.model,
            "model_provider": PROVIDER,
            "finish_reason": reason,
        }
        message = AIMessageChunk(
            content="", usage_metadata=usage, response_metadata=metadata, chunk_position="last"
        )
        return ChatGenerationChunk(message=message)


def _chunk(parts: _Parts, logprobs: tuple[TokenLogprob, ...]) -> ChatGenerationChunk:
    calls = [tool_call_chunk(index=place, **call) for place, call in parts.calls.items()]
    metadata = {"logprobs": {"content": [_as_openai(entry) for entry in logprobs]}}
    message = AIMessageChunk(
        content=parts.text,
        additional_kwargs={REASONING: parts.reasoning} if parts.reasoning else {},
        tool_call_chunks=calls,
        response_metadata=metadata if logprobs else {},
    )
    return ChatGenerationChunk(message=message)


def _as_openai(entry: TokenLogprob) -> dict[str, Any]:
    """One token's probability as OpenAI's API writes it."""
    alternatives = [_bare(other) for other in entry.top]
    return {**_bare(entry), "top_logprobs": alternatives}


def _bare(entry: TokenLogprob) -> dict[str, Any]:
    held = None if entry.bytes is None else list(entry.bytes)
    return {"token": entry.token, "bytes": held, "logprob": entry.logprob}


def collect(chunks: Iterable[ChatGenerationChunk]) -> ChatGeneration:
    """Put the chunks of one answer together; much faster than adding them up one by one."""
    texts: list[str] = []
    thoughts: list[str] = []
    logprobs: list[Any] = []
    calls: dict[int, dict[str, Any]] = {}
    last = AIMessageChunk(content="")
    for chunk in chunks:
        assert isinstance(chunk.message, AIMessageChunk)
        last = chunk.message
        texts.append(str(last.content))
        thoughts.append(last.additional_kwargs.get(REASONING, ""))
        logprobs += last.response_metadata.get("logprobs", {}).get("content", [])
        for part in last.tool_call_chunks:
            call = calls.setdefault(part["index"] or 0, {**part, "args": ""})
            call["args"] += part["args"] or ""
    metadata: dict[str, Any] = dict(last.response_metadata)
    if logprobs:
        metadata["logprobs"] = {"content": logprobs}
    valid, invalid = _parsed(calls.values())
    reasoning = "".join(thoughts)
    message = AIMessage(
        content="".join(texts),
        additional_kwargs={REASONING: reasoning} if reasoning else {},
        tool_calls=valid,
        invalid_tool_calls=invalid,
        response_metadata=metadata,
        usage_metadata=last.usage_metadata,
    )
    return ChatGeneration(message=message)


def _parsed(calls: Iterable[Mapping[str, Any]]) -> tuple[list[Any], list[Any]]:
    valid, invalid = [], []
    for call in calls:
        try:
            arguments = json.loads(call["args"] or "{}")
        except ValueError as error:  # only where an answer was cut off
            invalid.append(
                invalid_tool_call(
                    name=call["name"], args=call["args"], id=call["id"], error=str(error)
                )
            )
        else:
            valid.append(tool_call(name=call["name"], args=arguments, id=call["id"]))
    return valid, invalid
