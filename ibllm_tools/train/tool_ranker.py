"""How pocket's ranking of tools is trained: requests find their tools among others.

Vectors of words start from a sentence encoder of BERT's kind, each word read by itself and cut
to its principal directions, or from a ranking that was trained before. Then made-up tools and
wishes (see `tool_wishes`) pull what belongs together: each request has to find its own tool
among those of other topics, and plain talk has to find none.

Source of the start: static vectors out of a sentence encoder, as "Model2Vec" (2024) makes them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ibllm_tools.model.tool_ranking import ToolRanker, describe, make_reader
from ibllm_tools.train.knowledge import Fact
from ibllm_tools.train.language import draw_knowledge, pick_instructions
from ibllm_tools.train.loop import Run
from ibllm_tools.train.tool_intents import Intent
from ibllm_tools.train.tool_plain import draw_plain_turn
from ibllm_tools.train.tool_wishes import any_intent
from ibllm_tools.train.tool_words import World

WIDTH = 64
N_TOOLS, N_PLAIN = 48, 24
N_OFFERED = 6
"""Tools a request meets when it is decided whether any fits."""
STEPS = 800


def distil_words(folder: str | Path, width: int = WIDTH) -> tuple[list[str], Tensor]:
    """Read every word of a sentence encoder by itself.

    Args:
        folder: A folder or hub id in BERT's form, such as
            "sentence-transformers/all-MiniLM-L6-v2" (Apache-2.0).
        width: Principal directions to keep.

    Returns:
        The words, and their vectors (V, width) of length one.
    """
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    vocabulary = tokenizer.get_vocab()
    words = [w for w in sorted(vocabulary, key=vocabulary.__getitem__) if "[unused" not in w]
    ids = torch.tensor([vocabulary[w] for w in words])
    found = []
    with torch.inference_mode():
        for part in torch.split(ids, 512):
            ends = torch.ones_like(part)
            rows = torch.stack([ends * tokenizer.cls_token_id, part, ends * tokenizer.sep_token_id])
            found.append(model(input_ids=rows.T).last_hidden_state.mean(1))
    vectors = torch.cat(found)
    vectors = vectors - vectors.mean(0)
    torch.manual_seed(0)
    directions = torch.pca_lowrank(vectors, q=width, center=False, niter=6)[2]
    return words, functional.normalize(vectors @ directions, dim=-1)


class _Ranking(torch.nn.Module):
    """The ranking as it is trained; see `ToolRanker` for its formula."""

    def __init__(self, words: Sequence[str], vectors: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.read = make_reader(words)
        self.vectors = torch.nn.Parameter(vectors.clone())
        self.weights = torch.nn.Parameter(weights.clone())
        self.credits = torch.nn.Parameter(torch.ones(len(vectors)))
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.threshold = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, requests: Sequence[str], tools: Sequence[Any]) -> Tensor:
        """Score every request with every tool: (R, T)."""
        asked, is_asked = _pad([self.read(text) for text in requests])
        told, is_told = _pad([self.read(describe(tool)) for tool in tools])
        one = functional.normalize(self.vectors[asked], dim=-1)
        other = functional.normalize(self.vectors[told], dim=-1)
        likeness = torch.einsum("aid,bjd->aibj", one, other).clamp(min=0) ** 3
        best = (likeness * (self.credits[told] * is_told)).amax(-1)
        weights = self.weights[asked].clamp(min=0) * is_asked
        return self.scale * torch.einsum("aib,ai->ab", best, weights)


def _pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    longest = max(1, *map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    held = torch.zeros(len(rows), longest)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        held[i, : len(row)] = 1.0
    return ids, held


def draw_plain(
    rng: random.Random, facts: Sequence[Fact], text: Sequence[dict[str, str]], count: int = 12_000
) -> list[str]:
    """Draw requests that need no tool: about known things, instructions of the pack, small talk."""
    world = World(rng)
    found = [turns[0][0] for turns in draw_knowledge(rng, facts, count // 3)]
    found += [turns[0][0] for turns in pick_instructions(rng, text, count // 2)]
    return found + [draw_plain_turn(world)[0] for _ in range(count - len(found))]


def train_ranker(
    run: Run,
    plain: Sequence[str],
    start: str | Path | ToolRanker,
    *,
    steps: int = STEPS,
) -> ToolRanker:
    """Train a ranking of tools.

    Args:
        run: Seed and log.
        plain: Requests that need no tool.
        start: A sentence encoder (see `distil_words`), or a ranking whose words and vectors it
            goes on from.
        steps: Batches of requests.
    """
    words, vectors, weights = _start(start)
    ranking = _Ranking(words, vectors, weights)
    rng = random.Random(run.step_seed("ranker", -1))  # noqa: S311
    world = World(rng)
    optimizer = torch.optim.Adam(
        [
            {"params": [ranking.vectors], "lr": 3e-3},
            {"params": [ranking.weights, ranking.credits], "lr": 1e-2},
            {"params": [ranking.scale, ranking.threshold], "lr": 1e-2},
        ],
        betas=(0.9, 0.99),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _falling(steps))
    for step in range(steps):
        loss = _loss(ranking, _draw(world, N_TOOLS), rng.choices(list(plain), k=N_PLAIN), rng)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 200 == 199 or step == steps - 1:
            run.say(f"ranker {step + 1}/{steps}: loss {float(loss.detach()):.3f}")
    return _finished(words, ranking)


def _start(start: str | Path | ToolRanker) -> tuple[list[str], Tensor, Tensor]:
    if isinstance(start, ToolRanker):
        return start.words, torch.from_numpy(start.vectors), torch.from_numpy(start.weights)
    words, vectors = distil_words(start)
    return words, vectors, torch.log1p(torch.arange(len(words)).float()) / 10  # rarer, later


def _falling(steps: int) -> Callable[[int], float]:
    return lambda step: min(1.0, (steps - step) / (0.7 * steps))


def _draw(world: World, count: int) -> list[Intent]:
    """Wishes of different topics."""
    found: dict[str, Intent] = {}
    while len(found) < count:
        intent = any_intent(world)
        if intent.task != "form":
            found.setdefault(intent.topic, intent)
    return list(found.values())


def _loss(
    ranking: _Ranking, intents: Sequence[Intent], plain: Sequence[str], rng: random.Random
) -> Tensor:
    """Find one's own tool among all, and know whether any of a few fits at all."""
    n = len(intents)
    scores = ranking([*(i.question for i in intents), *plain], [i.tool for i in intents])
    chosen = functional.cross_entropy(scores[:n], torch.arange(n))
    offers = torch.tensor([rng.sample(range(n), N_OFFERED) for _ in range(len(scores))])
    offers[:n, 0] = torch.arange(n)
    best = scores.gather(1, offers).amax(1)
    fits = (torch.arange(len(scores)) < n).float()
    balance = torch.where(fits > 0, 1.0, n / len(plain))
    decided = functional.binary_cross_entropy_with_logits(
        best - ranking.threshold, fits, weight=balance
    )
    return chosen + decided


def _finished(words: Sequence[str], ranking: _Ranking) -> ToolRanker:
    vectors, weights, credits_ = (
        p.detach().numpy().astype(np.float32)
        for p in (ranking.vectors, ranking.weights, ranking.credits)
    )
    scale, threshold = float(ranking.scale.detach()), float(ranking.threshold.detach())
    return ToolRanker(words, vectors, weights, credits_, scale, threshold)
