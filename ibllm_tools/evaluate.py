"""How often a model names the right thing, asked through the public chat interface.

For each medium of a data pack's split one question is asked, and the answer is read by the
rule of `ibllm_tools.train.naming`. Beside it stands the encoder's own zero-shot accuracy:
the concept whose words are nearest to the medium.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibllm_tools.media import Media

if TYPE_CHECKING:
    from ibllm_tools.chat_models import ChatImageBindLLM
    from ibllm_tools.train.knowledge import Fact

QUESTIONS = {
    "photos": "What is this?",
    "sounds": "What do you hear?",
    "shapes": "What is this shape?",
}
PHRASES = ("{a}", "a photo of {a}", "this is {a}", "the sound of {a}", "the shape of {a}")
MAX_TOKENS = 32


@dataclass(frozen=True)
class Score:
    """Accuracy on one kind of media.

    Attributes:
        kind: photos, sounds or shapes.
        question: What was asked.
        count: Media asked about.
        concepts: Different concepts among them.
        answered: Share of answers that name the right concept and no other.
        answered_without_cache: The same with the visual cache off.
        right_kind: Share whose single named concept is of the right kind (animal, vehicle...).
        zero_shot: Share of media whose nearest words are the right concept's.
    """

    kind: str
    question: str
    count: int
    concepts: int
    answered: float
    answered_without_cache: float
    right_kind: float
    zero_shot: float


def evaluate(
    data_dir: Path | str,
    *,
    split: str = "val",
    model: str = "pocket",
    kinds: Sequence[str] = tuple(QUESTIONS),
    limit: int | None = None,
) -> list[Score]:
    """Score a model on a split of a data pack.

    Args:
        data_dir: Folder with parquet files of the pack's schema.
        split: val, train or heldout.
        model: "pocket", a folder, or a hub id.
        kinds: Which of photos, sounds, shapes.
        limit: Media per kind, the first of the file; all by default.

    Raises:
        ConfigurationError: The pack lacks a file.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    from ibllm_tools.chat_models import ChatImageBindLLM
    from ibllm_tools.train.data import read_concepts
    from ibllm_tools.train.knowledge import facts_for

    facts = facts_for(read_concepts(Path(data_dir)))
    chat = ChatImageBindLLM(model=model, max_tokens=MAX_TOKENS)
    return [_score(Path(data_dir), split, kind, chat, facts, limit) for kind in kinds]


def _score(
    data_dir: Path,
    split: str,
    kind: str,
    chat: ChatImageBindLLM,
    facts: Sequence[Fact],
    limit: int | None,
) -> Score:
    from ibllm_tools.train.data import read_blobs
    from ibllm_tools.train.naming import Names

    rows = read_blobs(data_dir, kind, split)[:limit]
    media, names = [_medium(kind, blob) for blob, _ in rows], Names(facts)
    concepts = np.array([concept for _, concept in rows])
    question = QUESTIONS[kind]
    named = [names.named(a) for a in _ask_all(chat, question, media, kind)]
    plain = [names.named(a) for a in _ask_all(chat, question, media, kind, visual_cache=False)]
    kinds = [{facts[i].kind for i in found} for found in named]
    return Score(
        kind=kind,
        question=question,
        count=len(rows),
        concepts=len(set(concepts.tolist())),
        answered=_share(n == {c} for n, c in zip(named, concepts, strict=True)),
        answered_without_cache=_share(n == {c} for n, c in zip(plain, concepts, strict=True)),
        right_kind=_share(k == {facts[c].kind} for k, c in zip(kinds, concepts, strict=True)),
        zero_shot=float((nearest_concepts(chat.model, media, facts) == concepts).mean()),
    )


def nearest_concepts(model: str, media: Sequence[Media], facts: Sequence[Fact]) -> Any:
    """Return the concept whose words are nearest to each medium: (N,) ids."""
    from ibllm_tools.embeddings import ImageBindEmbeddings

    embeddings = ImageBindEmbeddings(model=model)
    words = [
        np.array(embeddings.embed_documents([p.format(a=f.phrase) for f in facts])) for p in PHRASES
    ]
    anchors = np.mean(words, axis=0)  # (concepts, joint)
    anchors /= np.linalg.norm(anchors, axis=1, keepdims=True)
    vectors = np.array(embeddings.embed_media(list(media)))
    return (vectors @ anchors.T).argmax(axis=1)


def _medium(kind: str, blob: bytes) -> Media:
    if kind == "photos":
        return Media.from_bytes(blob, modality="image")
    if kind == "sounds":
        return Media.from_bytes(blob, modality="audio")
    points = np.frombuffer(blob, "<f2").reshape(-1, 3).astype(np.float32)
    return Media.from_array(points, "point")


def _ask_all(
    chat: ChatImageBindLLM, question: str, media: Sequence[Media], kind: str, **settings: Any
) -> Iterator[str]:
    from langchain_core.messages import HumanMessage
    from rich.console import Console
    from rich.progress import track

    text = "cache off" if settings else "as shipped"
    progress = Console(stderr=True)  # the scores have stdout for themselves
    for medium in track(media, description=f"{kind}, {text}", console=progress):
        yield chat.invoke([HumanMessage([question, medium])], **settings).text


def _share(flags: Any) -> float:
    marks = list(flags)
    return sum(marks) / len(marks) if marks else float("nan")


def scores_as_json(scores: Sequence[Score]) -> str:
    """Write scores for a program to read."""
    return json.dumps([asdict(score) for score in scores], indent=2) + "\n"


def scores_as_table(scores: Sequence[Score]) -> Any:
    """Make a rich table of scores."""
    from rich.table import Table

    table = Table(title="Right concept named, greedy")
    for column in ("", "media", "concepts", "answers", "cache off", "right kind", "zero-shot"):
        table.add_column(column)
    for s in scores:
        shares = (s.answered, s.answered_without_cache, s.right_kind, s.zero_shot)
        table.add_row(s.kind, str(s.count), str(s.concepts), *(f"{x:.1%}" for x in shares))
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `python -m ibllm_tools.evaluate --data DIR [--split val] [--model pocket] [--json]`."""
    from argparse import ArgumentParser

    from rich.console import Console

    parser = ArgumentParser(description="How often a model names the right thing.")
    parser.add_argument("--data", required=True, help="folder of the data pack")
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default="pocket", help='"pocket", a folder, or a hub id')
    parser.add_argument("--limit", type=int, help="media per kind")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    scores = evaluate(given.data, split=given.split, model=given.model, limit=given.limit)
    console = Console()
    if given.json:
        console.print_json(scores_as_json(scores))
    else:
        console.print(scores_as_table(scores))


if __name__ == "__main__":
    main()
