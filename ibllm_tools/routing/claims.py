"""What follows from counts and places for a question's claim, worked out by code.

```
"Are there exactly two dogs?"    + 3 dogs         -> "no"
"Which are more, dogs or cats?"  + 3 dogs, 1 cat  -> "more dogs"
```
A language model words what was found; it need not count or compare. A question that claims
nothing, or that is not understood, gives "".
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence

from ibllm_tools.routing.prompts import is_chinese
from ibllm_tools.routing.words import marked, noun_of

Places = Mapping[str, Sequence[str]]
Check = Callable[[int, int], bool]
NUMBERS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10,
}  # fmt: skip
NUMBERS_ZH = {
    "零": 0, "一": 1, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8,
    "九": 9, "十": 10,
}  # fmt: skip
_COMPARE: dict[str, Check] = {
    "more than": operator.gt, "over": operator.gt, "above": operator.gt,
    "fewer than": operator.lt, "less than": operator.lt, "under": operator.lt,
    "below": operator.lt, "at least": operator.ge, "no fewer than": operator.ge,
    "at most": operator.le, "no more than": operator.le,
}  # fmt: skip
_COMPARE_ZH: dict[str, Check] = {
    "超过": operator.gt, "多于": operator.gt, "大于": operator.gt, "不到": operator.lt,
    "少于": operator.lt, "至少": operator.ge, "最少": operator.ge, "至多": operator.le,
    "最多": operator.le,
}  # fmt: skip
_N = rf"(\d+|{'|'.join(NUMBERS)}|a single)"
_N_ZH = rf"(\d+|[{''.join(NUMBERS_ZH)}])"
_UNIT = "[个只辆条匹头把张架棵台艘名位部座瓶]?"
OPENINGS = (
    r"^(?:\W|\b(?:and|but|also|so|then|please|well|now|ok|okay|hey|hello|hi|as well as|after that|"
    r"by the way|moreover|plus|first|second|one more thing|tell me|say|look|listen|alright|hmm|"
    r"excuse me|quick question|one question|let me ask|thanks|thank you|at this)\b)*"
)
"""What may stand before a question."""
_ASKS = re.compile(
    OPENINGS + r"(?:is|are|do|does|did|was|were|has|have|can you (?:see|find|detect|spot)|"
    r"check (?:if|whether|that)|if|whether|any)\b|\b(?:right|correct|true|yes or no)\W*$"
)
_CONFIRMS = re.compile(
    r"\b(?:right|correct|true|accurate|yes or no|agree|is (?:that|it) so|are there)\b|对吗|对不对|"
    r"是吗|是不是|没错吧"
)
_OPEN = re.compile(r"\b(?:how many|where|which|what|who)\b|几|多少|哪|什么")
_ASKS_ZH = re.compile(r"吗|是不是|是否|有没有|对不对|能否|能不能")
_SIDES = {
    "top left": "top left", "upper left": "top left", "top right": "top right",
    "upper right": "top right", "bottom left": "bottom left", "lower left": "bottom left",
    "bottom right": "bottom right", "lower right": "bottom right", "left": "left",
    "right": "right", "top": "top", "upper": "top", "bottom": "bottom", "lower": "bottom",
    "middle": "middle", "centre": "middle", "center": "middle",
}  # fmt: skip
_SIDE = re.compile(
    rf"\b(?:on|at|in|to|near|close to|towards?) the (?:far |very )?({'|'.join(_SIDES)})\b(?! of #)"
)
_SIDE_ZH = re.compile("(左上|右上|左下|右下|中间|中央|[左右上下])(?:边|面|方|侧|角|部)*")
_JOINT = re.compile(r"[,，]|\band (?=how|what|where|who|which|is|are|do|does|did)")
_RELATION = re.compile(r"\b(?:next to|beside|behind|between|under|near|of|than) #|\b(?:left|right)")


def conclude(question: str, places: Places, classes: Sequence[str] | None = None) -> str:
    """Say what follows from what was found for what a question claims.

    Args:
        question: In English or Chinese.
        places: Where each thing is, by name, as `say_objects` gets it.
        classes: What the detector knows; things outside it give no conclusion.

    Returns:
        "yes", "no", "more dogs" or "as many"; in Chinese "是的", "不是", "狗更多", "一样多".
        "" where nothing follows.
    """
    chinese = is_chinese(question)
    text, names = marked(question, classes)
    counts = [len(places.get(name, ())) for name in names]
    find = _find_zh if chinese else _find
    clauses = _clauses(text, names, counts, chinese=chinese)
    found = [find(clause, text, names, counts, places) for clause in clauses]
    told = [one for one in found if one is not None]
    if len(told) != 1:
        return ""
    [one] = told
    return say_verdict(one, chinese=chinese) if isinstance(one, bool) else one


def _clauses(text: str, names: Sequence[str], counts: Sequence[int], *, chinese: bool) -> list[str]:
    """What may claim something by itself; a choice of two things stays whole."""
    whole = [one.strip() for one in re.split(r"[.!?;。！？；\n]+", text) if one.strip()]
    which = _which_zh if chinese else _which
    clauses: list[str] = []
    for one in whole:
        parts = [one] if which(one, names, counts) else _JOINT.split(one)
        clauses += [part.strip() for part in parts]
    return clauses


def say_verdict(true: bool, *, chinese: bool) -> str:
    """Yes or no, in a language."""
    if chinese:
        return "是的" if true else "不是"
    return "yes" if true else "no"


Told = bool | str | None


def _find(
    clause: str, text: str, names: Sequence[str], counts: Sequence[int], places: Places
) -> Told:
    """What an English clause claims; None for nothing."""
    which = _which(clause, names, counts)
    if which is not None:
        return which
    if _OPEN.search(clause):
        return None
    asks = bool(_ASKS.search(clause) or (_CONFIRMS.search(text) and not _OPEN.search(text)))
    if not asks or re.search(r"\b(?:or|not)\b|n't\b|\bno #", clause):
        return None
    two = _two(clause, counts, _TWO)
    if two is not None:
        return two
    amount = _amount(clause, counts)
    return amount if amount is not None else _presence(clause, names, places)


def _which(clause: str, names: Sequence[str], counts: Sequence[int]) -> str | None:
    """Two things, and which are more."""
    found = re.search(r"#(\d)\W+(?:\w+ ){0,3}?or (?:\w+ ){0,3}?#(\d)", clause)
    if not found or not re.search(r"\bmore\b|\bmost\b|\bmajority\b", clause):
        return None
    if re.search(r"\d #|\bthan\b", clause):
        return None
    first, second = int(found[1]), int(found[2])
    if counts[first] == counts[second]:
        return "as many"
    return f"more {noun_of(names[first if counts[first] > counts[second] else second]).plural}"


_TWO: tuple[tuple[str, Check], ...] = (
    (r"more #(\d) than (?:\w+ ){0,2}?#(\d)", operator.gt),
    (r"#(\d) (?:\w+ )?(?:more|more \w+) than (?:\w+ ){0,2}?#(\d)", operator.gt),
    (r"#(\d) outnumber (?:\w+ ){0,2}?#(\d)", operator.gt),
    (r"(?:fewer|less) #(\d) than (?:\w+ ){0,2}?#(\d)", operator.lt),
    (r"as many #(\d) as (?:\w+ ){0,2}?#(\d)", operator.eq),
)
_TWO_ZH: tuple[tuple[str, Check], ...] = (
    (r"#(\d)(?:的?数量)?(?:是不是|是否)?比#(\d)(?:的?数量)?(?:更|要|还)?多", operator.gt),
    (r"#(\d)(?:的?数量)?(?:是不是|是否)?比#(\d)(?:的?数量)?(?:更|要|还)?少", operator.lt),
    (r"#(\d)(?:和|与|跟)#(\d)(?:的?数量)?(?:是不是|是否)?(?:一样多|相等|相同)", operator.eq),
)


def _two(clause: str, counts: Sequence[int], forms: Sequence[tuple[str, Check]]) -> bool | None:
    """A claim that compares two things, in one of some forms."""
    for form, is_so in forms:
        if found := re.search(form, clause):
            return is_so(counts[int(found[1])], counts[int(found[2])])
    return None


def _amount(clause: str, counts: Sequence[int]) -> bool | None:
    """A claim about a number."""
    kinds = "|".join(sorted(_COMPARE, key=len, reverse=True))
    form = (
        rf"(?:\b({kinds}) |\b(?:exactly|only|just|really|precisely) )?"
        rf"(?<![\w#]){_N} (?:\w+ )?#(\d)"
    )
    found = re.search(form, clause)
    if found is None:
        found = re.search(
            rf"(?:number|count|amount|total) of (?:\w+ )?#(?P<thing>\d) (?:\w+ ){{0,3}}?"
            rf"(?:(?P<kind>{kinds})|exactly|equal to|really) (?P<n>{_N})\b",
            clause,
        )
        if found is None:
            return None
        kind, n, thing = found["kind"], found["n"], found["thing"]
    else:
        kind, n, thing = found[1], found[2], found[3]
    count = counts[int(thing)]
    wanted = int(n) if n.isdecimal() else NUMBERS.get(n, 1)
    is_so: Check = _COMPARE.get(kind or "", operator.eq)
    return is_so(count, wanted)


def _presence(clause: str, names: Sequence[str], places: Places) -> bool | None:
    """A claim that a thing is there, or at a place."""
    things = {int(found) for found in re.findall(r"#(\d)", clause)}
    if len(things) != 1 or re.search(r"\b(?:all|several|many|more|other|both|each)\b", clause):
        return None
    held = places.get(names[things.pop()], ())
    if found := _SIDE.search(clause):
        return any(_is_on(place, _SIDES[found[1]]) for place in held)
    if _RELATION.search(clause):
        return None
    there = r"\b(?:there|see|find|detect|spot|show|shows|contain|contains|have|has|any)\b"
    inside = r"#\d (?:\w+ ){0,2}?(?:in|on|there|here|visible|present|shown)\b"
    return bool(held) if re.search(f"{there}|{inside}", clause) else None


def _is_on(place: str, side: str) -> bool:
    """Whether a ninth of the picture is at a side or a corner of it."""
    return place == side or (
        side not in {"middle", "中间"} and set(_parts(side)) < {*_parts(place)}
    )


def _parts(place: str) -> list[str]:
    return list(place) if is_chinese(place) else place.split()


def _find_zh(
    clause: str, text: str, names: Sequence[str], counts: Sequence[int], places: Places
) -> Told:
    """What a Chinese clause claims; None for nothing."""
    which = _which_zh(clause, names, counts)
    if which is not None:
        return which
    if _OPEN.search(clause) or "还是" in clause:
        return None
    if not (_ASKS_ZH.search(clause) or (_CONFIRMS.search(text) and not _OPEN.search(text))):
        return None
    two = _two(clause, counts, _TWO_ZH)
    if two is not None:
        return two
    amount = _amount_zh(clause, counts)
    return amount if amount is not None else _presence_zh(clause, names, places)


def _which_zh(clause: str, names: Sequence[str], counts: Sequence[int]) -> str | None:
    found = re.search(r"#(\d)(?:和|与|跟|、)#(\d).{0,6}?(?:哪|谁)[个种]?(?:更)?多", clause)
    found = found or re.search(r"#(\d)(?:更)?多，?还是#(\d)(?:更)?多", clause)
    if not found:
        return None
    first, second = int(found[1]), int(found[2])
    if counts[first] == counts[second]:
        return "一样多"
    more = noun_of(names[first if counts[first] > counts[second] else second])
    return f"{more.name_zh or more.name}更多"


def _amount_zh(clause: str, counts: Sequence[int]) -> bool | None:
    kinds = "|".join(_COMPARE_ZH)
    before = rf"({kinds})?{_N_ZH}{_UNIT}(以上|以下)?的?#(\d)"
    after = rf"#(\d)[^#\d]{{0,6}}?({kinds})?{_N_ZH}{_UNIT}(以上|以下)?"
    if found := re.search(before, clause):
        kind, n, bound, thing = found.groups()
    elif found := re.search(after, re.sub(r"有没有|是不是|是否", "有", clause)):
        thing, kind, n, bound = found.groups()
    else:
        return None
    is_so: Check = _COMPARE_ZH.get(kind or "", operator.eq)
    if bound:
        is_so = operator.ge if bound == "以上" else operator.le
    return is_so(counts[int(thing)], int(n) if n.isdecimal() else NUMBERS_ZH[n])


def _presence_zh(clause: str, names: Sequence[str], places: Places) -> bool | None:
    things = {int(found) for found in re.findall(r"#(\d)", clause)}
    if len(things) != 1 or re.search("旁边|都|更|别的|其他|只有|几|多", clause):
        return None
    held = places.get(names[things.pop()], ())
    bare = re.sub(r"看上去|有没有|一下|上面|图上|照片上|画面上|图中|中的", "有", clause)
    if found := _SIDE_ZH.search(bare):
        side = "中间" if found[1] == "中央" else found[1]
        return any(_is_on(place, side) for place in held)
    return bool(held) if re.search("有|看到|看见|出现|存在", clause) else None
