"""The fewest tools for a question: those whose names and descriptions share its words.

A small model calls what it is offered. It is offered the few tools that share the rarest words
with the question, and none where none does.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage
from langchain_core.tools import BaseTool

from ibllm_tools.agent_graphs.nouns import singular
from ibllm_tools.agent_graphs.steps import tell_step
from ibllm_tools.toolkit.offering import OffersTools

if TYPE_CHECKING:
    from langchain.agents.middleware.types import ModelRequest

CLOSE = 0.7
"""A tool is left out where it fits less than so much of what the best one does."""
_WORD = re.compile(r"[a-z]+|\d+")
_PARTS = re.compile(r"(?<=[a-z])(?=[A-Z])|_")
_PLAIN = frozenset(
    [
        *("a", "an", "the", "of", "in", "on", "at", "to", "for", "and", "or", "is", "are", "be"),
        *("what", "which", "who", "how", "do", "does", "me", "my", "it", "this", "that", "by"),
        *("with", "from", "please", "can", "you", "i", "all", "one", "tool", "use", "not"),
    ]
)


class FewestTools(OffersTools):
    """Offers a model the few tools that fit the question; all of them stay callable."""

    def __init__(self, n_most: int, always: Sequence[str] = ()) -> None:
        """Offer at most `n_most`, and those named in `always` beside them."""
        super().__init__()
        self._n_most = n_most
        self._always = frozenset(always)

    def offered(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        """Offer what fits."""
        people = (m for m in reversed(request.messages) if isinstance(m, HumanMessage))
        asked = next(people, None)
        free = [t for t in request.tools if isinstance(t, BaseTool) and t.name not in self._always]
        chosen = pick(asked.text if asked is not None else "", free, self._n_most)
        names = {tool.name for tool in chosen}
        kept = [
            tool
            for tool in request.tools
            if not isinstance(tool, BaseTool) or tool.name in names | self._always
        ]
        told = ", ".join(tool.name for tool in kept if isinstance(tool, BaseTool)) or "none"
        tell_step("offer", f"{told} of {len(request.tools)} tools")
        return request.override(tools=kept)


def pick(question: str, tools: Sequence[BaseTool], n_most: int) -> list[BaseTool]:
    """The tools that share most with a question, best first.

    Args:
        question: What is asked.
        tools: All there are; where no more than `n_most` are there, none is left out.
        n_most: How many to keep.
    """
    if len(tools) <= n_most:
        return list(tools)
    told = [_words_of(tool) for tool in tools]
    spread = Counter(word for words in told for word in words)
    asked = _words(question)
    scores = [
        sum(math.log(1 + len(tools) / spread[word]) for word in asked & words) for words in told
    ]
    order = sorted(range(len(tools)), key=lambda place: -scores[place])
    least = max(scores) * CLOSE
    return [
        tools[place] for place in order[:n_most] if scores[place] > 0 and scores[place] >= least
    ]


def _words_of(tool: BaseTool) -> set[str]:
    return _words(f"{_PARTS.sub(' ', tool.name)} {tool.description} {' '.join(tool.args)}")


def _words(text: str) -> set[str]:
    found = {singular(word) for word in _WORD.findall(_PARTS.sub(" ", text).casefold())}
    return found - _PLAIN
