"""Answers from experts' results: counts, places, spoken words, likeness, nothing found.

An answer repeats what was found, in one form for every wording, and then says what follows:
`There are 3 dogs (left, top, middle) and 1 cat (right), so yes.`
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from ibllm_tools.routing import (
    answer_messages,
    asked_nouns,
    noun_of,
    say_likeness,
    say_objects,
    say_pair,
    say_senses,
    say_speech,
)
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.route_words import draw_template, fill, join, put
from ibllm_tools.train.tool_talk import ToolChat

Read = tuple[str, str, str]
"""A question, the line of a result, the answer."""

_CHINESE_SHARE = 0.36
_PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom",
           "bottom right")  # fmt: skip
_PLACES_ZH = ("左上", "上", "右上", "左", "中间", "右", "左下", "下", "右下")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGITS_ZH = ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九")
_COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SENTENCES = (
    "the train leaves at noon", "please call me back", "good morning everyone",
    "i will be there soon", "the meeting starts now", "do not forget the keys",
    "it is raining again", "we have found the dog", "thank you for your help",
    "my number has changed", "dinner is ready", "the door is open", "turn left at the house",
)  # fmt: skip
_SENTENCES_ZH = ("明天见", "请给我回电话", "会议现在开始", "今天下雨了", "门开着", "谢谢你的帮助")
_NOT_PLAIN = ("Is ", "Are ", "Do ", "Does ", "Did ", "Can you understand", "first", "last",
              "second", "more", "fewer", "How many words", "How many digits", "How many numbers",
              "吗", "还是", "哪个多", "是不是", "有没有", "第一", "最后", "几个词", "几个数",
              "next to", "right of", "left side", "upper", "bottom of", "largest", "leftmost",
              "furthest", "at the top", "on the left", "corner", "左边是", "右上角有", "最左边",
              "旁边", "language", "语言", "哪种语", "Summarize", "Translate", "right?",
              "Should", "Are there", "Left ", "Top ", "I count", "My friend counts", "She says",
              "He claims", "They say", "It should", "I guess", "I bet", "I believe", "We expect",
              "One ", "Two ", "Three ", "Four ", "Five ", "Six ", "2 ", "3 ", "4 ", "Only one",
              "Just one", "A single", "Which is", "Which are", "opening", "closing", "third",
              "final", "begin", "start", "finish", "stop", "end?", "Was ", "How many sent",
              "How many fig", "sum up", "summarize", "shorten", "translate", "What is on",
              "stands", "lies", "sits", "located", "appears", "tongue", "beside", "是在",
              "比{n2}", "多，", "一样多", "个{n}，", "以上", "更多", "结尾", "开头", "第二",
              "第三", "翻译", "概括", "只有", "就一", "左边", "右边", "上方", "下方", "中间",
              "角有", "角是", "语", "有人", "对吗", "相同", "哪种更", "哪一种", "谁多", "是否",
              "有没", "中文")  # fmt: skip


def draw_read(rng: random.Random, facts: Sequence[Fact]) -> ToolChat:
    """Draw a question with results and its answer."""
    chinese = rng.random() < _CHINESE_SHARE
    makers: Sequence[Callable[..., Read]] = (_objects, _speech, _likeness)
    maker = rng.choices(makers, (5, 3, 2))[0]
    question, line, answer = maker(rng, facts, chinese=chinese)
    lines = [line]
    if rng.random() < 0.22:
        others = [other for other in (*makers, _senses) if other is not maker]
        asked, told, said = rng.choice(others)(rng, facts, chinese=chinese)
        question = join(rng, question, asked, chinese=chinese)
        lines.append(told)
        answer += ("" if chinese else " ") + said
    question = put(rng, question, chinese=chinese)
    return ToolChat((*answer_messages(question, lines), {"role": "assistant", "content": answer}))


# objects


def _objects(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> Read:
    if rng.random() < 0.3:
        return _judged(rng, facts, chinese=chinese)
    template = _plain_question(rng, "detector", chinese=chinese)
    question = fill(rng, template, facts, ["image-1"], known=True)
    asked = asked_nouns(question)
    scene = _scene(rng, facts, asked, chinese=chinese)
    line = say_objects("image-1", scene, asked, chinese=chinese)
    return question, line, tell_objects(scene, asked, chinese=chinese)


def _plain_question(rng: random.Random, route: str, *, chinese: bool) -> str:
    """Draw a template whose answer is what was found, and nothing that follows from it."""
    while True:
        template = draw_template(rng, f"{route}_zh" if chinese else route)
        if not any(word in template for word in _NOT_PLAIN):
            return template


def _scene(
    rng: random.Random, facts: Sequence[Fact], asked: Sequence[str], *, chinese: bool
) -> dict[str, list[str]]:
    """What is in a picture, and where."""
    names = [name for name in asked if rng.random() < 0.85]
    others = [f.name for f in facts if f.name not in asked]
    names += rng.sample(others, min(len(others), rng.choice((0, 0, 1, 1, 2, 3))))
    places = _PLACES_ZH if chinese else _PLACES
    count = {name: rng.choices(range(1, 10), (6, 6, 5, 4, 3, 2, 1, 1, 1))[0] for name in names}
    return {name: rng.choices(places, k=count[name]) for name in names}


def tell_objects(scene: Mapping[str, Sequence[str]], asked: Sequence[str], *, chinese: bool) -> str:
    """The answer from a line of `say_objects`: what it says, as a sentence."""
    line = say_objects("image-1", scene, asked, chinese=chinese)
    told = line.split("：", 1)[1] if chinese else line.split(": ", 1)[1]
    if chinese:
        if told == "什么也没有":
            return "图里什么也没有。"
        parts = told.split("；")
        if len(parts) > 1:
            total, rest = parts[0].removeprefix("一共"), "，".join(parts[1:])
            return f"图里一共有{total}个：{rest}。"
        return f"图里{told}。" if told.startswith("没有") else f"图里有{told}。"
    if told == "nothing":
        return "There is nothing."
    parts = told.split("; ")
    if len(parts) > 1:
        total, rest = parts[0].removesuffix(" in all"), ", ".join(parts[1:])
        return f"There {_be(total)} {total} in all: {rest}."
    return f"There {_be(told.split(' ')[0])} {told}."


def _be(number: str) -> str:
    return "is" if number == "1" else "are"


_MORE = ("Are there more {n} than {n2}?", "Are there more {n} than {n2} in the {m}?",
         "Does it show more {n} than {n2}?", "Are the {n} more than the {n2}?",
         "Do the {n} outnumber the {n2}?")  # fmt: skip
_MORE_ZH = ("{n}比{n2}多吗？", "{m}里的{n}比{n2}多吗？", "是不是{n}比{n2}多？")
_WHICH = ("Which is there more of, {n} or {n2}?", "Do you see more {n} or more {n2}?",
          "Are there more {n} or more {n2}?", "Which are more, the {n} or the {n2}?")  # fmt: skip
_WHICH_ZH = ("{n}和{n2}哪个多？", "{n}多还是{n2}多？", "{m}里{n}和{n2}，哪个更多？")
_EXACT = ("Are there exactly {c} {n}?", "Are there {c} {n} in the {m}?", "Is it {c} {n}?",
          "I count {c} {n}. Is that right?", "Are there really {c} {n}?")  # fmt: skip
_EXACT_ZH = ("是不是有{c}个{n}？", "{m}里有{c}个{n}吗？", "正好有{c}个{n}吗？")
_OVER = ("Are there more than {c} {n}?", "Does the {m} have more than {c} {n}?",
         "Do you see more than {c} {n}?")  # fmt: skip
_OVER_ZH = ("{n}超过{c}个吗？", "{m}里的{n}多于{c}个吗？", "有{c}个以上的{n}吗？")
_SIDES = ("left", "right", "top", "bottom")
_SIDES_ZH = ("左", "右", "上", "下")
_SIDE = ("Is the {s} on the {c}?", "Is the {s} at the {c} of the {m}?", "Is there {a} on the {c}?",
         "Do you find {a} at the {c}?", "Is a {s} on the {c} side of the {m}?")  # fmt: skip
_SIDE_ZH = ("{n}在{c}边吗？", "{m}的{c}边有{n}吗？", "{n}是不是在{c}边？")


def _judged(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> Read:
    """Questions whose answer follows from counts or places."""
    kinds = ((_MORE, _MORE_ZH), (_WHICH, _WHICH_ZH), (_EXACT, _EXACT_ZH), (_OVER, _OVER_ZH),
             (_SIDE, _SIDE_ZH))  # fmt: skip
    kind = rng.randrange(len(kinds))
    n = rng.randint(1, 6)
    numbers = (*_COUNTS, *map(str, range(10)))
    word = rng.choice((str(n), _DIGITS_ZH[n])) if chinese else rng.choice(numbers[n::10])
    side = rng.randrange(4)
    if kinds[kind][0] is _SIDE:
        word = (_SIDES_ZH if chinese else _SIDES)[side]
    template = rng.choice(kinds[kind][1 if chinese else 0]).replace("{c}", word)
    question = fill(rng, template, facts, ["image-1"], known=True)
    asked = asked_nouns(question)
    scene = _scene(rng, facts, asked, chinese=chinese)
    if kinds[kind][0] is _EXACT and rng.random() < 0.5:
        places = _PLACES_ZH if chinese else _PLACES
        scene[asked[0]] = rng.choices(places, k=n)
    counts = [len(scene.get(name, ())) for name in asked]
    said = tell_objects(scene, asked, chinese=chinese).rstrip(".。")
    verdict = _verdict(kinds[kind][0], asked, counts, n, _on(scene, asked, word), chinese=chinese)
    ending = f"，所以{verdict}。" if chinese else f", so {verdict}."
    return question, say_objects("image-1", scene, asked, chinese=chinese), said + ending


def _on(scene: Mapping[str, Sequence[str]], asked: Sequence[str], side: str) -> bool:
    return any(side in place for place in scene.get(asked[0], ()))


def _verdict(
    kind: Sequence[str],
    asked: Sequence[str],
    counts: Sequence[int],
    n: int,
    on: bool,
    *,
    chinese: bool,
) -> str:
    if kind is _WHICH:
        if counts[0] == counts[-1]:
            return "一样多" if chinese else "as many"
        noun = noun_of(asked[0] if counts[0] > counts[-1] else asked[-1])
        return f"{noun.name_zh}更多" if chinese else f"more {noun.plural}"
    true = on
    if kind is _MORE:
        true = counts[0] > counts[-1]
    elif kind in (_EXACT, _OVER):
        true = counts[0] == n if kind is _EXACT else counts[0] > n
    if chinese:
        return "是的" if true else "不是"
    return "yes" if true else "no"


# speech


def _words(rng: random.Random, *, chinese: bool) -> list[str]:
    share = rng.random()
    if share < 0.12:
        return []
    if share < 0.65:
        return rng.choices(_DIGITS, k=rng.randint(1, 7))
    if share < 0.75:
        return [str(rng.randrange(10)) for _ in range(rng.randint(1, 7))]
    if chinese and share < 0.9:
        return [rng.choice(_SENTENCES_ZH)]
    return rng.choice(_SENTENCES).split()


_HAS = ("Does the voice say {c}?", "Is the word {c} said?", "Do you hear the word {c}?",
        "Is {c} among the spoken words?", "Does the speaker say {c} in the {u}?")  # fmt: skip
_HAS_ZH = ("里面说到{c}了吗？", "{u}里有{c}这个词吗？", "他说了{c}吗？")
_EDGE = {
    "first": ("What is the first word?", "What does the voice say first?",
              "Which is the first digit that is spoken?", "With which word does the {u} begin?"),
    "last": ("What is the last word?", "What does the voice say last?", "Which digit comes last?",
             "With which word does the {u} end?"),
}  # fmt: skip
_EDGE_ZH = {
    "first": ("第一个词是什么？", "最先说的是什么？"),
    "last": ("最后一个词是什么？", "最后说的是什么？"),
}
_N_WORDS = ("How many words are said?", "How many words does the speaker say?",
            "How many digits are spoken?", "How many numbers are read out in the {u}?")  # fmt: skip
_N_WORDS_ZH = ("一共说了几个词？", "说了几个数字？")


def _speech(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> Read:
    words = _words(rng, chinese=chinese)
    text = " ".join(words)
    line = say_speech("audio-1", text, chinese=chinese)
    kind = rng.choices(("plain", "has", "edge", "count"), (6, 1.5, 1.5, 1))[0]
    if not words:
        kind = "plain"
    template, follows = _ask_speech(rng, kind, words, chinese=chinese)
    question = fill(rng, template, facts, ["audio-1"], known=True)
    if not words:
        return question, line, "没有人说话。" if chinese else "Nobody speaks in it."
    said = f"说的是：“{text}”" if chinese else f'It says: "{text}"'
    if follows:
        said += f"，所以{follows}" if chinese else f", so {follows}"
    return question, line, said + ("。" if chinese else ".")


def _ask_speech(
    rng: random.Random, kind: str, words: Sequence[str], *, chinese: bool
) -> tuple[str, str]:
    """A question's template, and what follows from the words; "" where nothing does."""
    if kind == "has":
        true = rng.random() < 0.5
        asked = rng.choice(words if true else _DIGITS)
        true = asked in words
        template = rng.choice(_HAS_ZH if chinese else _HAS).replace("{c}", asked)
        return template, ("是的" if true else "没有") if chinese else "yes" if true else "no"
    if kind == "edge":
        edge = rng.choice(("first", "last"))
        word = words[0 if edge == "first" else -1]
        told = "第一个" if edge == "first" else "最后一个"
        follows = f"{told}是“{word}”" if chinese else f'the {edge} is "{word}"'
        return rng.choice((_EDGE_ZH if chinese else _EDGE)[edge]), follows
    if kind == "count":
        line = say_speech("", " ".join(words), chinese=chinese)
        told = line.rsplit("（" if chinese else "(", 1)[1].rstrip("）)")
        return rng.choice(_N_WORDS_ZH if chinese else _N_WORDS), told
    return _plain_question(rng, "speech", chinese=chinese), ""


