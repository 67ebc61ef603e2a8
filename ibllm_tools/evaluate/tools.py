"""Section `tools`: calls of tools that it has never seen, with the JSON skeleton forced.

The cases come from `train.tool_talk`, with tool names, parameter names, values and templates
that training leaves out. A call is right if its name and all its arguments are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ibllm_tools.evaluate.results import Measure, Section, ratio, share
from ibllm_tools.evaluate.targets import target_of

if TYPE_CHECKING:
    from ibllm_tools.evaluate.forced import Decoded
    from ibllm_tools.evaluate.session import Session
    from ibllm_tools.train.tool_talk import ToolCase

N_CASES = 250
SEED = 20_000
ROOM_TOKENS = 160
RESULT_TOKENS = 64
TASKS = {
    "integer": "copies an integer",
    "quoted": "copies a quoted span",
    "place": "takes a place or object from the question",
    "attachment": "takes an attachment id",
    "choose": "chooses the right tool of 2–4",
    "choose_many": "chooses the right tool of 5–8",
}
CHOICES = ("choose", "choose_many")
PLAIN, RESULT = "plain", "result"


def measure_tools(session: Session) -> Section:
    """Measure calls, plain answers where no tool fits, and answers from a tool's result."""
    from ibllm_tools.evaluate.forced import CALL, can_call

    section = Section("tools", "Tool calls")
    if not can_call(session.ask.engine):
        section.notes.append(
            f"the model's tokenizer has no {CALL}: it was not taught to call tools"
        )
        return section
    try:
        from ibllm_tools.train.tool_talk import test_cases
    except ImportError as error:
        section.notes.append(f"no test cases: {error}")
        return section
    n = session.capped(N_CASES)
    wanted: list[bool] = []
    for task, label in TASKS.items():
        cases = test_cases(task, n, SEED)
        decoded = _decode(session, section, cases, task)
        wanted += [d.wants_call for d in decoded]
        section.measures += _figures(section, task, label, cases, decoded)
    section.measures.append(share("called", "calls of its own accord where a tool fits", wanted))
    section.measures.append(_plain(session, section, test_cases(PLAIN, n, SEED)))
    section.measures.append(_result(session, section, test_cases(RESULT, n, SEED)))
    return section


def _decode(
    session: Session, section: Section, cases: Sequence[ToolCase], task: str
) -> list[Decoded]:
    from ibllm_tools.evaluate.forced import ROWS, force_calls

    prompts = _prompts(session, section, cases, task)
    order = sorted(range(len(cases)), key=lambda i: len(prompts[i]))
    found: dict[int, Decoded] = {}
    for start in session.ask.track(range(0, len(order), ROWS), f"tools: {task}"):
        rows = order[start : start + ROWS]
        tools = [offered(cases[i]) for i in rows]
        decoded = force_calls(session.ask.engine, [prompts[i] for i in rows], tools)
        found.update(zip(rows, decoded, strict=True))
    return [found[i] for i in range(len(cases))]


def offered(case: ToolCase) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Name the tools of a case with the arguments that their calls hold.

    The right tool's are those of the right call, as in the trials that the targets come from;
    other tools' are those that they require.
    """
    from ibllm_tools.evaluate.forced import held_properties

    gold = case.call or {"name": None, "arguments": {}}
    found = {}
    for tool in case.tools:
        name = str(tool["function"]["name"])
        found[name] = held_properties(tool, gold["arguments"] if name == gold["name"] else None)
    return found


def _prompts(
    session: Session, section: Section, cases: Sequence[ToolCase], task: str
) -> list[list[int]]:
    engine = session.ask.engine
    prompts = [engine.prompt_ids(c.messages, c.tools) for c in cases]
    room = engine.max_context - ROOM_TOKENS
    cut = sum(len(p) > room for p in prompts)
    if cut:
        section.notes.append(
            f"{task}: {cut} prompts do not fit the context, their start is cut off"
        )
    return [p[-room:] for p in prompts]


def is_right(case: ToolCase, decoded: Decoded) -> bool:
    """Tell whether a call has the right name and exactly the right arguments."""
    gold = case.call
    assert gold is not None
    call = decoded.call
    return bool(call.name == gold["name"] and call.arguments == gold["arguments"])


def _figures(
    section: Section,
    task: str,
    label: str,
    cases: Sequence[ToolCase],
    decoded: Sequence[Decoded],
) -> list[Measure]:
    right = [is_right(c, d) for c, d in zip(cases, decoded, strict=True)]
    named = [d.call.name == (c.call or {})["name"] for c, d in zip(cases, decoded, strict=True)]
    section.details[task] = [
        {"gold": c.call, "call": d.call.text, "messages": c.messages}
        for c, d, ok in zip(cases, decoded, right, strict=True)
        if not ok
    ][:8]
    target = target_of("tools", task)
    if task in CHOICES:  # which tool is the question; values are the copying tasks' matter
        whole = share(f"{task}.call", f"{label}: the whole call", right)
        return [share(task, label, named, target=target), whole]
    measures = [share(task, label, right, target=target)]
    scripts = [c.script for c in cases]
    for script in sorted({s for s in scripts if s}):
        chosen = [float(s == script) for s in scripts]
        flags = [a * b for a, b in zip(right, chosen, strict=True)]
        name = f"{task}.{script}"
        target = target_of("tools", name)
        measures.append(ratio(name, f"{label}: {script}", flags, chosen, target=target))
    if any(len(c.tools) > 1 for c in cases):
        measures.append(share(f"{task}.name", f"{label}: the tool's name alone", named))
    return measures


def _plain(session: Session, section: Section, cases: Sequence[ToolCase]) -> Measure:
    decoded = _decode(session, section, cases, PLAIN)
    flags = [not d.wants_call for d in decoded]
    label = "no tool for a plain question"
    return share(PLAIN, label, flags, target=target_of("tools", PLAIN))


def _result(session: Session, section: Section, cases: Sequence[ToolCase]) -> Measure:
    prompts = _prompts(session, section, cases, RESULT)
    shown: list[Any] = [None] * len(prompts)
    answers = session.ask.answer(prompts, shown, max_tokens=RESULT_TOKENS, task="tools: result")
    right = [
        all(text in answer for text in case.text)
        for case, answer in zip(cases, answers, strict=True)
    ]
    section.details[RESULT] = [
        {"expected": c.text, "answer": a}
        for c, a, ok in zip(cases, answers, right, strict=True)
        if not ok
    ][:8]
    label = "uses a tool's result in the answer"
    return share(RESULT, label, right, target=target_of("tools", RESULT))
