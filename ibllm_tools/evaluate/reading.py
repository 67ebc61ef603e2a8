"""How answers are read: which concept, which fact, yes or no, "I do not know", which language.

Rules of plain words, so that a figure can be checked by hand. This file does not know models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ibllm_tools.train.naming import Names

if TYPE_CHECKING:
    from ibllm_tools.train.knowledge import Fact

_HAN = re.compile(r"[\u3400-\u9fff]")
_WORD = re.compile(r"[a-z]+")
_UNSURE = re.compile(
    r"\bnot sure\b|\bunsure\b|\b(?:do not|don.t|did not|cannot|can.t|could not) "
    r"(?:know|tell|recogni[sz]e|identify|say)\b|\bunknown\b|\bno idea\b|"
    r"不确定|不知道|不认识|说不出|认不出|看不出|听不出",
    re.IGNORECASE,
)
_NO_COUNT = re.compile(
    r"\b(?:cannot|can.t|can not|unable to|do not know how to|not able to) count|不会数|数不|不能数",
    re.IGNORECASE,
)
_YES = re.compile(r"^\W*(?:yes\b|yeah\b|是|有|对|当然)", re.IGNORECASE)
_NO = re.compile(r"^\W*(?:no\b|not\b|没|不|无)", re.IGNORECASE)
_EMPTY_WORDS = frozenset(
    _WORD.findall(
        "a an the and or of to in on at it is are its for with from by this that you can find "
        "one i see hear used use make makes made has have be where what"
    )
)


class AnswerNames(Names):
    """Finds concepts in answers, by the rule of the model card; see `train.naming`."""

    def named_all(self, answers: Iterable[str], *, chinese: bool = False) -> list[set[int]]:
        """Read many answers of one language."""
        read = self.named_zh if chinese else self.named
        return [read(answer) for answer in answers]

    def is_unsure(self, answer: str) -> bool:
        """Tell whether an answer says that it does not know, and names nothing."""
        named = self.named(answer) | self.named_zh(answer)
        return bool(_UNSURE.search(answer)) and not named


class FactReader:
    """Tells whose fact an answer gives: the concepts whose own words it shares most of.

    Names of concepts are taken out first, so that "A cow barks." is the dog's fact. Concepts
    that share a fact ("on a farm") share an answer.
    """

    def __init__(self, facts: Sequence[Fact], topic: str, chinese: bool) -> None:
        """Read answers about a topic: kind, place, sound or use."""
        self._chinese = chinese
        names = [n for f in facts for n in (f.name, f.plural, *f.synonyms)]
        self._names = frozenset(word for name in names for word in _WORD.findall(name.lower()))
        chinese_names = {n for f in facts for n in (f.name_zh, *f.synonyms_zh)}
        self._names_zh = sorted(chinese_names, key=len, reverse=True)
        field = f"{topic}_zh" if chinese else topic
        texts = [getattr(fact, field) for fact in facts]
        self._facts = [
            [self._units(t) for t in ((text,) if isinstance(text, str) else text)] for text in texts
        ]

    def matches(self, answer: str, concept: int) -> bool:
        """Tell whether the answer fits this concept's fact at least as well as any other's."""
        units = self._units(answer)
        scores = [max(_overlap(units, fact) for fact in facts) for facts in self._facts]
        return scores[concept] > 0 and scores[concept] >= max(scores) - 1e-9

    def _units(self, text: str) -> frozenset[str]:
        if self._chinese:
            for name in self._names_zh:
                text = text.replace(name, " ")
            pairs = (text[i : i + 2] for i in range(len(text) - 1))
            return frozenset(p for p in pairs if len(_HAN.findall(p)) == 2)
        words = _WORD.findall(text.lower())
        return frozenset(w for w in words if w not in _EMPTY_WORDS and w not in self._names)


def _overlap(answer: frozenset[str], fact: frozenset[str]) -> float:
    """F1 of the shared words, so that neither a long answer nor a short fact wins by length."""
    shared = len(answer & fact)
    return 2 * shared / (len(answer) + len(fact)) if shared else 0.0


def says_yes(answer: str) -> bool | None:
    """Return True for yes, False for no, None for neither."""
    if _YES.search(answer):
        return True
    return False if _NO.search(answer) else None


def refuses_to_count(answer: str) -> bool:
    """Tell whether an answer says that it cannot count."""
    return bool(_NO_COUNT.search(answer))
