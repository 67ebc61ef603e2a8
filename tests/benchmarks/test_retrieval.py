"""How often the nearest neighbour shows the same concept, for each pair of modalities.

Run: `pytest tests/benchmarks/test_retrieval.py -m benchmark -s`.
The val split of the data pack (beside the project, or IBLLM_DATA) is searched with
`ImageBindVectorStore`. A query counts where its concept is among what can be found; its own
recording is never found. Recall@1 is averaged over the queries of a concept, then over concepts.
"""

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from ibllm_tools import ImageBindEmbeddings, ImageBindVectorStore
from ibllm_tools.evaluate.gallery import KINDS, open_gallery

DATA = Path(os.environ.get("IBLLM_DATA", Path(__file__).parents[3] / "shared" / "data"))
TEXT = "names"
NAMES = (TEXT, *KINDS)
SHOWN = {"names": "text", "photos": "photo", "sounds": "sound", "shapes": "3D shape"}
# Far above chance, and below what any fair edition of pocket reaches.
LEAST = 0.15


@pytest.fixture(scope="module")
def rows():
    """Per kind: unit vectors (N, D), concept and recording of each row."""
    if not DATA.is_dir():
        pytest.skip(f"no data pack at {DATA}")
    gallery = open_gallery(DATA, "val")
    embeddings = ImageBindEmbeddings()
    names = [fact.name for fact in gallery.facts]
    found = {TEXT: (embeddings.embed_documents(names), list(range(len(names))), names)}
    for kind in KINDS:
        shown = gallery.shown(kind)
        vectors = embeddings.embed_media([exhibit.medium for exhibit in shown])
        groups = [f"{kind} {exhibit.group}" for exhibit in shown]
        found[kind] = (vectors, [exhibit.concept for exhibit in shown], groups)
    return found


class Given:
    """Embeddings that hand out vectors which are there already."""

    def __init__(self, vectors):
        self.vectors = vectors

    def embed_documents(self, texts):
        return [self.vectors[int(text)] for text in texts]


def store_of(vectors, concepts, groups):
    metadatas = [{"concept": c, "group": g} for c, g in zip(concepts, groups, strict=True)]
    store = ImageBindVectorStore(Given(vectors))
    store.add_texts(map(str, range(len(vectors))), metadatas)
    return store


def recall(queries, searched):
    """Macro recall@1, the share that chance would get, and the number of queries."""
    store = store_of(*searched)
    by_group = defaultdict(lambda: defaultdict(int))
    for concept, group in zip(searched[1], searched[2], strict=True):
        by_group[concept][group] += 1
    most = 1 + max(max(groups.values()) for groups in by_group.values())
    right, chance = defaultdict(list), defaultdict(list)
    for vector, concept, group in zip(*queries, strict=True):
        others = sum(by_group[concept].values()) - by_group[concept].get(group, 0)
        if not others:
            continue
        found = store.similarity_search_by_vector(vector, k=most)
        best = next(d for d in found if d.metadata["group"] != group)
        right[concept].append(best.metadata["concept"] == concept)
        chance[concept].append(others / len(searched[0]))
    macro = [np.mean([np.mean(values) for values in x.values()]) for x in (right, chance)]
    return *map(float, macro), sum(map(len, right.values())), len(right)


@pytest.mark.benchmark
@pytest.mark.timeout(1800)
def test_recall_of_each_pair(rows):
    print("\n| query, searched: | " + " | ".join(SHOWN[name] for name in NAMES) + " |")
    print("|---|" + "---|" * len(NAMES))
    values = {}
    for query in NAMES:
        cells = []
        for searched in NAMES:
            if query == searched == TEXT:
                cells.append("–")
                continue
            score, chance, n_queries, n_concepts = recall(rows[query], rows[searched])
            values[query, searched] = score
            cells.append(f"{100 * score:.1f} ({100 * chance:.1f}; {n_queries}/{n_concepts})")
        print(f"| {SHOWN[query]} | " + " | ".join(cells) + " |", flush=True)
    print("In brackets: percent by chance; queries/concepts.")
    assert min(values.values()) > LEAST
