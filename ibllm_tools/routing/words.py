"""What code reads in a question: the nouns that it asks about, and the attachments it names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ibllm_tools.routing.prompts import is_chinese


@dataclass(frozen=True)
class Noun:
    """A thing that can be looked for.

    Attributes:
        name: In English, as a detector calls it.
        plural: Many of it.
        name_zh: In Chinese; "" where it is not known.
        kind: What kind of thing it is, such as "animal"; "" where it is not known.
        others: Further words that mean it.
        others_zh: Further Chinese words that do.
    """

    name: str
    plural: str
    name_zh: str = ""
    kind: str = ""
    others: tuple[str, ...] = ()
    others_zh: tuple[str, ...] = ()


@cache
def known_nouns() -> dict[str, Noun]:
    """The nouns of `nouns.psv` by their names."""
    lines = (Path(__file__).parent / "nouns.psv").read_text(encoding="utf-8").splitlines()
    nouns = {}
    for line in lines[1:]:
        name, plural, name_zh, kind, others, others_zh = line.split("|")
        split = [tuple(filter(None, words.split(","))) for words in (others, others_zh)]
        nouns[name] = Noun(name, plural, name_zh, kind, *split)
    return nouns


def noun_of(name: str) -> Noun:
    """The noun of a name; one that is not known gets a plural by rule."""
    known = known_nouns().get(name.casefold())
    return known or Noun(name, _plural(name))


def asked_nouns(question: str, classes: Iterable[str] | None = None) -> list[str]:
    """Find the things that a question names, in its order, each once.

    Args:
        question: In English or Chinese: singular, plural and known synonyms count.
        classes: What a detector knows; by default every known noun.

    Returns:
        Names, as in `classes`.
    """
    return list(dict.fromkeys(name for _, _, name in _mentions(question, classes)))


def marked(question: str, classes: Iterable[str] | None = None) -> tuple[str, list[str]]:
    """Put `#0`, `#1`, … for the things that a question names, in small letters.

    Args:
        question: In English or Chinese.
        classes: As for `asked_nouns`.

    Returns:
        The text, and what the marks stand for: `"how many #0 and #1?", ["dog", "cat"]`.
    """
    found = _mentions(question, classes)
    names = list(dict.fromkeys(name for _, _, name in found))
    text = question.casefold()
    for start, end, name in reversed(found):
        text = f"{text[:start]}#{names.index(name)}{text[end:]}"
    return " ".join(text.split()), names


_TALKING = re.compile(
    r"(?:in|on|of) (?:the |this )?(?:recording|audio|clip|message|video)\b|"
    r"(?:\w+ )?(?:say|says|said|saying|speak|speaks|spoken|speaking|talk|talks|talking|tell|tells|"
    r"read|reads|mention|mentions|mentioned|pronounces?)\b"
)
_TALKING_ZH = re.compile("(?:刚才|到底|都)?(?:在)?(?:说|讲|念|读|提到)")
_HEARD_ZH = re.compile("(?:录音|音频|语音|声音|留言)(?:里|中)?的?$")


def _mentions(question: str, classes: Iterable[str] | None) -> list[tuple[int, int, str]]:
    """Where things are named: (start, end, name); a person who speaks is not looked for."""
    pattern, names = _pattern(tuple(known_nouns()) if classes is None else tuple(classes))
    text = question.casefold()
    found = []
    for match in pattern.finditer(text):
        name = names[match[0]]
        if noun_of(name).kind != "human" or not _speaks(text[: match.start()], text[match.end() :]):
            found.append((*match.span(), name))
    return found


@cache
def _pattern(classes: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """All words of things, the longest first, so that "motorbike" is not a "bike"."""
    names = dict(_forms(classes))
    latin = "|".join(re.escape(form) for form in names if not is_chinese(form))
    han = "|".join(re.escape(form) for form in names if is_chinese(form))
    return re.compile(rf"(?<![a-z])(?:{latin or '(?!)'})(?![a-z])|{han or '(?!)'}"), names


def _speaks(before: str, after: str) -> bool:
    """Whether a person is named who is heard: "what does the man say"."""
    said = _TALKING.match(after.lstrip()) or _TALKING_ZH.match(after.lstrip())
    return bool(said or _HEARD_ZH.search(before))


_KINDS = {
    "animal": r"\banimals?\b|\bcreatures?\b|动物",
    "vehicle": r"\bvehicles?\b|交通工具|车辆",
    "furniture": r"\bfurniture\b|家具",
    "musical instrument": r"\binstruments?\b|乐器",
    "device": r"\bdevices?\b|\bgadgets?\b|设备",
    "building": r"\bbuildings?\b|建筑",
}


def asked_kinds(question: str) -> list[str]:
    """The kinds of things that a question asks about as a whole: "how many animals"."""
    text = question.casefold()
    return [kind for kind, words in _KINDS.items() if re.search(words, text)]


def known_forms() -> list[str]:
    """Every word that means a known noun, the longest first."""
    return [form for form, _ in _forms(tuple(known_nouns()))]


_ID = re.compile(r"(?<![A-Za-z0-9])([a-z]+-\d+)(?!\d)")


def ids_in(question: str, ids: Sequence[str]) -> list[str]:
    """The attachments that a question names by id, in its order; those that there are."""
    named = _ID.findall(question.casefold())
    return list(dict.fromkeys(id_ for id_ in named if id_ in ids))


@cache
def _forms(classes: tuple[str, ...]) -> list[tuple[str, str]]:
    forms: dict[str, str] = {}
    for name in classes:
        noun = noun_of(name)
        words = [noun.name.casefold(), noun.plural.casefold(), *noun.others]
        words += [_plural(other) for other in noun.others]
        words += [noun.name_zh, *noun.others_zh]
        for word in filter(None, words):
            forms.setdefault(word, name)
    return sorted(forms.items(), key=lambda pair: -len(pair[0]))


def _plural(word: str) -> str:
    if word.endswith("man"):
        return f"{word[:-3]}men"
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"
