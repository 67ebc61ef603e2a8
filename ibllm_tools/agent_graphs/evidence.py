"""Claims of an answer against what a detector finds: which hold, and which do not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ibllm_tools.agent_graphs.nouns import Mention, find_mentions, number_in
from ibllm_tools.routing.tool_texts import counted

if TYPE_CHECKING:
    from ibllm_tools.experts.results import Detections

Verdict = Literal["confirmed", "contradicted", "not found", "cannot be checked"]

_YES_NO = re.compile(r"^\s*(is|are|do|does|can|was|were|has|have)\b", re.IGNORECASE)
_HOW_MANY = re.compile(r"\bhow many\b", re.IGNORECASE)
_SAYS_NO = re.compile(r"^\W*(no|nope|none)\b", re.IGNORECASE)
_SAYS_YES = re.compile(r"^\W*(yes|yeah|sure)\b", re.IGNORECASE)
_LIKE_YOU = ("eu", "one", "uni", "use")
"""Letters of a vowel that are not spoken as one: a unicorn."""


@dataclass(frozen=True)
class Claim:
    """One thing that an answer says, and what the detector says to it.

    Attributes:
        label: What it is about.
        said: The claim in words, such as "2 dogs" or "no cat".
        verdict: Whether it holds.
        n_found: How many the detector found.
        score: Of the surest one that was found; None where there is none.
        reason: Why, in words.
    """

    label: str
    said: str
    verdict: Verdict
    n_found: int
    score: float | None
    reason: str


@dataclass(frozen=True)
class Evidence:
    """What became of the claims of an answer.

    Attributes:
        claims: In the order of the answer.
        unmentioned: What the detector found beside, and how many.
        reliability: The share of confirmed claims among those that can be checked, 0 to 1; None
            where none can be.
    """

    claims: list[Claim]
    unmentioned: dict[str, int]
    reliability: float | None

    @property
    def contradictions(self) -> list[Claim]:
        """The claims that the detector denies."""
        return [claim for claim in self.claims if claim.verdict == "contradicted"]

    def as_report(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "reliability": self.reliability,
            "claims": [asdict(claim) for claim in self.claims],
            "contradictions": [claim.reason for claim in self.contradictions],
            "unmentioned": self.unmentioned,
        }


def find_claims(question: str, answer: str, classes: Sequence[str] | None) -> list[Mention]:
    """What an answer claims, with the nouns of the question where it leaves them out.

    "No." to "Is there a cat?" denies a cat; "Two." to "How many dogs?" claims two dogs.

    Args:
        question: Without tags.
        answer: Of the model.
        classes: What the detector knows; None where any noun will do.
    """
    said = find_mentions(answer, classes)
    asked = find_mentions(question, classes)
    named = {mention.label for mention in said}
    if _HOW_MANY.search(question) and asked and (number := number_in(answer)) is not None:
        first = asked[0]
        rest = [mention for mention in said if mention.label != first.label]
        return [Mention(first.label, number, number == 0, first.known), *rest]
    if _YES_NO.search(question) and (_SAYS_NO.search(answer) or _SAYS_YES.search(answer)):
        denied = bool(_SAYS_NO.search(answer))
        # What the answer names itself is not what it says no to: "No, it is a boat."
        left_out = [mention for mention in asked if mention.label not in named]
        echoed = [
            Mention(m.label, m.count, m.denied or (denied and m.label in _labels(asked)), m.known)
            for m in said
        ]
        return [*(Mention(m.label, None, denied, m.known) for m in left_out), *echoed]
    return said


def weigh(mentions: Sequence[Mention], found: Sequence[Detections]) -> Evidence:
    """Compare what is claimed with what was found.

    Args:
        mentions: The claims.
        found: Of every picture that the answer is about.
    """
    scores: dict[str, list[float]] = {}
    for picture in found:
        for thing in picture.detections:
            scores.setdefault(thing.label, []).append(thing.score)
    others = {label: len(scores[label]) for label in scores}
    claims = [_judge(mention, scores) for mention in mentions]
    if others and not any(claim.n_found for claim in claims):
        claims = [_instead(claim, others) for claim in claims]
    checked = [claim for claim in claims if claim.verdict != "cannot be checked"]
    right = sum(claim.verdict == "confirmed" for claim in checked)
    named = {mention.label for mention in mentions}
    unmentioned = {label: n for label, n in others.items() if label not in named}
    return Evidence(claims, unmentioned, round(right / len(checked), 3) if checked else None)


def _labels(mentions: Sequence[Mention]) -> set[str]:
    return {mention.label for mention in mentions}


def _judge(mention: Mention, scores: dict[str, list[float]]) -> Claim:
    label, seen = mention.label, scores.get(mention.label, [])
    n, best = len(seen), max(seen, default=None)
    said = _said(mention)
    verdict: Verdict
    if not mention.known:
        verdict, reason = "cannot be checked", f"the detector does not know {label!r}"
    elif mention.denied:
        verdict = "contradicted" if n else "confirmed"
        reason = f"the answer denies it; the detector finds {n or 'none'}"
    elif not n:
        verdict, reason = "not found", f"the detector finds no {label}"
    elif mention.count is not None and mention.count != n:
        verdict = "contradicted"
        reason = f"the answer says {said}; the detector finds {n}"
    else:
        verdict, reason = "confirmed", f"the detector finds {counted({label: n})} ({best:.2f})"
    return Claim(label, said, verdict, n, best, reason)


def _said(mention: Mention) -> str:
    if mention.denied:
        return f"no {mention.label}"
    if mention.count is not None:
        return counted({mention.label: mention.count})
    is_open = mention.label[:1] in tuple("aeiou") and not mention.label.startswith(_LIKE_YOU)
    return f"{'an' if is_open else 'a'} {mention.label}"


def _instead(claim: Claim, others: dict[str, int]) -> Claim:
    """Where nothing that was said is there, and other things are, those contradict it."""
    if claim.verdict != "not found":
        return claim
    reason = f"the answer says {claim.said}; the detector finds {counted(others)} instead"
    return Claim(claim.label, claim.said, "contradicted", 0, None, reason)
