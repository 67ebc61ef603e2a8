"""Stages 1 and 2: the language model learns to speak about what it is shown.

Stage 1 trains the bind network, the gates and the prefix queries; the language model stays
frozen. Stage 2 adds low-rank products, biases and norms, and rows without any media, so that
nothing is forgotten. Both see photo features and text only; no sound, shape or depth map comes
near the language model.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ibllm_tools.model import ImageBindLLM
from ibllm_tools.model.prompts import NOTE
from ibllm_tools.model.tool_ranking import ToolRanker
from ibllm_tools.train.contrastive import fast_cpu
from ibllm_tools.train.drills import draw_drill_rows
from ibllm_tools.train.features import FeatureSource, faint
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.language import (
    CHOICE_WEIGHT,
    FIRST_WEIGHT,
    ROUTE_WEIGHT,
    encode_routes,
    is_allowed,
    pick_instructions,
)
from ibllm_tools.train.loop import Run, Schedule, run_stage
from ibllm_tools.train.notes import KEPT, encode_noted, noted_messages
from ibllm_tools.train.result_talk import result_rows
from ibllm_tools.train.route_talk import draw_route_chats
from ibllm_tools.train.system_talk import led
from ibllm_tools.train.talk import (
    CHINESE_SHARE,
    Scene,
    blind_talk,
    exists_pair,
    knowledge_talk,
    talk,
)
from ibllm_tools.train.text_batches import Batch, Row, make_batches, weighted_loss
from ibllm_tools.train.tokenizer import (
    NAME_OPENS,
    dump_json,
    encode_chat,
    encode_messages,
    encode_text,
)
from ibllm_tools.train.tool_seen import seen_chat
from ibllm_tools.train.tool_talk import arrange_tools, draw_tool_rows

BATCH_TOKENS = 1920
N_SHOWN = {"one": 0.46, "faint": 0.05, "two": 0.33, "unknown": 0.16}
"""Shares of rows that show one thing, one and a faint second, two, or nothing known."""
PAIRED = 0.25
"""Share of rows that ask the same yes/no question as another row and get the other answer."""

CALLED = 0.06
"""Share of rows that call a tool with what the media show."""


def draw_shown_rows(
    rng: random.Random,
    facts: Sequence[Fact],
    concepts: Sequence[int],
    tokenizer: PreTrainedTokenizerFast,
    count: int,
    ranker: ToolRanker | None = None,
) -> list[Row]:
    """Conversations about media: one thing, two things, or nothing known.

    Args:
        rng: Random source.
        facts: All facts, by concept id.
        concepts: Concepts that can be shown.
        tokenizer: Of the language model.
        count: Rows to draw.
        ranker: Arranges the tools of rows that call one.
    """
    rows: list[Row] = []
    while len(concepts) > 3 and len(rows) < PAIRED * count:
        rows += _draw_paired_rows(rng, facts, concepts, tokenizer)
    while len(rows) < (PAIRED + CALLED) * count:
        concept = rng.choice(concepts) if rng.random() < 0.93 else -1
        chat = seen_chat(rng, facts[concept] if concept >= 0 else None)
        chat = arrange_tools(rng, chat, ranker)
        ids, learned = encode_messages(tokenizer, chat.messages, chat.tools)
        rows.append(Row(ids, learned, (concept, -1), has_media=True))
    while len(rows) < count:
        shown, named = _draw_shown(rng, concepts)
        scene = Scene(tuple(facts[c] for c in named))
        ids, learned = encode_noted(rng, tokenizer, talk(rng, scene, facts), scene.facts, facts)
        rows.append(Row(ids, learned, shown, has_media=True))
    return rows


def _draw_paired_rows(
    rng: random.Random,
    facts: Sequence[Fact],
    concepts: Sequence[int],
    tokenizer: PreTrainedTokenizerFast,
) -> list[Row]:
    """Ask about one thing where it is and where something else is; sometimes beside a third."""
    asked, other, third = rng.sample(list(concepts), 3)
    alike = [c for c in concepts if c != asked and facts[c].kind == facts[asked].kind]
    if alike and rng.random() < 0.5:
        other = rng.choice(alike)
    mixed = rng.random() < 0.2 and third != other
    scenes = [rng.sample([c, third], 2) if mixed else [c] for c in (asked, other)]
    chinese = rng.random() < CHINESE_SHARE
    there, absent = ([facts[c] for c in scene] for scene in scenes)
    turns = exists_pair(rng, there, absent, facts[asked], chinese)
    rows = []
    for scene, turn in zip(scenes, turns, strict=True):
        ids, learned = encode_noted(rng, tokenizer, [turn], [facts[c] for c in scene], facts)
        shown = (scene[0], scene[1] if mixed else -1)
        rows.append(Row(ids, learned, shown, has_media=True))
    return rows


def draw_changing_rows(
    rng: random.Random,
    facts: Sequence[Fact],
    concepts: Sequence[int],
    tokenizer: PreTrainedTokenizerFast,
    count: int,
) -> list[Row]:
    """Conversations in which a later turn brings other media, which it is about.

    Arguments as of `draw_shown_rows`.
    """
    rows = []
    for _ in range(count):
        (shown, named), (later, renamed) = (_draw_shown(rng, concepts) for _ in range(2))
        before, after = (
            noted_messages(talk(rng, scene, facts)[:2], scene.facts, facts)
            for scene in (Scene(tuple(facts[c] for c in found)) for found in (named, renamed))
        )
        before = led(rng, before)
        if rng.random() > KEPT:  # a reader who dropped the notes
            before = [{k: v for k, v in m.items() if k != "reasoning_content"} for m in before]
        start = len(encode_messages(tokenizer, before)[0])
        ids, learned = encode_messages(tokenizer, [*before, *after])
        rows.append(Row(ids, learned, shown, has_media=True, later=later, later_from=start))
    return rows


def _draw_shown(
    rng: random.Random, concepts: Sequence[int]
) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Draw what the feature source shall show, and which of it can be named."""
    case = rng.choices(list(N_SHOWN), list(N_SHOWN.values()))[0]
    if case == "unknown":
        return (-1, -1), ()
    if case == "one" or len(concepts) < 2:
        concept = rng.choice(concepts)
        return (concept, -1), (concept,)
    first, second = rng.sample(list(concepts), 2)
    if case == "faint":
        return (first, faint(second)), (first,)
    return (first, second), (first, second)


