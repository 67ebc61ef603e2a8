"""Muon: momentum whose update of a matrix is made orthogonal.

For the matrices and convolutions inside small vision trunks it reaches the accuracy of AdamW
in clearly fewer steps. Everything else stays with AdamW.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# A quintic whose iteration pushes singular values between 0 and 1 towards 1 (same source).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
N_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum for weights of two or more dimensions.

    Convolutions, (out, in, h, w), count as (out, in*h*w) matrices. They stand before a batch
    normalisation here, so their scale is free: it is put back after each step, which keeps
    the effective rate constant.

    Args:
        params: Parameters, or groups of them; each has at least two dimensions.
        lr: Rate: the length that a step gives to each singular direction.
        momentum: Of the gradient.
        weight_decay: Of matrices; convolutions have none.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step; a closure is not supported."""
        del closure
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        state = self.state[weight]
        if "buffer" not in state:
            state["buffer"] = torch.zeros_like(weight)
        state["buffer"].mul_(momentum).add_(weight.grad)
        direction = orthogonalize(weight.grad + momentum * state["buffer"])
        fan_in = weight.numel() / len(weight)
        rate = group["lr"] * max(1.0, len(weight) / fan_in) ** 0.5
        if weight.ndim == 2:
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(direction, alpha=-rate)
        else:
            length = weight.norm()
            weight.add_(direction, alpha=-rate)
            weight.mul_(length / weight.norm())


def orthogonalize(matrix: Tensor) -> Tensor:
    """Bring all singular values near 1 by Newton-Schulz steps in bf16.

    Args:
        matrix: (out, ...); further dimensions count as one.
    """
    a, b, c = COEFFICIENTS
    x = matrix.reshape(len(matrix), -1).bfloat16()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(N_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    x = x.T if tall else x
    result: Tensor = x.reshape(matrix.shape).to(matrix.dtype)
    return result
