"""`perception`: a router sends a question to the model itself or to experts; the model answers.

```
                ┌─> sense ───┐
attach -> route ┼─> detect ──┼─> answer -> draw
                ├─> listen ──┤
                └─> compare ─┘
```
The router is one structured answer of the model, held to a closed set; for pocket a linear model
of words tells the clear questions. Which attachments and which
nouns an expert works on is read from the question by rules: nothing that a model writes opens a
file. Experts run at the same time; what they find goes into the answer as lines of text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langgraph.graph import END, START, StateGraph

from ibllm_tools.agent_graphs.brain import Brain, without_tags
from ibllm_tools.agent_graphs.finding import Finder, Found
from ibllm_tools.agent_graphs.state import (
    GraphInput,
    GraphState,
    open_shelf,
    question_of,
    subjects,
)
from ibllm_tools.agent_graphs.steps import tell_step
from ibllm_tools.attachments.messages import IDS
from ibllm_tools.attachments.records import tag_of
from ibllm_tools.errors import IbllmError
from ibllm_tools.media import MODALITIES, Audio, Image, Media
from ibllm_tools.routing import (
    EXPERTS,
    PLAIN_PROMPT,
    Expert,
    Router,
    answer_messages,
    as_langchain,
    fitting,
    ids_in,
    is_chinese,
    say_senses,
    shipped_adviser,
)
from ibllm_tools.toolkit.experts import Experts, mono

if TYPE_CHECKING:
    import os

    from langchain_core.language_models import BaseChatModel
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import Checkpointer

    from ibllm_tools.agent_graphs.state import Shelf
    from ibllm_tools.attachments.records import Attachment
    from ibllm_tools.experts.protocols import Detector, Recognizer
    from ibllm_tools.media import MediaPolicy, Modality

_NODES: dict[Expert, str] = {
    "answer": "sense", "detector": "detect", "speech": "listen", "similarity": "compare",
}  # fmt: skip
_SEEN: tuple[Modality, ...] = ("image", "video")
_HEARD: tuple[Modality, ...] = ("audio", "video")
_N_BEFORE = 6


def _joined(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, Any]:
    """What one expert found beside what others did; an empty dict begins anew."""
    return {**(old or {}), **new} if new else {}


class PerceptionState(GraphState, total=False):
    """Beside what every graph holds: the route, and what each expert found.

    Attributes:
        route: The experts.
        found: For each expert `lines` for the model, and `facts` by attachment.
    """

    route: list[Expert]
    found: Annotated[dict[str, Any], _joined]


def create_graph(
    model: str | BaseChatModel | None = None,
    *,
    detector: Detector | str | bool | None = None,
    recognizer: Recognizer | str | bool | None = None,
    attachments_dir: str | os.PathLike[str] | None = None,
    media_policy: MediaPolicy | None = None,
    checkpointer: Checkpointer = None,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Make the graph.

    Args:
        model: Routes and answers; pocket by default. For one without senses pocket perceives.
        detector: A detector, a checkpoint, True for the default one, False for none; by default
            the default one if its files are here.
        recognizer: Likewise.
        attachments_dir: Where the bytes of attachments go.
        media_policy: What messages may bring.
        checkpointer: Keeps threads.
    """
    shelf = open_shelf(attachments_dir, media_policy)
    work = _Perception(Brain(model, shelf), shelf, Experts(detector, recognizer))
    graph = StateGraph(PerceptionState, input_schema=GraphInput)
    graph.add_node("attach", work.attach)
    graph.add_node("route", work.route)
    graph.add_node("sense", work.sense)
    graph.add_node("detect", work.detect)
    graph.add_node("listen", work.listen)
    graph.add_node("compare", work.compare)
    graph.add_node("answer", work.answer)
    graph.add_node("draw", work.draw)
    graph.add_edge(START, "attach")
    graph.add_edge("attach", "route")
    graph.add_conditional_edges("route", _next_nodes, [*_NODES.values(), "answer"])
    for node in _NODES.values():
        graph.add_edge(node, "answer")
    graph.add_edge("answer", "draw")
    graph.add_edge("draw", END)
    return graph.compile(checkpointer=checkpointer, name="perception")


