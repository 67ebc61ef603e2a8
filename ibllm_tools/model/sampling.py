"""The released model's way to choose tokens: temperature, then a nucleus."""

from __future__ import annotations

import torch
from torch import Tensor


def nucleus_probabilities(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """Probabilities after temperature, nucleus cut and renormalisation.

    A token stays if the mass of those strictly more likely is at most `top_p`, so the most
    likely one always stays. (transformers' `TopPLogitsWarper` asks for less than `top_p`.)

    Args:
        logits: (..., V).
        temperature: Above 0.
        top_p: 0 to 1; 1 keeps all tokens.

    Returns:
        (..., V) in the order of the vocabulary; sums are 1.

    Source: nucleus sampling (arXiv 1904.09751), with the released ImageBind-LLM's comparison.
    """
    ranked, order = (logits / temperature).softmax(-1).sort(dim=-1, descending=True)
    before = ranked.cumsum(-1) - ranked
    ranked = ranked.masked_fill(before > top_p, 0.0)
    ranked = ranked / ranked.sum(-1, keepdim=True)
    return torch.zeros_like(ranked).scatter(-1, order, ranked)
