"""Rows that teach answers from what the toolkit's tools and `modality_experts` find.

Texts of tools are those of `ibllm_tools.routing.tool_texts`, word for word; every line that can be
repeated becomes a sentence, in the router's words. A brain with senses is offered a tool until it
has called it (`toolkit.advising`), so that the prompt of an answer lists no tools; of a row only
its last message is learned.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerFast

from ibllm_tools.model.tool_ranking import ToolRanker
from ibllm_tools.routing import (
    answer_messages,
    is_chinese,
    kind_of_id,
    say_likeness,
    say_objects,
    say_senses,
    say_speech,
)
from ibllm_tools.routing.tool_texts import video_text
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.result_json import draw_json_chat
from ibllm_tools.train.result_texts import ENDINGS, Tooled, draw_file, tool_text
from ibllm_tools.train.route_results import (
    Read,
    _likeness,
    _objects,
    _scene,
    _speech,
    _words,
    tell_objects,
    tell_speech,
)
from ibllm_tools.train.route_words import join, put
from ibllm_tools.train.talk import Scene, happening_turn, what_turn
from ibllm_tools.train.text_batches import Row
from ibllm_tools.train.tokenizer import encode_messages
from ibllm_tools.train.tool_intents import Schema, make_tool
from ibllm_tools.train.tool_talk import ToolChat, arrange_tools
from ibllm_tools.train.tool_words import World, any_word, latin_span

CHINESE_SHARE = 0.36
SHOWN = 0.8
"""Share of answers to tools' results that are given while media are sensed."""
_HAPPENS = (
    "What is happening?", "What happens here?", "What happens in the video?",
    "Tell me what happens.",
    "What is going on?", "What is in the video?", "Describe the video.", "Look through the video.",
    "What can be seen and heard?", "What do you see and hear?", "What does the clip show?",
    "Sum up this video.", "Explain the scene.", "What is this video about?", "Report everything.",
)  # fmt: skip
_HAPPENS_ZH = (
    "发生了什么？", "视频里有什么？", "视频里发生了什么？", "描述一下这个视频。",
    "你看到和听到了什么？", "这段视频讲的是什么？", "总结一下这段视频。",
    "说说发生的事。", "画面和声音里有什么？",
)  # fmt: skip
_RUNS = (
    "{A} is running.", "{A} is here.", "{A} can be seen and heard.", "The video shows {a}.",
    "I see and hear {a}.", "There is {a} in the clip.", "{A} is moving.",
)  # fmt: skip
_RUNS_ZH = ("视频里是{z}。", "我看到也听到{z}。", "这里有{z}。", "{z}在动。")
_SORRY, _SORRY_ZH = "Sorry, that did not work: {e}.", "抱歉，这次没有成功。"
_TOOLS = {"detect_objects": "image", "transcribe_speech": "audio", "find_similar": "query"}


def draw_result_chats(rng: random.Random, facts: Sequence[Fact], count: int) -> list[ToolChat]:
    """Draw training conversations whose last message words what tools or experts found.

    Args:
        rng: Random source.
        facts: Concepts that questions name.
        count: Rows to draw.
    """
    makers: dict[Callable[..., ToolChat], float] = {
        _one_tool: 6, _two_tools: 1.6, _experts: 2.4, _ranked: 0.7, _failed: 0.9, _video: 0.5,
        _repeated: 0.5, _collection: 0.4, _returned: 2.2,
    }  # fmt: skip
    drawn = rng.choices(list(makers), list(makers.values()), k=count)
    return [maker(rng, facts, chinese=rng.random() < CHINESE_SHARE) for maker in drawn]


def encode_results(tokenizer: PreTrainedTokenizerFast, chats: Sequence[ToolChat]) -> list[Row]:
    """Tokenise conversations of which only the last message is learned."""
    rows = []
    for chat in chats:
        ids, learned = encode_messages(tokenizer, chat.messages, chat.tools)
        start = len(encode_messages(tokenizer, chat.messages[:-1], chat.tools)[0])
        rows.append(Row(ids, [False] * start + learned[start:]))
    return rows