def _next_nodes(state: PerceptionState) -> list[str]:
    """The experts of the route; the model alone needs none."""
    route = state["route"]
    return ["answer"] if route in (["answer"], ["none"]) else [_NODES[e] for e in route]


class _Perception:
    """The nodes, with what they work by."""

    def __init__(self, brain: Brain, shelf: Shelf, experts: Experts) -> None:
        self._brain = brain
        self._shelf = shelf
        self._experts = experts
        self._finder = Finder(experts, brain.perceiver, shelf)

    def attach(self, state: PerceptionState) -> dict[str, Any]:
        """Attach the media of new messages, and forget what was found before."""
        return {**self._shelf.attach(state), "found": {}}

    def route(self, state: PerceptionState) -> dict[str, Any]:
        """Choose the experts."""
        ids = list(_brought(state))
        question = _asked(state)
        adviser = shipped_adviser() if self._brain.is_own else None
        chosen = Router(self._brain.model, adviser).route(question, ids).experts
        missing = [expert for expert in chosen if not self._is_here(expert)]
        route = fitting([e for e in chosen if e not in missing], ids) if missing else chosen
        told = " + ".join(route)
        if missing:
            told += f" (not here: {', '.join(missing)}; see `ibllm doctor`)"
        tell_step("route", told, route=list(route))
        return {"route": route}

    def _is_here(self, expert: Expert) -> bool:
        if expert == "detector":
            return self._experts.detects
        return expert != "speech" or self._experts.recognizes

    def sense(self, state: PerceptionState) -> dict[str, Any]:
        """What the model itself perceives, where experts are asked as well."""
        question = _asked(state)
        records = _left(_chosen(state, question, MODALITIES), state["route"])
        asked = question
        if self._brain.is_own:
            asked = shipped_adviser().part_for("answer", question, list(_brought(state)))
        said = self._brain.answer(_with_tags(asked, records), records)
        tell_step("sense", said)
        line = say_senses(said, chinese=is_chinese(question))
        return {"found": {"answer": {"lines": [line], "facts": {"answer": said}}}}

    def detect(self, state: PerceptionState) -> dict[str, Any]:
        """What is where, by the detector."""
        return self._each(state, "detector", _SEEN, self._finder.detect)

    def listen(self, state: PerceptionState) -> dict[str, Any]:
        """What is said, by the recogniser."""
        return self._each(state, "speech", _HEARD, self._finder.listen)

    def compare(self, state: PerceptionState) -> dict[str, Any]:
        """What is alike, in the joint space."""
        newest = [record["id"] for record in subjects(state, MODALITIES)]
        try:
            line, facts = self._finder.compare(_asked(state), _brought(state), newest)
        except IbllmError as error:
            line, facts = _failed("similarity", error)
        tell_step("compare", line, **facts)
        return {"found": {"similarity": {"lines": [line], "facts": facts}}}

    def _each(
        self,
        state: PerceptionState,
        expert: Expert,
        modalities: Sequence[Modality],
        find: Callable[[str, Attachment], Found],
    ) -> dict[str, Any]:
        question = _asked(state)
        lines: list[str] = []
        facts: dict[str, Any] = {}
        for record in _chosen(state, question, modalities):
            try:
                line, found = find(question, record)
            except IbllmError as error:
                line, found = _failed(f"{expert}, {record['id']}", error)
            tell_step(_NODES[expert], line, id=record["id"])
            lines.append(line)
            facts[record["id"]] = found
        return {"found": {expert: {"lines": lines, "facts": facts}}}

    def answer(self, state: PerceptionState) -> dict[str, Any]:
        """Answer: by the senses, by the experts' lines, or from what the model knows."""
        question, route = _asked(state), state["route"]
        found = state.get("found", {})
        lines = [line for e in EXPERTS for line in found.get(e, {}).get("lines", ())]
        if lines:
            told = as_langchain(answer_messages(question, lines))
            said = str(self._brain.model.invoke(told).text)
        elif route == ["answer"]:
            records = _chosen(state, question, MODALITIES)
            said = self._brain.answer(_with_tags(question, records), records)
        else:
            said = str(self._brain.model.invoke(_plain(state, question)).text)
        tell_step("answer", said or "(nothing)")
        facts = {expert: part["facts"] for expert, part in found.items()}
        report = {"route": route, "results": lines, "facts": facts, "answer": said}
        return {"messages": [AIMessage(said)], "report": report}

    def draw(self, state: PerceptionState) -> dict[str, Any]:
        """Draw boxes, or else words over the wave."""
        found, held = state.get("found", {}), state.get("attachments", {})
        media = self._boxes(found, held) or self._words(found, held)
        if media is None:
            return {}
        drawn = self._shelf.keep(media, held)
        tell_step("draw", tag_of(drawn))
        return {"picture": drawn["id"], "attachments": {drawn["id"]: drawn}}

    def _boxes(self, found: dict[str, Any], held: dict[str, Attachment]) -> Media | None:
        from ibllm_tools.experts import Detections, draw_detections

        for id_, facts in found.get("detector", {}).get("facts", {}).items():
            item = self._finder.item(held[id_])
            if facts.get("detections") and isinstance(item, Image):
                drawn = draw_detections(item.pixels, Detections.model_validate(facts))
                return _png(drawn, f"objects in {id_}.png")
        return None

    def _words(self, found: dict[str, Any], held: dict[str, Attachment]) -> Media | None:
        from ibllm_tools.experts import Transcript, draw_transcript

        for id_, facts in found.get("speech", {}).get("facts", {}).items():
            item = self._finder.item(held[id_])
            if facts.get("is_speech") and isinstance(item, Audio):
                transcript = Transcript.model_validate(facts)
                drawn = draw_transcript(mono(item), item.rate_hz, transcript)
                return _png(drawn, f"words of {id_}.png")
        return None


