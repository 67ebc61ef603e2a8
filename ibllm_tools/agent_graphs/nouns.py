"""Things that a text names, found by rules: how many of what, and whether they are denied.

Classes of a detector are looked up word by word, in the singular, the plural and by everyday
synonyms. Other nouns are the last words of noun phrases ("a small brown **dog**"): a phrase begins
after an article, a number or a preposition and ends before the next function word. That is a rule
of thumb, made for short descriptions in English; it needs no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "airplane": ("aeroplane", "plane", "aircraft", "jet"),
    "bicycle": ("bike",),
    "boat": ("ship", "sailboat", "vessel"),
    "car": ("automobile",),
    "cat": ("kitten",),
    "cell phone": ("phone", "smartphone", "mobile phone"),
    "chicken": ("hen", "rooster", "cock"),
    "couch": ("sofa",),
    "cow": ("bull", "calf", "cattle"),
    "cup": ("mug",),
    "dining table": ("table",),
    "dog": ("puppy",),
    "motorcycle": ("motorbike",),
    "person": ("man", "woman", "boy", "girl", "child", "baby", "people", "human", "men", "women"),
    "potted plant": ("plant",),
    "sheep": ("lamb",),
    "sofa": ("couch",),
    "tv": ("television", "monitor"),
}
"""Other words for common classes of detectors; each holds where the detector has the class."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NUMBERS = {
    "no": 0, "zero": 0, "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5,
    "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "both": 2, "single": 1,
}  # fmt: skip
_PLACES = _words("of in on at by with near beside behind under over from to into")
_STARTS = _PLACES | _words(
    "the this that these those my your his her its our their some any another each every several "
    "many few and or"
)
_STOPS = _words(
    "i you he she it we they me him us them who what which there here is are was were be been am "
    "do does did has have had can could will would may might must shall should not n't never "
    "nothing something anything very too so also just only as than then when where while because "
    "if but for about like out up down off along across through there's it's see sees saw look "
    "looks looking shows show seen stands stand standing sits sit sitting lies lie lying runs run "
    "running walks walk walking flies fly flying barks bark barking eats eat eating plays play "
    "playing rides ride riding holds hold holding wears wear wearing hear hears found find left "
    "right more less than yes sure none"
)
_NOT_THINGS = _words(
    "picture photo photograph image video scene view background foreground front side top bottom "
    "middle center centre kind type sort lot group pair piece number thing things something "
    "question answer name way part one ones left right"
)
_COUNT_NOTHING = frozenset({"a", "an", "no"})
_DENIALS = frozenset({"no", "not", "without", "never", "neither", "nor", "cannot", "zero"})
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+|[.,;:!?]", re.IGNORECASE)
_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "mice": "mouse",
    "geese": "goose", "feet": "foot", "sheep": "sheep", "fish": "fish", "knives": "knife",
    "wolves": "wolf", "leaves": "leaf",
}  # fmt: skip
_FAR = 4  # words between a number or denial and its noun


@dataclass(frozen=True)
class Mention:
    """A thing that a text names.

    Attributes:
        label: The detector's class, or the noun in the singular.
        count: How many, where the text says so; "a dog" is at least one and says nothing.
        denied: Whether the text says that it is not there.
        known: Whether it is a class of the detector.
    """

    label: str
    count: int | None
    denied: bool
    known: bool


def find_mentions(text: str, classes: Sequence[str] | None) -> list[Mention]:
    """Find the things that a text names, each once, in the order of the text.

    Args:
        text: A description or an answer, in English.
        classes: What a detector knows; None where any noun will do.
    """
    words = [word.casefold() for word in _WORD.findall(text)]
    found: dict[str, Mention] = {}
    taken: set[int] = set()
    for start, end, label in _known(words, classes or ()):
        taken.update(range(start, end))
        found.setdefault(label, _mention(words, start, label, known=True))
    for place in _heads(words):
        if place not in taken:
            label = singular(words[place])
            known = classes is None
            found.setdefault(label, _mention(words, place, label, known=known))
    return list(found.values())


