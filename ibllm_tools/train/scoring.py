"""Answers about held-out rows, to choose the visual cache's settings.

Asked are photos, sounds and shapes that no stage has seen, mixes of a photo and a sound, and
pictures of nothing, which are answered rightly by doubt.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ibllm_tools.cache import CacheSettings
from ibllm_tools.model import ImageBindLLM
from ibllm_tools.model.prompts import without_note
from ibllm_tools.preprocess import pixels_to_views
from ibllm_tools.train.binding import group_clouds, official_clips
from ibllm_tools.train.contrastive import clean_rows, encode_all, row_batches
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.naming import Names
from ibllm_tools.train.nothing import empty_pictures

if TYPE_CHECKING:
    from ibllm_tools.train.pocket import Pack, PocketOptions

MAX_ROWS = 400
MAX_PAIRS = 150
N_NOTHING = 90
ANSWER_TOKENS = 24
GRID: tuple[CacheSettings | None, ...] = (
    None,
    *(
        CacheSettings(k=k, temperature=20.0, weight=w)
        for k in (5, 10, 30)
        for w in (0.3, 0.5, 0.7, 0.9)
    ),
)
QUESTIONS = {"mixes": "What do you see and hear?"}
_DOUBT = re.compile(r"not sure|do not know|cannot tell")


@dataclass(frozen=True)
class HeldRows:
    """Rows of one kind to be asked about.

    Attributes:
        features: (N, P, joint) unit vectors of the P media of each row.
        concepts: What each row shows; an empty tuple is answered rightly by doubt.
    """

    features: Tensor
    concepts: list[tuple[int, ...]]

    def mixed(self, model: ImageBindLLM, settings: CacheSettings | None) -> Tensor:
        """Blend every medium, then mix evenly: (N, joint)."""
        parts = self.features
        if settings is not None:
            assert model.cache is not None
            parts = model.cache.blend(parts.flatten(0, 1), settings).view_as(parts)
        return parts.mean(1)


def held_features(pack: Pack, options: PocketOptions, model: ImageBindLLM) -> dict[str, HeldRows]:
    """Encode the held-out rows of every modality, mixes of them, and pictures of nothing."""
    tables = _encode_tables(pack, options, model)
    found = {
        name: HeldRows(features[:, None], [(concept,) for concept in concepts])
        for name, (features, concepts) in tables.items()
    }
    if "photos" in tables and "sounds" in tables:
        found["mixes"] = _pair_rows(tables["photos"], tables["sounds"], options.seed)
    encoder, config = model.encoder, options.encoder.preprocessing()
    assert encoder is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed + 1)
        pictures = pixels_to_views(empty_pictures(N_NOTHING, config), config)
    nothing = encode_all(encoder, "image", lambda r: pictures[r], len(pictures))
    found["nothing"] = HeldRows(nothing[:, None], [()] * len(nothing))
    return found


def _pair_rows(
    photos: tuple[Tensor, list[int]], sounds: tuple[Tensor, list[int]], seed: int
) -> HeldRows:
    """Pairs of a photo and a sound of different concepts."""
    rng = random.Random(seed)  # noqa: S311
    pairs = [
        (rng.randrange(len(photos[0])), rng.randrange(len(sounds[0]))) for _ in range(MAX_PAIRS)
    ]
    pairs = [(i, j) for i, j in pairs if photos[1][i] != sounds[1][j]]
    left, right = [i for i, _ in pairs], [j for _, j in pairs]
    features = torch.stack([photos[0][left], sounds[0][right]], dim=1)
    return HeldRows(features, [(photos[1][i], sounds[1][j]) for i, j in pairs])


def _encode_tables(
    pack: Pack, options: PocketOptions, model: ImageBindLLM
) -> dict[str, tuple[Tensor, list[int]]]:
    """Encode held-out media: features (N, joint) and concepts by the name of their table."""
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
    found = {}
    for name, (table, modality, inputs) in rows.items():
        n_rows = min(MAX_ROWS, len(table))
        if n_rows:
            features = encode_all(encoder, modality, inputs, n_rows)
            found[name] = (features, table.concept[:n_rows].tolist())
    return found


def score_settings(
    tables: dict[str, HeldRows],
    facts: Sequence[Fact],
    model: ImageBindLLM,
    tokenizer: Any,
    grid: Sequence[CacheSettings | None] = GRID,
) -> list[tuple[CacheSettings | None, dict[str, float]]]:
    """Measure the share of right answers per kind of rows under each setting of the cache."""
    names = Names(facts)
    scores = []
    for settings in grid:
        score = {}
        for name, rows in tables.items():
            question = QUESTIONS.get(name, "What is this?")
            answers = answer_all(model, tokenizer, rows.mixed(model, settings), question)
            right = [is_right(names, a, c) for a, c in zip(answers, rows.concepts, strict=True)]
            score[name] = sum(right) / max(1, len(right))
        scores.append((settings, score))
    return scores


def is_right(names: Names, answer: str, concepts: Sequence[int]) -> bool:
    """Whether an answer names exactly these concepts, or doubts where there are none."""
    if not concepts:
        return bool(_DOUBT.search(answer)) and not names.named(answer)
    return names.named(answer) == set(concepts)


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
    answers: list[str] = []
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
        said = [without_note(row, tokenizer) for row in out[:, ids.shape[1] :].tolist()]
        answers += tokenizer.batch_decode(said, skip_special_tokens=True)
    return answers
