"""Tools in the order in which they fit a request: help for a model too small to choose by itself.

Each word of the request looks for the word of a tool's name and description that is most like it:

    score(request, tool) = scale · Σ_w weight(w) · max_t credit(t) · max(0, cos(w, t))³

Words are vectors of a few numbers, so that "unread messages" is near "inbox". A tool fits where
its score is above what plain talk reaches. The model still reads all tools and chooses; it sees
the likely ones first, each of those with a mark before it, where its chat template has one.

Source: late interaction by the best match of each word, Khattab and Zaharia, "ColBERT" (2020).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.errors import CheckpointError

RANKER_FOLDER = "tools"
VECTORS_FILE, WORDS_FILE = "ranker.safetensors", "words.txt"
FITS = "fits"
"""The key that marks a tool that fits, for the chat template."""
UNKNOWN = "[UNK]"
LONGEST = 96
"""Words of a request or of a tool that are read."""

Tool = Mapping[str, Any]
Floats = NDArray[np.float32]

_PARTS = re.compile("(?<=[a-z0-9])(?=[A-Z])|[_.-]+")


class ToolRanker:
    """Scores tools by how well they fit a request.

    Args:
        words: The vocabulary, one word or part of a word each, as BERT writes them ("##ing").
        vectors: (V, D) one vector a word; any length.
        weights: (V,) how much a word of a request counts.
        credits: (V,) how much a word of a tool counts.
        scale: Of all scores.
        threshold: A tool with a score above this fits.
    """

    def __init__(
        self,
        words: Sequence[str],
        vectors: Floats,
        weights: Floats,
        credits: Floats,  # noqa: A002
        scale: float,
        threshold: float,
    ) -> None:
        self.words = list(words)
        self.vectors = _unit(vectors)
        self.weights = np.maximum(weights, 0).astype(np.float32)
        self.credits = np.asarray(credits, np.float32)
        self.scale, self.threshold = scale, threshold
        self._encode = make_reader(self.words)

    def scores(self, request: str, tools: Sequence[Tool]) -> Floats:
        """Score tools (T,), in OpenAI's form, for a request."""
        asked = self._encode(request)
        found = [self._score(asked, self._encode(describe(tool))) for tool in tools]
        return np.asarray(found, np.float32)

    def _score(self, asked: Sequence[int], told: Sequence[int]) -> float:
        if not len(asked) or not len(told):
            return 0.0
        likeness = np.maximum(self.vectors[asked] @ self.vectors[told].T, 0) ** 3
        best = (likeness * self.credits[told]).max(1)
        return float(self.scale * best @ self.weights[asked])

    def arrange(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]) -> list[Tool]:
        """Sort tools by how well they fit the last request of a conversation.

        Returns:
            Copies of the tools, the best first; those that fit have `"fits": True`.
        """
        scores = self.scores(last_request(messages), tools)
        order = np.argsort(-scores, kind="stable")
        return [{**tools[i], FITS: bool(scores[i] > self.threshold)} for i in order]

    def save(self, folder: str | Path) -> None:
        """Write the vocabulary and the vectors, these as 8-bit numbers with one step a word."""
        from safetensors.numpy import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        steps = np.abs(self.vectors).max(1, keepdims=True) / 127
        numbers = {
            "vectors": np.round(self.vectors / np.maximum(steps, 1e-9)).astype(np.int8),
            "weights": self.weights.astype(np.float16),
            "credits": self.credits.astype(np.float16),
            "scale": np.asarray([self.scale, self.threshold], np.float32),
        }
        save_file(numbers, folder / VECTORS_FILE)
        (folder / WORDS_FILE).write_text("\n".join(self.words) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointError: A file is missing or does not fit.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        try:
            words = (folder / WORDS_FILE).read_text(encoding="utf-8").split("\n")[:-1]
            numbers = load_file(folder / VECTORS_FILE)
            scale, threshold = (float(x) for x in numbers["scale"])
            vectors = numbers["vectors"].astype(np.float32)
            weights, credits_ = (numbers[n].astype(np.float32) for n in ("weights", "credits"))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{folder} holds no ranking of tools that can be read ({error}); copy the model "
                "again, or delete the folder to list tools as they are given"
            ) from error
        if not len(words) == len(vectors) == len(weights) == len(credits_):
            raise CheckpointError(
                f"{folder} has {len(words)} words and {len(vectors)} vectors; expected as many; "
                "copy the model again"
            )
        return cls(words, vectors, weights, credits_, scale, threshold)


def describe(tool: Tool) -> str:
    """Write a tool's name in words, what it does, and its parameters' descriptions."""
    function = tool.get("function") or tool
    name = _PARTS.sub(" ", str(function.get("name", "")))
    return f"{name}. {function.get('description') or ''}"


def last_request(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the user's last message; empty where there is none."""
    said = [m.get("content") for m in messages if m.get("role") == "user"]
    if not said:
        return ""
    if isinstance(said[-1], str):
        return said[-1]
    return " ".join(str(b.get("text", "")) for b in said[-1] or () if isinstance(b, Mapping))


def make_reader(words: Sequence[str]) -> Any:
    """Make a function that turns a text into ids of words, at most `LONGEST`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def read(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text).ids[:LONGEST]
        return ids

    return read


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Floats = (vectors / np.maximum(lengths, 1e-9)).astype(np.float32)
    return found
