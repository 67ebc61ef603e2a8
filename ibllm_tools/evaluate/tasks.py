"""Whole tasks through the agent `perception`: routed, worked on by experts, answered, checked.

```
pack -> tasks (question, media, truth) -> perception graph -> answer -> right or not, by rules
```
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ibllm_tools.evaluate.results import Section, Target, share
from ibllm_tools.evaluate.scorecard import Scorecard
from ibllm_tools.evaluate.task_drawing import Task, draw_tasks
from ibllm_tools.evaluate.task_scenes import Pack

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langgraph.graph.state import CompiledStateGraph

    from ibllm_tools.experts.protocols import Detector, Recognizer

LEAST = 0.8
_VERSIONED = ("torch", "transformers", "langchain-core", "langgraph")


@dataclass(frozen=True)
class Done:
    """A task, the route that was taken, the experts' lines, and the answer."""

    task: Task
    route: tuple[str, ...]
    results: tuple[str, ...]
    answer: str

    @property
    def is_routed(self) -> bool:
        """Whether exactly the right experts were asked."""
        return set(self.route) == set(self.task.route)

    @property
    def is_right(self) -> bool:
        """Whether the answer says what is true."""
        return self.task.expected.is_met(self.answer)


def run_task(graph: CompiledStateGraph[Any, Any, Any, Any], task: Task) -> Done:
    """Run one task as a user would: one message with media."""
    from langchain_core.messages import HumanMessage

    state = graph.invoke({"messages": [HumanMessage([task.question, *task.media])]})
    report = state["report"]
    answer = state["messages"][-1].text
    return Done(task, tuple(report["route"]), tuple(report["results"]), answer)


def evaluate_tasks(
    data_dir: Path | str,
    model: str | BaseChatModel = "pocket",
    *,
    detector: Detector | str | None = None,
    recognizer: Recognizer | str | None = None,
    limit: int | None = None,
    split: str = "val",
    seed: int = 0,
) -> Scorecard:
    """Draw tasks from a pack and run them.

    Args:
        data_dir: Folder of the pack, with spoken digits.
        model: Routes and answers.
        detector: As for `create_graph` of perception; by default the one that ships.
        recognizer: Likewise.
        limit: Tasks of each kind at most.
        split: Of photos, sounds and shapes.
        seed: Of all randomness.

    Raises:
        ConfigurationError: The pack is incomplete.
        CheckpointError: An expert is missing.
    """
    from ibllm_tools.agent_graphs import open_graph
    from ibllm_tools.evaluate.task_drawing import COUNTS

    started = time.perf_counter()
    counts = {kind: min(n, limit or n) for kind, n in COUNTS.items()}
    with TemporaryDirectory() as folder:
        pack = open_pack(Path(data_dir), Path(folder), detector, recognizer, split)
        tasks = draw_tasks(pack, seed, counts)
        graph = open_graph(
            "perception",
            model=model,
            detector=detector or True,
            recognizer=recognizer or True,
            attachments_dir=Path(folder) / "attachments",
        )
        done = [run_task(graph, task) for task in _track(tasks)]
    name = model if isinstance(model, str) else type(model).__name__
    return Scorecard(
        model=name,
        data=str(data_dir),
        split=split,
        limit=limit,
        through="perception",
        command=f"ibllm eval tasks --data {data_dir} --model {name}",
        versions={package: version(package) for package in _VERSIONED},
        media={"tasks": len(tasks)},
        sections=[as_section(done)],
        seconds=time.perf_counter() - started,
    )


def open_pack(
    data_dir: Path,
    work_dir: Path,
    detector: Detector | str | None,
    recognizer: Recognizer | str | None,
    split: str,
) -> Pack:
    """Open a pack for tasks that the experts can know: their classes, voices they never heard."""
    from ibllm_tools.evaluate.digits import held_out_speakers
    from ibllm_tools.experts import open_detector
    from ibllm_tools.experts.opening import DEFAULT_RECOGNIZER

    opened = open_detector(detector) if detector is None or isinstance(detector, str) else detector
    named = recognizer if isinstance(recognizer, str) else DEFAULT_RECOGNIZER
    is_checkpoint = recognizer is None or isinstance(recognizer, str)
    speakers = held_out_speakers(named) if is_checkpoint else ()
    return Pack(data_dir, work_dir, classes=opened.classes(), speakers=speakers, split=split)


def as_section(done: Sequence[Done]) -> Section:
    """The figures of tasks that were run."""
    section = Section("tasks", "Whole tasks of the agent perception")
    right = [one.is_right for one in done]
    section.measures.append(share("all", "answered right", right, target=Target(low=LEAST)))
    section.measures.append(share("routed", "routed right", [one.is_routed for one in done]))
    for kind in dict.fromkeys(one.task.kind for one in done):
        own = [one for one in done if one.task.kind == kind]
        routed = sum(one.is_routed for one in own)
        note = f"routed right: {routed} of {len(own)}"
        section.measures.append(share(kind, kind, [one.is_right for one in own], note=note))
    section.details["wrong"] = [_told(one) for one in done if not one.is_right]
    return section


def _told(one: Done) -> dict[str, Any]:
    return {
        "kind": one.task.kind,
        "question": one.task.question,
        "route": list(one.route),
        "right_route": list(one.task.route),
        "results": list(one.results),
        "answer": one.answer,
        "expected": {key: value for key, value in vars(one.task.expected).items() if value},
    }


def _track(tasks: Sequence[Task]) -> Iterable[Task]:
    from rich.console import Console
    from rich.progress import track

    return track(tasks, "tasks", console=Console(stderr=True), transient=True)
