"""Texts that name concepts: what photos, sounds and shapes are bound to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ibllm_tools.encoder import ImageBind
from ibllm_tools.preprocess import PreprocessConfig, tokenize
from ibllm_tools.train.contrastive import encode_all
from ibllm_tools.train.data import Table
from ibllm_tools.train.knowledge import Fact

ENGLISH = (
    "{a}",
    "{n}",
    "a photo of {a}",
    "a picture of {a}",
    "an image of {a}",
    "this is {a}",
    "the sound of {a}",
    "the shape of {a}",
    "a blurry photo of {a}",
    "a close photo of {a}",
    "there is {a}",
    "I see {a}",
    "I hear {a}",
)
CHINESE = ("{z}", "一张{z}的照片", "这是{z}", "{z}的图片", "{z}的声音", "{z}的形状", "有{z}")
GENERIC_SUBTYPES = ("product photo", "animal call")


class Prompts:
    """Texts that name concepts and their finer kinds, tokenised once."""

    def __init__(
        self, facts: Sequence[Fact], subtypes: dict[str, int], config: PreprocessConfig
    ) -> None:
        """Tokenise every template for every concept, and each subtype in a photo phrase."""
        english = [[t.format(a=f.phrase, n=f.name) for t in ENGLISH] for f in facts]
        chinese = [[t.format(z=f.name_zh) for t in CHINESE] for f in facts]
        self.n_concepts = len(facts)
        self.english = tokenize([t for row in english for t in row], config)
        self.chinese = tokenize([t for row in chinese for t in row], config)
        self.subtype_concept = torch.tensor(list(subtypes.values()), dtype=torch.long)
        texts = [f"a photo of {name}" for name in subtypes] or ["thing"]
        self.subtypes = tokenize(texts, config)

    def draw(self) -> Tensor:
        """Draw one prompt a concept, a third of them Chinese: (concepts, T)."""
        n = self.n_concepts
        rows = torch.arange(n)
        english = self.english[rows * len(ENGLISH) + torch.randint(len(ENGLISH), (n,))]
        chinese = self.chinese[rows * len(CHINESE) + torch.randint(len(CHINESE), (n,))]
        return trim(torch.where(torch.rand(n, 1) < 0.33, chinese, english))

    @torch.no_grad()
    def ensemble(self, encoder: ImageBind) -> Tensor:
        """Average all prompts of each concept: (concepts, joint) unit vectors."""
        parts = []
        for tokens, count in ((self.english, len(ENGLISH)), (self.chinese, len(CHINESE))):
            n_rows = len(tokens)
            vectors = encode_all(encoder, "text", partial(_pick_text, tokens), n_rows)
            parts.append(F.normalize(vectors.view(self.n_concepts, count, -1).mean(1), dim=-1))
        return F.normalize(parts[0] + 0.5 * parts[1], dim=-1)


def _pick_text(tokens: Tensor, rows: Tensor) -> Tensor:
    return trim(tokens[rows])


def trim(tokens: Tensor) -> Tensor:
    """Cut the padding that no row of a token batch needs."""
    return tokens[:, : int((tokens != 0).sum(1).max())]


def subtype_names(table: Table, least: int = 10) -> dict[str, int]:
    """Finer names with at least `least` rows, each with its concept."""
    counts: dict[tuple[str, int], int] = {}
    for name, concept in zip(table.subtype, table.concept.tolist(), strict=True):
        counts[name, concept] = counts.get((name, concept), 0) + 1
    return {
        name: concept
        for (name, concept), count in sorted(counts.items())
        if name and count >= least and name not in GENERIC_SUBTYPES
    }


def subtype_index(table: Table, least: int = 10) -> list[int]:
    """Number the finer kind of each row; -1 where it has none of enough rows."""
    known = {name: i for i, name in enumerate(subtype_names(table, least))}
    return [known.get(name, -1) for name in table.subtype]
