"""Weights and optimizer state of a model that is sharded over processes (FSDP).

Only what is trained is gathered and given out; frozen weights stay where they are.
"""

from __future__ import annotations

from typing import Any

import torch.distributed.checkpoint.state_dict as parts
from torch import Tensor, nn
from torch.optim import Optimizer

_GATHERED = parts.StateDictOptions(
    full_state_dict=True, cpu_offload=True, ignore_frozen_params=True
)
_GIVEN_OUT = parts.StateDictOptions(
    full_state_dict=True, broadcast_from_rank0=True, strict=False, ignore_frozen_params=True
)


def gather_trainable(model: nn.Module) -> dict[str, Tensor]:
    """Gather the trained weights, whole, in the first process; the others get {}."""
    state: dict[str, Any] = parts.get_model_state_dict(model, options=_GATHERED)
    return state


def give_out_trainable(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Set the trained weights from whole tensors, which only the first process needs."""
    parts.set_model_state_dict(model, dict(state), options=_GIVEN_OUT)  # torch changes the dict


def gather_optimizer(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Gather the optimizer's state, whole, in the first process, keyed by weight."""
    state: dict[str, Any] = parts.get_optimizer_state_dict(model, optimizer, options=_GATHERED)
    return state


def give_out_optimizer(model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Set the optimizer's state from the whole one of the first process."""
    parts.set_optimizer_state_dict(model, optimizer, state, options=_GIVEN_OUT)