def _mention(words: Sequence[str], start: int, label: str, *, known: bool) -> Mention:
    before = _before(words, start)
    count = _count(before)
    denied = any(word in _DENIALS or word.endswith("n't") for word in before)
    return Mention(label, None if denied else count, denied or count == 0, known)


def _before(words: Sequence[str], start: int) -> list[str]:
    """Words that can bear upon a noun, the nearest first; none beyond a comma or preposition."""
    before: list[str] = []
    for word in reversed(words[max(0, start - _FAR) : start]):
        if not word[0].isalnum() or word in _PLACES or word in {"but", "and"}:
            break
        before.append(word)
    return before


def _count(before: Sequence[str]) -> int | None:
    """The number before a noun; behind an article there is none, and articles count nothing."""
    for word in before:
        if word.isdecimal():
            return int(word)
        if word in _NUMBERS and word not in _COUNT_NOTHING:
            return _NUMBERS[word]
        if word in _STARTS | _COUNT_NOTHING:
            break
    return None


def number_in(text: str) -> int | None:
    """The first number that a text says, as in an answer to "how many"."""
    for word in _WORD.findall(text.casefold()):
        if word.isdecimal():
            return int(word)
        if word in _NUMBERS and word not in _COUNT_NOTHING:
            return _NUMBERS[word]
    return 0 if re.search(r"\b(none|no|zero)\b", text.casefold()) else None


def _known(words: Sequence[str], classes: Sequence[str]) -> Iterable[tuple[int, int, str]]:
    """Places of a detector's classes: from, to, class; longer names first."""
    forms = _forms(tuple(classes))
    longest = max((len(form) for form in forms), default=0)
    place = 0
    while place < len(words):
        for length in range(min(longest, len(words) - place), 0, -1):
            part = words[place : place + length]
            label = forms.get((*part[:-1], singular(part[-1]))) or forms.get(tuple(part))
            if label is not None:
                yield place, place + length, label
                place += length - 1
                break
        place += 1


@cache
def _forms(classes: tuple[str, ...]) -> dict[tuple[str, ...], str]:
    """Every spelling of a class, as words; a class of its own goes before a synonym."""
    forms: dict[tuple[str, ...], str] = {}
    for label in classes:
        for name in SYNONYMS.get(label.casefold(), ()):
            forms.setdefault(tuple(name.split()), label)
    for label in classes:
        forms[tuple(label.casefold().replace("_", " ").split())] = label
    return forms


def _heads(words: Sequence[str]) -> list[int]:
    """Where noun phrases end: the last content word after an article, number or preposition."""
    heads: list[int] = []
    phrase: list[int] = []
    for place, word in enumerate([*words, "."]):
        if word.isalpha() and word not in _STARTS | _STOPS and word not in _NUMBERS:
            phrase.append(place)
            continue
        if phrase and _opens(words, phrase[0]):
            head = _head(words, phrase)
            if words[head] not in _NOT_THINGS:
                heads.append(head)
        phrase = []
    return heads


def _opens(words: Sequence[str], first: int) -> bool:
    """Whether a noun phrase can begin here; a plural may stand by itself."""
    if first == 0:
        return True
    before = words[first - 1]
    return before in _STARTS or before in _NUMBERS or before.isdecimal() or before in {",", "see"}


def _head(words: Sequence[str], phrase: list[int]) -> int:
    """The noun of a phrase: verbs that the lists do not know end it, too."""
    place = len(phrase) - 1
    article = phrase[0] > 0 and words[phrase[0] - 1] in {"a", "an", "one", "this", "that"}
    while place > 0:
        word = words[phrase[place]]
        is_verb = word.endswith(("ing", "ed")) or (
            article and word.endswith("s") and not word.endswith(("ss", "us"))
        )
        if not is_verb:
            break
        place -= 1
    return phrase[place]


def singular(noun: str) -> str:
    """The singular of a regular English noun and of a few others."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith("ies") and len(noun) > 4:
        return f"{noun[:-3]}y"
    if noun.endswith(("ches", "shes", "xes", "sses")):
        return noun[:-2]
    if noun.endswith("s") and not noun.endswith(("ss", "us", "is")):
        return noun[:-1]
    return noun
