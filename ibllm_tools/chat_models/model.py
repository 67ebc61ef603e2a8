"""`ChatImageBindLLM`: an LLM with senses as a LangChain chat model.

Weights are read at the first answer, once per folder, device and dtype in the process; all chat
models of one folder share its engine, which answers concurrent calls together.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from langchain_core.outputs import ChatResult
from langchain_core.runnables.config import run_in_executor

from ibllm_tools.chat_models.configuration import ConfiguredChatModel, several
from ibllm_tools.chat_models.settings import (
    ANSWER_SETTINGS,
    BATCH_CONCURRENCY,
    merge_settings,
    with_concurrency,
)
from ibllm_tools.chat_models.structured import Method, Schema, structured_output
from ibllm_tools.chat_models.tools import as_choice, as_tools, tool_name
from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from langchain_core.callbacks import (
        AsyncCallbackManagerForLLMRun,
        CallbackManagerForLLMRun,
    )
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk
    from langchain_core.runnables import Runnable
    from langchain_core.tools import BaseTool

    from ibllm_tools.chat_models.request import Request


class ChatImageBindLLM(ConfiguredChatModel):
    """A chat model that sees, hears and feels: ImageBind-LLM in LangChain.

    Setup:
        Nothing to set up after `pip install ibllm-tools`: `pocket`, a miniature model, comes
        with the package and runs offline on a CPU. The environment may name another:
        `IBLLM_MODEL`, `IBLLM_DEVICE`.

    Key init args — completion params:
        model: "pocket", a folder, or a Hugging Face hub id.
        temperature: 0 (default) takes the most likely token; above 0 samples.
        max_tokens: Upper bound of the answer's tokens; 256 by default.
        top_p, top_k: Sample among the likeliest tokens alone.
        seed: Makes sampling repeatable; one seed gives one answer.
        n: Answers per call; `generate` returns them all, `invoke` the first.
        stop: The answer ends before any of these texts (alias `stop_sequences`).
        logprobs, top_logprobs: Whether to tell each token's probability, and of how many
            alternatives (up to 20).
        timeout: Seconds after which an answer ends with what it has.

    Key init args — client params:
        device, dtype: Where and in which precision to run ("cpu", "cuda:0"; "float32",
            "bfloat16", "float16"). By default an accelerator in bfloat16 where there is
            one, else the CPU in float32.
        visual_cache: True or False switches the visual cache, a dict such as
            `{"k": 10, "temperature": 20.0, "weight": 0.5}` sets it, None leaves the
            model folder's setting.
        media_policy: Limits on media, and which folders and hosts a message may name
            (none by default; `base64` and `Media.from_path` always work).

    Instantiate:
        ```python
        from ibllm_tools import ChatImageBindLLM, Media

        chat = ChatImageBindLLM(temperature=0, max_tokens=64)
        ```

    Invoke:
        ```python
        from langchain_core.messages import HumanMessage

        photo = Media.from_path("dog.jpg")
        question = [HumanMessage(["What is in the photo?", photo])]
        chat.invoke(question).text
        ```

    Stream:
        ```python
        for chunk in chat.stream(question):
            print(chunk.text, end="", flush=True)
        ```

    Async:
        ```python
        answer = await chat.ainvoke(question)
        async for chunk in chat.astream(question):
            print(chunk.text, end="", flush=True)
        answers = await chat.abatch([question, question], {"max_concurrency": 8})
        ```

        Nothing of it takes a thread while tokens come; a task that is cancelled leaves the
        engine at the next step. `batch` and `abatch` are answered together, in one forward call
        per step.

    Tool calling:
        ```python
        from langchain_core.tools import tool


        @tool
        def find_price(item: str) -> str:
            '''Find the price of an item.'''
            return "12 coins"


        helped = chat.bind_tools([find_price])
        talk = [HumanMessage("What is the price of the lamp?")]
        talk.append(helped.invoke(talk))
        talk += [find_price.invoke(call) for call in talk[-1].tool_calls]
        helped.invoke(talk).text
        ```

        A call is decoded under the tool's schema: it always parses, closes within `max_tokens`,
        and `invalid_tool_calls` stays empty (but for a `timeout`). `tool_choice` may be "auto",
        "any", "required", "none", True, or a tool's name. Stop texts count in an answer's text,
        never in calls.

    Structured output:
        ```python
        from typing import Literal

        from pydantic import BaseModel, Field


        class Seen(BaseModel):
            '''What a photo shows.'''

            name: str = Field(description="the thing in the photo")
            kind: Literal["animal", "vehicle", "instrument"]


        chat.with_structured_output(Seen).invoke(question)
        ```

        The schema is shown to the model as a tool, and its arguments are the answer. A keyword
        that cannot be enforced is a `SchemaError` that names it.

    JSON mode:
        ```python
        jsonic = chat.with_structured_output(method="json_mode")
        jsonic.invoke("Write a JSON object with the key 'animal'.")
        ```

    Image input:
        ```python
        chat.invoke([HumanMessage(["What is this?", Media.from_path("piano.jpg")])]).text
        ```

        Standard blocks (`{"type": "image", "base64": ..., "mime_type": ...}`), OpenAI's
        `image_url`, Anthropic's and older forms are taken as well. A `url` is followed only if
        `media_policy` lists its host.

    Audio input:
        ```python
        chat.invoke([HumanMessage(["What do you hear?", Media.from_path("sea.ogg")])]).text
        ```

    Video input:
        ```python
        chat.invoke([HumanMessage(["What is in the video?", Media.from_path("dog.mp4")])]).text
        ```

    3D, depth, thermal and IMU input:
        ```python
        chat.invoke([HumanMessage(["What is this?", Media.from_path("chair.ply")])]).text
        ```

        A `file` block holds any medium; `extras` says what its type does not:
        `{"modality": "depth", "weight": 0.5}`.

    Several media:
        Media of one turn are mixed by their weights. Over several turns each keeps what it was
        given: a turn, and all that is said until the next turn with media, is about its own
        media, so that a follow-up question keeps the picture, a new picture takes its place, and
        an answer is about the latest. Media in a tool's result are that turn's; those of
        several results in a row are mixed. PDF files are refused.

        ```python
        history = [*question, chat.invoke(question)]
        sea = Media.from_path("sea.ogg", weight=0.5)
        boat = Media.from_path("boat.jpg", weight=0.5)
        chat.invoke([*history, HumanMessage(["And what are these?", sea, boat])]).text
        ```

    Token usage:
        ```python
        chat.invoke(question).usage_metadata
        ```

        Text tokens are counted. A medium takes no place in the prompt;
        `input_token_details` counts media apart, by modality: `{"image": 1}`.
        `get_num_tokens_from_messages` counts a prompt in the same way, and serves as
        `token_counter` of `trim_messages` and `SummarizationMiddleware`:

        ```python
        from langchain_core.messages import trim_messages

        trim_messages(history, max_tokens=200, token_counter=chat)
        ```

    Logprobs:
        ```python
        answer = chat.invoke(question, logprobs=True, top_logprobs=2)
        answer.response_metadata["logprobs"]["content"][0]
        ```

        They are the model's own, before temperature and grammar.

    Response metadata:
        ```python
        chat.invoke(question).response_metadata
        ```

        `model_name`, `model_provider`, and `finish_reason`: "stop", "tool_calls", "length" or
        "timeout". What a model thinks before it answers is no part of `text`: it is kept in
        `additional_kwargs["reasoning_content"]` and shown as a `reasoning` block in
        `content_blocks`; `usage_metadata["output_token_details"]` counts it.

    Source: ImageBind-LLM (Han et al., 2023, arXiv 2309.03905).
    """

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, AIMessage]:
        """Offer tools; every call that comes fits the tool's schema, by construction.

        Args:
            tools: Functions, `BaseTool` objects, pydantic classes, TypedDicts, JSON schemas, or
                tools in OpenAI's or Anthropic's form.
            tool_choice: "auto" or None (the model decides), "any", "required" or True (at least
                one call), "none" (no call), or a tool's name, also in a dict of OpenAI's or
                Anthropic's form (one call of this tool).
            strict: Close the tools' schemas to arguments that they do not name. They are
                enforced in any case.
            parallel_tool_calls: False allows at most one call in an answer.
            **kwargs: Further settings of the calls, such as `temperature` or `response_format`.

        Raises:
            ConfigurationError: `tool_choice` names no tool, or a tool runs at a provider.
        """
        offered = as_tools(tools, strict)
        names = [tool_name(tool) for tool in offered]
        choice = as_choice(tool_choice, names)
        bound: dict[str, Any] = {"tools": offered, **kwargs}
        if choice in names:
            bound["tool_choice"] = {"type": "function", "function": {"name": choice}}
        elif tool_choice is not None:
            bound["tool_choice"] = choice
        if parallel_tool_calls is not None:
            bound["parallel_tool_calls"] = parallel_tool_calls
        return self.bind(**bound)

    def with_structured_output(
        self,
        schema: Schema | None = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, Any]:
        """Make a model whose answers are objects of a schema.

        Args:
            schema: A pydantic class (of version 2 or 1), a TypedDict, or a dict with a JSON
                schema; only `json_mode` may go without.
            method: "json_schema" (the text of the answer is JSON of the schema),
                "function_calling" (the answer is a call of a tool with this schema), or
                "json_mode" (as the first; without a schema any JSON object). In each of them
                decoding is held to the schema.
            include_raw: Return `{"raw", "parsed", "parsing_error"}` in place of the object.
            strict: Taken as elsewhere; decoding is held to the schema in any case.
            **kwargs: Further settings of the calls.

        Returns:
            A runnable: messages in, an object of a pydantic class, or else a dict, out.

        Raises:
            ConfigurationError: There is no such method, or the schema is missing.
        """
        return structured_output(
            self, schema, method, include_raw=include_raw, strict=strict, settings=kwargs
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        request, n = self._request(messages, stop, kwargs)
        if n == 1:
            return ChatResult(generations=[request.answer()])
        with ThreadPoolExecutor(min(n, BATCH_CONCURRENCY)) as pool:
            answers = list(pool.map(lambda variant: variant.answer(), request.variants(n)))
        return ChatResult(generations=answers)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        request, n = await run_in_executor(None, self._request, messages, stop, kwargs)
        answers = await _together([variant.aanswer() for variant in request.variants(n)])
        return ChatResult(generations=answers)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain calls back
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request, n = self._request(messages, stop, kwargs)
        _check_one(n)
        yield from request.chunks()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request, n = await run_in_executor(None, self._request, messages, stop, kwargs)
        _check_one(n)
        async with aclosing(request.achunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    def batch(self, inputs: Any, config: Any = None, **kwargs: Any) -> Any:
        """Answer many inputs together in the engine; `max_concurrency` of the config is kept."""
        return super().batch(inputs, with_concurrency(config), **kwargs)

    async def abatch(self, inputs: Any, config: Any = None, **kwargs: Any) -> Any:
        """Answer many inputs together in the engine; `max_concurrency` of the config is kept."""
        return await super().abatch(inputs, with_concurrency(config), **kwargs)

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, given: Mapping[str, Any]
    ) -> tuple[Request, int]:
        """What is asked, and how many answers are wanted."""
        from ibllm_tools.chat_models.request import make_request

        defaults = {name: getattr(self, name) for name in (*ANSWER_SETTINGS, "stop")}
        settings = merge_settings(defaults, stop, given)
        engine = self._engine(settings["model"])
        return make_request(engine, messages, settings, self.media_policy), settings["n"]


async def _together(answers: Iterable[Awaitable[ChatGeneration]]) -> list[ChatGeneration]:
    """Await several answers; where one fails or the task is cancelled, the others end too."""
    tasks = [asyncio.ensure_future(answer) for answer in answers]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _check_one(n: int) -> None:
    if n > 1:
        raise ConfigurationError(f"{several(n)}; use invoke or generate, or n=1")
