"""`Engine`: conversations and media in, pieces of answers out, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ibllm_tools.decoding import NoteNames, ReasoningMarkup, Sampling
from ibllm_tools.engine.channels import Channel, LoopChannel, ThreadChannel
from ibllm_tools.engine.requests import Prompt, Request
from ibllm_tools.engine.scheduler import make_scheduler
from ibllm_tools.engine.turns import index_media, media_by_turn
from ibllm_tools.errors import ConfigurationError, ContextLengthError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping, Sequence

    from ibllm_tools.cache import CacheSettings
    from ibllm_tools.decoding import Constraint
    from ibllm_tools.engine.answers import Piece
    from ibllm_tools.media import Item

UNBOUNDED = 2**31
SLOTS, QUEUE, CHUNK = 16, 256, 128
TAIL = 8  # tokens at the end of a prompt among which it may open the reasoning


class Engine:
    """A loaded model that answers many requests at once. Safe to use from many threads.

    In float32 each answer is token for token the one that its request gets alone, whatever else is
    computed with it; in bfloat16 and float16 rounding differs with the number of answers, so that
    this cannot be promised.

    A forked process may go on using it, on one thread of torch; answers of the parent stay there.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        slots: int = SLOTS,
        queue: int = QUEUE,
        chunk: int = CHUNK,
    ) -> None:
        """Answer with an `ImageBindLLM` in evaluation mode and its `ImageBindLLMProcessor`.

        Args:
            model: Its weights may be shared with others; nothing changes them.
            processor: Encodes conversations and media.
            slots: Answers that are computed together.
            queue: Answers that may wait beside them; more are refused.
            chunk: Prompt tokens that are read between two steps; a smaller number makes answers
                flow more evenly where long prompts join, a larger one reads them faster.

        Raises:
            ConfigurationError: slots, queue or chunk are too small.
        """
        for name, found, least in (("slots", slots, 1), ("queue", queue, 0), ("chunk", chunk, 1)):
            if found < least:
                raise ConfigurationError(f"{name} is {found}; expected {least} or more")
        self.model = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.end_ids = _end_ids(model, processor.tokenizer)
        self.max_context = _max_context(model)
        self.reasoning = ReasoningMarkup.of(processor.tokenizer)
        self.note_names = NoteNames.of(processor.tokenizer)
        self.plain_talk = NoteNames.of(processor.tokenizer, calls=False)
        self.slots = slots
        self.queue = queue
        self._scheduler = make_scheduler(model, slots, queue, chunk, self.max_context)
        self._sensing = threading.Lock()

    def stream(
        self,
        messages: Sequence[Mapping[str, Any]],
        media: Sequence[Item] | Sequence[Sequence[Item]] = (),
        sampling: Sampling | None = None,
        cache: CacheSettings | bool | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        constraint: Constraint | None = None,
        whole: bool = False,
    ) -> Generator[Piece]:
        """Answer, piece by piece.

        Args:
            messages: `{"role", "content"}` in order, content being text; the assistant's may have
                "tool_calls" in OpenAI's form, a tool's has "tool_call_id".
            media: One list per message, or one for the last message of the user. Media of one
                message are mixed by their weights; see `ibllm_tools.engine.turns` for who sees
                which.
            sampling: How tokens are chosen and where the answer ends; greedy by default.
            cache: The visual cache: True or settings (on), False (off), None (as the model
                folder says).
            tools: Functions that the prompt describes, in OpenAI's form.
            constraint: What the answer must look like.
            whole: Hand out everything in one piece, which costs less time.

        Yields:
            Pieces of text as they come; the last one has `finish`. Closing the iterator takes
            the answer out of the batch before the next step.

        Raises:
            ContextLengthError: The prompt leaves no room in the model's context.
            QueueFullError: Too many answers are under way.
            EngineClosedError: The engine was closed meanwhile.
            ModelError: The model's numbers cannot be used.
        """
        started = time.monotonic()
        channel = ThreadChannel()
        with self._scheduler.ticket():
            prompt = self._read(messages, media, cache, tools)
            request = self._request(
                prompt, sampling, channel, started, constraint, whole, offers=bool(tools)
            )
            try:
                self._scheduler.submit(request)
                yield from channel.pieces()
            finally:
                request.cancel()

    async def astream(
        self,
        messages: Sequence[Mapping[str, Any]],
        media: Sequence[Item] | Sequence[Sequence[Item]] = (),
        sampling: Sampling | None = None,
        cache: CacheSettings | bool | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        constraint: Constraint | None = None,
        whole: bool = False,
    ) -> AsyncGenerator[Piece]:
        """Answer, piece by piece, in asyncio; arguments, results and errors as for `stream`.

        A cancelled task's answer leaves the batch before the next step. Media are read in
        another thread.
        """
        started = time.monotonic()
        channel = LoopChannel()
        with self._scheduler.ticket():
            prompt = await asyncio.to_thread(self._read, messages, media, cache, tools)
            request = self._request(
                prompt, sampling, channel, started, constraint, whole, offers=bool(tools)
            )
            try:
                self._scheduler.submit(request)
                async for piece in channel.pieces():
                    yield piece
            finally:
                request.cancel()

    @property
    def n_open(self) -> int:
        """Answers under way, those that wait for a slot or for their media included."""
        return self._scheduler.n_open

    def prompt_ids(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Token ids of a conversation, by the model's chat template, ready for the answer."""
        return self._encode(messages, self.processor.arrange(messages, tools), opening=True)

    def close(self) -> None:
        """End the answers under way with an error, and free their memory; use starts it again."""
        self._scheduler.close()

    def _encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        *,
        opening: bool,
    ) -> list[int]:
        messages = list(messages)
        if not tools and not any(m.get("tool_calls") or m.get("role") == "tool" for m in messages):
            plain: list[int] = self.processor.encode(messages, opening=opening)
            return plain
        from ibllm_tools.grammar import CallMarkup, chat_template_with_tools

        ready = CallMarkup.of(self.tokenizer).ready(messages)
        template = chat_template_with_tools(self.tokenizer)
        ids: list[int] = self.processor.encode(
            ready, tools=tools, chat_template=template, opening=opening
        )
        return ids

    def _read(
        self,
        messages: Sequence[Mapping[str, Any]],
        media: Sequence[Item] | Sequence[Sequence[Item]],
        cache: CacheSettings | bool | None,
        tools: Sequence[Mapping[str, Any]],
    ) -> Prompt:
        """Encode a conversation and its media."""
        tools = self.processor.arrange(messages, tools)
        ids = self._encode(messages, tools, opening=True)
        turns = media_by_turn(messages, media)
        injection = self._injection([items for _, items in turns] or [()], cache)
        index = index_media(
            ids,
            [start for start, _ in turns],
            lambda n: self._encode(messages[:n], tools, opening=False),
        )
        return Prompt(ids, injection, index)

    def _injection(self, rows: Sequence[Sequence[Item]], cache: CacheSettings | bool | None) -> Any:
        from ibllm_tools.preprocess import MediaBatch

        batch = MediaBatch.collate(rows, self.processor.preprocess)
        batch = batch.to(self.model.device, self.model.dtype)
        # One at a time: the memory of a large encoder is not needed more than once.
        with self._sensing, torch.inference_mode():
            return self.model.injection(*self.model.sense(batch, cache=cache))

    def _request(
        self,
        prompt: Prompt,
        sampling: Sampling | None,
        channel: Channel,
        started: float,
        constraint: Constraint | None,
        whole: bool,
        offers: bool,
    ) -> Request:
        sampling = sampling or Sampling()
        prompt, opened = self._at_answer(prompt, constraint)
        room = self.max_context - len(prompt.ids)
        if room < 1:
            raise ContextLengthError(
                f"the prompt has {len(prompt.ids)} tokens, but the model's context holds "
                f"{self.max_context}; send a shorter conversation"
            )
        return Request(
            prompt,
            sampling,
            channel,
            n_room=min(room, sampling.max_tokens),
            tokenizer=self.tokenizer,
            end_ids=self.end_ids,
            started=started,
            constraint=constraint or (self.note_names if offers else self.plain_talk),
            reasoning=self.reasoning,
            opened=opened,
            whole=whole,
        )

    def _at_answer(self, prompt: Prompt, constraint: Constraint | None) -> tuple[Prompt, bool]:
        """Say whether the prompt has opened the reasoning; close it before a constrained answer."""
        if self.reasoning is None:
            return prompt, False
        tail = self.tokenizer.decode(prompt.ids[-TAIL:], skip_special_tokens=False)
        if not tail.rstrip().endswith(self.reasoning.open):
            return prompt, False
        if constraint is None:
            return prompt, True
        closing = self.tokenizer.encode(f"{self.reasoning.close}\n\n", add_special_tokens=False)
        index = prompt.media_index
        longer = None if index is None else [*index, *[index[-1]] * len(closing)]
        return replace(prompt, ids=prompt.ids + closing, media_index=longer), False


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(id_ for id_ in [*several, tokenizer.eos_token_id] if id_ is not None)


def _max_context(model: Any) -> int:
    length = getattr(model.config.text_config, "max_position_embeddings", None)
    return int(length) if length else UNBOUNDED