def draw_bare_rows(
    rng: random.Random,
    facts: Sequence[Fact],
    text: Sequence[dict[str, str]],
    tokenizer: PreTrainedTokenizerFast,
    count: int,
    ranker: ToolRanker | None = None,
    concepts: Sequence[int] = (),
) -> list[Row]:
    """Conversations whose text says all: tools, results, routes, facts, instructions.

    Arguments as of `draw_shown_rows`; some answers from results are given beside media.
    """
    chats = [knowledge_talk(rng, facts) for _ in range(count // 5)]
    chats += [blind_talk(rng, facts) for _ in range(count // 12)]
    chats += pick_instructions(rng, text, count // 12)
    rows = [Row(*encode_chat(tokenizer, turns)) for turns in chats]
    n_drills, n_routes = count // 12, count // 5
    routes = [
        arrange_tools(rng, c, ranker)
        for c in draw_route_chats(rng, facts, n_routes)
        if is_allowed(dump_json(c.messages))
    ]
    rows += encode_routes(tokenizer, routes)
    rows += result_rows(rng, tokenizer, facts, count // 10, concepts, ranker)
    n_tools = max(0, count - len(rows) - n_drills)
    rows += draw_tool_rows(rng, tokenizer, n_tools, chats, ranker)
    return rows + draw_drill_rows(rng, tokenizer, n_drills)


def batch_loss(
    model: ImageBindLLM,
    source: FeatureSource,
    batch: Batch,
    rng: random.Random,
    heavy: Mapping[int, float],
    pad: int,
    note: tuple[int, float] | None = None,
    quote: tuple[int, float] | None = None,
) -> Tensor:
    """Compute the loss of one batch with freshly drawn features; see `weighted_loss`."""
    given = {"features": source.draw(batch.shown, rng), "has_media": batch.has_media}
    if (batch.later_from > 0).any():
        later = source.draw(batch.later, rng)
        given = {
            "features": torch.stack([given["features"], later], 1),
            "has_media": torch.stack([batch.has_media, batch.later_from > 0], 1),
            "media_index": batch.media_index,
        }
    with fast_cpu():
        logits = model(input_ids=batch.ids, use_cache=False, **given).logits
    return weighted_loss(logits, batch, heavy, pad, note=note, quote=quote)


def tune(
    run: Run,
    stage: str,
    schedule: Schedule,
    model: ImageBindLLM,
    source: FeatureSource,
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Train one stage of the language model's senses; resumes after a kill.

    Args:
        run: Seed, folder and log.
        stage: `bind` trains bind network, gates and queries. `instruct` trains these and the
            language model's low-rank products, biases and norms.
        schedule: Steps and rates.
        model: The model; its language model is otherwise frozen.
        source: Draws features for rows.
        rows: Tokenised conversations.
        tokenizer: Of the language model.
    """
    pad = int(tokenizer.pad_token_id)
    ids = tokenizer.convert_tokens_to_ids([NOTE, NAME_OPENS])
    heavy = dict(zip(ids, (FIRST_WEIGHT, CHOICE_WEIGHT), strict=True))
    note = (ids[0], FIRST_WEIGHT)
    quote = (encode_text(tokenizer, '"')[0], ROUTE_WEIGHT)
    changing = [row for row in rows if row.later_from]
    lasting = [row for row in rows if not row.later_from]
    batches = make_batches(lasting, pad, BATCH_TOKENS) + make_batches(changing, pad, BATCH_TOKENS)
    model.requires_grad_(requires_grad=False)
    chosen = dict(model.trainable_parameters("bind"))
    if stage == "instruct":
        chosen |= model.trainable_parameters("instruct")
    for parameter in chosen.values():
        parameter.requires_grad_()

    def step_loss(rng: random.Random, _share: float) -> Tensor:
        return batch_loss(model, source, rng.choice(batches), rng, heavy, pad, note, quote)

    def lr_scale(name: str) -> float:
        return 5.0 if name.endswith("gates") else 1.0

    model.train()
    run_stage(
        run, stage, {"model": model}, schedule, step_loss, lr_scale=lr_scale, report_every=250
    )
    model.eval()


def open_gates(model: ImageBindLLM, value: float = 0.5) -> None:
    """Start the gates a little open, so that a short stage 1 has a slope to follow."""
    with torch.no_grad():
        model.gates.fill_(value)
