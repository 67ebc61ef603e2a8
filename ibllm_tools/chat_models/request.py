"""One call of the chat model, ready for the engine: what is asked, about what, and how to answer.

Everything slow that comes before the first token happens here: reading media, opening the model,
compiling the grammar. Nothing here waits for the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ibllm_tools.chat_models.answers import ChunkWriter, collect
from ibllm_tools.chat_models.messages import read_messages
from ibllm_tools.chat_models.settings import as_cache_settings, as_sampling
from ibllm_tools.chat_models.tools import Plan, make_plan
from ibllm_tools.media import load

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk

    from ibllm_tools.cache import CacheSettings
    from ibllm_tools.chat_models.calls import CallReader
    from ibllm_tools.decoding import Constraint, Sampling
    from ibllm_tools.engine import Engine
    from ibllm_tools.media import Item, MediaPolicy


@dataclass(frozen=True)
class Request:
    """One answer that is to be made.

    Attributes:
        engine: The loaded model.
        model: What the caller calls it.
        turns: The conversation as the engine takes it.
        media: The media of each turn; empty where nothing new came.
        media_counts: How many media there are, by modality.
        sampling: How tokens are chosen.
        cache: The visual cache's settings.
        plan: What the answer may be.
        constraint: The plan's grammar.
        stop: Texts that end the text of an answer that may also hold calls.
    """

    engine: Engine
    model: str
    turns: list[dict[str, Any]]
    media: list[list[Item]]
    media_counts: Mapping[str, int]
    sampling: Sampling
    cache: CacheSettings | bool | None
    plan: Plan
    constraint: Constraint | None
    stop: tuple[str, ...] = ()

    def chunks(self, *, whole: bool = False) -> Iterator[ChatGenerationChunk]:
        """Answer in chunks, or with `whole` in one go; closing the iterator ends the work."""
        writer = ChunkWriter(self)
        with closing(self.engine.stream(*self._arguments(), **self._options(whole))) as pieces:
            for piece in pieces:
                yield from writer.push(piece)
                if writer.done:
                    break

    async def achunks(self, *, whole: bool = False) -> AsyncGenerator[ChatGenerationChunk, None]:
        """Answer in chunks without a thread; cancelling the task ends the work."""
        writer = ChunkWriter(self)
        options = self._options(whole)
        async with aclosing(self.engine.astream(*self._arguments(), **options)) as pieces:
            async for piece in pieces:
                for chunk in writer.push(piece):
                    yield chunk
                if writer.done:
                    break

    def answer(self) -> ChatGeneration:
        """Answer as a whole."""
        return collect(self.chunks(whole=True))

    async def aanswer(self) -> ChatGeneration:
        """Answer as a whole without a thread."""
        return collect([chunk async for chunk in self.achunks(whole=True)])

    def variants(self, n: int) -> list[Request]:
        """The same request `n` times; a seed counts up, so that the answers differ."""
        seed = self.sampling.seed
        if seed is None:
            return [self] * n
        seeds = range(seed, seed + n)
        return [replace(self, sampling=replace(self.sampling, seed=s)) for s in seeds]

    def call_reader(self) -> CallReader | None:
        """A fresh reader of the model's calls; None where no call may come."""
        if not self.plan.calls:
            return None
        from ibllm_tools.chat_models.calls import CallReader

        return CallReader(self.engine.tokenizer, self.plan.answer, talks=self.plan.says_text)

    def n_input_tokens(self) -> int:
        """The tokens of the prompt."""
        return len(self.engine.prompt_ids(self.turns, self.plan.tools))

    def _arguments(self) -> tuple[Any, ...]:
        return self.turns, self.media, self.sampling, self.cache

    def _options(self, whole: bool) -> dict[str, Any]:
        # Where this side looks for stop texts, an answer has to come piece by piece.
        options: dict[str, Any] = {"whole": whole and not self.stop}
        if self.constraint is not None:
            options |= {"tools": self.plan.tools, "constraint": self.constraint}
        return options


def make_request(
    engine: Engine,
    messages: Sequence[BaseMessage],
    settings: Mapping[str, Any],
    policy: MediaPolicy,
) -> Request:
    """Read messages and merged settings.

    Raises:
        MediaError: A medium cannot be read or is not allowed.
        ConfigurationError: Settings do not fit together.
        SchemaError: A schema has a keyword that cannot be enforced.
    """
    plan = make_plan(
        settings["tools"],
        settings["tool_choice"],
        settings["parallel_tool_calls"],
        settings["response_format"],
    )
    conversation = read_messages(messages, policy)
    items = [load(block, policy) for block in conversation.blocks]
    # In text with calls, stop texts count in the text alone; in JSON and forced calls not at all.
    stop = settings["stop"] if plan.says_text else ()
    apart = plan.calls
    return Request(
        engine=engine,
        model=settings["model"],
        turns=conversation.turns,
        media=[[items[index] for index in row] for row in conversation.media],
        media_counts=Counter(item.modality for item in items),
        sampling=as_sampling(settings, () if apart else stop),
        cache=as_cache_settings(settings["visual_cache"]),
        plan=plan,
        constraint=plan.constraint(engine.tokenizer, engine.end_ids),
        stop=stop if apart else (),
    )
