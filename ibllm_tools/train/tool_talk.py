"""Conversations with tools: rows to train on, and held-out cases to test with.

Tools, wishes and values come from `tool_intents`. Here they become conversations: one call, two
calls at once, one after the other, an answer from the result, an error, a wish that no tool
serves, and talk that needs none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerFast

from ibllm_tools.model.tool_ranking import FITS, ToolRanker
from ibllm_tools.train.system_talk import led
from ibllm_tools.train.text_batches import Row
from ibllm_tools.train.tokenizer import dump_json, encode_messages
from ibllm_tools.train.tool_intents import Intent, Schema, draw_topic, topic_intent
from ibllm_tools.train.tool_pairs import draw_pair, pair_intent
from ibllm_tools.train.tool_plain import Turn, draw_plain_test, draw_plain_turn
from ibllm_tools.train.tool_results import draw_result
from ibllm_tools.train.tool_wishes import (
    any_intent,
    form_intent,
    lexical_intent,
    number_intent,
    record_intent,
)
from ibllm_tools.train.tool_words import World, any_word


@dataclass(frozen=True)
class ToolChat:
    """A conversation in OpenAI's form, up to and with the last answer."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[Schema, ...] = ()


@dataclass(frozen=True)
class ToolCase:
    """A held-out test case.

    Attributes:
        task: One of `TASKS`.
        tools: In OpenAI's form.
        messages: Up to where the answer begins.
        call: `{"name", "arguments"}` of the right call; None where text is right.
        text: What must stand in a text answer.
        script: Of a quoted span: latin, han or kana.
    """

    task: str
    tools: list[Schema]
    messages: list[dict[str, Any]]
    call: dict[str, Any] | None = None
    text: tuple[str, ...] = ()
    script: str = ""


TASKS = ("integer", "quoted", "place", "attachment", "plain", "result", "choose", "choose_many")

_NO_TOOL = ("I have no tool for that.", "None of my tools can do that.")
_NO_TOOL_ZH = ("我没有合适的工具。", "我的工具做不到这一点。")


def draw_tool_chats(
    rng: random.Random, count: int, plain: Sequence[Sequence[Turn]] = ()
) -> list[ToolChat]:
    """Draw training conversations.

    Args:
        rng: Random source.
        count: Rows to draw.
        plain: Conversations that need no tool; some get tools that they do not use.
    """
    world = World(rng)
    makers: tuple[tuple[float, Callable[[], ToolChat]], ...] = (
        (10.0, lambda: _call_row(world)),
        (1.0, lambda: _parallel_row(world)),
        (1.0, lambda: _sequence_row(world)),
        (3.2, lambda: _plain_row(world, plain)),
        (0.6, lambda: _unserved_row(world)),
        (0.6, lambda: _json_row(world, plain)),
    )
    weights = [w for w, _ in makers]
    return [rng.choices(makers, weights)[0][1]() for _ in range(count)]


def draw_tool_rows(
    rng: random.Random,
    tokenizer: PreTrainedTokenizerFast,
    count: int,
    plain: Sequence[Sequence[Turn]] = (),
    ranker: ToolRanker | None = None,
) -> list[Row]:
    """Draw training conversations, arranged and tokenised: see `draw_tool_chats`."""
    chats = [arrange_tools(rng, c, ranker) for c in draw_tool_chats(rng, count, plain)]
    return [Row(*encode_messages(tokenizer, c.messages, c.tools)) for c in chats]


UNRANKED, MISJUDGED, MISJUDGED_PLAIN = 0.01, 0.05, 0.02
"""Shares of rows whose tools lie in any order without marks, or have one mark that is wrong: where
a tool is called, and where none is."""


def arrange_tools(rng: random.Random, chat: ToolChat, ranker: ToolRanker | None) -> ToolChat:
    """List a conversation's tools as they are listed when its last call is made.

    A ranking errs less often on what it was trained on than on what people ask, so some rows
    are spoiled: the model shall read, too.
    """
    if ranker is None or not chat.tools or rng.random() < UNRANKED:
        return chat
    calls = [i for i, m in enumerate(chat.messages) if m.get("tool_calls")]
    asked = chat.messages[: calls[-1]] if calls else chat.messages
    tools = [dict(tool) for tool in ranker.arrange(asked, chat.tools)]
    if rng.random() < (MISJUDGED if calls else MISJUDGED_PLAIN):
        i = rng.randrange(min(2, len(tools)))
        tools[i][FITS] = not tools[i][FITS]
    return replace(chat, tools=tuple(tools))


def offer(
    world: World, wanted: Sequence[Intent], n_tools: int, *, hard: float = 0.3
) -> tuple[Schema, ...]:
    """Tools for a row: those that are wanted and others, in any order."""
    rng = world.rng
    tools = {i.name: i.tool for i in wanted}
    topics = {i.topic for i in wanted}
    for _ in range(60):
        if len(tools) >= n_tools:
            break
        other = any_intent(world)
        if rng.random() < hard:
            other = _alike(world, wanted[0]) or other
        if other.topic in topics or other.name in tools:
            continue
        topics.add(other.topic)
        tools[other.name] = other.tool
    listed = list(tools.values())
    rng.shuffle(listed)
    return tuple(listed)


