"""`AttachmentMiddleware`: media by id, for an agent of any chat model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NotRequired

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    OmitFromInput,
)
from langchain_core.messages import ToolMessage
from langchain_core.runnables.config import run_in_executor
from langgraph.types import Command

from ibllm_tools.attachments.checkpoints import Saver, slim, used_files
from ibllm_tools.attachments.files import AttachmentFiles
from ibllm_tools.attachments.lookup import STATE_KEY, attachments_of, serving
from ibllm_tools.attachments.messages import attach, show, unload
from ibllm_tools.attachments.reading import read_block
from ibllm_tools.attachments.records import Attachment, merge
from ibllm_tools.attachments.senses import senses_of
from ibllm_tools.media import MediaPolicy

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from langchain.agents.middleware.types import ModelRequest, ModelResponse
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.prebuilt.tool_node import ToolCallRequest
    from langgraph.runtime import Runtime

_N_SHOWN = 8


class AttachmentState(AgentState[Any]):
    """The state of an agent with attachments; a caller cannot put any into it by hand."""

    # LangGraph takes what stands last for the reducer.
    attachments: NotRequired[Annotated[dict[str, Attachment], OmitFromInput, merge]]


class AttachmentMiddleware(AgentMiddleware[AttachmentState, Any, Any]):
    """Turns media of messages and tool results into attachments with ids.

    Works with any chat model: the model reads `What is this? [image-1: photo.jpg]`, tools take
    `image-1`, and the bytes lie in files named by their content. What an LLM writes opens
    neither a file nor an address.

    Key init args:
        folder: Where files go; by default a private folder in the user's cache.
        media_policy: Limits on media, and which folders and hosts a message of a person may
            name (none by default). A medium that it refuses becomes a text that says why.
        show_media: Give the media themselves, too, to models whose profile says that they
            take them; their tags stay.

    Instantiate:
        ```python
        from langchain.agents import create_agent
        from langgraph.checkpoint.memory import InMemorySaver

        from ibllm_tools import AttachmentMiddleware, ChatImageBindLLM, ImageBindLLMToolkit

        attachments = AttachmentMiddleware()
        agent = create_agent(
            ChatImageBindLLM(),
            ImageBindLLMToolkit().get_tools(),
            middleware=[attachments],
            checkpointer=attachments.slim(InMemorySaver()),
        )
        ```

    Invoke:
        ```python
        from langchain_core.messages import HumanMessage

        from ibllm_tools import Media

        thread = {"configurable": {"thread_id": "1"}}
        photo = Media.from_path("dog.jpg")
        state = agent.invoke({"messages": [HumanMessage(["What is this?", photo])]}, thread)
        print(state["messages"][0].text, state["attachments"]["image-1"]["sha256"])
        ```

    Checkpoints:
        LangGraph saves the input of a run before any middleware sees it; `slim` makes a
        checkpointer that keeps its media in the files as well.

    Cleaning:
        Nothing is deleted by itself. `clean` deletes the files that no checkpoint refers to.
    """

    state_schema = AttachmentState

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        media_policy: MediaPolicy | None = None,
        show_media: bool = True,
    ) -> None:
        """Make the middleware; nothing is written before the first medium comes."""
        super().__init__()
        self.files = AttachmentFiles(folder)
        self.media_policy = media_policy or MediaPolicy()
        self.show_media = show_media

    # media of messages

    def before_model(
        self,
        state: AttachmentState,
        runtime: Runtime[Any],  # noqa: ARG002 - the interface's
    ) -> dict[str, Any] | None:
        """Attach the media of new messages."""
        changed, new = attach(state["messages"], attachments_of(state), self._store)
        return {"messages": changed, STATE_KEY: new} if changed else None

    async def abefore_model(
        self, state: AttachmentState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """Attach the media of new messages outside the event loop."""
        return await run_in_executor(None, self.before_model, state, runtime)

    def after_agent(self, state: AttachmentState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Attach the media of a tool whose result ended the run."""
        return self.before_model(state, runtime)

    async def aafter_agent(
        self, state: AttachmentState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """Attach the media of a tool whose result ended the run."""
        return await self.abefore_model(state, runtime)

    # what the model sees

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        """Show media to a model that has senses."""
        return handler(self._shown(request))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Show media to a model that has senses."""
        return await handler(await run_in_executor(None, self._shown, request))

    # what tools take and return

    def wrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]],
    ) -> ToolMessage | Command[Any]:
        """Let a tool find attachments, and store the media that it returns."""
        with serving(self.files):
            return self._unloaded(handler(request))

    async def awrap_tool_call(
        self,
        request: ToolCallRequest,
        handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]],
    ) -> ToolMessage | Command[Any]:
        """Let a tool find attachments, and store the media that it returns."""
        with serving(self.files):
            result = await handler(request)
        return await run_in_executor(None, self._unloaded, result)

    # checkpoints and files

    def slim(self, checkpointer: Saver) -> Saver:
        """Return a checkpointer that keeps bytes of media in this middleware's files."""
        return slim(checkpointer, self.files)

    def read(self, attachment: Attachment) -> bytes:
        """Read the bytes of an attachment, for a user interface.

        Raises:
            MediaError: They are no longer there.
        """
        return self.files.get(attachment["sha256"])

    def clean(
        self, *checkpointers: BaseCheckpointSaver[Any], min_age_s: float = 3600.0
    ) -> list[str]:
        """Delete the files that no checkpoint refers to.

        Args:
            checkpointers: All that share this folder; their threads are read.
            min_age_s: Younger files stay, because a run may not have saved its state yet.

        Returns:
            The SHA-256 of the deleted files.
        """
        used: set[str] = set()
        for checkpointer in checkpointers:
            used |= used_files(checkpointer)
        return self.files.clean(used, min_age_s=min_age_s)

    def _store(self, block: Mapping[str, Any]) -> Attachment:
        return read_block(block, self.files, self.media_policy)

    def _shown(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        held = attachments_of(request.state)
        senses = senses_of(request.model) if self.show_media and held else None
        if not senses:
            return request
        messages = show(
            request.messages,
            held,
            self.read,
            senses.modalities,
            n_last=_N_SHOWN,
            tools=senses.tool_images,
            plain=senses.plain,
        )
        return request.override(messages=messages)

    def _unloaded(self, result: ToolMessage | Command[Any]) -> ToolMessage | Command[Any]:
        if isinstance(result, ToolMessage):
            return unload(result, self._store)
        update = result.update if isinstance(result, Command) else None
        if isinstance(update, dict) and isinstance(update.get("messages"), list):
            return _replaced(result, update, self._all(update["messages"]))
        return result

    def _all(self, messages: Iterable[Any]) -> list[Any]:
        return [unload(m, self._store) if isinstance(m, ToolMessage) else m for m in messages]


def _replaced(command: Command[Any], update: dict[str, Any], messages: list[Any]) -> Command[Any]:
    from dataclasses import replace

    return replace(command, update={**update, "messages": messages})
