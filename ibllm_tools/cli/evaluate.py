"""`ibllm eval`: how good a model is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ibllm_tools.cli.options import DeviceOption, JsonOption, ModelOption

if TYPE_CHECKING:
    from ibllm_tools.evaluate import Scorecard

TABLE_WIDTH = 130  # where no terminal says how wide it is

app = typer.Typer(help="Score a model.", no_args_is_help=True, rich_markup_mode=None)


@app.command("pocket")
def eval_pocket(
    data: Annotated[
        Path, typer.Option(help="Folder with photos.parquet, sounds.parquet or shapes.parquet.")
    ],
    split: Annotated[str, typer.Option(help="Value of the tables' split column.")] = "val",
    model: ModelOption = "pocket",
    sections: Annotated[
        str | None,
        typer.Option(help="Some of names,cache,mixing,language,unknown,tools,speed."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows per measure.")] = None,
    unknown: Annotated[
        Path | None, typer.Option(help="Folder of media of things that it cannot know.")
    ] = None,
    through: Annotated[
        str, typer.Option(help="batch, or chat: every answer by ChatImageBindLLM.invoke (slow).")
    ] = "batch",
    out: Annotated[
        Path | None, typer.Option(help="Folder for pictures, scorecard.json and scorecard.md.")
    ] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model: names, cache, mixing, language, the unknown, tools, speed."""
    from ibllm_tools.evaluate import SECTIONS, evaluate

    if through not in ("batch", "chat"):
        raise typer.BadParameter(f"--through {through}: expected batch or chat")
    chosen = [s.strip() for s in sections.split(",")] if sections else SECTIONS
    way: Literal["batch", "chat"] = "chat" if through == "chat" else "batch"
    card = evaluate(
        data,
        split=split,
        model=model,
        sections=chosen,
        limit=limit,
        unknown=unknown,
        through=way,
        device=device,
    )
    if out is not None:
        _write(card, out)
    _show(card, as_json)


def _show(card: Scorecard, as_json: bool) -> None:
    if as_json:
        typer.echo(card.to_json(), nl=False)
        return
    from rich.console import Console

    from ibllm_tools.evaluate import as_table

    Console(width=None if sys.stdout.isatty() else TABLE_WIDTH).print(as_table(card))


def _write(card: Scorecard, folder: Path) -> None:
    from ibllm_tools.evaluate.card import as_markdown
    from ibllm_tools.evaluate.pictures import draw_all

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scorecard.json").write_text(card.to_json(), encoding="utf-8")
    (folder / "scorecard.md").write_text(as_markdown(card), encoding="utf-8")
    for path in draw_all(card, folder):
        typer.echo(f"{path}", err=True)


@app.command("digits")
def eval_digits(
    data: Annotated[
        Path, typer.Option(help="Folder with speech_digits.parquet and sounds.parquet.")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="A Whisper: folder, hub id or `.pt`; by default the one that ships."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Utterances of each speaker; sounds four times as many.")
    ] = 50,
    split: Annotated[str, typer.Option(help="Which sounds.")] = "val",
    work: Annotated[
        Path | None, typer.Option(help="Where decoded sounds are kept; else nowhere.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of how digits are put together.")] = 7,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a recognizer of spoken digits: words by speaker, times, and silence."""
    from tempfile import TemporaryDirectory

    from ibllm_tools.evaluate.digits import evaluate_digits

    with TemporaryDirectory() as folder:
        card = evaluate_digits(
            data,
            model,
            limit=limit,
            split=split,
            seed=seed,
            work_dir=work or folder,
            device=device,
        )
    _show(card, as_json)


@app.command("detector")
def eval_detector(
    data: Annotated[
        Path, typer.Option(help="Folder with photos.parquet, and scenes.parquet if it has one.")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="A detector of fixed classes; by default the one that ships."),
    ] = None,
    split: Annotated[str, typer.Option(help="Whose photos the scenes are made of.")] = "val",
    limit: Annotated[int, typer.Option(min=1, help="Scenes to compose.")] = 400,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a detector: average precision by class, counts, and scenes without anything."""
    from ibllm_tools.evaluate.detector import evaluate_detector

    card = evaluate_detector(data, model, split=split, limit=limit, device=device)
    _show(card, as_json)


@app.command("card")
def eval_card(
    scorecard: Annotated[Path, typer.Argument(help="scorecard.json of an earlier run.")],
    pictures: Annotated[
        Path | None, typer.Option(help="Draw the pictures again, into this folder.")
    ] = None,
) -> None:
    """Print the tables of a model card from a scorecard."""
    from ibllm_tools.evaluate import Scorecard
    from ibllm_tools.evaluate.card import as_markdown

    card = Scorecard.from_json(scorecard.read_text(encoding="utf-8"))
    if pictures is not None:
        from ibllm_tools.evaluate.pictures import draw_all

        draw_all(card, pictures)
    typer.echo(as_markdown(card))
