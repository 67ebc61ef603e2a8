"""Offering a small brain that has senses only the perception tools that its question needs.

Such a brain sees and hears what the turn brings, so that most questions need no tool; offered one,
it calls it. The words of the question tell which expert is needed (`ibllm_tools.routing`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from ibllm_tools.attachments.lookup import attachments_of
from ibllm_tools.attachments.messages import ids_for_people, ids_of
from ibllm_tools.routing import Adviser, asked_nouns, ids_in
from ibllm_tools.toolkit.access import without_tags
from ibllm_tools.toolkit.offering import OffersTools

if TYPE_CHECKING:
    from langchain.agents.middleware.types import ModelRequest
    from langchain_core.messages import AnyMessage

_EXPERT_OF = {
    "perceive": "",  # what it would tell is seen already
    "embed_media": "",
    "analyze_video": "",
    "detect_objects": "detector",
    "transcribe_speech": "speech",
    "find_similar": "similarity",
}
_ID_FIELDS = {"image": ("image",), "audio": ("audio", "video"), "video": ("video",)}
_BACK = re.compile(
    r"\b(?:first|second|third|earlier|previous|before|ago|other|last|both|all)\b"
    r"|第[一二三]|之前|前面|刚才|上一|另一|最早|两|都"
)
"""Words by which a question may mean what came with an earlier one."""


class AdvisedTools(OffersTools):
    """Offers each perception tool where the question needs its expert, once a turn.

    Of those only what a call must have is shown, and ids as a choice of those that there are, so
    that a grammar allows no other. Tools of other names are always offered, as they are. Calls
    and results of earlier turns are left out, and ids where no tool takes any.
    """

    def __init__(self, adviser: Adviser) -> None:
        """Ask `adviser` what a question needs."""
        super().__init__()
        self._adviser = adviser

    def offered(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        """Offer what the question needs."""
        question, done = _turn(request.messages)
        drawn = ids_for_people(request.messages)
        ids = [id_ for id_ in attachments_of(request.state) if id_ not in drawn]
        newest = [id_ for id_ in _newest(request.messages) if id_ in ids]
        needed = set(self._adviser.advise(question, ids)[0]) if ids else set()
        kept: list[BaseTool | dict[str, Any]] = []
        n_others = 0
        for tool in request.tools:
            if not isinstance(tool, BaseTool) or tool.name not in _EXPERT_OF:
                kept.append(tool)
                n_others += 1
            elif _EXPERT_OF[tool.name] in needed and tool.name not in done:
                kept.append(_narrowed(tool, ids, newest, question))
        answers = bool(done & set(_EXPERT_OF)) and len(kept) == n_others
        messages = _read(request.messages, alone=answers)
        if len(kept) == n_others and not answers:  # no tool takes an id
            messages = [_untagged(message) for message in messages]
        return request.override(tools=kept, messages=messages)


def _narrowed(
    tool: BaseTool, ids: Sequence[str], newest: Sequence[str], question: str
) -> dict[str, Any]:
    """A tool in OpenAI's form, with what it requires alone and ids as a choice.

    Of the ids that fit, those that the question names are the choice, or else those that came
    with it, unless it looks back.
    """
    found = convert_to_openai_tool(tool)
    parameters = found["function"]["parameters"]
    required = parameters.get("required", [])
    fields = {name: dict(parameters["properties"][name]) for name in required}
    for name, kinds in _ID_FIELDS.items():
        fitting = [i for i in ids if i.startswith(kinds)]
        if name in fields and fitting:
            came = [i for i in fitting if i in newest and not _BACK.search(question.casefold())]
            fields[name] |= {"enum": ids_in(question, fitting) or came or fitting}
    if "query" in fields and (named := ids_in(question, ids)):
        fields["query"] |= {"enum": named}
    elif "query" in fields and not asked_nouns(question):
        fields["query"] |= {"enum": list(ids)}
    return {
        **found,
        "function": {**found["function"], "parameters": {**parameters, "properties": fields}},
    }


def _newest(messages: Sequence[AnyMessage]) -> list[str]:
    """The attachments that came with the last question."""
    asked = [message for message in messages if isinstance(message, HumanMessage)]
    return ids_of(asked[-1]) if asked else []


def _read(messages: Sequence[AnyMessage], *, alone: bool) -> list[AnyMessage]:
    """What a small model reads, which repeats what it reads.

    Of earlier turns it reads questions and answers; calls and results are in the answers. Where
    it words what the tools of this turn have found, it reads this turn `alone`.
    """
    asked = [i for i, message in enumerate(messages) if isinstance(message, HumanMessage)]
    start = asked[-1] if asked else 0
    earlier = [] if alone else messages[:start]
    kept = [
        message
        for message in earlier
        if not isinstance(message, ToolMessage) and not getattr(message, "tool_calls", None)
    ]
    return [*kept, *messages[start:]]


def _untagged(message: AnyMessage) -> AnyMessage:
    """A question without tags, which say nothing to who senses the media and calls no tool."""
    if not isinstance(message, HumanMessage) or not ids_of(message):
        return message
    content = message.content
    if isinstance(content, str):
        return message.model_copy(update={"content": without_tags(content)})
    blocks = [
        {**block, "text": without_tags(block["text"])}
        if isinstance(block, dict) and isinstance(block.get("text"), str)
        else block
        for block in content
    ]
    return message.model_copy(update={"content": blocks})


def _turn(messages: Sequence[AnyMessage]) -> tuple[str, set[str]]:
    """The last question without tags, and the tools that have answered since."""
    done: set[str] = set()
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return without_tags(str(message.text)), done
        if isinstance(message, ToolMessage) and message.name:
            done.add(message.name)
    return "", done