# likeness and senses


def _likeness(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> Read:
    kinds = rng.choices(("image", "image", "audio", "shape"), k=rng.choice((2, 2, 3, 4)))
    ids = [f"{kind}-{kinds[: i + 1].count(kind)}" for i, kind in enumerate(kinds)]
    if rng.random() < 0.3:
        return _pair(rng, facts, ids, chinese=chinese)
    template = draw_template(rng, "similarity_zh" if chinese else "similarity")
    question = fill(rng, template, facts, ids, known=True)
    query, *others = rng.sample(ids, len(ids))
    if rng.random() < 0.25:
        fact = rng.choice(facts)
        query, others = f'"{fact.phrase}"', ids
    scores = {id_: round(rng.uniform(-0.1, 0.99), 2) for id_ in others}
    best = max(scores, key=lambda id_: scores[id_])
    line = say_likeness(query, scores, chinese=chinese)
    best = line.rsplit("：" if chinese else ": ", 1)[1].split(" ")[0]
    score = f"{scores[best]:.2f}"
    if chinese:
        return question, line, f"和{query}最接近的是{best}（{score}）。"
    return question, line, f"The closest to {query} is {best} ({score})."


_ALIKE = ("How similar are {i} and {j}?", "Are {i} and {j} alike?", "How alike are they?",
          "Do {i} and {j} match?", "What is the similarity of {i} and {j}?", "Compare {i} and {j}.",
          "Are these two similar?", "How well do they fit together?", "Do they belong together?",
          "Is {i} like {j}?")  # fmt: skip
_ALIKE_ZH = (
    "{i}和{j}像吗？",
    "{i}和{j}有多相似？",
    "比较{i}和{j}。",
    "这两个有多像？",
    "它们相配吗？",
)


def _pair(rng: random.Random, facts: Sequence[Fact], ids: Sequence[str], *, chinese: bool) -> Read:
    first, second = ids[:2]
    template = rng.choice(_ALIKE_ZH if chinese else _ALIKE)
    question = fill(rng, template, facts, [first, second], known=True)
    score = round(rng.uniform(-0.1, 0.99), 2)
    high = score > rng.uniform(0.2, 0.7)
    line = say_pair(first, second, score, high=high, chinese=chinese)
    if chinese:
        told = f"{first}和{second}的相似度是{score:.2f}，比较{'高' if high else '低'}。"
    else:
        level = "high" if high else "low"
        told = f"The similarity of {first} and {second} is {score:.2f}, which is {level}."
    return question, line, told


def _senses(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> Read:
    template = draw_template(rng, "answer_zh" if chinese else "answer")
    question = fill(rng, template, facts, ["image-1"], known=True)
    fact = rng.choice(facts)
    if chinese:
        said = rng.choice((f"这是{fact.name_zh}。", f"我注意到{fact.name_zh}。", fact.use_zh))
    else:
        said = rng.choice(
            (f"This is {fact.phrase}.", f"I see {fact.phrase}.", f"It is {fact.phrase}.", fact.use)
        )
    return question, say_senses(said, chinese=chinese), said
