"""When an answer names the right concept: the rule behind every accuracy of the model card.

An answer is right if the concept's English name, or a listed synonym, stands in it as a word
(a plural s is allowed) and no other concept's name does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ibllm_tools.train.knowledge import Fact


class Names:
    """Finds concept names in answers."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        """Compile one pattern a concept."""
        self._patterns = [
            re.compile(
                r"\b(?:" + "|".join(map(re.escape, (f.name, *f.synonyms))) + r")(?:s|es)?\b",
                re.IGNORECASE,
            )
            for f in facts
        ]

    def named(self, answer: str) -> set[int]:
        """Return the ids of all concepts that an answer names."""
        return {i for i, pattern in enumerate(self._patterns) if pattern.search(answer)}

    def is_right(self, answer: str, concept: int) -> bool:
        """Tell whether an answer names this concept and no other."""
        return self.named(answer) == {concept}
