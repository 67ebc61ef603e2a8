"""What the sections of one evaluation share: the model, the media, and what was asked already."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ibllm_tools.evaluate.reading import AnswerNames

if TYPE_CHECKING:
    from ibllm_tools.evaluate.asking import Interviewer, Shown
    from ibllm_tools.evaluate.gallery import Exhibit, Gallery
    from ibllm_tools.evaluate.names import Named


@dataclass
class Session:
    """One evaluation.

    Attributes:
        ask: The model.
        gallery: The media.
        limit: Rows of each measure at most; the sections' own numbers where None.
        unknown: A folder of media that the model cannot know.
        named: What `names` found, by kind.
    """

    ask: Interviewer
    gallery: Gallery
    limit: int | None = None
    unknown: Path | None = None
    named: dict[str, Named] = field(default_factory=dict)
    _shown: dict[str, list[Shown]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Compile the names of the gallery's concepts."""
        self.names = AnswerNames(self.gallery.facts)

    def capped(self, count: int) -> int:
        """Return how many rows to take where a section would take `count`."""
        return count if self.limit is None else min(count, self.limit)

    def shown(self, kind: str) -> list[Shown]:
        """Return the encoded media of a kind; each is encoded once."""
        if kind not in self._shown:
            media = [e.medium for e in self.gallery.shown(kind)]
            self._shown[kind] = self.ask.show(media, f"{kind}, encoding")
        return self._shown[kind]

    def pick(self, kind: str, count: int, seed: int = 0) -> list[tuple[Exhibit, Shown]]:
        """Draw exhibits of a kind with what the model sees of them, repeatably."""
        from ibllm_tools.evaluate.gallery import sample

        if not self.gallery.rows.get(kind):
            return []
        pairs = list(zip(self.gallery.shown(kind), self.shown(kind), strict=True))
        return sample(pairs, self.capped(count), seed)
