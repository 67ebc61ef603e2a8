"""Stories and poems at toy length, and comparisons of two things: parts of section `language`."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import numpy as np

from ibllm_tools.evaluate.asking import mixed, user
from ibllm_tools.evaluate.mixing import QUESTION, draw_pairs
from ibllm_tools.evaluate.results import Measure, Section, ratio, share
from ibllm_tools.train.knowledge import bigger

if TYPE_CHECKING:
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
    """Ask which of two things is bigger: by name, and of a photo and a sound together."""
    facts = [f for f in session.gallery.facts if f.size_m]
    measures: list[Measure] = []
    if len(facts) >= 2:
        measures.append(_compare_named(session, section, facts))
    pairs = draw_pairs(session, session.capped(N_COMPARISONS))
    known = session.gallery.facts
    pairs = [p for p in pairs if known[p[0][0].concept].size_m and known[p[1][0].concept].size_m]
    if pairs:
        shown = [mixed([(a[1], 0.5), (b[1], 0.5)]) for a, b in pairs]
        both = session.names.named_all(session.ask.ask(QUESTION, shown, task="comparisons"))
        answers = session.ask.ask("Which is bigger?", shown, task="comparisons")
        two = [(known[a[0].concept], known[b[0].concept]) for a, b in pairs]
        right = np.array([is_compared(t, *f) for t, f in zip(answers, two, strict=True)], float)
        seen = [f == {a[0].concept, b[0].concept} for f, (a, b) in zip(both, pairs, strict=True)]
        section.details["comparisons.shown"] = answers[:5]
        measures += [
            ratio("compare.shown", "“Which is bigger?” of photo and sound", right),
            ratio(
                "compare.clean",
                "the same, where it names both",
                right * np.array(seen, float),
                np.array(seen, float),
            ),
        ]
    return measures


def _compare_named(session: Session, section: Section, facts: list[Fact]) -> Measure:
    rng = random.Random(5)  # noqa: S311
    two = [tuple(rng.sample(facts, 2)) for _ in range(session.capped(N_COMPARISONS))]
    talks = [user(f"Which is bigger, {a.phrase} or {b.phrase}?") for a, b in two]
    answers = session.ask.ask(talks, [None] * len(talks), task="comparisons")
    section.details["comparisons"] = answers[:5]
    right = [is_compared(text, a, b) for text, (a, b) in zip(answers, two, strict=True)]
    return share("compare.named", "“Which is bigger, a dog or a house?”, no media", right)


def is_compared(answer: str, first: Fact, second: Fact) -> bool:
    """Tell whether an answer says which of two things is bigger, or that they are alike."""
    from ibllm_tools.train.naming import Names

    big = bigger(first, second)
    if big is None:
        return bool(_ALIKE.search(answer))
    match = _BIGGER.search(answer)
    head = answer[: match.start()] if match else ""
    return Names((first, second)).named(head) == {0 if big is first else 1}
