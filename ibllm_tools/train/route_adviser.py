"""Training of the router's adviser: a linear model on the router's rows, in about two minutes.

What counts as sure is chosen on rows of held-out lines of templates, by an adviser that never
saw them, not on the questions of the test. It is trained again by
`python -m ibllm_tools.train.route_adviser DATA OUT`.
"""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ibllm_tools.routing import EXPERTS
from ibllm_tools.routing.adviser import N_BUCKETS, Adviser, buckets
from ibllm_tools.train.data import read_concepts
from ibllm_tools.train.knowledge import Fact, facts_for
from ibllm_tools.train.route_plain import CHINESE_SHARE
from ibllm_tools.train.route_talk import draw_routed
from ibllm_tools.train.route_words import only_lines

N_ROWS, N_STEPS, BATCH = 24_000, 1500, 256
RATE, DECAY = 0.02, 1e-5
N_HELD, PARTS = 3000, 5
"""Rows to choose the threshold on, from one in so many lines of templates."""
LEAST_RIGHT = 0.78
"""So often pocket is right where the adviser doubts, of rows whose lines pocket was trained on and
the adviser was not (320 rows): from where the adviser is right as often, it decides."""
WINDOW = 0.1


def train_adviser(
    facts: Sequence[Fact], seed: int = 0, n_rows: int = N_ROWS, n_steps: int = N_STEPS
) -> Adviser:
    """Draw rows, fit the table and choose what counts as sure.

    Args:
        facts: Concepts that questions name.
        seed: Of all randomness.
        n_rows: Questions to draw.
        n_steps: Steps of Adam.
    """
    sure = choose_sure(facts, seed, n_rows, n_steps)
    return Adviser(*_fit(facts, seed, n_rows, n_steps), sure)


def choose_sure(
    facts: Sequence[Fact], seed: int = 0, n_rows: int = N_ROWS, n_steps: int = N_STEPS
) -> float:
    """Choose the least probability around which enough routes are right.

    One adviser is trained on four fifths of the lines of templates and tried on the rest.

    Args:
        facts: As for `train_adviser`, like the rest.
        seed: Of all randomness.
        n_rows: Questions to draw.
        n_steps: Steps of Adam.
    """
    with only_lines(lambda line: zlib.crc32(line.encode()) % PARTS > 0):
        adviser = Adviser(*_fit(facts, seed, n_rows, n_steps), 1.0)
    rng = random.Random(seed + 1)  # noqa: S311
    told = []
    with only_lines(lambda line: zlib.crc32(line.encode()) % PARTS == 0):
        for _ in range(N_HELD):
            question, experts, ids = draw_routed(rng, facts, chinese=rng.random() < CHINESE_SHARE)
            route, chance = adviser.advise(question, ids)
            told.append((chance, set(route) == set(experts)))
    for least in np.arange(0.5, 1, 0.05).round(2).tolist():
        flags = [right for chance, right in told if least <= chance < least + WINDOW]
        if flags and np.mean(flags) >= LEAST_RIGHT:
            return float(least)
    return 1.0


def _fit(
    facts: Sequence[Fact], seed: int, n_rows: int, n_steps: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw rows, and fit weights (B, E) and bias (E,)."""
    rng = random.Random(seed)  # noqa: S311
    torch.manual_seed(seed)
    rows, targets = [], []
    for _ in range(n_rows):
        question, experts, ids = draw_routed(rng, facts, chinese=rng.random() < CHINESE_SHARE)
        rows.append(buckets(question, ids))
        targets.append([float(expert in experts) for expert in EXPERTS])
    table = torch.nn.EmbeddingBag(N_BUCKETS, len(EXPERTS), mode="sum")
    torch.nn.init.zeros_(table.weight)
    bias = torch.zeros(len(EXPERTS), requires_grad=True)
    optimizer = torch.optim.Adam([table.weight, bias], lr=RATE)
    wanted = torch.tensor(targets)
    for step in range(n_steps):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / n_steps)
        chosen = [rng.randrange(n_rows) for _ in range(BATCH)]
        flat = torch.tensor([bucket for i in chosen for bucket in rows[i]])
        starts = torch.tensor([0, *np.cumsum([len(rows[i]) for i in chosen])[:-1]])
        scores = table(flat, starts) + bias
        loss = F.binary_cross_entropy_with_logits(scores, wanted[chosen])
        loss = loss + DECAY * table.weight.square().sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return table.weight.detach().numpy(), bias.detach().numpy()


def main(data_dir: str, out: str) -> None:
    """Train on the concepts of a pack, and write the table."""
    train_adviser(facts_for(read_concepts(Path(data_dir)))).save(Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:3])
