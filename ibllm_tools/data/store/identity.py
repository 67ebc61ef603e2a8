"""Which encoder made a feature: a fingerprint of its weights and of its preprocessing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ibllm_tools.encoder import ImageBind
from ibllm_tools.encoder.storage import OPTIONAL_KEYS, present_trunks, trunk_path
from ibllm_tools.errors import CheckpointError
from ibllm_tools.preprocess import PreprocessConfig

SAMPLED_VALUES = 64
FINGERPRINT_LETTERS = 16


@dataclass(frozen=True)
class EncoderIdentity:
    """What tells one frozen encoder from another.

    Attributes:
        name: Where it came from, for people.
        fingerprint: Changes when weights or preprocessing do; the same on every machine,
            device and dtype.
        joint_dim: Width of its vectors.
    """

    name: str
    fingerprint: str
    joint_dim: int

    def to_dict(self) -> dict[str, Any]:
        """Return the identity as values that JSON can hold."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "joint_dim": self.joint_dim,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EncoderIdentity:
        """Build from `to_dict`."""
        name, fingerprint = str(values["name"]), str(values["fingerprint"])
        return cls(name, fingerprint, int(values["joint_dim"]))


def identify_encoder(
    encoder: ImageBind, config: PreprocessConfig, name: str | None = None
) -> EncoderIdentity:
    """Fingerprint an encoder and its preprocessing.

    A few values of every tensor are read, from the encoder's files where it has some.

    Args:
        encoder: The encoder; trunks that are not loaded yet are not loaded.
        config: Its preprocessing.
        name: What people call it; its folder by default.

    Raises:
        CheckpointError: A file cannot be read.
    """
    folder: Path | None = encoder._folder
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    for key, shape, values in _stored(folder) if folder else _held(encoder):
        if not key.endswith(OPTIONAL_KEYS):
            digest.update(f"{key}{list(shape)}".encode())
            digest.update(values.float().flatten()[:SAMPLED_VALUES].cpu().numpy().tobytes())
    found = digest.hexdigest()[:FINGERPRINT_LETTERS]
    return EncoderIdentity(name or str(folder or "in memory"), found, encoder.config.joint_dim)


def _held(encoder: ImageBind) -> Iterator[tuple[str, tuple[int, ...], Tensor]]:
    for trunk in sorted(encoder.config.trunks):
        for key, value in sorted(encoder.trunk_state_dict(trunk).items()):
            yield key, tuple(value.shape), value[:1] if value.ndim else value


def _stored(folder: Path) -> Iterator[tuple[str, tuple[int, ...], Tensor]]:
    for trunk in sorted(present_trunks(folder)):
        path = trunk_path(folder, trunk)
        try:
            with safe_open(path, "pt") as file:
                for key in sorted(file.keys()):
                    part = file.get_slice(key)
                    shape = tuple(part.get_shape())
                    yield key, shape, torch.as_tensor(part[:1] if shape else file.get_tensor(key))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); fetch it again") from error
