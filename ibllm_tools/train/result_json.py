"""Answers from what web APIs return: JSON objects and lists, every value repeated under its name.

```
{"price": 58, "currency": "coins"}              -> The price is 58 and the currency is coins.
[{"id": "l7", "price": 37}, {"id": "l9", ...}]  -> Found: l7 (price 37), l9 (price 58).
{"deleted": "/lamps/l7"}                        -> Done, deleted: /lamps/l7.
```
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from ibllm_tools.train.tokenizer import dump_json
from ibllm_tools.train.tool_talk import ToolChat, offer
from ibllm_tools.train.tool_wishes import any_intent
from ibllm_tools.train.tool_words import World, any_word, integer, item, latin_span

_KEYS = (
    "price", "currency", "name", "id", "amount", "total", "status", "title", "city", "time", "date",
    "count", "size", "colour", "weight", "owner", "place", "level", "unit", "stock", "code",
    "phone", "email", "street", "author", "duration_s", "distance_km", "order_id", "delivery_day",
    "user_name",
)  # fmt: skip
_ACTS = ("deleted", "ordered", "created", "updated", "added", "removed", "saved", "sent", "booked",
         "moved", "renamed", "cancelled", "paid", "started", "stopped")  # fmt: skip


def draw_json_chat(rng: random.Random) -> ToolChat:
    """A question, a call, what an API returns, and the answer that tells it."""
    world = World(rng)
    intent = any_intent(world)
    while intent.task == "form":
        intent = any_intent(world)
    value = _returned(world)
    call = {"name": intent.name, "arguments": intent.arguments}
    calls = [{"type": "function", "function": call}]
    messages = (
        {"role": "user", "content": intent.question},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": dump_json(value)},
        {"role": "assistant", "content": tell_json(value, chinese=intent.chinese)},
    )
    return ToolChat(messages, offer(world, [intent], rng.choice((1, 1, 2))))


def tell_json(value: Any, *, chinese: bool) -> str:
    """What an API returned, as a sentence."""
    if isinstance(value, list):
        return _tell_list(value, chinese=chinese)
    [(key, held)] = list(value.items())[:1]
    if key in _ACTS:
        told = _fields(held) if isinstance(held, Mapping) else _plain(held)
        return f"完成，{key}：{told}。" if chinese else f"Done, {key}: {told}."
    if chinese:
        return "，".join(f"{_words(k)}是{_plain(v)}" for k, v in value.items()) + "。"
    facts = [f"the {_words(k)} is {_plain(v)}" for k, v in value.items()]
    joined = " and ".join(filter(None, [", ".join(facts[:-1]), facts[-1]]))
    return f"{joined[0].upper()}{joined[1:]}."


def _tell_list(values: Sequence[Any], *, chinese: bool) -> str:
    if not values:
        return "没有找到。" if chinese else "Nothing was found."
    told = ", ".join(_entry(value) for value in values)
    return f"找到：{told}。" if chinese else f"Found: {told}."


def _entry(value: Any) -> str:
    if not isinstance(value, Mapping):
        return _plain(value)
    first, *rest = value.items()
    return f"{_plain(first[1])} ({_fields(dict(rest))})" if rest else _plain(first[1])


def _fields(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{_words(key)} {_plain(held)}" for key, held in value.items())


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else dump_json(value)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _returned(world: World) -> Any:
    rng = world.rng
    share = rng.random()
    if share < 0.5:
        return _object(world, rng.choice((1, 2, 2, 3, 4)))
    if share < 0.65:
        held = _object(world, rng.choice((1, 2, 3))) if rng.random() < 0.4 else _value(world)
        return {rng.choice(_ACTS): held}
    if share < 0.75:
        return [_value(world) for _ in range(rng.choice((0, 1, 2, 3, 4)))]
    keys = list(_object(world, rng.choice((1, 2, 3))))
    return [{key: _value(world) for key in keys} for _ in range(rng.choice((1, 2, 2, 3)))]


def _object(world: World, n: int) -> dict[str, Any]:
    keys = [k if world.rng.random() < 0.75 else any_word(world.rng) for k in _drawn(world, n)]
    return {key: _value(world) for key in dict.fromkeys(keys)}


def _drawn(world: World, n: int) -> list[str]:
    return world.rng.sample(_KEYS, n)


def _value(world: World) -> Any:
    rng = world.rng
    share = rng.random()
    if share < 0.35:
        return integer(world)
    if share < 0.45:
        return round(rng.uniform(0, 500), rng.choice((1, 2)))
    if share < 0.55:
        return f"{rng.choice('abcdklmnx')}{rng.randrange(1000)}"
    if share < 0.6:
        return f"/{any_word(rng)}/{rng.choice('abcl')}{rng.randrange(100)}"
    if share < 0.65:
        return rng.choice((True, False))
    return item(world, chinese=rng.random() < 0.1) if share < 0.85 else latin_span(world)
