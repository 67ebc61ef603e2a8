"""Training of the router's adviser: a linear model on the router's rows, in about two minutes.

`python -m ibllm_tools.train.route_adviser DATA OUT` writes the table again.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ibllm_tools.routing import EXPERTS
from ibllm_tools.routing.adviser import N_BUCKETS, Adviser, buckets
from ibllm_tools.train.data import read_concepts
from ibllm_tools.train.knowledge import Fact, facts_for
from ibllm_tools.train.route_talk import CHINESE_SHARE, draw_routed

N_ROWS, N_STEPS, BATCH = 24_000, 1500, 256
RATE, DECAY = 0.02, 1e-5


def train_adviser(
    facts: Sequence[Fact], seed: int = 0, n_rows: int = N_ROWS, n_steps: int = N_STEPS
) -> Adviser:
    """Draw rows and fit the table.

    Args:
        facts: Concepts that questions name.
        seed: Of all randomness.
        n_rows: Questions to draw.
        n_steps: Steps of Adam.
    """
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
    return Adviser(table.weight.detach().numpy(), bias.detach().numpy())


def main(data_dir: str, out: str) -> None:
    """Train on the concepts of a pack, and write the table."""
    train_adviser(facts_for(read_concepts(Path(data_dir)))).save(Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:3])
