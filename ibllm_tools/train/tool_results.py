"""What made-up tools answer, and how the assistant tells it."""

from __future__ import annotations

from typing import Any

from ibllm_tools.train.tokenizer import dump_json
from ibllm_tools.train.tool_intents import Intent
from ibllm_tools.train.tool_words import World, any_word, integer, item, latin_span

_ERRORS = (
    "connection timed out", "not found", "permission denied", "service unavailable",
    "invalid input", "no such entry", "rate limit exceeded", "unknown location", "out of memory",
)  # fmt: skip


def draw_result(
    world: World, intent: Intent, fails: float = 0.12
) -> tuple[str, str, tuple[str, ...]]:
    """A tool's result, the answer that uses it, and what the answer must hold."""
    rng = world.rng
    if rng.random() < fails:
        problem = rng.choice(_ERRORS) if rng.random() < 0.6 else latin_span(world).lower()
        shown = rng.choice(("Error: {e}", '{{"error": "{e}"}}', "ERROR {e}", "failed: {e}")).format(
            e=problem
        )
        said = f"工具出错了：{problem}。" if intent.chinese else f"The tool failed: {problem}."
        return shown, said, (problem,)
    value = _result_value(world)
    form = rng.random()
    if form < 0.15:
        return _sentence(world, intent, value)
    if form < 0.45:
        return value, _tell(intent, value), (value,)
    if form < 0.7:
        key = rng.choice((intent.thing.replace(" ", "_"), "result", "value", "output"))
        held: Any = int(value) if value.lstrip("-").isdigit() else value
        return dump_json({key: held}), _tell(intent, value), (value,)
    if form < 0.85:
        return _two_fields(world, intent, value)
    sentence = rng.choice(("It is {v}.", "Done: {v}", "OK, {v}", "found {v}", "{v} (updated)"))
    return sentence.format(v=value), _tell(intent, value), (value,)


_SENTENCES = (
    "The {w} costs {v} coins.", "{v} is in the {w}.", "There are {v} of the {w}.", "{w}: {v}",
    "The {t} of the {w} is {v}.", "The {w} is called {v}.", "We found {v} near the {w}.",
    "The {w} has {v}, as of today.", "Your {t}: {v} ({w})", "Yes, the {w} says {v}.",
)  # fmt: skip
_SENTENCES_ZH = ("{w}的{t}是{v}。", "{w}里有{v}。", "{w}叫{v}。", "找到{w}：{v}。")


def _sentence(world: World, intent: Intent, value: str) -> tuple[str, str, tuple[str, ...]]:
    """A result that is a sentence; the answer repeats it."""
    word = item(world, chinese=intent.chinese)
    frame = world.rng.choice(_SENTENCES_ZH if intent.chinese else _SENTENCES)
    text = frame.format(w=word, v=value, t=intent.thing)
    return text, text, (value,)


def _tell(intent: Intent, value: str) -> str:
    if intent.chinese:
        return f"{intent.thing}是{value}。"
    return f"The {intent.thing} is {value}."


def _two_fields(world: World, intent: Intent, value: str) -> tuple[str, str, tuple[str, ...]]:
    key, more = world.make(any_word), _result_value(world)
    result = dump_json({intent.thing.replace(" ", "_"): value, key: more})
    if intent.chinese:
        return result, f"{intent.thing}是{value}，{key}是{more}。", (value, more)
    return result, f"The {intent.thing} is {value} and the {key} is {more}.", (value, more)


def _result_value(world: World) -> str:
    rng = world.rng
    kind = rng.random()
    if kind < 0.35:
        return str(integer(world))
    if kind < 0.45:
        return f"{abs(integer(world)) % 1000}.{rng.randrange(100)}"
    if kind < 0.55:
        amount = abs(integer(world)) % 500
        return f"{amount} {rng.choice(('degrees', 'km', 'kg', 'EUR', 'minutes', '%'))}"
    if kind < 0.65:
        return f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"
    if kind < 0.72:
        return item(world, chinese=True)
    return latin_span(world)
