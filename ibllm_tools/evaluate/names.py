"""Section `names`: how often the right concept is named, beside the encoder's own accuracy.

The question of every kind goes through `ChatImageBindLLM.invoke`; the cache switched off and the
other phrasings go in batches. The rule of a right answer is that of `train.naming`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.evaluate.results import Measure, Section, ratio, share
from ibllm_tools.evaluate.targets import target_of

if TYPE_CHECKING:
    from ibllm_tools.evaluate.asking import Interviewer, Shown
    from ibllm_tools.evaluate.gallery import Exhibit
    from ibllm_tools.evaluate.session import Session
    from ibllm_tools.train.knowledge import Fact

QUESTIONS = {
    "photos": "What is this?",
    "sounds": "What do you hear?",
    "shapes": "What is this shape?",
}
PHRASINGS = {
    "photos": ("What is in this photo?", "What do you see?", "Can you tell me what this is?"),
    "sounds": ("What is this?", "What is making this sound?", "What can you hear?"),
    "shapes": ("What is this?", "What is this object?", "What shape is this?"),
}
ANCHORS = ("{a}", "a photo of {a}", "this is {a}", "the sound of {a}", "the shape of {a}")
N_CONFUSIONS = 10


@dataclass(frozen=True)
class Named:
    """What was answered about the exhibits of one kind.

    Attributes:
        exhibits: (N).
        answers: (N) through the chat model.
        named: (N) concepts that each answer names.
    """

    exhibits: list[Exhibit]
    answers: list[str]
    named: list[set[int]]

    @property
    def right(self) -> NDArray[Any]:
        """(N,) whether exactly the right concept is named."""
        pairs = zip(self.named, self.exhibits, strict=True)
        return np.array([found == {e.concept} for found, e in pairs], float)


def measure_names(session: Session) -> Section:
    """Measure naming for every kind of media that the gallery has."""
    section = Section("names", "What is it?")
    same: list[bool] = []
    for kind in QUESTIONS:
        exhibits = session.gallery.shown(kind)
        if not exhibits:
            section.notes.append(f"{kind}: no media")
            continue
        same += _measure_kind(session, section, kind, exhibits)
    section.measures.append(
        share(
            "same_as_chat",
            "batched answers equal to chat.invoke",
            same,
            target=target_of("names", "same_as_chat"),
            note="every other answer of the scorecard is asked in batches",
        )
    )
    return section


def _measure_kind(
    session: Session, section: Section, kind: str, exhibits: list[Exhibit]
) -> list[bool]:
    """Add the measures of one kind; returns which batched answers equal the chat's."""
    ask, shown = session.ask, session.shown(kind)
    answers = ask.invoke(QUESTIONS[kind], shown, task=f"{kind}, by chat.invoke")
    batched = ask.ask(QUESTIONS[kind], shown, task=f"{kind}, in batches")
    named = Named(exhibits, answers, session.names.named_all(answers))
    session.named[kind] = named
    off = _right(session, kind, shown, cache=False)
    nearest = nearest_concepts(ask, shown, session.gallery.facts)
    concepts = np.array([e.concept for e in exhibits])
    zero_shot = (nearest == concepts).astype(float)
    section.measures += _figures(session, kind, named, off, zero_shot)
    section.measures += _phrasings(session, section, kind, shown, named.right)
    section.details[kind] = {
        "question": QUESTIONS[kind],
        "concepts": len(set(concepts.tolist())),
        "per_concept": _per_concept(named, zero_shot, session.gallery.facts),
        "confusions": _confusions(named, session.gallery.facts),
        "matrix": _matrix(named, session.gallery.facts),
    }
    return [a == b for a, b in zip(answers, batched, strict=True)]


def _figures(
    session: Session, kind: str, named: Named, off: NDArray[Any], zero_shot: NDArray[Any]
) -> list[Measure]:
    facts = session.gallery.facts
    groups = [e.group for e in named.exhibits]
    kinds = [{facts[i].kind for i in found} for found in named.named]
    right_kind = [k == {facts[e.concept].kind} for k, e in zip(kinds, named.exhibits, strict=True)]
    known = sum(session.gallery.is_known(e) for e in named.exhibits)
    note = "" if known == len(groups) else f"{len(groups) - known} of concepts it never learnt"
    rows: list[tuple[str, str, Any, Any]] = [
        ("right", "right concept", named.right, "share"),
        ("kind", "right kind of thing", np.array(right_kind, float), "share"),
        ("off", "right concept, cache off", off, "share"),
        ("encoder", "encoder alone, zero-shot", zero_shot, "share"),
        ("gap", "answer minus encoder", named.right - zero_shot, "points"),
    ]
    return [
        ratio(
            f"{kind}.{name}",
            f"{kind}: {label}",
            values,
            groups=groups,
            target=target_of("names", f"{kind}.{name}"),
            unit=unit,
            note=note if name == "right" else "",
        )
        for name, label, values, unit in rows
    ]


