"""Answers about held-out rows, to choose the visual cache's settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ibllm_tools.cache import CacheSettings
from ibllm_tools.model import ImageBindLLM
from ibllm_tools.train.binding import group_clouds, official_clips
from ibllm_tools.train.contrastive import clean_rows, encode_all, row_batches
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.naming import Names

if TYPE_CHECKING:
    from ibllm_tools.train.pocket import Pack, PocketOptions

MAX_ROWS = 400
ANSWER_TOKENS = 16
GRID: tuple[CacheSettings | None, ...] = (
    None,
    *(
        CacheSettings(k=k, temperature=t, weight=w)
        for k in (5, 10, 30)
        for t in (10.0, 20.0)
        for w in (0.3, 0.5, 0.7)
    ),
)


def held_features(
    pack: Pack, options: PocketOptions, model: ImageBindLLM
) -> dict[str, tuple[Tensor, list[int]]]:
    """Encode the held-out rows of every modality: features (N, joint) and concepts."""
    config, encoder = options.encoder.preprocessing(), model.encoder
    assert encoder is not None
    photos, sounds, shapes = (pair[1] for pair in (pack.photos, pack.sounds, pack.shapes))
    clips = official_clips(sounds, config)
    groups = group_clouds(shapes, encoder)
    rows = {
        "photos": (photos, "image", lambda r: clean_rows(photos, r, config)),
        "sounds": (sounds, "audio", lambda r: torch.stack([clips[i] for i in r])),
        "shapes": (shapes, "point", groups.select),
    }
    return {
        name: (
            encode_all(encoder, modality, inputs, min(MAX_ROWS, len(table))),
            table.concept.tolist(),
        )
        for name, (table, modality, inputs) in rows.items()
        if len(table)
    }


def score_settings(
    tables: dict[str, tuple[Tensor, list[int]]],
    facts: Sequence[Fact],
    model: ImageBindLLM,
    tokenizer: Any,
    grid: Sequence[CacheSettings | None] = GRID,
) -> list[tuple[CacheSettings | None, dict[str, float]]]:
    """Measure the share of right answers per modality under each setting of the cache."""
    names = Names(facts)
    scores = []
    for settings in grid:
        score = {}
        for name, (features, concepts) in tables.items():
            used = features if settings is None else model.cache.blend(features, settings)  # type: ignore[union-attr]
            answers = answer_all(model, tokenizer, used)
            right = [names.is_right(a, c) for a, c in zip(answers, concepts, strict=False)]
            score[name] = sum(right) / max(1, len(right))
        scores.append((settings, score))
    return scores


@torch.no_grad()
def answer_all(
    model: ImageBindLLM, tokenizer: Any, features: Tensor, question: str = "What is this?"
) -> list[str]:
    """Ask one question about many features, greedily."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answers = []
    for rows in row_batches(len(features), 256):
        part = features[rows]
        ids = prompt["input_ids"].expand(len(part), -1)
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            features=part,
            max_new_tokens=ANSWER_TOKENS,
            do_sample=False,
        )
        answers += tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    return answers
