"""`Adviser`: routes of clear questions, told by their words alone, without any model call.

A linear model of single words, pairs and triples, hashed into a table:

    P(expert | question) = sigmoid(bias + Σ_f weight[hash(f)])

Where it is sure, a router need not ask its brain: that saves a call, and a very small brain an
error. It is trained on the same rows as pocket, and what counts as sure is chosen on rows from
templates that it was not trained on; see `ibllm_tools.train.route_adviser`.

Source: hashed n-grams in a linear classifier, as in Joulin et al., "Bag of Tricks" (2016).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.routing.questions import without_fillers
from ibllm_tools.routing.routes import EXPERTS, Expert, fitting, kind_of_id

N_BUCKETS = 1 << 15
FILE = "adviser.safetensors"
_JOINTS = re.compile(
    r"(?<=[.?!;？。！；，])\s*|"
    r"(?:,| and|, and) (?=how |what |which |where |who |is |are |do |does )"
)
_WORD = re.compile(r"\w")
_PARTS = re.compile(r"[a-z']+|[\u4e00-\u9fff]|[#@=?!.,？。！，]|\d+")


class Adviser:
    """Scores experts by the words of a question.

    Args:
        weights: (B, E) by bucket and expert, in order of `EXPERTS`.
        bias: (E,).
        sure: Least probability of a whole route that counts as sure.
    """

    def __init__(
        self, weights: NDArray[np.float32], bias: NDArray[np.float32], sure: float
    ) -> None:
        """Hold a table."""
        self._weights = weights
        self._bias = bias
        self.sure = sure

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read a table; by default the one that ships."""
        from safetensors.numpy import load_file

        held = load_file(path or Path(__file__).parent / FILE)
        weights, bias = (held[key].astype(np.float32) for key in ("weights", "bias"))
        return cls(weights, bias, round(float(held["sure"][0]), 2))

    def save(self, path: Path) -> None:
        """Write the table, with 16 bits a number."""
        from safetensors.numpy import save_file

        held = {"weights": self._weights, "bias": self._bias, "sure": np.array([self.sure])}
        save_file({key: value.astype(np.float16) for key, value in held.items()}, path)

    def advise(self, question: str, ids: Sequence[str]) -> tuple[list[Expert], float]:
        """Return the most likely route, and how likely it is, 0 to 1."""
        scores = self._bias + self._weights[buckets(question, ids)].sum(axis=0)
        chances = 1 / (1 + np.exp(-scores))
        chosen = [expert for expert, chance in zip(EXPERTS, chances, strict=True) if chance > 0.5]
        certainty = float(np.maximum(chances, 1 - chances).prod())
        return fitting(chosen or [EXPERTS[int(chances.argmax())]], ids), certainty

    def part_for(self, expert: Expert, question: str, ids: Sequence[str]) -> str:
        """The parts of a question that an expert is asked about; all of it where none is told.

        `What do you see, and which numbers are spoken?` leaves `What do you see` to the senses.
        """
        parts = [part.strip() for part in _JOINTS.split(question) if _WORD.search(part)]
        kept = [part for part in parts if expert in self.advise(part, ids)[0]]
        return question if len(kept) in (0, len(parts)) else " ".join(kept)


@cache
def shipped_adviser() -> Adviser:
    """The adviser that ships."""
    return Adviser.load()


def buckets(question: str, ids: Sequence[str]) -> list[int]:
    """The rows of the table that a question is about, each once."""
    parts = ["<", *_PARTS.findall(without_fillers(question)), ">"]
    kinds = sorted({kind_of_id(id_) for id_ in ids})
    features = {f"held {kind}" for kind in kinds} | {f"held {min(3, len(ids))}"}
    for n in (1, 2, 3):
        features.update(" ".join(parts[i : i + n]) for i in range(len(parts) - n + 1))
    return sorted({zlib.crc32(feature.encode()) % N_BUCKETS for feature in features})
