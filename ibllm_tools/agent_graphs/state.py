"""What flows through the graphs: messages, attachments, and what an agent found out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NotRequired, TypedDict

from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.graph.message import add_messages

from ibllm_tools.agent_graphs.steps import tell_step
from ibllm_tools.attachments.files import AttachmentFiles
from ibllm_tools.attachments.messages import IDS, attach
from ibllm_tools.attachments.reading import read_block
from ibllm_tools.attachments.records import Attachment, merge, numbered, tag_of
from ibllm_tools.media import Media, MediaPolicy, Modality


class GraphInput(TypedDict):
    """What a caller may give: messages, whose media become attachments."""

    messages: Annotated[list[AnyMessage], add_messages]


class GraphState(GraphInput):
    """The state of every graph here.

    Attributes:
        messages: The conversation; the last one is the answer.
        attachments: Records by id; a caller cannot put any into it by hand.
        picture: The id of a picture that shows what was found, or "".
        report: What was found out, as JSON values.
    """

    attachments: NotRequired[Annotated[dict[str, Attachment], merge]]
    picture: NotRequired[str]
    report: NotRequired[dict[str, Any]]


class Shelf:
    """Where a graph's attachments lie, and under which policy media are read."""

    def __init__(self, files: AttachmentFiles, policy: MediaPolicy) -> None:
        """Keep bytes in `files`; `policy` bounds what messages may bring."""
        self.files = files
        self.policy = policy

    def attach(self, state: GraphState) -> dict[str, Any]:
        """The first node: media of new messages become attachments; the report begins anew."""
        held = state.get("attachments", {})
        changed, new = attach(
            state["messages"], held, lambda block: read_block(block, self.files, self.policy)
        )
        tags = " ".join(tag_of(record) for record in new.values())
        tell_step("attach", tags or "nothing new is attached", attachments=list(new))
        return {"messages": changed, "attachments": new, "picture": "", "report": {}}

    def keep(self, media: Media, held: dict[str, Attachment]) -> Attachment:
        """Attach a medium that a graph made; returns its record."""
        return numbered(read_block(media, self.files, self.policy), held)


def open_shelf(folder: Any = None, policy: MediaPolicy | None = None) -> Shelf:
    """A shelf in a folder, or in the user's private cache folder."""
    return Shelf(AttachmentFiles(folder), policy or MediaPolicy())


def question_of(state: GraphState) -> str:
    """The text of the last message of a person, with its tags."""
    message = _last_human(state)
    return message.text if message is not None else ""


def subjects(state: GraphState, modalities: Sequence[Modality]) -> list[Attachment]:
    """What the question is about: the attachments of its message, else the latest ones.

    Args:
        state: After `Shelf.attach`.
        modalities: Which to take.
    """
    held = state.get("attachments", {})

    def fitting(message: HumanMessage) -> list[Attachment]:
        ids = message.additional_kwargs.get(IDS) or []
        return [held[id_] for id_ in ids if id_ in held and held[id_]["modality"] in modalities]

    people = [m for m in reversed(state["messages"]) if isinstance(m, HumanMessage)]
    return next((found for found in map(fitting, people) if found), [])


def _last_human(state: GraphState) -> HumanMessage | None:
    people = (m for m in reversed(state["messages"]) if isinstance(m, HumanMessage))
    return next(people, None)
