"""Whether an answer says what is true: numbers, places, words, names; by rules, no model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ibllm_tools.routing import noun_of

_NUMBERS = {
    "no": 0, "zero": 0, "none": 0, "one": 1, "a": 1, "an": 1, "single": 1, "two": 2, "three": 3,
    "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "没有": 0, "零": 0, "一": 1, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6,
}  # fmt: skip
_YES = re.compile(
    r"\b(?:yes|correct|true|indeed|(?:is|are|that's) right)\b|是的|没错|对的|是。|有。|相同"
)
_NO = re.compile(r"\b(?:no|not|wrong|false)\b|不是|没有|不对|不同")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Expected:
    """What an answer must say; all of it.

    Attributes:
        counts: How many of what, by English name; "" for all things together.
        words: Words that must be there: one of each group.
        absent: Words that must not be there.
        verdict: Yes or no; None where it is not asked.
        digits: Spoken digits, in order.
    """

    counts: dict[str, int] = field(default_factory=dict)
    words: Sequence[Sequence[str]] = ()
    absent: Sequence[str] = ()
    verdict: bool | None = None
    digits: Sequence[str] | None = None

    def is_met(self, answer: str) -> bool:
        """Tell whether an answer says it."""
        text = " ".join(answer.casefold().split())
        return (
            all(_counts(text, name) == n for name, n in self.counts.items())
            and all(any(_has(text, word) for word in group) for group in self.words)
            and not any(_has(text, word) for word in self.absent)
            and (self.verdict is None or _verdict(text) is self.verdict)
            and (self.digits is None or _spoken(text, self.digits))
        )


def _has(text: str, word: str) -> bool:
    if not word.isascii():
        return word in text
    return re.search(rf"(?<![a-z0-9]){re.escape(word.casefold())}(?![a-z0-9])", text) is not None


def _number(word: str) -> int | None:
    return int(word) if word.isdecimal() else _NUMBERS.get(word)


def _counts(text: str, name: str) -> int | None:
    """The number right before or after a noun; of no noun, the first number."""
    words = r"\d+|" + "|".join(sorted(_NUMBERS, key=len, reverse=True))
    if not name:
        found = re.search(rf"(?<![a-z])(?:\d+|(?!(?:a|an|no)\b)(?:{words}))(?![a-z])", text)
        return _number(found[0]) if found else None
    noun = noun_of(name)
    forms = "|".join(map(re.escape, (noun.plural, noun.name)))
    found = re.search(rf"(?<![a-z])({words}) (?:[a-z]+ )?(?:{forms})(?![a-z])", text)
    if found is None and noun.name_zh:
        zh = re.escape(noun.name_zh)
        found = re.search(rf"(没有){zh}", text) or re.search(
            rf"{zh}(?:的数量是|有)?({words})", text
        )
        found = found or re.search(rf"({words})[个只辆条匹头把张架棵台]?{zh}", text)
    return _number(found[1]) if found else None


def _verdict(text: str) -> bool | None:
    """Yes or no: what comes after "so", else what comes first."""
    last = re.split(r"\bso\b|所以", text)[-1]
    yes, no = _YES.search(last), _NO.search(last)
    if yes and no:
        return yes.start() < no.start()
    return True if yes else False if no else None


def _spoken(text: str, digits: Sequence[str]) -> bool:
    """Whether the digits are said, in order, with nothing but other marks between."""
    if not digits:
        return not any(_has(text, word) for word in _DIGITS if word != "one")
    numbers = {word: str(i) for i, word in enumerate(_DIGITS)}
    heard = re.findall(r"\d|" + "|".join(rf"\b{word}\b" for word in _DIGITS), text)
    wanted = [numbers[digit] for digit in digits]
    said = [numbers.get(one, one) for one in heard]
    n = len(wanted)
    return any(said[i : i + n] == wanted for i in range(len(said) - n + 1))
