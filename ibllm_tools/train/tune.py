"""Stages 1 and 2: the language model learns to speak about what it is shown.

Stage 1 trains the bind network, the gates and the prefix queries; the language model stays
frozen. Stage 2 adds low-rank products, biases and norms, and rows without any media. Both see
photo features and text only; no sound, shape or depth map comes near the language model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ibllm_tools.model import ImageBindLLM
from ibllm_tools.train.contrastive import fast_cpu
from ibllm_tools.train.features import FeatureSource
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.language import (
    Batch,
    Row,
    draw_knowledge,
    encode_chat,
    make_batches,
    pick_instructions,
)
from ibllm_tools.train.loop import Run, Schedule, run_stage
from ibllm_tools.train.talk import Scene, Turn, about_turn, exists_turn, talk, what_turn

BATCH_TOKENS = 3072


def draw_shown_rows(
    rng: random.Random,
    facts: Sequence[Fact],
    concepts: Sequence[int],
    tokenizer: PreTrainedTokenizerFast,
    count: int,
) -> list[Row]:
    """Conversations about photos: one thing, two things, or nothing known.

    Args:
        rng: Random source.
        facts: All facts, by concept id.
        concepts: Concepts that have photos.
        tokenizer: Of the language model.
        count: Rows to draw.
    """
    rows = []
    for _ in range(count):
        share = rng.random()
        n_shown = 1 if share < 0.78 else 2 if share < 0.96 else 0
        shown = rng.sample(list(concepts), n_shown)
        turns = talk(rng, Scene(tuple(facts[c] for c in shown)), facts)
        pair = (*shown, -1, -1)[:2]
        ids, learned = encode_chat(tokenizer, turns)
        rows.append(Row(ids, learned, (pair[0], pair[1]), has_media=True))
    return rows


def draw_bare_rows(
    rng: random.Random,
    facts: Sequence[Fact],
    text: Sequence[dict[str, str]],
    tokenizer: PreTrainedTokenizerFast,
    count: int,
) -> list[Row]:
    """Conversations without media: facts, small talk, instructions, and nothing to see."""
    chats = draw_knowledge(rng, facts, count // 2)
    chats += pick_instructions(rng, text, count // 8)
    blind = Scene((), blind=True)
    for _ in range(count // 4):
        chinese = rng.random() < 0.35
        turn: Turn = rng.choice((what_turn, about_turn))(rng, blind, chinese)
        if rng.random() < 0.15:
            turn = exists_turn(rng, blind, facts, chinese)
        chats.append([turn])
    return [Row(*encode_chat(tokenizer, turns)) for turns in chats]


def batch_loss(
    model: ImageBindLLM, source: FeatureSource, batch: Batch, rng: random.Random
) -> Tensor:
    """Compute the loss of one batch with freshly drawn photo features."""
    features = source.draw(batch.shown, rng)
    with fast_cpu():
        loss: Tensor = model(
            input_ids=batch.ids,
            labels=batch.labels,
            features=features,
            has_media=batch.has_media,
        ).loss
    return loss


def tune(
    run: Run,
    stage: str,
    schedule: Schedule,
    model: ImageBindLLM,
    source: FeatureSource,
    rows: Sequence[Row],
    pad: int,
) -> None:
    """Train one stage of the language model's senses; resumes after a kill.

    Args:
        run: Seed, folder and log.
        stage: `bind` trains bind network, gates and queries. `instruct` trains these and the
            language model's low-rank products, biases and norms.
        schedule: Steps and rates.
        model: The model; its language model is otherwise frozen.
        source: Draws photo features for rows.
        rows: Tokenised conversations.
        pad: Token that fills rows.
    """
    batches = make_batches(rows, pad, BATCH_TOKENS)
    model.requires_grad_(requires_grad=False)
    chosen = dict(model.trainable_parameters("bind"))
    if stage == "instruct":
        chosen |= model.trainable_parameters("instruct")
    for parameter in chosen.values():
        parameter.requires_grad_()

    def step_loss(rng: random.Random, _share: float) -> Tensor:
        return batch_loss(model, source, rng.choice(batches), rng)

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
