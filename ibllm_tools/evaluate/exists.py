"""Yes/no questions about what is there, balanced, in the form of POPE.

Each medium is asked about what it shows and about something that it does not show, chosen in
three ways: at random, among the most frequent concepts, and among those most like it by the
encoder's words.

Source: "Evaluating Object Hallucination in Large Vision-Language Models" (arXiv 2305.10355).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.evaluate.asking import user
from ibllm_tools.evaluate.gallery import KINDS
from ibllm_tools.evaluate.names import concept_anchors
from ibllm_tools.evaluate.reading import says_yes
from ibllm_tools.evaluate.results import Measure, Section, ratio
from ibllm_tools.evaluate.targets import target_of

if TYPE_CHECKING:
    from ibllm_tools.evaluate.asking import Shown
    from ibllm_tools.evaluate.gallery import Exhibit
    from ibllm_tools.evaluate.session import Session

SETTINGS = ("random", "popular", "adversarial")
N_PER_KIND = 150
N_POPULAR, N_NEAR = 10, 3
SEED = 3
FORMS = {
    "photos": ("Is there {a} in the image?", "Is there {a}?", "Do you see {a}?"),
    "sounds": ("Do you hear {a}?", "Is there {a}?", "Is this {a}?"),
    "shapes": ("Is this {a}?", "Is there {a}?", "Is this the shape of {a}?"),
}


def measure_exists(session: Session, section: Section) -> list[Measure]:
    """Measure accuracy, the share of "yes", and F1."""
    pairs = [pair for kind in KINDS for pair in session.pick(kind, N_PER_KIND, seed=4)]
    if len(session.gallery.facts) < 2 or not pairs:
        section.notes.append("yes/no questions need media and two concepts")
        return []
    absent = draw_absent(session, [e for e, _ in pairs])
    present = _ask(session, pairs, [e.concept for e, _ in pairs])
    negative = {name: _ask(session, pairs, absent[name]) for name in SETTINGS}
    section.details["exists"] = {
        "forms": FORMS,
        "answers": present["answers"][:5] + negative["adversarial"]["answers"][:5],
        "neither": float(np.mean(present["neither"])),
    }
    groups = [f"{e.kind}/{e.group}" for e, _ in pairs]
    yes, no = present["yes"], {name: negative[name]["no"] for name in SETTINGS}
    false_yes = {name: negative[name]["yes"] for name in SETTINGS}
    n_ways = len(SETTINGS)
    all_no, all_false = sum(no.values()), sum(false_yes.values())
    measures = [
        ratio(
            "exists.accuracy",
            "yes/no: accuracy",
            (n_ways * yes + all_no) / (2 * n_ways),
            groups=groups,
            target=target_of("language", "exists.accuracy"),
        ),
        ratio(
            "exists.yes",
            "yes/no: share of “yes”",
            (n_ways * yes + all_false) / (2 * n_ways),
            groups=groups,
            target=target_of("language", "exists.yes"),
        ),
        ratio(
            "exists.f1",
            "yes/no: F1 of “yes”",
            2 * n_ways * yes,
            n_ways * yes + all_false + n_ways,
            groups=groups,
        ),
    ]
    measures += [
        ratio(f"exists.{name}", f"yes/no: {name}", (yes + no[name]) / 2, groups=groups)
        for name in SETTINGS
    ]
    return measures + _by_kind([e.kind for e, _ in pairs], (n_ways * yes + all_no) / (2 * n_ways))


def _by_kind(kinds: Sequence[str], right: NDArray[Any]) -> list[Measure]:
    rows = {kind: np.array([k == kind for k in kinds], float) for kind in KINDS}
    return [
        ratio(f"exists.{kind}", f"yes/no: {kind}", right * chosen, chosen)
        for kind, chosen in rows.items()
        if chosen.any()
    ]


def draw_absent(session: Session, exhibits: Sequence[Exhibit]) -> dict[str, list[int]]:
    """Draw a concept that is not there for every exhibit, in each of the three ways."""
    rng = random.Random(SEED)  # noqa: S311
    everything = session.gallery.everything()
    frequent = [c for c, _ in Counter(e.concept for e in everything).most_common(N_POPULAR + 1)]
    anchors = concept_anchors(session.ask, session.gallery.facts)
    likeness = anchors @ anchors.T
    np.fill_diagonal(likeness, -np.inf)
    near = np.argsort(-likeness, axis=1)[:, :N_NEAR]
    concepts = range(len(session.gallery.facts))
    drawn: dict[str, list[int]] = {name: [] for name in SETTINGS}
    for exhibit in exhibits:
        others = [c for c in concepts if c != exhibit.concept]
        popular = [c for c in frequent if c != exhibit.concept][:N_POPULAR]
        drawn["random"].append(rng.choice(others))
        drawn["popular"].append(rng.choice(popular or others))
        drawn["adversarial"].append(int(rng.choice(near[exhibit.concept].tolist())))
        if drawn["adversarial"][-1] == exhibit.concept:
            drawn["adversarial"][-1] = rng.choice(others)
    return drawn


def _ask(
    session: Session, pairs: Sequence[tuple[Exhibit, Shown]], asked: Sequence[int]
) -> dict[str, Any]:
    """Ask whether a concept is there: the answers, and flags (N,) of yes, no and neither."""
    facts = session.gallery.facts
    talks = []
    for i, ((exhibit, _), concept) in enumerate(zip(pairs, asked, strict=True)):
        form = FORMS[exhibit.kind][i % len(FORMS[exhibit.kind])]
        talks.append(user(form.format(a=facts[concept].phrase)))
    answers = session.ask.ask(talks, [s for _, s in pairs], task="yes/no")
    said = [says_yes(a) for a in answers]
    return {
        "answers": [f"{t[0]['content']} {a}" for t, a in zip(talks, answers, strict=True)],
        "yes": np.array([s is True for s in said], float),
        "no": np.array([s is False for s in said], float),
        "neither": np.array([s is None for s in said], float),
    }
