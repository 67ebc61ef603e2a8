"""`detection`: an answer, and which of its claims a detector confirms (the paper's figure 10).

```
attach -> answer -> nouns -> detect -> check
   └-> ask_for_picture
```
The answer is the model's; everything after it is code and a detector, so that the verdict does not
depend on the model that is judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, StateGraph

from ibllm_tools.agent_graphs.brain import Brain, without_tags
from ibllm_tools.agent_graphs.evidence import Evidence, find_claims, weigh
from ibllm_tools.agent_graphs.nouns import Mention
from ibllm_tools.agent_graphs.state import (
    GraphInput,
    GraphState,
    open_shelf,
    question_of,
    subjects,
)
from ibllm_tools.agent_graphs.steps import tell_step
from ibllm_tools.attachments.records import media_of, tag_of
from ibllm_tools.errors import ConfigurationError
from ibllm_tools.media import Image, load
from ibllm_tools.routing.tool_texts import counted
from ibllm_tools.toolkit.experts import Experts

if TYPE_CHECKING:
    import os

    from langchain_core.language_models import BaseChatModel
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import Checkpointer
    from PIL import Image as PilImage

    from ibllm_tools.agent_graphs.state import Shelf
    from ibllm_tools.attachments.records import Attachment
    from ibllm_tools.experts.protocols import Detector, Recognizer
    from ibllm_tools.experts.results import Detections
    from ibllm_tools.media import MediaPolicy

DESCRIBE = "What is in the picture?"
NO_PICTURE = "Please attach a picture; this agent checks answers about pictures by a detector."


class DetectionState(GraphState, total=False):
    """Beside what every graph holds: the answer, its claims, and what was found.

    Attributes:
        answer: What the model said.
        claims: The things that it names, as JSON values of `Mention`.
        found: What the detector found, for each picture.
    """

    answer: str
    claims: list[dict[str, Any]]
    found: list[dict[str, Any]]


def create_graph(
    model: str | BaseChatModel | None = None,
    *,
    detector: Detector | str | bool | None = None,
    recognizer: Recognizer | str | bool | None = None,  # noqa: ARG001 - all graphs take it
    attachments_dir: str | os.PathLike[str] | None = None,
    media_policy: MediaPolicy | None = None,
    checkpointer: Checkpointer = None,
    threshold: float | None = None,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Make the graph.

    Args:
        model: Answers; pocket by default. One without eyes asks pocket by the tool `perceive`.
        detector: A detector, a checkpoint, or None for the default one.
        recognizer: Not used here.
        attachments_dir: Where the bytes of attachments go.
        media_policy: What messages may bring.
        checkpointer: Keeps threads.
        threshold: Least score of what counts as found; the detector's own by default.

    Raises:
        ConfigurationError: `detector` is False.
    """
    if detector is False:
        raise ConfigurationError(
            "detection: found detector=False; expected a detector, because it is what checks the "
            "answers; name a checkpoint, or leave it out for the default one"
        )
    shelf = open_shelf(attachments_dir, media_policy)
    work = _Detection(Brain(model, shelf), shelf, Experts(detector or True, False), threshold)
    graph = StateGraph(DetectionState, input_schema=GraphInput)
    graph.add_node("attach", shelf.attach)
    graph.add_node("answer", work.answer)
    graph.add_node("nouns", work.nouns)
    graph.add_node("detect", work.detect)
    graph.add_node("check", work.check)
    graph.add_node("ask_for_picture", _ask_for_picture)
    graph.add_edge(START, "attach")
    graph.add_conditional_edges("attach", _has_picture, ["answer", "ask_for_picture"])
    graph.add_edge("answer", "nouns")
    graph.add_edge("nouns", "detect")
    graph.add_edge("detect", "check")
    graph.add_edge("check", END)
    graph.add_edge("ask_for_picture", END)
    return graph.compile(checkpointer=checkpointer, name="detection")


def _has_picture(state: GraphState) -> str:
    return "answer" if subjects(state, ["image"]) else "ask_for_picture"


