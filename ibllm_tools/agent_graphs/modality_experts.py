"""`modality_experts`: what experts find in media goes to the LLM beside what it senses (figure 9).

```
        ┌─> sense ──┐
attach ─┼─> look ───┼─> answer -> draw
        └─> listen ─┘
```
A video's frames and its sound track go through ImageBind as two media of one mix; the detector
looks at one frame of each second; the recogniser writes down what is said. Photos and recordings
beside it are treated likewise. What was perceived and what experts found are lines of text to the
LLM that answers; one that senses the media itself gets them as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, StateGraph

from ibllm_tools.agent_graphs.brain import Brain, without_tags
from ibllm_tools.agent_graphs.state import (
    GraphInput,
    GraphState,
    open_shelf,
    question_of,
    subjects,
)
from ibllm_tools.agent_graphs.steps import tell_step
from ibllm_tools.attachments.records import media_of, tag_of
from ibllm_tools.experts.results import Detections
from ibllm_tools.media import MODALITIES, Audio, Image, Item, Modality, Video, load
from ibllm_tools.routing import (
    answer_messages,
    as_langchain,
    asked_kinds,
    asked_nouns,
    conclude,
    conclude_speech,
    is_chinese,
    say_objects,
    say_senses,
    say_speech,
    shipped_adviser,
    with_results,
)
from ibllm_tools.routing.tool_texts import context_of, counted, of_kinds
from ibllm_tools.toolkit.experts import Experts, mono, places_in
from ibllm_tools.toolkit.perceiving import frames_and_sound, seen_by_second

if TYPE_CHECKING:
    import os

    from langchain_core.language_models import BaseChatModel
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import Checkpointer

    from ibllm_tools.agent_graphs.state import Shelf
    from ibllm_tools.attachments.records import Attachment
    from ibllm_tools.experts.protocols import Detector, Recognizer
    from ibllm_tools.media import Media, MediaPolicy

NO_MEDIA = "Please attach a video, a recording or a photo."
ASKED = "What is happening?"
_SENSED = tuple(MODALITIES)


def _joined(old: dict[str, Any] | None, new: dict[str, Any] | None) -> dict[str, Any]:
    """What one expert found beside what the other did; an empty dict begins anew."""
    if not new:
        return {}
    merged = dict(old or {})
    for id_, facts in new.items():
        merged[id_] = {**merged.get(id_, {}), **facts}
    return merged


class ExpertState(GraphState, total=False):
    """Beside what every graph holds: facts of the experts by attachment, and what pocket sensed."""

    facts: Annotated[dict[str, Any], _joined]
    perceived: str


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
        model: Answers; pocket by default. For one without senses pocket perceives, and what it
            says is context like that of the experts.
        detector: A detector, a checkpoint, True for the default one, False for none; by default
            the default one if its files are here.
        recognizer: Likewise.
        attachments_dir: Where the bytes of attachments go.
        media_policy: What messages may bring.
        checkpointer: Keeps threads.
    """
    shelf = open_shelf(attachments_dir, media_policy)
    work = _Experts(Brain(model, shelf), shelf, Experts(detector, recognizer))
    graph = StateGraph(ExpertState, input_schema=GraphInput)
    graph.add_node("attach", work.attach)
    graph.add_node("sense", work.sense)
    graph.add_node("look", work.look)
    graph.add_node("listen", work.listen)
    graph.add_node("answer", work.answer)
    graph.add_node("draw", work.draw)
    graph.add_edge(START, "attach")
    for expert in ("sense", "look", "listen"):
        graph.add_edge("attach", expert)
    graph.add_edge(["sense", "look", "listen"], "answer")
    graph.add_edge("answer", "draw")
    graph.add_edge("draw", END)
    return graph.compile(checkpointer=checkpointer, name="modality_experts")


