"""Section `language`: answers are language, not labels.

What the media show is asked first; what is said later is judged twice: against what is really
there ("of what is shown"), and against what the model itself had named ("of what it named").
The second tells whether facts and references are right where the eye was wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.evaluate.asking import user
from ibllm_tools.evaluate.exists import measure_exists
from ibllm_tools.evaluate.gallery import KINDS
from ibllm_tools.evaluate.names import QUESTIONS
from ibllm_tools.evaluate.reading import FactReader, refuses_to_count
from ibllm_tools.evaluate.results import Measure, Section, ratio, share
from ibllm_tools.evaluate.tales import measure_comparisons, measure_tales
from ibllm_tools.evaluate.targets import target_of
from ibllm_tools.train.naming import is_chinese, kind_named

if TYPE_CHECKING:
    from ibllm_tools.evaluate.asking import Shown, Turns
    from ibllm_tools.evaluate.gallery import Exhibit
    from ibllm_tools.evaluate.session import Session

N_PER_KIND = 150
QUESTIONS_ZH = {"photos": "这是什么？", "sounds": "你听到了什么？", "shapes": "这是什么形状？"}
TOPICS = {
    "kind": "What kind of thing is it?",
    "place": "Where can you find it?",
    "sound": "What sound does it make?",
    "use": "What is it used for?",
}
TOPICS_ZH = {
    "kind": "它属于哪一类？",
    "place": "在哪里可以找到它？",
    "sound": "它会发出什么声音？",
    "use": "它有什么用？",
}
ASIDES = ("Thank you!", "That is nice.", "How are you?")
ASIDES_ZH = ("谢谢！", "很好。", "你好吗？")
REFERENCES = (
    ("sound", "And what sound does it make?"),
    ("place", "And where can you find it?"),
    ("use", "And what is it used for?"),
)
REFERENCES_ZH = (
    ("sound", "那它会发出什么声音？"),
    ("place", "那在哪里可以找到它？"),
    ("use", "那它有什么用？"),
)
COUNTS = ("How many {n} are there?", "How many {n} do you see?", "Can you count the {n}?")


@dataclass(frozen=True)
class Basis:
    """Media that the measures of language ask about.

    Attributes:
        exhibits: (N) of all kinds.
        shown: (N) what the model sees of them.
        answers: (N) what it said they are.
        named: (N) the one concept that an answer names; -1 for none or several.
    """

    exhibits: list[Exhibit]
    shown: list[Shown]
    answers: list[str]
    named: NDArray[np.int64]

    @property
    def gold(self) -> NDArray[np.int64]:
        """(N,) the concepts that are really there."""
        return np.array([e.concept for e in self.exhibits])

    @property
    def groups(self) -> list[str]:
        """(N) keys of what is drawn together in the bootstrap."""
        return [f"{e.kind}/{e.group}" for e in self.exhibits]


def measure_language(session: Session) -> Section:
    """Measure everything that the model says beyond the name."""
    section = Section("language", "Answers are language")
    basis = ask_basis(session)
    if not basis.exhibits:
        section.notes.append("no media")
        return section
    for measures in (
        measure_facts(session, section, basis),
        measure_exists(session, section),
        [measure_counting(session, section)],
        measure_comparisons(session, section),
        measure_chinese(session, section, basis),
        measure_tales(session, section, basis),
        measure_dialog(session, section, basis),
    ):
        section.measures += measures
    return section


def ask_basis(session: Session) -> Basis:
    """Ask what some media of every kind are."""
    pairs = [pair for kind in KINDS for pair in session.pick(kind, N_PER_KIND, seed=1)]
    exhibits, shown = [e for e, _ in pairs], [s for _, s in pairs]
    talks = [user(QUESTIONS[e.kind]) for e in exhibits]
    answers = session.ask.ask(talks, shown, task="language: what is it")
    return Basis(exhibits, shown, answers, only_names(session.names.named_all(answers)))


def only_names(named: Sequence[set[int]]) -> NDArray[np.int64]:
    """(N,) the only concept that each answer names; -1 where it names none or several."""
    return np.array([next(iter(found)) if len(found) == 1 else -1 for found in named], np.int64)


def read_facts(
    session: Session, topic: str, answers: Sequence[str], concepts: NDArray[Any], *, chinese: bool
) -> NDArray[Any]:
    """(N,) whether each answer is the fact of its concept; 0 where there is none (-1)."""
    facts = session.gallery.facts
    if topic == "kind":
        rows = zip(answers, concepts.tolist(), strict=True)
        return np.array([c >= 0 and kind_named(a) == {facts[c].kind} for a, c in rows], float)
    reader = FactReader(facts, topic, chinese)
    rows = zip(answers, concepts.tolist(), strict=True)
    return np.array([c >= 0 and reader.matches(a, c) for a, c in rows], float)


def measure_facts(session: Session, section: Section, basis: Basis) -> list[Measure]:
    """Ask kind, place, sound and use of what is shown, each in a question of its own."""
    named = (basis.named >= 0).astype(float)
    given, gold, measures, examples = [], [], [], {}
    for topic, question in TOPICS.items():
        answers = session.ask.ask(question, basis.shown, task=f"facts: {topic}")
        given.append(read_facts(session, topic, answers, basis.named, chinese=False))
        gold.append(read_facts(session, topic, answers, basis.gold, chinese=False))
        measures.append(
            ratio(
                f"facts.{topic}",
                f"{topic}, of what it named",
                given[-1],
                named,
                groups=basis.groups,
                note=f"“{question}”",
            )
        )
        examples[topic] = dict(zip(basis.answers[:5], answers[:5], strict=True))
    section.details["facts"] = examples
    totals = [
        ratio(
            "facts.given",
            "facts, of what it named",
            np.mean(given, axis=0),
            named,
            groups=basis.groups,
        ),
        ratio("facts.gold", "facts, of what is shown", np.mean(gold, axis=0), groups=basis.groups),
    ]
    return totals + measures


def measure_counting(session: Session, section: Section) -> Measure:
    """Ask how many there are; the honest answer is that it cannot count."""
    pairs = session.pick("photos", N_PER_KIND, seed=2)
    facts = session.gallery.facts
    talks = [
        user(COUNTS[i % len(COUNTS)].format(n=facts[e.concept].plural))
        for i, (e, _) in enumerate(pairs)
    ]
    answers = session.ask.ask(talks, [s for _, s in pairs], task="counting")
    section.details["counting"] = answers[:5]
    return share("counting", "counting refused", [refuses_to_count(a) for a in answers])


def measure_chinese(session: Session, section: Section, basis: Basis) -> list[Measure]:
    """Ask the same in Chinese: is it answered in Chinese, and as well as in English?"""
    talks = [user(QUESTIONS_ZH[e.kind]) for e in basis.exhibits]
    answers = session.ask.ask(talks, basis.shown, task="Chinese: what is it")
    found = session.names.named_all(answers, chinese=True)
    chinese = [is_chinese(a) for a in answers]
    right = np.array([f == {c} for f, c in zip(found, basis.gold, strict=True)], float)
    english = (basis.named == basis.gold).astype(float)
    named = only_names(found)
    given = []
    for topic, question in TOPICS_ZH.items():
        told = session.ask.ask(question, basis.shown, task=f"Chinese: {topic}")
        given.append(read_facts(session, topic, told, named, chinese=True))
        chinese += [is_chinese(a) for a in told]
    section.details["chinese"] = dict(zip(basis.answers[:8], answers[:8], strict=True))
    n_questions = 1 + len(TOPICS_ZH)
    return [
        share(
            "chinese.answered",
            "Chinese questions answered in Chinese",
            chinese,
            groups=basis.groups * n_questions,
            target=target_of("language", "chinese.answered"),
        ),
        ratio("chinese.right", "right concept, in Chinese", right, groups=basis.groups),
        ratio(
            "chinese.gap",
            "right concept, Chinese minus English",
            right - english,
            groups=basis.groups,
            unit="points",
            target=target_of("language", "chinese.gap"),
        ),
        ratio(
            "chinese.facts",
            "facts in Chinese, of what it named",
            np.mean(given, axis=0),
            (named >= 0).astype(float),
            groups=basis.groups,
        ),
    ]


def measure_dialog(session: Session, section: Section, basis: Basis) -> list[Measure]:
    """Ask about `it` two turns after the media, in both languages."""
    return [
        *_dialogs(session, section, basis, chinese=False),
        *_dialogs(session, section, basis, chinese=True),
    ]


def _dialogs(session: Session, section: Section, basis: Basis, *, chinese: bool) -> list[Measure]:
    asides, references = (ASIDES_ZH, REFERENCES_ZH) if chinese else (ASIDES, REFERENCES)
    first = QUESTIONS_ZH if chinese else QUESTIONS
    talks = [user(first[e.kind]) for e in basis.exhibits]
    task = "dialogs, Chinese" if chinese else "dialogs"
    named = only_names(
        session.names.named_all(_reply(session, talks, basis, task), chinese=chinese)
    )
    for i, talk in enumerate(talks):
        talk.append({"role": "user", "content": asides[i % len(asides)]})
    _reply(session, talks, basis, task)
    topics = [references[i % len(references)] for i in range(len(talks))]
    for talk, (_, question) in zip(talks, topics, strict=True):
        talk.append({"role": "user", "content": question})
    answers = _reply(session, talks, basis, task)
    section.details[f"dialogs{'.zh' if chinese else ''}"] = talks[:4]
    given, gold = (_read_mixed(session, topics, answers, c, chinese) for c in (named, basis.gold))
    prefix, words = ("dialog.zh", ", Chinese") if chinese else ("dialog", "")
    return [
        ratio(
            f"{prefix}.given",
            f"“and what sound does it make?” two turns later, of what it named{words}",
            given,
            (named >= 0).astype(float),
            groups=basis.groups,
            target=target_of("language", f"{prefix}.given"),
        ),
        ratio(
            f"{prefix}.gold",
            f"the same, of what is shown{words}",
            gold,
            groups=basis.groups,
        ),
    ]


def _reply(session: Session, talks: Sequence[Turns], basis: Basis, task: str) -> list[str]:
    """Answer the last question of every conversation, and append the answers."""
    answers = session.ask.ask(talks, basis.shown, task=task)
    for talk, answer in zip(talks, answers, strict=True):
        talk.append({"role": "assistant", "content": answer})
    return answers


def _read_mixed(
    session: Session,
    topics: Sequence[tuple[str, str]],
    answers: Sequence[str],
    concepts: NDArray[Any],
    chinese: bool,
) -> NDArray[Any]:
    right = np.zeros(len(answers))
    for topic in {name for name, _ in topics}:
        rows = np.array([name == topic for name, _ in topics])
        some = [a for a, chosen in zip(answers, rows, strict=True) if chosen]
        right[rows] = read_facts(session, topic, some, concepts[rows], chinese=chinese)
    return right