def _brought(state: PerceptionState) -> dict[str, Attachment]:
    """The attachments that people brought, the oldest first; not what a graph drew."""
    held = state.get("attachments", {})
    people = [m for m in state["messages"] if isinstance(m, HumanMessage)]
    ids = [id_ for message in people for id_ in message.additional_kwargs.get(IDS) or []]
    return {id_: held[id_] for id_ in ids if id_ in held}


def _asked(state: PerceptionState) -> str:
    """The question without tags."""
    return without_tags(question_of(state), list(_brought(state).values()))


def _chosen(
    state: PerceptionState, question: str, modalities: Sequence[Modality]
) -> list[Attachment]:
    """What an expert works on: the attachments named by id, else the question's, else the last."""
    held = _brought(state)
    named = [held[id_] for id_ in ids_in(question, list(held))]
    kept = [record for record in named if record["modality"] in modalities]
    return kept or subjects(state, modalities)


def _left(records: Sequence[Attachment], route: Sequence[Expert]) -> list[Attachment]:
    """What is left to the senses, where experts look at the pictures or listen to the sounds."""
    taken: set[Modality] = set()
    taken.update(_SEEN if "detector" in route else ())
    taken.update(_HEARD if "speech" in route else ())
    return [record for record in records if record["modality"] not in taken] or list(records)


def _with_tags(question: str, records: Sequence[Attachment]) -> str:
    return " ".join([question, *(tag_of(record) for record in records)])


def _plain(state: PerceptionState, question: str) -> list[Any]:
    """What was said lately, and the question, without media."""
    before = [
        m for m in state["messages"][:-1] if isinstance(m, (HumanMessage, AIMessage)) and m.text
    ]
    lately = [type(m)(m.text) for m in before[-_N_BEFORE:]]
    return [SystemMessage(PLAIN_PROMPT), *lately, HumanMessage(question)]


def _failed(where: str, error: IbllmError) -> Found:
    reason = " ".join(str(error).split())
    return f"{where}: failed: {reason}", {"error": reason}


def _png(picture: Any, name: str) -> Media:
    import io

    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    return Media.from_bytes(buffer.getvalue(), modality="image", name=name)
