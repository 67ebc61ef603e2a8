"""`create_media_agent`: a model, perception tools, attachments, limits and human approval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    import os

    from langchain.agents.middleware.types import AgentMiddleware
    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import BaseTool
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import Checkpointer

    from ibllm_tools.experts.protocols import Detector, Recognizer
    from ibllm_tools.media import MediaPolicy
    from ibllm_tools.vectorstores import ImageBindVectorStore

SYSTEM_PROMPT = (
    "The user attaches images, recordings, videos and shapes; each is shown as [id: name]. Tools "
    "take the id, such as image-1. Files and addresses cannot be opened: use the ids that are "
    "shown, and ask for an attachment where one is missing."
)
"""What models other than `ChatImageBindLLM` are told by default."""
FOR_PROGRAMS = frozenset({"embed_media"})
"""Tools of the toolkit whose results tell an LLM nothing; the agent goes without."""


def create_media_agent(
    model: str | BaseChatModel | None = None,
    *,
    tools: Sequence[BaseTool | Callable[..., Any] | dict[str, Any]] = (),
    detector: Detector | str | bool | None = None,
    recognizer: Recognizer | str | bool | None = None,
    vectorstore: ImageBindVectorStore | None = None,
    checkpointer: Checkpointer = None,
    interrupt_on: Mapping[str, Any] | None = None,
    max_model_calls: int | None = 12,
    max_tool_calls: int | None = 24,
    attachments_dir: str | os.PathLike[str] | None = None,
    media_policy: MediaPolicy | None = None,
    show_media: bool = True,
    system_prompt: str | None = None,
    middleware: Sequence[AgentMiddleware[Any, Any, Any]] = (),
    **options: Any,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Assemble an agent that perceives the media of its conversation.

    Args:
        model: Any chat model that calls tools, or its name for `init_chat_model`; by default
            pocket. Where it is no `ChatImageBindLLM`, pocket perceives for it.
        tools: Further tools, beside those of `ImageBindLLMToolkit` (without `embed_media`, whose
            numbers tell an LLM nothing).
        detector: For `detect_objects`: a detector, a checkpoint, True, or False; see
            `ImageBindLLMToolkit`.
        recognizer: For `transcribe_speech`, likewise.
        vectorstore: Where `find_similar` searches; by default among the attachments.
        checkpointer: Keeps threads. Bytes of media never get into it; see `slim`.
        interrupt_on: Tools before which a human is asked, as `HumanInTheLoopMiddleware` takes
            them: `{"detect_objects": True}`. Needs a checkpointer.
        max_model_calls: Most answers of the model in one run; then the run ends.
        max_tool_calls: Most tool calls in one run; further ones are refused.
        attachments_dir: Where the bytes of attachments go; by default a private folder in the
            user's cache.
        media_policy: Limits on media, and which folders and hosts a person's message may name.
        show_media: Give a model that has senses the media, too, and not their ids alone.
        system_prompt: What the model is told at first; by default how attachments are named
            (pocket needs no telling).
        middleware: Further middleware, after the agent's own.
        **options: Further arguments of LangChain's `create_agent`, such as `response_format`.

    A perception tool is offered once there is an attachment for it: no video, no `analyze_video`.
    A `ChatImageBindLLM`, which senses media itself, is offered those that the question needs.

    Returns:
        A graph like any other of `create_agent`; its state holds `messages` and `attachments`.

    Raises:
        ConfigurationError: `interrupt_on` is given without a checkpointer.

    ```python
    from langchain_core.messages import HumanMessage

    from ibllm_tools import Media, create_media_agent

    agent = create_media_agent()
    photo, sound = Media.from_path("dog.jpg"), Media.from_path("dog.ogg")
    state = agent.invoke({"messages": [HumanMessage(["What do you see and hear?", photo, sound])]})
    print(state["messages"][-1].text)
    ```
    """
    from langchain.agents import create_agent
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from ibllm_tools.attachments import AttachmentMiddleware
    from ibllm_tools.chat_models import ChatImageBindLLM
    from ibllm_tools.media import MediaPolicy
    from ibllm_tools.routing import shipped_adviser
    from ibllm_tools.toolkit import ImageBindLLMToolkit
    from ibllm_tools.toolkit.advising import AdvisedTools
    from ibllm_tools.toolkit.offering import FittingTools

    _check_interrupts(interrupt_on, checkpointer)
    policy = media_policy or MediaPolicy()
    brain = ChatImageBindLLM() if model is None else model
    perceiver = brain if isinstance(brain, ChatImageBindLLM) else ChatImageBindLLM()
    kit = ImageBindLLMToolkit(
        chat=perceiver,
        detector=detector,
        recognizer=recognizer,
        vectorstore=vectorstore,
        media_policy=policy,
    )
    attachments = AttachmentMiddleware(attachments_dir, media_policy=policy, show_media=show_media)
    if isinstance(checkpointer, BaseCheckpointSaver):
        checkpointer = attachments.slim(checkpointer)
    if system_prompt is None and perceiver is not brain:
        system_prompt = SYSTEM_PROMPT
    fitting = FittingTools(searches_collection=vectorstore is not None)
    around: list[AgentMiddleware[Any, Any, Any]] = [attachments, fitting]
    if perceiver is brain and show_media:
        around.append(AdvisedTools(shipped_adviser()))
    around += [*_limits(max_model_calls, max_tool_calls), *_approval(interrupt_on)]
    return create_agent(
        brain,
        [*(tool for tool in kit.get_tools() if tool.name not in FOR_PROGRAMS), *tools],
        system_prompt=system_prompt,
        middleware=[*around, *middleware],
        checkpointer=checkpointer,
        **options,
    )


def _limits(
    max_model_calls: int | None, max_tool_calls: int | None
) -> list[AgentMiddleware[Any, Any, Any]]:
    from langchain.agents.middleware import ModelCallLimitMiddleware, ToolCallLimitMiddleware

    limits: list[AgentMiddleware[Any, Any, Any]] = []
    if max_model_calls is not None:
        limits.append(ModelCallLimitMiddleware(run_limit=max_model_calls))
    if max_tool_calls is not None:
        limits.append(ToolCallLimitMiddleware(run_limit=max_tool_calls))
    return limits


def _approval(
    interrupt_on: Mapping[str, Any] | None,
) -> list[AgentMiddleware[Any, Any, Any]]:
    from langchain.agents.middleware import HumanInTheLoopMiddleware

    return [HumanInTheLoopMiddleware(interrupt_on=dict(interrupt_on))] if interrupt_on else []


def _check_interrupts(interrupt_on: Mapping[str, Any] | None, checkpointer: Checkpointer) -> None:
    if interrupt_on and not checkpointer:
        raise ConfigurationError(
            "interrupt_on: found no checkpointer; expected one, because a run waits for a human "
            "in its thread; pass checkpointer=InMemorySaver() or a lasting one"
        )