def result_rows(
    rng: random.Random,
    tokenizer: PreTrainedTokenizerFast,
    facts: Sequence[Fact],
    count: int,
    concepts: Sequence[int] = (),
    ranker: ToolRanker | None = None,
) -> list[Row]:
    """Draw training conversations, arranged and tokenised: see `draw_result_chats`.

    Args:
        rng: Random source.
        tokenizer: Of the language model.
        facts: All facts, by concept id.
        count: Rows to draw.
        concepts: Concepts that can be shown; where there are any, most answers to tools' results
            are given while some media are sensed, as in a dialog.
        ranker: Arranges the tools of rows that list some.
    """
    chats = [arrange_tools(rng, c, ranker) for c in draw_result_chats(rng, facts, count)]
    rows = encode_results(tokenizer, chats)
    for i, chat in enumerate(chats):
        by_tools = any(message["role"] == "tool" for message in chat.messages)
        if concepts and by_tools and rng.random() < SHOWN:
            shown = rng.choice(concepts) if rng.random() < 0.9 else -1
            rows[i] = replace(rows[i], shown=(shown, -1), has_media=True)
    return rows


# tools


def _one_tool(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> ToolChat:
    """One tool's result, and the answer from it."""
    read, name = _draw_part(rng, facts, chinese=chinese)
    question = put(rng, read.question, chinese=chinese)
    line, answer = read.told(question)
    used = tool_text(rng, name, line)
    return _chat(rng, facts, question, [used], answer)


def _two_tools(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> ToolChat:
    """Two tools, one after the other: a call, or the answer from both results."""
    (first, name), (second, other) = (_draw_part(rng, facts, chinese=chinese) for _ in range(2))
    while other == name:
        second, other = _draw_part(rng, facts, chinese=chinese)
    question = put(rng, join(rng, first.question, second.question, chinese=chinese),
                   chinese=chinese)  # fmt: skip
    told = [part.told(question) for part in (first, second)]
    used = [tool_text(rng, n, line) for n, (line, _) in zip((name, other), told, strict=True)]
    chat = _chat(rng, facts, question, used, ("" if chinese else " ").join(a for _, a in told))
    tools = [_narrowed(n, given) for n, given, _ in used]
    share = rng.random()
    if share < 0.2:
        return ToolChat(chat.messages[:-4], tuple(rng.sample(tools, 2)))
    return ToolChat(chat.messages[:-2], (tools[1],)) if share < 0.45 else chat


def _draw_part(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> tuple[Read, str]:
    makers = {_objects: "detect_objects", _speech: "transcribe_speech", _likeness: "find_similar"}
    maker = rng.choices(list(makers), (5, 3, 2))[0]
    while True:  # the tool takes no videos
        read = maker(rng, facts, chinese=chinese)
        if maker is not _objects or "video-" not in read.told(read.question)[0]:
            return read, makers[maker]


def _ranked(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> ToolChat:
    """How alike two attachments are, read from a list of more."""
    ids = [f"image-{i}" for i in range(1, 4)] + [f"audio-{i}" for i in range(1, 3)]
    query, *others = rng.sample(ids, rng.choice((3, 4, 5)))
    scores = {id_: round(rng.uniform(-0.1, 0.99), 2) for id_ in others}
    asked = rng.choice(others)
    if chinese:
        forms = ("{i}和{j}像吗？", "{i}和{j}有多相似？", "{i}跟{j}的相似度是多少？")
        answer = f"{query}和{asked}的相似度是{scores[asked]:.2f}。"
    else:
        forms = (
            "How similar are {i} and {j}?",
            "How much is {j} like {i}?",
            "Compare {i} and {j}.",
        )
        answer = f"The similarity of {query} and {asked} is {scores[asked]:.2f}."
    question = put(rng, rng.choice(forms).format(i=query, j=asked), chinese=chinese)
    line = say_likeness(query, scores, chinese=chinese)
    return _chat(rng, facts, question, [tool_text(rng, "find_similar", line)], answer)


def _failed(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> ToolChat:
    """A tool that cannot, and an apology."""
    read, name = _draw_part(rng, facts, chinese=chinese)
    question = put(rng, read.question, chinese=chinese)
    line, _ = read.told(question)
    id_ = (re.findall(r"[a-z]+-\d+", line) or ["image-1"])[0]
    held = f"{id_} ({draw_file(rng, id_)})"
    problem, rest = rng.choice(
        (
            (f"there is no attachment {id_}", f"use one of these ids: {held}"),
            ("shape-1 is of modality shape", f"this tool takes {kind_of_id(id_)}"),
            ("there is no other attachment to compare with", "ask the user to attach one"),
            ("this conversation has no attachments", "ask the user to attach one"),
            (f"the file of {id_} is damaged", "attach it again"),
            (latin_span(World(rng)).lower(), "try again later"),
        )
    )
    used = name, id_, f"Error: {problem}; {rest}"
    answer = _SORRY_ZH if chinese else _SORRY.format(e=problem)
    return _chat(rng, facts, question, [used], answer)


def _video(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> ToolChat:
    """`analyze_video`: what was perceived and what is said."""
    question, perceived = _happening(rng, facts, chinese=chinese)
    words = " ".join(_words(rng, facts, chinese=chinese))
    things = rng.sample([fact.name for fact in facts], min(2, len(facts)))
    seen = [{"start_s": s, "objects": {rng.choice(things): rng.randint(1, 3)}} for s in range(3)]
    found = {"seen": seen, "transcript": {"is_speech": bool(words), "text": words}}
    id_ = f"video-{rng.choice((1, 1, 2, 3))}"
    text = video_text(id_, rng.uniform(0.5, 90), perceived, found)
    said = tell_speech(say_speech(id_, words, chinese=chinese), chinese=chinese)
    answer = ("" if chinese else " ").join([perceived, said] if words else [perceived])
    return _chat(rng, facts, question, [("analyze_video", id_, text)], answer)


def _repeated(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> ToolChat:
    """`perceive`: its answer is the answer."""
    question, perceived = _happening(rng, facts, chinese=chinese)
    id_ = f"{rng.choice(('image', 'audio', 'video', 'shape'))}-{rng.randint(1, 4)}"
    return _chat(rng, facts, question, [("perceive", id_, perceived)], perceived)


def _collection(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> ToolChat:
    """`find_similar` in a collection: the first is the best."""
    some = rng.sample(list(facts), min(len(facts), rng.randint(1, 4)))
    scores = sorted((rng.uniform(0, 0.99) for _ in some), reverse=True)
    texts = [f.name_zh if chinese else rng.choice((f.phrase, f.use, f.name)) for f in some]
    lines = [
        f"{score:.2f} {text} (id {any_word(rng)})"
        for score, text in zip(scores, texts, strict=True)
    ]
    best = f"{scores[0]:.2f}"
    if chinese:
        question = rng.choice(("收藏里哪个最像{i}？", "找和{i}最像的。", "搜一下像{i}的东西。"))
        answer = f"最接近的是“{texts[0]}”（{best}）。"
    else:
        question = rng.choice(
            ("What in the collection is like {i}?", "Search for things like {i}.",
             "Find what fits {i} best.", "Which entry is closest to {i}?")
        )  # fmt: skip
        answer = f'The best match is "{texts[0]}" ({best}).'
    used = "find_similar", "image-1", "\n".join(lines)
    asked = put(rng, question.format(i="image-1"), chinese=chinese)
    return _chat(rng, facts, asked, [used], answer)


def _returned(
    rng: random.Random,
    facts: Sequence[Fact],  # noqa: ARG001 - as of the other makers
    *,
    chinese: bool,  # noqa: ARG001
) -> ToolChat:
    """What a web API returns; see `result_json`."""
    return draw_json_chat(rng)


# experts


def _experts(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> ToolChat:
    """`modality_experts`: a question about everything, and all that was found."""
    question, perceived = _happening(rng, facts, chinese=chinese)
    id_ = rng.choice(("video-1", "video-1", "video-1", "image-1", "video-2"))
    lines, answers = [say_senses(perceived, chinese=chinese)], [perceived]
    if scene := _scene(rng, facts, (), chinese=chinese):
        lines.append(say_objects(id_, scene, chinese=chinese))
        answers.append(tell_objects(lines[-1], chinese=chinese))
    words = " ".join(_words(rng, facts, chinese=chinese)) if rng.random() < 0.5 else ""
    if words:
        sound = id_ if id_.startswith("video") else "audio-1"
        lines.append(say_speech(sound, words, chinese=chinese))
        answers.append(tell_speech(lines[-1], chinese=chinese))
    said = ("" if chinese else " ").join(answers)
    return ToolChat((*answer_messages(question, lines), {"role": "assistant", "content": said}))


def _happening(rng: random.Random, facts: Sequence[Fact], *, chinese: bool) -> tuple[str, str]:
    """A question about everything, and what pocket perceives."""
    scene = Scene(tuple(rng.sample(list(facts), min(len(facts), rng.choice((0, 1, 1, 1, 1, 2))))))
    question, perceived = rng.choice((what_turn, happening_turn))(rng, scene, chinese)
    if rng.random() < 0.6:
        question = put(rng, rng.choice(_HAPPENS_ZH if chinese else _HAPPENS), chinese=chinese)
        if scene.facts and rng.random() < 0.5:
            fact = scene.facts[0]
            phrase = fact.phrase[:1].upper() + fact.phrase[1:]
            form = rng.choice(_RUNS_ZH if chinese else _RUNS)
            perceived = form.format(a=fact.phrase, A=phrase, z=fact.name_zh)
    return question, perceived


# conversations


def _chat(
    rng: random.Random,
    facts: Sequence[Fact],
    question: str,
    used: Sequence[Tooled],
    answer: str,
) -> ToolChat:
    """A question with its attachments, calls with their results, and the answer."""
    named = re.findall(r"[a-z]+-\d+", " ".join([question, *(given for _, given, _ in used)]))
    ids = list(dict.fromkeys(i for i in named if kind_of_id(i) in ENDINGS))
    tags = [f"[{id_}: {draw_file(rng, id_)}]" for id_ in ids]
    messages: list[dict[str, Any]] = []
    if tags and rng.random() < 0.25:  # they came with an earlier turn
        before, said = _happening(rng, facts, chinese=is_chinese(question))
        messages = _said(" ".join([before, *tags]), said)
        tags = []
    messages.append({"role": "user", "content": " ".join([question, *tags])})
    for name, given, result in used:
        call = {"name": name, "arguments": _arguments(name, given, question)}
        calls = [{"type": "function", "function": call}]
        messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        messages.append({"role": "tool", "content": result})
    return ToolChat((*messages, {"role": "assistant", "content": answer}))


def _said(question: str, answer: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


def _arguments(name: str, given: str, question: str) -> dict[str, Any]:
    if name == "perceive":
        return {"question": question, "attachments": [given]}
    return {_TOOLS.get(name, "video"): given}


def _narrowed(name: str, given: str) -> Schema:
    """A tool as a brain with senses is offered it: what a call must have, ids as a choice."""
    field = _TOOLS[name]
    schema: Schema = {"type": "string", "description": "id of an attachment, such as image-1"}
    if field != "query":
        schema["enum"] = [given]
    return make_tool(name, _ABOUT[name], {field: schema})


_ABOUT = {
    "detect_objects": "Find objects in an image: how many of what there are, and where.",
    "transcribe_speech": "Write down the words that people say in a recording.",
    "find_similar": "Find which other attachments are most like one of them, or fit some words.",
}