def _ask_for_picture(state: GraphState) -> dict[str, Any]:
    refused = "[refused attachment" in question_of(state)
    text = question_of(state) if refused else NO_PICTURE
    tell_step("ask_for_picture", text)
    return {"messages": [AIMessage(f"{NO_PICTURE} {text}" if refused else NO_PICTURE)]}


class _Detection:
    """The nodes, with what they work by."""

    def __init__(
        self, brain: Brain, shelf: Shelf, experts: Experts, threshold: float | None
    ) -> None:
        self._brain = brain
        self._shelf = shelf
        self._experts = experts
        self._threshold = threshold

    def answer(self, state: DetectionState) -> dict[str, Any]:
        """Let the model answer."""
        pictures = subjects(state, ["image"])
        question = question_of(state)
        if not without_tags(question, pictures):
            question = f"{DESCRIBE} {question}".strip()
        said = self._brain.answer(question, pictures)
        tell_step("answer", said or "(nothing)")
        return {"answer": said}

    def nouns(self, state: DetectionState) -> dict[str, Any]:
        """Find what the answer claims."""
        question = without_tags(question_of(state), subjects(state, ["image"]))
        mentions = find_claims(question, state["answer"], self._experts.detector().classes())
        claims = [
            {"label": m.label, "count": m.count, "denied": m.denied, "known": m.known}
            for m in mentions
        ]
        tell_step("nouns", ", ".join(m.label for m in mentions) or "no things", claims=claims)
        return {"claims": claims}

    def detect(self, state: DetectionState) -> dict[str, Any]:
        """Look for everything that is known, or for the nouns where any noun will do."""
        detector = self._experts.detector()
        labels = [claim["label"] for claim in state["claims"]]
        is_open = detector.classes() is None
        found: list[dict[str, Any]] = []
        for record in subjects(state, ["image"]) if labels or not is_open else []:
            things = detector.detect(
                self._picture(record), labels if is_open else None, self._threshold
            )
            counts = counted(things.counts())
            tell_step("detect", f"{tag_of(record)}: {counts or 'nothing'}", counts=things.counts())
            found.append({"id": record["id"], **things.model_dump(mode="json")})
        return {"found": found}

    def check(self, state: DetectionState) -> dict[str, Any]:
        """Compare, draw, and add the verdict to the answer."""
        found = _detections(state["found"])
        evidence = weigh([Mention(**claim) for claim in state["claims"]], list(found.values()))
        for claim in evidence.claims:
            tell_step("check", f"{claim.said}: {claim.verdict} ({claim.reason})")
        report = {"answer": state["answer"], **evidence.as_report(), "found": state["found"]}
        text = f"{state['answer']}\n\n{summary(evidence)}".strip()
        update: dict[str, Any] = {"report": report, "messages": [AIMessage(text)]}
        if found:
            held = state.get("attachments", {})
            drawn = self._draw(found, held, evidence)
            update |= {"picture": drawn["id"], "attachments": {drawn["id"]: drawn}}
        return update

    def _draw(
        self, found: dict[str, Detections], held: dict[str, Attachment], evidence: Evidence
    ) -> Attachment:
        from ibllm_tools.agent_graphs.verdict_picture import draw_verdict

        pictures = [(self._picture(held[id_]), things) for id_, things in found.items()]
        return self._shelf.keep(draw_verdict(pictures, evidence), held)

    def _picture(self, record: Attachment) -> PilImage.Image:
        item = load(media_of(record, self._shelf.files.get(record["sha256"])), self._shelf.policy)
        assert isinstance(item, Image)
        return item.pixels


def _detections(found: list[dict[str, Any]]) -> dict[str, Detections]:
    from ibllm_tools.experts import Detections

    return {
        entry["id"]: Detections.model_validate({k: v for k, v in entry.items() if k != "id"})
        for entry in found
    }


def summary(evidence: Evidence) -> str:
    """The verdict in words."""
    lines = [f"- {claim.said}: {claim.verdict}; {claim.reason}" for claim in evidence.claims]
    if evidence.unmentioned:
        lines.append(f"- not mentioned, but found: {counted(evidence.unmentioned)}")
    if evidence.reliability is None:
        return "\n".join(["Reliability: nothing in the answer can be checked.", *lines])
    return "\n".join([f"Reliability {evidence.reliability:.0%}:", *lines])
