"""Stories and poems at toy length, and comparisons of two things: parts of section `language`."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import numpy as np

from ibllm_tools.evaluate.asking import mixed, user
from ibllm_tools.evaluate.mixing import draw_pairs
from ibllm_tools.evaluate.results import Measure, Section, ratio, share
from ibllm_tools.train.knowledge import KIND_PHRASES, bigger
from ibllm_tools.train.naming import Names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ibllm_tools.evaluate.asking import Shown
    from ibllm_tools.evaluate.language import Basis
    from ibllm_tools.evaluate.session import Session
    from ibllm_tools.train.knowledge import Fact

TALES = {"story": "Tell me a short story about it.", "poem": "Write a short poem about it."}
TALE_TOKENS = 96
N_TALES = 120
SHORTEST_WORDS = 8
N_COMPARISONS = 150
_BIGGER = re.compile(r"\bis (?:bigger|larger)\b|\b(?:bigger|larger)\b")
_ALIKE = re.compile(r"\bsame size\b|\bas (?:big|large) as\b")


def measure_tales(session: Session, section: Section, basis: Basis) -> list[Measure]:
    """Ask for stories and poems: are they there, about the thing, and not all the same?"""
    step = max(1, len(basis.shown) // session.capped(N_TALES))
    rows = list(range(0, len(basis.shown), step))
    named = basis.named[rows]
    measures: list[Measure] = []
    for name, question in TALES.items():
        answers = session.ask.ask(
            question, [basis.shown[i] for i in rows], max_tokens=TALE_TOKENS, task=name
        )
        words = np.array([len(a.split()) for a in answers], float)
        found = session.names.named_all(answers)
        about = [n >= 0 and n in f for n, f in zip(named.tolist(), found, strict=True)]
        section.details[name] = answers[:4]
        distinct = len(set(answers)) / len(answers)
        measures += [
            share(f"{name}.written", f"{name}: at least 8 words", words >= SHORTEST_WORDS),
            ratio(f"{name}.about", f"{name}: about what it named", about, named >= 0),
            ratio(f"{name}.words", f"{name}: words", words, unit="words"),
            Measure(f"{name}.distinct", f"{name}: different texts", len(answers), distinct),
        ]
    return measures


def measure_comparisons(session: Session, section: Section) -> list[Measure]:
    """Ask about two things: by their names, and of a photo and a sound together.

    Which is bigger, and which one is an animal (a vehicle, a device, ...).
    """
    measures: list[Measure] = []
    facts = session.gallery.facts
    rng = random.Random(5)  # noqa: S311
    if len(facts) >= 2:
        two = [tuple(rng.sample(facts, 2)) for _ in range(session.capped(N_COMPARISONS))]
        nothing = [None] * len(two)
        by_name = {
            "size": "Which is bigger, {a.phrase} or {b.phrase}?",
            "kind": "Which is {k}, {a.phrase} or {b.phrase}?",
        }
        measures += _compare(session, section, "named", two, nothing, by_name)
    pairs = draw_pairs(session, session.capped(N_COMPARISONS))
    if pairs:
        shown = [mixed([(a[1], 0.5), (b[1], 0.5)]) for a, b in pairs]
        two = [(facts[a[0].concept], facts[b[0].concept]) for a, b in pairs]
        of_both = {"size": "Which is bigger?", "kind": "Which one is {k}?"}
        measures += _compare(session, section, "shown", two, shown, of_both)
    return measures


def _compare(
    session: Session,
    section: Section,
    name: str,
    two: Sequence[tuple[Fact, ...]],
    shown: Sequence[Shown | None],
    questions: dict[str, str],
) -> list[Measure]:
    """Compare pairs by size, where both have one, and by kind, where they differ."""
    where = "by name, no media" if name == "named" else "a photo and a sound, 0.5/0.5"
    measures = []
    rows = [i for i, (a, b) in enumerate(two) if a.size_m and b.size_m]
    talks = [user(questions["size"].format(a=two[i][0], b=two[i][1])) for i in rows]
    answers = session.ask.ask(talks, [shown[i] for i in rows], task=f"comparisons, {name}")
    right = [is_compared(text, *two[i]) for i, text in zip(rows, answers, strict=True)]
    measures.append(share(f"compare.{name}.size", f"“Which is bigger?”, {where}", right))
    section.details[f"comparisons.{name}.size"] = answers[:5]
    rows = [i for i, (a, b) in enumerate(two) if a.kind != b.kind]
    asked = [two[i][i % 2] for i in rows]  # the first and the second in turn
    talks = [
        user(questions["kind"].format(a=two[i][0], b=two[i][1], k=KIND_PHRASES[fact.kind]))
        for i, fact in zip(rows, asked, strict=True)
    ]
    answers = session.ask.ask(talks, [shown[i] for i in rows], task=f"comparisons, {name}")
    right = [Names(two[i]).named(text) == {i % 2} for i, text in zip(rows, answers, strict=True)]
    measures.append(share(f"compare.{name}.kind", f"“Which one is an animal?”, {where}", right))
    section.details[f"comparisons.{name}.kind"] = answers[:5]
    return measures


def is_compared(answer: str, first: Fact, second: Fact) -> bool:
    """Tell whether an answer says which of two things is bigger, or that they are alike."""
    big = bigger(first, second)
    if big is None:
        return bool(_ALIKE.search(answer))
    match = _BIGGER.search(answer)
    head = answer[: match.start()] if match else ""
    return Names((first, second)).named(head) == {0 if big is first else 1}
