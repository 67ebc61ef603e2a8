"""Rows to one batch of tensors, and the count of what was left out or cut."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ibllm_tools.errors import MediaError
from ibllm_tools.media import MediaPolicy, Modality, load
from ibllm_tools.model import ImageBindLLMProcessor
from ibllm_tools.model.prompts import IGNORED_LABEL
from ibllm_tools.preprocess import MediaBatch
from ibllm_tools.train.stages.rows import TrainingRow
from ibllm_tools.train.stages.supervision import (
    BEYOND,
    EMPTY_ANSWER,
    TEMPLATE,
    Encoded,
    RowProblem,
    supervise_conversation,
)

CUT, TOO_LONG = "cut to max_tokens", "longer than max_tokens"
TEXT_ONLY, MODALITY, UNREADABLE = "text only", "other modality", "medium that cannot be read"
DRAWN, WITH_MEDIA, TOKENS, TARGETS = "rows", "rows with media", "tokens", "target tokens"
LEFT_OUT = (TOO_LONG, BEYOND, EMPTY_ANSWER, TEMPLATE, TEXT_ONLY, MODALITY, UNREADABLE)
COUNTED = (DRAWN, WITH_MEDIA, TOKENS, TARGETS, CUT, *LEFT_OUT)
WIDTH_STEP = 8  # widths are rounded up, so that there are fewer shapes


@dataclass(frozen=True)
class _Ready:
    encoded: Encoded
    row: TrainingRow
    media: MediaBatch | None


@dataclass
class Collator:
    """Makes batches for `StageTrainer`.

    Attributes:
        processor: Tokenizer, system prompt and sizes of media.
        max_tokens: Longest row.
        too_long: "cut" or "drop" longer ones.
        joint_dim: Width of features.
        modalities: Which media may be shown.
        needs_media: Whether rows of text only are left out, as in stage 1.
        bare: (joint,) what rows without media are shown (the all-zero image); None for nothing.
    """

    processor: ImageBindLLMProcessor
    max_tokens: int
    too_long: Literal["cut", "drop"]
    joint_dim: int
    modalities: Collection[str]
    needs_media: bool
    bare: Tensor | None = None

    def __call__(self, rows: Sequence[TrainingRow]) -> dict[str, Any]:
        """Make a batch.

        Returns:
            `input_ids` and `labels` (B, T), padded right; `features` (B, joint); `has_media`
            (B,); `counts` (len(COUNTED),); `media` (B rows) if any are still to be encoded. A
            batch of which nothing is left has one row without targets.
        """
        counts = dict.fromkeys(COUNTED, 0)
        ready = []
        for row in rows:
            counts[DRAWN] += 1
            try:
                ready.append(self._prepare(row, counts))
            except RowProblem as problem:
                counts[str(problem)] += 1
        batch = self._pad(ready) | self._show(ready)
        counts[WITH_MEDIA] += sum(bool(entry.row.modalities) for entry in ready)
        counts[TOKENS] += sum(len(entry.encoded.ids) for entry in ready)
        counts[TARGETS] += int((batch["labels"][:, 1:] != IGNORED_LABEL).sum())
        return batch | {"counts": torch.tensor([counts[name] for name in COUNTED])}

    def _prepare(self, row: TrainingRow, counts: dict[str, int]) -> _Ready:
        if self.needs_media and not row.modalities:
            raise RowProblem(TEXT_ONLY)
        if not set(row.modalities) <= set(self.modalities):
            raise RowProblem(MODALITY)
        encoded = supervise_conversation(
            self.processor.tokenizer,
            row.messages,
            self.max_tokens,
            system_prompt=self.processor.system_prompt,
        )
        if encoded.is_cut and self.too_long == "drop":
            raise RowProblem(TOO_LONG)
        media = self._read(row) if row.media else None
        counts[CUT] += encoded.is_cut
        return _Ready(encoded, row, media)

    def _read(self, row: TrainingRow) -> MediaBatch:
        try:
            items = [load(ref.block(), MediaPolicy()) for ref in row.media]
            return MediaBatch.collate([items], self.processor.preprocess)
        except MediaError as error:
            raise RowProblem(UNREADABLE) from error

    def _pad(self, ready: Sequence[_Ready]) -> dict[str, Tensor]:
        fill = self.processor.pad_token_id
        width = max((len(entry.encoded.ids) for entry in ready), default=2)
        width = -(-width // WIDTH_STEP) * WIDTH_STEP
        ids = torch.full((max(1, len(ready)), width), fill)
        labels = torch.full_like(ids, IGNORED_LABEL)
        for index, entry in enumerate(ready):
            ids[index, : len(entry.encoded.ids)] = torch.tensor(entry.encoded.ids)
            labels[index, : len(entry.encoded.labels)] = torch.tensor(entry.encoded.labels)
        return {"input_ids": ids, "labels": labels}

    def _show(self, ready: Sequence[_Ready]) -> dict[str, Any]:
        n_rows = max(1, len(ready))
        features = torch.zeros(n_rows, self.joint_dim)
        has_media = torch.zeros(n_rows, dtype=torch.bool)
        for index, entry in enumerate(ready):
            shown = entry.row.feature if entry.row.modalities else self.bare
            has_media[index] = bool(entry.row.modalities) or self.bare is not None
            if shown is not None:
                features[index] = shown
        shown_batch: dict[str, Any] = {"features": features, "has_media": has_media}
        if any(entry.media for entry in ready):
            shown_batch["media"] = _stack([entry.media for entry in ready])
        return shown_batch


def _stack(batches: Sequence[MediaBatch | None]) -> MediaBatch:
    """Join batches of one row each."""
    found: dict[Modality, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for index, batch in enumerate(batches):
        for name, inputs in batch.inputs.items() if batch else ():
            assert batch is not None
            place = torch.full_like(batch.rows[name], index)
            found.setdefault(name, []).append((inputs, place, batch.weights[name]))
    return MediaBatch(
        n_rows=len(batches),
        inputs={name: torch.cat([part[0] for part in parts]) for name, parts in found.items()},
        rows={name: torch.cat([part[1] for part in parts]) for name, parts in found.items()},
        weights={name: torch.cat([part[2] for part in parts]) for name, parts in found.items()},
    )