def _right(session: Session, kind: str, shown: Sequence[Shown], **settings: Any) -> NDArray[Any]:
    question = settings.pop("question", QUESTIONS[kind])
    answers = session.ask.ask(question, shown, task=f"{kind}: {question}", **settings)
    exhibits = session.gallery.shown(kind)
    pairs = zip(session.names.named_all(answers), exhibits, strict=True)
    return np.array([found == {e.concept} for found, e in pairs], float)


def _phrasings(
    session: Session, section: Section, kind: str, shown: Sequence[Shown], right: NDArray[Any]
) -> list[Measure]:
    """The mean over several phrasings of the question, and the worst of them."""
    columns = {QUESTIONS[kind]: right}
    for question in PHRASINGS[kind]:
        columns[question] = _right(session, kind, shown, question=question)
    groups = [e.group for e in session.gallery.shown(kind)]
    means = {question: float(flags.mean()) for question, flags in columns.items()}
    section.details[f"{kind}.phrasings"] = means
    worst = min(means, key=lambda question: means[question])
    mean = np.mean(list(columns.values()), axis=0)
    n = len(columns)
    return [
        ratio(f"{kind}.phrasings", f"{kind}: mean of {n} phrasings", mean, groups=groups),
        ratio(
            f"{kind}.worst",
            f"{kind}: worst of {n} phrasings",
            columns[worst],
            groups=groups,
            note=f"“{worst}”",
        ),
    ]


def nearest_concepts(
    ask: Interviewer, shown: Sequence[Shown], facts: Sequence[Fact]
) -> NDArray[np.int64]:
    """Return the concept whose words are nearest to each medium: (N,) ids."""
    vectors = np.array([s.feature.float().cpu().numpy() for s in shown])
    found: NDArray[np.int64] = (vectors @ concept_anchors(ask, facts).T).argmax(axis=1)
    return found


def concept_anchors(ask: Interviewer, facts: Sequence[Fact]) -> NDArray[Any]:
    """Return the mean text embedding of each concept's phrases: (concepts, joint), unit rows."""
    from ibllm_tools.embeddings import ImageBindEmbeddings

    embeddings = ImageBindEmbeddings(model=ask.model, device=ask.chat.device)
    words = [
        np.array(embeddings.embed_documents([p.format(a=f.phrase) for f in facts])) for p in ANCHORS
    ]
    anchors: NDArray[Any] = np.mean(words, axis=0)
    anchors /= np.linalg.norm(anchors, axis=1, keepdims=True)
    return anchors


def _per_concept(
    named: Named, zero_shot: NDArray[Any], facts: Sequence[Fact]
) -> dict[str, dict[str, float]]:
    table = {}
    concepts = np.array([e.concept for e in named.exhibits])
    for concept in sorted(set(concepts.tolist())):
        rows = concepts == concept
        table[facts[concept].name] = {
            "n": int(rows.sum()),
            "right": float(named.right[rows].mean()),
            "encoder": float(zero_shot[rows].mean()),
        }
    return table


def _confusions(named: Named, facts: Sequence[Fact]) -> list[dict[str, Any]]:
    """The most frequent wrong answers that name one concept."""
    wrong = Counter(
        (exhibit.concept, next(iter(found)))
        for exhibit, found in zip(named.exhibits, named.named, strict=True)
        if len(found) == 1 and found != {exhibit.concept}
    )
    return [
        {"shown": facts[a].name, "named": facts[b].name, "count": count}
        for (a, b), count in wrong.most_common(N_CONFUSIONS)
    ]


def _matrix(named: Named, facts: Sequence[Fact]) -> dict[str, Any]:
    """Counts of (shown, named); the last column is for answers that name none or several."""
    used = sorted({e.concept for e in named.exhibits} | {i for f in named.named for i in f})
    place = {concept: i for i, concept in enumerate(used)}
    counts = np.zeros((len(used), len(used) + 1), int)
    for exhibit, found in zip(named.exhibits, named.named, strict=True):
        column = place[next(iter(found))] if len(found) == 1 else len(used)
        counts[place[exhibit.concept], column] += 1
    return {"names": [facts[i].name for i in used], "counts": counts.tolist()}
