"""How tools reach attachments, and how their errors reach the LLM."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages import HumanMessage
from langchain_core.tools import StructuredTool, ToolException

from ibllm_tools.attachments.files import AttachmentFiles
from ibllm_tools.attachments.lookup import attachments_of, find, served_files
from ibllm_tools.attachments.records import Attachment, Attachments, media_of
from ibllm_tools.errors import IbllmError
from ibllm_tools.media import Item, Media, MediaPolicy, Modality, load

if TYPE_CHECKING:
    from langchain.tools import ToolRuntime
    from pydantic import BaseModel

    from ibllm_tools.attachments.store import AttachmentStore

_TAG = re.compile(r"\s*\[[a-z]+-\d+(?:: [^\]]*)?\]")
Result = tuple[str, dict[str, Any]]
"""What a tool returns: text for the LLM, and an artifact for programs."""


class Held(NamedTuple):
    """The attachments that one call may name, and where their bytes are."""

    records: Attachments
    files: AttachmentFiles

    def media(self, named: str, weight: float | None = None) -> tuple[Attachment, Media]:
        """The record and the content block of an id.

        Raises:
            MediaError: It is no id of this conversation, or its bytes are gone.
        """
        record = find(self.records, named)
        return record, media_of(record, self.files.get(record["sha256"]), weight)


class Access:
    """Finds attachments: those of the agent that calls a tool, or those of a store."""

    def __init__(self, store: AttachmentStore | None, policy: MediaPolicy) -> None:
        """Use `store` outside of agents; decode under the limits of `policy`."""
        self._store = store
        self._policy = policy

    def held(self, runtime: ToolRuntime | None) -> Held:
        """What the caller may name; a store adds to what an agent has."""
        records = dict(attachments_of(runtime.state)) if runtime is not None else {}
        files = served_files()
        if self._store is None:
            return Held(records, files or AttachmentFiles())
        if records:
            return Held(records, files or self._store.files)
        return Held(self._store.attachments, self._store.files)

    def item(
        self, runtime: ToolRuntime | None, named: str, wanted: Sequence[Modality], instead: str
    ) -> tuple[Attachment, Item]:
        """Decode the attachment of an id.

        Args:
            runtime: Of the call.
            named: What the LLM wrote.
            wanted: The modalities that the tool takes.
            instead: What to do with others.

        Raises:
            MediaError: It is no id of this conversation, or cannot be read.
            ToolException: It is of another modality.
        """
        record, media = self.held(runtime).media(named)
        if record["modality"] not in wanted:
            raise ToolException(
                f"{record['id']} is of modality {record['modality']}; this tool takes "
                f"{' or '.join(wanted)}; {instead}"
            )
        return record, load(media, self._policy)


def question_in(runtime: ToolRuntime | None) -> str:
    """What a person asked last, in the agent that calls a tool; "" outside of one."""
    messages = runtime.state.get("messages", ()) if runtime is not None else ()
    asked = [message for message in messages if isinstance(message, HumanMessage)]
    return without_tags(str(asked[-1].text)) if asked else ""


def without_tags(text: str) -> str:
    """A question without the tags of its attachments, whose names may be of another language."""
    return _TAG.sub("", text).strip()


@contextmanager
def told_to_the_model() -> Iterator[None]:
    """Turn this package's errors into what an LLM reads and can act on."""
    try:
        yield
    except IbllmError as error:
        raise ToolException(str(error)) from error


def make_tool(
    name: str,
    description: str,
    schema: type[BaseModel],
    run: Callable[..., Result],
    arun: Callable[..., Any] | None = None,
) -> StructuredTool:
    """A tool whose errors are answers, not the end of a run."""
    return StructuredTool(
        name=name,
        description=description,
        args_schema=schema,
        func=run,
        coroutine=arun,
        response_format="content_and_artifact",
        handle_tool_error=True,
    )
