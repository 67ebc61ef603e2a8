"""The shipped folder: half-precision weights, tokenizer, preprocessing, concept names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ibllm_tools.cache import CacheSettings
from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor
from ibllm_tools.model.tool_ranking import ToolRanker
from ibllm_tools.preprocess import PreprocessConfig
from ibllm_tools.train.data import write_atomic
from ibllm_tools.train.knowledge import Fact


def save_pocket(
    folder: Path,
    model: ImageBindLLM,
    tokenizer: Any,
    config: PreprocessConfig,
    facts: Sequence[Fact],
    settings: CacheSettings | None,
    ranker: ToolRanker | None = None,
) -> None:
    """Write a model folder in half precision, with the cache settings as its defaults.

    Args:
        folder: Written to; files of the same names are replaced.
        model: With encoder and cache.
        tokenizer: Of the language model.
        config: Preprocessing.
        facts: Give `concepts.json`.
        settings: Defaults of the visual cache; None turns it off by default.
        ranker: Lists tools by how well they fit; None lists them as they are given.
    """
    model.config.use_cache_by_default = settings is not None
    model.config.cache_before_mixing = True
    if settings is not None:
        model.config.cache_k = settings.k
        model.config.cache_temperature = settings.temperature
        model.config.cache_weight = settings.weight
        model.config.cache_form = settings.form
    model.half().save_pretrained(folder)
    if model.cache is not None:
        model.cache.save(folder / "cache", dtype=torch.float16)
    ImageBindLLMProcessor(tokenizer, config, tool_ranker=ranker).save_pretrained(folder)
    rows = [
        {
            "id": i,
            "name": f.name,
            "name_zh": f.name_zh,
            "phrase": f.phrase,
            "kind": f.kind,
            "kind_zh": f.kind_zh,
            "synonyms": list(f.synonyms),
        }
        for i, f in enumerate(facts)
    ]
    text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    write_atomic(folder / "concepts.json", text.encode())
    model.float()