def _alike(world: World, wanted: Intent) -> Intent | None:
    """A tool of the same family, so that the choice is harder."""
    if " " in wanted.topic and not wanted.topic.startswith("form"):
        return record_intent(world)
    if wanted.task == "pair":
        return pair_intent(world, draw_pair(world), chinese=wanted.chinese)
    for _ in range(12):
        other = topic_intent(world, draw_topic(world), chinese=wanted.chinese)
        if other.task == wanted.task:
            return other
    return None


def _n_tools(world: World) -> int:
    return world.rng.choices((1, 2, 3, 4, 5, 6, 8), (4, 4, 3, 2.5, 1.2, 0.8, 0.6))[0]


def _open(world: World, question: str) -> list[dict[str, Any]]:
    return led(world.rng, [{"role": "user", "content": question}])


def _says_calls(*intents: Intent) -> dict[str, Any]:
    calls = [
        {"type": "function", "function": {"name": i.name, "arguments": i.arguments}}
        for i in intents
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _call_row(world: World) -> ToolChat:
    rng = world.rng
    intent = any_intent(world)
    tools = offer(world, [intent], _n_tools(world))
    messages = _open(world, _dress(world, intent.question))
    messages.append(_says_calls(intent))
    if rng.random() < 0.55:
        result, answer, _ = draw_result(world, intent)
        messages.append({"role": "tool", "content": result})
        messages.append({"role": "assistant", "content": answer})
        if rng.random() < 0.12:
            messages.append(
                {"role": "user", "content": rng.choice(("Thanks.", "谢谢", "Thank you!"))}
            )
            messages.append({"role": "assistant", "content": rng.choice(("You are welcome.",))})
    return ToolChat(tuple(messages), tools)


def _parallel_row(world: World) -> ToolChat:
    first, second = _two(world)
    tools = offer(world, [first, second], world.rng.choice((2, 2, 3, 4)))
    joint = world.rng.choice((" Also: ", " And ", " And also, ", "\n", " "))
    messages = _open(world, first.question + joint + second.question)
    messages.append(_says_calls(first, second))
    if world.rng.random() < 0.4:
        found = [draw_result(world, i, fails=0.0) for i in (first, second)]
        messages += [{"role": "tool", "content": result} for result, _, _ in found]
        messages.append(
            {"role": "assistant", "content": " ".join(answer for _, answer, _ in found)}
        )
    return ToolChat(tuple(messages), tools)


def _sequence_row(world: World) -> ToolChat:
    first, second = _two(world)
    tools = offer(world, [first, second], world.rng.choice((2, 2, 3, 4)))
    joint = world.rng.choice((" Then ", " After that: ", " Afterwards, "))
    messages = _open(world, first.question + joint + second.question)
    answers = []
    for intent in (first, second):
        result, answer, _ = draw_result(world, intent, fails=0.0)
        answers.append(answer)
        messages += [_says_calls(intent), {"role": "tool", "content": result}]
    messages.append({"role": "assistant", "content": answers[-1]})
    return ToolChat(tuple(messages), tools)


def _two(world: World) -> tuple[Intent, Intent]:
    first = any_intent(world)
    while True:
        second = any_intent(world)
        if second.topic != first.topic and second.name != first.name:
            return first, second


def _plain_row(world: World, plain: Sequence[Sequence[Turn]]) -> ToolChat:
    rng = world.rng
    turns = [draw_plain_turn(world)]
    if plain and rng.random() < 0.75:
        turns = list(rng.choice(plain))
    helper = any_intent(world)
    tools = offer(world, [helper], _n_tools(world)) if rng.random() < 0.85 else ()
    messages = _open(world, turns[0][0])
    for index, (question, answer) in enumerate(turns):
        if index:
            messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    if tools and rng.random() < 0.25:
        messages.append({"role": "user", "content": helper.question})
        messages.append(_says_calls(helper))
    return ToolChat(tuple(messages), tools)


_JSON = (
    "Return the result as a JSON with {k} keys.", "Answer as JSON with the keys {k}.",
    "Respond only with a JSON object that has {k}.", "Give me JSON: {k}.", "Use JSON ({k}).",
    "Reply in JSON with {k} fields.", "Write one JSON object with keys {k}.",
    "请用JSON回答，键为{k}。", "返回一个包含{k}的JSON对象。",
)  # fmt: skip
_TALK_KEYS = (
    ("question", "answer"),
    ("topic", "answer"),
    ("reply", "language"),
    ("text", "mood"),
    ("request", "response"),
    ("title", "body"),
    ("first", "last"),
    ("input", "output"),
)


def _json_row(world: World, plain: Sequence[Sequence[Turn]]) -> ToolChat:
    """An answer that is JSON because the question says so, under the keys that it names."""
    rng = world.rng
    if rng.random() < 0.5:
        intent = form_intent(world)
        question, answer = intent.question, dict(intent.arguments)
    else:
        turns = list(rng.choice(plain)) if plain and rng.random() < 0.7 else []
        question, said = turns[0] if len(turns) == 1 else draw_plain_turn(world)
        keys = rng.choice(_TALK_KEYS) if rng.random() < 0.4 else (any_word(rng), any_word(rng))
        answer = dict(zip(keys, (said, rng.choice(question.split()).strip(".,?!")), strict=True))
    quote = rng.choice(("'", '"', "`"))
    named = rng.choice((" and ", ", ")).join(f"{quote}{key}{quote}" for key in answer)
    asked = f"{question} {rng.choice(_JSON).format(k=named)}"
    messages = [*_open(world, asked), {"role": "assistant", "content": dump_json(answer)}]
    return ToolChat(tuple(messages))


def _unserved_row(world: World) -> ToolChat:
    rng = world.rng
    intent = any_intent(world)
    tools = [
        t for t in offer(world, [intent], rng.choice((2, 3, 4)), hard=0.0) if t is not intent.tool
    ]
    messages = _open(world, intent.question)
    answer = rng.choice(_NO_TOOL_ZH if intent.chinese else _NO_TOOL)
    messages.append({"role": "assistant", "content": answer})
    return ToolChat(tuple(messages), tuple(tools))


_LEADS = (
    "Please help me. ", "Hi! ", "OK, next. ", "I have a question. ", "Quick one: ", "你好，",
    "Hello, ", "Excuse me. ", "One more thing: ", "And now: ", "My boss asks: ",
    "I am in a hurry. ",
    "For my trip: ", "Just curious. ", "Sorry to disturb you. ", "请问，", "另外，", "对了，",
)  # fmt: skip
_TAILS = (
    " Thanks!", " Use the tool.", " Please.", " Use a tool if needed.", " It is urgent.",
    " I need it today.", " My friend wants to know.", " Be quick.", " Thank you.", " If you can.",
    " That is all.", " I am waiting.", " Do not guess.", "谢谢！", "请快一点。", "麻烦你了。",
)  # fmt: skip


def _dress(world: World, question: str) -> str:
    """Sometimes say more than the wish."""
    rng = world.rng
    share = rng.random()
    if world.test or share < 0.7 or "[" in question:
        return question
    return rng.choice(_LEADS) + question if share < 0.85 else question + rng.choice(_TAILS)


def test_cases(task: str, n: int, seed: int) -> list[ToolCase]:
    """Draw held-out cases of a task: words, values, wording and names are of the test side."""
    rng = random.Random(f"{task}/{seed}")  # noqa: S311
    world = World(rng, test=True)
    return [_CASES[task](world, task) for _ in range(n)]


test_cases.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


def _case(world: World, task: str, intent: Intent, n_tools: int, **more: Any) -> ToolCase:
    tools = list(offer(world, [intent], n_tools))
    messages = _open(world, intent.question)
    call = {"name": intent.name, "arguments": intent.arguments}
    return ToolCase(task, tools, messages, call, script=intent.script, **more)


def _copy_case(world: World, task: str) -> ToolCase:
    wanted = {"place": ("place", "item")}.get(task, (task,))
    while True:
        intent = any_intent(world)
        if task == "integer" and world.rng.random() < 0.5:
            intent = number_intent(world)
        if intent.task in wanted and (task != "quoted" or len(intent.arguments) == 1):
            return _case(world, task, intent, world.rng.choice((1, 1, 1, 2, 2)))


def _choose_case(world: World, task: str) -> ToolCase:
    low, high = (2, 4) if task == "choose" else (5, 8)
    rng = world.rng
    makers = (
        lambda: topic_intent(world, draw_topic(world), chinese=rng.random() < 0.25),
        lambda: record_intent(world),
        lambda: lexical_intent(world),
    )
    intent = rng.choices(makers, (6, 2, 2))[0]()
    return _case(world, task, intent, rng.randint(low, high))


def _plain_case(world: World, task: str) -> ToolCase:
    tools = list(offer(world, [any_intent(world)], world.rng.choice((1, 2, 3, 4))))
    return ToolCase(task, tools, _open(world, draw_plain_test(world)))


def _result_case(world: World, task: str) -> ToolCase:
    intent = any_intent(world)
    while intent.task == "form":
        intent = any_intent(world)
    case = _case(world, task, intent, world.rng.choice((1, 2, 3)))
    result, _, held = draw_result(world, intent)
    messages = [*case.messages, _says_calls(intent), {"role": "tool", "content": result}]
    return ToolCase(task, case.tools, messages, None, held)


_CASES: dict[str, Callable[[World, str], ToolCase]] = {
    "integer": _copy_case, "quoted": _copy_case, "place": _copy_case, "attachment": _copy_case,
    "plain": _plain_case, "result": _result_case, "choose": _choose_case,
    "choose_many": _choose_case,
}  # fmt: skip
