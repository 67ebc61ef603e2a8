"""Which language a caption is in: English, Chinese, or another one.

By script first: kana is Japanese, hangul Korean, Han alone Chinese, Cyrillic, Arabic and so on
another. Latin letters are told apart by the commonest words of fourteen languages and by letters
that English does not have.

What it cannot: a few words such as "gran torino" or a name hold nothing to go by and count as
English; simplified and traditional Chinese are one; a text that mixes languages counts as the
one with more of it.
"""

from __future__ import annotations

import re
from typing import Literal

Language = Literal["en", "zh", "other"]
LANGUAGES: tuple[Language, ...] = ("en", "zh", "other")

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_HAN_WEIGHT = 3  # one character says about as much as three letters
_SCRIPTS = re.compile(
    r"(?P<kana>[\u3041-\u30fa\u30fc-\u30ff\uff66-\uff9d])"
    r"|(?P<han>[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f])"
    r"|(?P<hangul>[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3])"
    r"|(?P<latin>[A-Za-z\u00c0-\u024f\u1e00-\u1eff])"
    r"|(?P<rest>[^\W\d_])"
)


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


# Words that stand in most sentences of a language. What English shares with another ("in", "die",
# "on", "van") is on neither side.
_ENGLISH = _words(
    "the of with and is are this that these those its his her their your our from by at for has",
    "have was were be been it he she they you we not which who while there here into over under",
    "near next front behind between through some two three four one other several people",
    "woman boy girl dog cat white black red blue green brown standing sitting holding wearing",
    "looking playing walking running riding photo picture image sound what when where how does",
    "can will would",
)
_OTHER = _words(
    # German, Dutch, Swedish, Danish and Norwegian
    "der das und ist ein eine einen einem einer mit auf dem des nicht von zu im sich auch wird",
    "het een op zijn niet voor aan bij naast naar ook wordt staat",
    "och att det ett som på är av til med er og ikke",
    # French, Spanish, Portuguese, Italian and Romanian
    "le la les des une est dans avec sur pour et du au aux qui sont sa ses ne pas",
    "el las una unos con por para del y es está su sus de en al lado",
    "os um uma com não é ao dos das na seu sua ele ela",
    "il lo gli di della del che nel alla sono è",
    "și este cu pe din unui unei",
    # Polish, Czech, Turkish, Indonesian, Vietnamese and Finnish
    "jest się nie na w ze po przy który oraz je v",
    "bir ve bu ile için olan üzerinde çok",
    "yang dengan ini itu untuk dari pada sebuah seekor adalah",
    "một của và là trên với người đang không",
    "ja ei että oli ovat mies koira",
)


def detect_language(text: str) -> Language:
    """Tell the language of a caption or an answer.

    Args:
        text: Any text.

    Returns:
        "en", "zh" or "other"; "other" for a text without letters.
    """
    counts = {"kana": 0, "han": 0, "hangul": 0, "latin": 0, "rest": 0}
    for match in _SCRIPTS.finditer(text):
        counts[str(match.lastgroup)] += 1
    eastern = _HAN_WEIGHT * counts["han"]
    largest = max(eastern, counts["kana"], counts["hangul"], counts["latin"], counts["rest"])
    if largest == 0:
        return "other"
    if counts["kana"] * 8 > counts["han"] and counts["kana"] * _HAN_WEIGHT >= counts["latin"]:
        return "other"
    if largest == eastern:
        return "zh"
    return _of_latin(text) if largest == counts["latin"] else "other"


def _of_latin(text: str) -> Language:
    words = [word.lower() for word in _WORD.findall(text)]
    english = sum(word in _ENGLISH for word in words)
    other = sum(word in _OTHER for word in words)
    foreign_letters = sum(not word.isascii() and "’" not in word for word in words)
    return "en" if english >= other + foreign_letters else "other"


def count_words(text: str) -> int:
    """Count the words of a text in which spaces part them."""
    return len(_WORD.findall(text))


def count_characters(text: str) -> int:
    """Count letters and digits: for Chinese, its characters."""
    return sum(character.isalnum() for character in text)