class _Experts:
    """The nodes, with what they work by."""

    def __init__(self, brain: Brain, shelf: Shelf, experts: Experts) -> None:
        self._brain = brain
        self._shelf = shelf
        self._experts = experts

    def attach(self, state: ExpertState) -> dict[str, Any]:
        """Attach the media of new messages, and forget the facts of earlier questions."""
        return {**self._shelf.attach(state), "facts": {}, "perceived": ""}

    def look(self, state: ExpertState) -> dict[str, Any]:
        """What the detector finds: in photos, and second by second in videos."""
        facts: dict[str, Any] = {}
        records = _of(state, "image", "video")
        if records and not self._experts.detects:
            tell_step("look", "no detector is here; see `ibllm doctor`")
            return {}
        for record in records:
            found = self._seen(self._item(record))
            facts[record["id"]] = found
            by_time = "duration_s" in found
            told = context_of(found) if by_time else counted(found["seen"][0]["objects"])
            tell_step("look", f"{tag_of(record)}: {told or 'nothing'}", **found)
        return {"facts": facts} if facts else {}

    def listen(self, state: ExpertState) -> dict[str, Any]:
        """What is said in recordings and in sound tracks."""
        facts: dict[str, Any] = {}
        records = _of(state, "audio", "video")
        if records and not self._experts.recognizes:
            tell_step("listen", "no speech recogniser is here; see `ibllm doctor`")
            return {}
        for record in records:
            sound = _sound(self._item(record))
            if sound is None:
                tell_step("listen", f"{tag_of(record)} has no sound track")
                continue
            found = self._experts.recognizer().transcribe(mono(sound), sound.rate_hz)
            facts[record["id"]] = {"transcript": found.model_dump(mode="json")}
            told = f'"{found.text}"' if found.is_speech else "nobody speaks"
            tell_step("listen", f"{tag_of(record)}: {told}", transcript=found.text)
        return {"facts": facts} if facts else {}

    def sense(self, state: ExpertState) -> dict[str, Any]:
        """What pocket perceives, for itself or for a model without these senses."""
        records = subjects(state, _SENSED)
        if not records or (self._brain.senses(records) and not self._brain.is_own):
            return {}
        media = [block for record in records for block in self._parts(record)]
        asked = HumanMessage([_asked(state, records), *media])
        said = self._brain.perceiver.invoke([asked]).text
        tell_step("sense", said)
        return {"perceived": said}

    def answer(self, state: ExpertState) -> dict[str, Any]:
        """Answer by what is sensed and what the experts found."""
        records = subjects(state, _SENSED)
        if not records:
            tell_step("answer", NO_MEDIA)
            return {"messages": [AIMessage(NO_MEDIA)]}
        question, perceived = _asked(state, records), state.get("perceived", "")
        facts = state.get("facts", {})
        needed = self._needed(question, records)
        found = [(r["id"], facts.get(r["id"], {})) for r in records]
        lines = [line for id_, one in found for line in self._lines(id_, one, question, needed)]
        if needed and lines:
            perceived = ""
        said = self._answer(question, records, perceived, lines)
        tell_step("answer", said)
        report = {"answer": said, "perceived": perceived, "context": lines, "facts": facts}
        return {"messages": [AIMessage(said)], "report": report}

    def _needed(self, question: str, records: Sequence[Attachment]) -> set[str]:
        """The experts that a question is about alone; empty where it is about everything.

        A small model words every line that it reads, so it reads those that are asked for.
        """
        if not self._brain.is_own:
            return set()
        advised: set[str] = set(shipped_adviser().advise(question, [r["id"] for r in records])[0])
        return advised if advised <= {"detector", "speech"} else set()

    def _answer(
        self, question: str, records: Sequence[Attachment], perceived: str, lines: Sequence[str]
    ) -> str:
        if self._brain.is_own and not lines:
            return perceived
        if not perceived and not self._brain.is_own:
            told = [with_results(question, lines), *self._brain.media(records)]
            return self._brain.model.invoke([HumanMessage(told)]).text
        # What speech sounds like adds nothing to its words.
        sensed = perceived if perceived and not _only_speech(records, lines) else ""
        chinese = is_chinese(question)
        if self._brain.is_own:  # its own sentence stands as it is
            asked = as_langchain(answer_messages(question, lines))
            said = self._brain.model.invoke(asked).text
            return ("" if chinese else " ").join(filter(None, [sensed, said]))
        told = [*([say_senses(sensed, chinese=chinese)] if sensed else []), *lines]
        return self._brain.model.invoke(as_langchain(answer_messages(question, told))).text

    def _lines(
        self, id_: str, found: dict[str, Any], question: str, needed: Collection[str]
    ) -> list[str]:
        """What experts found in one medium, as pocket was taught it and any LLM reads it.

        That nothing was found is told where the expert is needed.
        """
        lines, chinese = [], is_chinese(question)
        boxes = [Detections.model_validate(one) for one in found.get("boxes", ())]
        busiest = max(boxes, key=lambda one: len(one.detections), default=None)
        if busiest is not None and ("detector" in needed if needed else busiest.detections):
            classes = self._experts.detector().classes()
            asked, places = asked_nouns(question, classes), places_in(busiest, chinese=chinese)
            so = conclude(question, places, classes)
            places = of_kinds(places, asked_kinds(question), asked)
            lines.append(say_objects(id_, places, asked, chinese=chinese, so=so))
        by_time = context_of({"seen": found.get("seen", [])}) if "duration_s" in found else ""
        if by_time and not self._brain.is_own:
            lines.append(f"{id_}: {by_time}")
        heard = found.get("transcript")
        if heard is not None and ("speech" in needed if needed else heard["is_speech"]):
            text = heard["text"] if heard["is_speech"] else ""
            so = conclude_speech(question, text)
            lines.append(say_speech(id_, text, chinese=chinese, so=so))
        return lines

    def draw(self, state: ExpertState) -> dict[str, Any]:
        """Draw frames with boxes, and the words over the wave."""
        facts = state.get("facts", {})
        held = state.get("attachments", {})
        from ibllm_tools.agent_graphs.timeline_picture import draw_timeline

        looked = [(self._item(held[id_]), facts[id_]) for id_ in held if id_ in facts]
        media = draw_timeline(looked)
        if media is None:
            return {}
        drawn = self._shelf.keep(media, held)
        tell_step("draw", tag_of(drawn))
        return {"picture": drawn["id"], "attachments": {drawn["id"]: drawn}}

    def _parts(self, record: Attachment) -> list[Media]:
        """The media of an attachment; of a video its frames and its sound."""
        media = media_of(record, self._shelf.files.get(record["sha256"]))
        item = self._item(record)
        return frames_and_sound(media, item) if isinstance(item, Video) else [media]

    def _seen(self, item: Item) -> dict[str, Any]:
        """Labels by second, with the boxes for the picture."""
        boxes: list[dict[str, Any]] = []

        def labels_in(picture: Any) -> dict[str, int]:
            found = self._experts.detector().detect(picture)
            boxes.append(found.model_dump(mode="json"))
            return found.counts()

        if isinstance(item, Video):
            seen = seen_by_second(item, labels_in)
            return {"duration_s": round(item.duration_s, 3), "seen": seen, "boxes": boxes}
        assert isinstance(item, Image)
        return {"seen": [{"start_s": 0.0, "objects": labels_in(item.pixels)}], "boxes": boxes}

    def _item(self, record: Attachment) -> Item:
        return load(media_of(record, self._shelf.files.get(record["sha256"])), self._shelf.policy)


def _of(state: ExpertState, *modalities: Modality) -> list[Attachment]:
    """Those of some modalities among what the question is about."""
    return [r for r in subjects(state, _SENSED) if r["modality"] in modalities]


def _sound(item: Item) -> Audio | None:
    if isinstance(item, Video):
        return item.audio()
    return item if isinstance(item, Audio) else None


def _only_speech(records: Sequence[Attachment], lines: Sequence[str]) -> bool:
    """Whether there are recordings alone, and words were heard in each."""
    return len(lines) == len(records) and all(r["modality"] == "audio" for r in records)


def _asked(state: ExpertState, records: Sequence[Attachment]) -> str:
    return without_tags(question_of(state), records) or ASKED
