"""The encoder of a model without its LLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ibllm_tools.media import Item
    from ibllm_tools.preprocess import MediaBatch, PreprocessConfig


class Senses:
    """The encoder of a model without its LLM: media in, unit vectors out. Thread-safe."""

    def __init__(
        self, encoder: Any, config: PreprocessConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Embed with an `ImageBind` and the preprocessing that belongs to it."""
        self.encoder = encoder
        self.config = config
        self.device = device
        self.dtype = dtype

    def embed(self, rows: Sequence[Sequence[Item]]) -> torch.Tensor:
        """Embed each row's media, mixed by their weights.

        Args:
            rows: One or more items per row, of any modality.

        Returns:
            (N, D) float32 on the CPU; each row has length 1.

        Raises:
            ConfigurationError: The encoder has no trunk for a modality.
        """
        from ibllm_tools.preprocess import MediaBatch

        return self.embed_batch(MediaBatch.collate(rows, self.config))

    def embed_batch(self, batch: MediaBatch) -> torch.Tensor:
        """Embed media that are preprocessed already; each row has one or more.

        Returns:
            (N, D) float32 on the CPU; each row has length 1.

        Raises:
            ConfigurationError: The encoder has no trunk for a modality.
        """
        from ibllm_tools.mix import mix

        batch = batch.to(self.device, self.dtype)
        with torch.inference_mode():
            vectors = [self.encoder.encode(name, x).float() for name, x in batch.inputs.items()]
            weights = torch.cat([batch.weights[name] for name in batch.inputs])
            owners = torch.cat([batch.rows[name] for name in batch.inputs])
            mixed = mix(torch.cat(vectors), weights, owners, batch.n_rows)
            return torch.nn.functional.normalize(mixed, dim=-1).cpu()
