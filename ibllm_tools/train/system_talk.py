"""System prompts for training rows, one a line in `system_prompts.psv`.

A tiny model does not do what they say; it has to answer as well with one as without.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _read_prompts() -> tuple[str, ...]:
    text = (Path(__file__).parent / "system_prompts.psv").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def led(
    rng: random.Random, messages: Sequence[dict[str, Any]], share: float = 0.25
) -> list[dict[str, Any]]:
    """Put a system prompt before some conversations, now and then two in one."""
    if rng.random() >= share:
        return list(messages)
    prompts = rng.sample(_read_prompts(), 2 if rng.random() < 0.25 else 1)
    return [{"role": "system", "content": " ".join(prompts)}, *messages]
