"""The demo: ask about a photo, a sound, a 3D shape, a video and a mixture; then draw a picture.

```
shots -> chat.stream (answer), embeddings (nearest concepts) -> results -> terminal, demo.png
```
Run it with `python -m ibllm_tools.demo` or `ibllm demo`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ibllm_tools.checkpoints import POCKET, POCKET_FOLDER, find_folder
from ibllm_tools.media import Media

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ibllm_tools.chat_models import ChatImageBindLLM

MEDIA_FOLDER = Path(__file__).parent / "demo_media"
N_NEAREST = 3
BAR_CELLS = 18
COLOURS = {"photo": "#d97706", "sound": "#2563eb", "3D shape": "#0f9d76", "video": "#c026d3"}
MIX_COLOUR = "#7c3aed"


@dataclass(frozen=True)
class Shot:
    """One question of the demo, about one medium or a mixture of several.

    Attributes:
        kind: What a person calls it: "photo", "sound", "3D shape", "video" or "mixture".
        question: What is asked.
        parts: File names in the demo's media folder, with their weights.
    """

    kind: str
    question: str
    parts: tuple[tuple[str, float], ...]

    @property
    def title(self) -> str:
        """The file names, with weights where there are several."""
        if len(self.parts) == 1:
            return self.parts[0][0]
        return " + ".join(f"{weight:g} × {name}" for name, weight in self.parts)

    @property
    def colour(self) -> str:
        """The colour that stands for its kind."""
        return COLOURS.get(self.kind, MIX_COLOUR)

    def media(self) -> list[Media]:
        """Read the files."""
        return [Media.from_path(MEDIA_FOLDER / name, weight=weight) for name, weight in self.parts]


@dataclass
class Result:
    """What the demo found out about one shot.

    Attributes:
        shot: What was asked.
        answer: The model's words.
        nearest: The concepts whose text embeddings are most similar (cosine), best first.
        farthest: The similarity of the least similar concept; bars begin there.
        first_token_s: Seconds from the question to the first text.
        tokens_per_s: Tokens per second after it.
    """

    shot: Shot
    answer: str = ""
    nearest: list[tuple[str, float]] = field(default_factory=list)
    farthest: float = -1.0
    first_token_s: float = 0.0
    tokens_per_s: float = 0.0

    def share(self, similarity: float) -> float:
        """How far a similarity is on the way from the farthest to the nearest concept, 0 to 1."""
        top = self.nearest[0][1]
        return (similarity - self.farthest) / max(top - self.farthest, 1e-9)


SHOTS = (
    Shot("photo", "What do you see?", (("piano.jpg", 1.0),)),
    Shot("sound", "What makes this sound?", (("sea.ogg", 1.0),)),
    Shot("3D shape", "What is this object?", (("fish.ply", 1.0),)),
    Shot("video", "What is in the video?", (("dog.mp4", 1.0),)),
    Shot("mixture", "What could be happening?", (("piano.jpg", 0.5), ("dog.ogg", 0.5))),
)


def run(
    out: Path = Path("demo.png"),
    model: str = POCKET,
    console: Console | None = None,
    shots: Sequence[Shot] = SHOTS,
) -> list[Result]:
    """Run the demo.

    Args:
        out: Where the picture goes.
        model: "pocket", a model folder, or a hub id.
        console: Where the text goes; the terminal by default.
        shots: What to ask.

    Returns:
        One result per shot.

    Raises:
        MissingExtraError: matplotlib is missing; the text part has run by then.
    """
    from ibllm_tools.chat_models import ChatImageBindLLM
    from ibllm_tools.embeddings import ImageBindEmbeddings

    console = console or Console(highlight=False)
    chat, embeddings = ChatImageBindLLM(model=model), ImageBindEmbeddings(model=model)
    started = time.perf_counter()
    chat.get_token_ids("hello")  # reads the weights, so that the first answer is not charged
    console.print(Rule(f"[bold]{model}[/bold] ready in {time.perf_counter() - started:.1f} s"))
    names = concept_names(model)
    concepts = embeddings.embed_documents(names)
    results = []
    for shot in shots:
        result = _answer(shot, chat, console)
        [medium] = embeddings.embed_media([shot.media()])
        ranked = _ranked(medium, names, concepts)
        result.nearest, result.farthest = ranked[:N_NEAREST], ranked[-1][1]
        console.print(_nearest_table(result))
        console.print(_timing_line(result))
        results.append(result)
    _draw(results, out, model)
    console.print(f"\nThe picture is in [bold]{out}[/bold]")
    return results


def concept_names(model: str = POCKET) -> list[str]:
    """Read the English names of the concepts that a model was trained on.

    A model without a `concepts.json` is asked about those of pocket.
    """
    folder = find_folder(model)
    paths = [parent / "concepts.json" for parent in (folder, POCKET_FOLDER) if parent]
    found: list[dict[str, Any]] = json.loads(
        next(path for path in paths if path.is_file()).read_text(encoding="utf-8")
    )
    return [concept["name"] for concept in found]


def _answer(shot: Shot, chat: ChatImageBindLLM, console: Console) -> Result:
    from langchain_core.messages import HumanMessage

    console.print(f"\n[bold {shot.colour}]{shot.kind.upper()}[/]  [dim]{shot.title}[/]")
    console.print(f"  [dim]Q[/]  {shot.question}")
    console.print("  [dim]A[/]  ", end="")
    result, n_tokens, first = Result(shot), 0, None
    message = HumanMessage([shot.question, *shot.media()])
    started = time.perf_counter()
    for chunk in chat.stream([message]):
        first = first or time.perf_counter()
        result.answer += str(chunk.text)
        console.print(Text(str(chunk.text), style="bold"), end="")
        n_tokens += chunk.usage_metadata["output_tokens"] if chunk.usage_metadata else 0
    console.print()
    ended, first = time.perf_counter(), first or time.perf_counter()
    result.first_token_s = first - started
    result.tokens_per_s = (n_tokens - 1) / (ended - first) if n_tokens > 1 else 0.0
    return result


def _ranked(
    medium: list[float], names: list[str], concepts: list[list[float]]
) -> list[tuple[str, float]]:
    """The concepts by the cosine similarity of their text embeddings with the medium's."""
    similarities = [sum(a * b for a, b in zip(medium, c, strict=True)) for c in concepts]
    return sorted(zip(names, similarities, strict=True), key=lambda pair: -pair[1])


def _nearest_table(result: Result) -> Padding:
    table = Table.grid(padding=(0, 2))
    for name, value in result.nearest:
        bar = "█" * round(BAR_CELLS * result.share(value))
        table.add_row(name, Text(bar, style=result.shot.colour), f"{value:.2f}")
    return Padding(table, (0, 0, 0, 5))


def _timing_line(result: Result) -> str:
    rate = f"{result.tokens_per_s:,.0f} tokens/s" if result.tokens_per_s else "one token"
    return f"     [dim]first token {result.first_token_s * 1000:,.0f} ms · {rate}[/]"


def _draw(results: list[Result], out: Path, model: str) -> None:
    from ibllm_tools.demo_picture import draw

    draw(results, out, model)


if __name__ == "__main__":
    run(Path(sys.argv[1] if len(sys.argv) > 1 else "demo.png"))
