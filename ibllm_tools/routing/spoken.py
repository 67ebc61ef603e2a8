"""What follows from a transcript for what a question asks about it, worked out by code.

```
"Does the voice say two?"      + "one two" -> "yes"
"What is the first word?"      + "one two" -> 'the first is "one"'
"How many words are said?"     + "one two" -> "2 words"
```
A question that asks nothing of the kind, or that is not understood, gives "".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ibllm_tools.routing.claims import NUMBERS, NUMBERS_ZH, OPENINGS, say_verdict
from ibllm_tools.routing.prompts import is_chinese

_DIGITS = [word for word, n in NUMBERS.items() if n < 10]
_WORD = re.compile(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+(?:'\w+)?")
_ASKS = re.compile(
    OPENINGS
    + r"(?:is|are|do|does|did|was|were|has|have|can you hear|if|whether|check (?:if|whether))\b"
)
_ASKS_ZH = re.compile("吗|有没有|是不是|是否")
_OPEN = re.compile(r"\b(?:how|what|which|who|or|more|language|english|chinese|understand)\b")
_QUOTED = re.compile("[\"“「'](.+?)[\"”」'](?!\\w)")
_SAID = re.compile(
    r"\b(?:say|says|said|mention|mentioned|utter|pronounce|read|speak)s? "
    r"(?:the |a |an )?(?:(?:word|number|digit|name)s? )?(?:of )?([a-z]+)"
)
_NAMED = re.compile(r"\b(?:word|number|digit) (?:of )?([a-z]+|\d)\b")
_NO_WORDS = frozenset(
    [
        "the",
        "a",
        "an",
        "any",
        "anything",
        "something",
        "someone",
        "somebody",
        "anyone",
        "anybody",
        "it",
        "that",
        "this",
        "in",
        "on",
        "at",
        "to",
        "out",
        "word",
        "words",
        "number",
        "numbers",
        "digit",
        "digits",
        "is",
        "was",
        "are",
        "were",
        "name",
        "there",
        "here",
        "aloud",
        "or",
        "and",
        "of",
    ]
)
_SAID_ZH = re.compile(
    r"(?:说|念|读|提|讲)(?:到|出|过|了|见)*(?:数字|单词|词)?([a-z]+|\d|[零一二三四五六七八九])"
)
_NAMED_ZH = re.compile(
    r"(?:有|数字|单词)([a-z]+|\d)|([a-z]+|\d|[零一二三四五六七八九])这个|是([a-z]+|\d|[零一二三四五六七八九])吗"
)
_SPEECH = re.compile(
    r"\b(?:speech|speaks?|speaking|talk|talks|talking|voice|"
    r"(?:say|says|said|saying) (?:anything|something|words?|a word))\b"
)
_SPEECH_ZH = re.compile("有人|说话|讲话|人声")
_CUE = re.compile(
    r"\b(?:sa[iy]d?|says|spoken|heard?|words?|numbers?|digits?|reads?)\b|说|念|读|听|词|数字"
)
_FIRST = re.compile(r"\b(?:first|opening)\b|\bbegins?\b|\bstarts?\b|第一个|最先|开头")
_LAST = re.compile(r"\b(?:last|final|closing)\b|\bends?\b|\bstops?\b|最后|结尾")
_COUNTED = re.compile(
    r"how many (?:\w+ )?(?:words|digits|numbers|figures)\b|(?<!哪)几个(?:词|字|数|单词)"
)


def count_words(text: str, *, chinese: bool) -> str:
    """Say how many words a transcript has: `3 words`."""
    n = len(_WORD.findall(text))
    return f"{n}个词" if chinese else f"{n} word{'' if n == 1 else 's'}"


def conclude_speech(question: str, text: str) -> str:
    """Say what follows from a transcript for what a question asks.

    Args:
        question: In English or Chinese.
        text: The words; "" for none.

    Returns:
        "yes", "no", 'the first is "one"' or "2 words", likewise in Chinese; "" where nothing
        follows.
    """
    chinese = is_chinese(question)
    words = [word.casefold() for word in _WORD.findall(text)]
    clauses = re.split(r"[.!?;。！？；，\n]+|, |\band (?=how|what|is|are|do)", question)
    found = (_of_clause(one.casefold().strip(), words, text, chinese=chinese) for one in clauses)
    told = list(filter(None, found))
    return told[0] if len(told) == 1 else ""


def _of_clause(clause: str, words: Sequence[str], text: str, *, chinese: bool) -> str:
    if words and _COUNTED.search(clause):
        return count_words(text, chinese=chinese)
    edge = _edge(clause)
    if (_ASKS_ZH if chinese else _ASKS).search(clause):
        if not chinese and _OPEN.search(clause):
            return ""
        if wanted := _wanted(clause, chinese=chinese):
            heard = [words[edge]] if words and edge is not None else words
            return say_verdict(_is_in(wanted, heard), chinese=chinese)
        if edge is None and (_SPEECH_ZH if chinese else _SPEECH).search(clause):
            return say_verdict(bool(words), chinese=chinese)
        return ""
    asked = re.search(r"\b(?:what|which)\b|什么|哪|几", clause)
    one_word = re.search(
        r"\b(?:word|digit|number|first|last|comes)\b|词|字|数|第一个|最先|开头|最后|结尾", clause
    )
    if not words or edge is None or not asked or not one_word:
        return ""
    word = _WORD.findall(text)[edge]
    if chinese:
        return f"{'第一个' if edge == 0 else '最后一个'}是“{word}”"
    return f'the {"first" if edge == 0 else "last"} is "{word}"'


def _edge(clause: str) -> int | None:
    """The index of the word that a question is about: the first or the last one."""
    first, last = _FIRST.search(clause), _LAST.search(clause)
    if bool(first) == bool(last):
        return None
    return 0 if first else -1


def _wanted(clause: str, *, chinese: bool) -> list[str]:
    """The words that a yes/no question asks for; empty for none."""
    if quoted := _QUOTED.search(clause):
        return _WORD.findall(quoted[1])
    forms = (_SAID_ZH, _NAMED_ZH) if chinese else (_NAMED, _SAID)
    for form in forms:
        for found in form.finditer(clause):
            word = next(filter(None, found.groups()))
            if word not in _NO_WORDS:
                return [word]
    if not _CUE.search(clause) and _edge(clause) is None:
        return []
    named = [w for w in _WORD.findall(clause) if w in _DIGITS or w.isdecimal()]
    return named if len(named) == 1 else []


def _is_in(wanted: Sequence[str], words: Sequence[str]) -> bool:
    """Whether words are said one after another; digits count in any writing."""
    asked, said = [list(map(_plain, one)) for one in (wanted, words)]
    n = len(asked)
    return any(said[i : i + n] == asked for i in range(len(said) - n + 1))


def _plain(word: str) -> str:
    """A word as it is compared: `two`, `2` and `二` are one."""
    n = NUMBERS.get(word, NUMBERS_ZH.get(word))
    return word if n is None else str(n)
