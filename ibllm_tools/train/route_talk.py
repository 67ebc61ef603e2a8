"""Rows that teach routing: which experts a question needs, and an answer from their results.

The prompts are those of `ibllm_tools.routing`, word for word; the router's turn has no media.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from ibllm_tools.routing import (
    EXPERTS,
    Route,
    router_messages,
)
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.route_plain import CHINESE_SHARE, draw_plain
from ibllm_tools.train.route_results import draw_read
from ibllm_tools.train.route_words import (
    draw_ids,
    draw_template,
    fill,
    join,
    phrases,
    put,
    several_lists,
)
from ibllm_tools.train.text_batches import Row
from ibllm_tools.train.tokenizer import encode_messages
from ibllm_tools.train.tool_intents import Schema
from ibllm_tools.train.tool_talk import ToolChat

_SHARES = {"answer": 1.2, "detector": 1.0, "speech": 1.0, "similarity": 1.0, "none": 1.7}
_SEVERAL = 0.28
_READ = 0.42
_PLAIN = 0.1
_ALWAYS = {"detector": ("image",), "speech": ("audio",)}
_OTHERS = ("image", "image", "image", "audio", "audio", "video", "shape", "depth", "thermal")


def route_tool() -> Schema:
    """The schema of a route as the chat model shows it: a tool whose call is forced."""
    schema = Route.model_json_schema()
    fields = {
        key: {k: v for k, v in field.items() if k != "title"}
        for key, field in schema["properties"].items()
    }
    parameters = {"properties": fields, "required": schema["required"]}
    name, told = schema["title"], schema["description"]
    function = {"name": name, "parameters": {"type": "object", **parameters}, "description": told}
    return {"type": "function", "function": function}


def draw_route_chats(rng: random.Random, facts: Sequence[Fact], count: int) -> list[ToolChat]:
    """Draw training conversations of the router and of the answers from experts' results.

    Args:
        rng: Random source.
        facts: Concepts that questions name.
        count: Rows to draw.
    """
    tool = route_tool()
    chats = []
    for _ in range(count):
        share = rng.random()
        if share < _READ:
            chats.append(draw_read(rng, facts))
        elif share < _READ + _PLAIN:
            chats.append(draw_plain(rng, facts))
        else:
            chats.append(_routed(rng, facts, tool))
    return chats


def route_rows(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, facts: Sequence[Fact], count: int
) -> list[Row]:
    """Draw training conversations, tokenised: see `draw_route_chats`."""
    chats = draw_route_chats(rng, facts, count)
    return [Row(*encode_messages(tokenizer, c.messages, c.tools)) for c in chats]


def _routed(rng: random.Random, facts: Sequence[Fact], tool: Schema) -> ToolChat:
    chinese = rng.random() < CHINESE_SHARE
    question, experts, ids = draw_routed(rng, facts, chinese=chinese)
    call = {"name": tool["function"]["name"], "arguments": {"experts": experts}}
    said = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": call}],
    }
    return ToolChat((*router_messages(question, ids), said), (tool,))


def draw_routed(
    rng: random.Random, facts: Sequence[Fact], *, chinese: bool
) -> tuple[str, list[str], list[str]]:
    """Draw a question, the experts that it needs, and the ids of the attachments."""
    if rng.random() < _SEVERAL:
        return _several(rng, facts, chinese=chinese)
    route = rng.choices(list(_SHARES), list(_SHARES.values()))[0]
    template = draw_template(rng, f"{route}_zh" if chinese else route)
    ids = draw_held(rng, [route], template)
    return put(rng, fill(rng, template, facts, ids), chinese=chinese), [route], ids


def _several(
    rng: random.Random, facts: Sequence[Fact], *, chinese: bool
) -> tuple[str, list[str], list[str]]:
    lists = several_lists(chinese=chinese)
    if rng.random() < 0.3:
        name = rng.choices(lists, [len(phrases(name)) for name in lists])[0]
        experts, template = name.removesuffix("_zh").split("+"), draw_template(rng, name)
        ids = draw_held(rng, experts, template)
        question = fill(rng, template, facts, ids)
    else:
        experts = rng.sample(list(_SHARES)[:4], 2)
        templates = [draw_template(rng, f"{e}_zh" if chinese else e) for e in experts]
        ids = draw_held(rng, experts, " ".join(templates))
        first, second = (fill(rng, template, facts, ids) for template in templates)
        question = join(rng, first, second, chinese=chinese)
    experts = [expert for expert in EXPERTS if expert in experts]
    return put(rng, question, chinese=chinese), experts, ids


def draw_held(rng: random.Random, experts: Sequence[str], template: str) -> list[str]:
    """Draw ids of attachments that the experts and the template can be about."""
    kinds = [kind for expert in experts for kind in _ALWAYS.get(expert, ())]
    if "{v}" in template:
        kinds = ["video"]
    if "{m}" in template and not {"image", "video"} & set(kinds):
        kinds.append("image")
    if "{u}" in template and not {"audio", "video"} & set(kinds):
        kinds.append("audio")
    if not kinds or rng.random() < 0.25:
        kinds.append(rng.choice(_OTHERS))
    least = 3 if "{k}" in template else 2 if "similarity" in experts or "{j}" in template else 1
    return draw_ids(rng, list(dict.fromkeys(kinds)), least)
