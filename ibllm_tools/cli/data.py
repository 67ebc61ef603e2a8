"""`ibllm clean`: a feature store without the rows that training would be better without."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ibllm_tools.cli.options import DeviceOption, DtypeOption, JsonOption, ModelOption, print_json
from ibllm_tools.errors import ConfigurationError

if TYPE_CHECKING:
    from ibllm_tools.data.cleaning import CleaningOptions, CleaningReport
    from ibllm_tools.data.store import FeatureStore
    from ibllm_tools.engine import Senses

REPORT_FILE, PLOT_FILE = "cleaning.json", "cleaning.png"

LanguagesOption = Annotated[
    list[str] | None,
    typer.Option("--language", help="Keep texts in en, zh or other; repeatable."),
]


def clean(
    store: Annotated[Path, typer.Argument(help="A feature store, as `ibllm embed` writes it.")],
    out: Annotated[Path | None, typer.Option(help="The store to write, of the rows kept.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only report; write no store.")
    ] = False,
    min_similarity: Annotated[
        float | None, typer.Option(help="Least cosine of medium and text.")
    ] = None,
    keep_share: Annotated[
        float | None, typer.Option(help="Keep this share, by similarity; such as 0.8.")
    ] = None,
    near_duplicate: Annotated[
        float | None,
        typer.Option(help="Of media at least this similar keep one; 0.995 for pocket."),
    ] = None,
    duplicates: Annotated[
        str, typer.Option(help="Same media and text (rows), same media (media), or off.")
    ] = "rows",
    language: LanguagesOption = None,
    min_words: Annotated[int | None, typer.Option(min=0, help="Shortest text, in words.")] = None,
    max_words: Annotated[int | None, typer.Option(min=1, help="Longest text, in words.")] = None,
    min_characters: Annotated[
        int | None, typer.Option(min=0, help="Shortest Chinese text, in characters.")
    ] = None,
    max_characters: Annotated[
        int | None, typer.Option(min=1, help="Longest Chinese text, in characters.")
    ] = None,
    max_repeats: Annotated[
        int | None, typer.Option(min=1, help="Drop a text that stands beside more media.")
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(help="Languages whose texts are compared with media [en, other]."),
    ] = None,
    model: ModelOption = "pocket",
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    report: Annotated[Path | None, typer.Option(help="Write the report as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the report as a picture.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Take out rows whose text does not fit, that repeat others, or in a wrong language."""
    if (out is None) != dry_run:
        raise typer.BadParameter("give --out FOLDER for the rows kept, or --dry-run")
    from ibllm_tools.data.cleaning import CleaningOptions

    options = CleaningOptions(
        languages=_as_tuple(language),
        min_words=min_words,
        max_words=max_words,
        min_characters=min_characters,
        max_characters=max_characters,
        duplicates=_duplicates(duplicates),
        max_repeats=max_repeats,
        min_similarity=min_similarity,
        keep_share=keep_share,
        judged=_as_tuple(judge) or ("en", "other"),
        near_duplicate=near_duplicate,
    )
    found = _clean(store, out, options, (model, device, dtype))
    if out is not None:
        report, plot = report or out / REPORT_FILE, plot or out / PLOT_FILE
    if report is not None:
        text = json.dumps(found.as_dict(), ensure_ascii=False, indent=2)
        report.write_text(text + "\n", encoding="utf-8")
    if plot is not None:
        from ibllm_tools.data.cleaning.plot import draw_cleaning

        draw_cleaning(found, plot)
    if as_json:
        print_json(found.as_dict())
    else:
        _print(found.as_table(), out)


def _clean(
    folder: Path,
    out: Path | None,
    options: CleaningOptions,
    model: tuple[str, str | None, str | None],
) -> CleaningReport:
    """Judge the rows and, if `out` is given, write those that stay."""
    from ibllm_tools.data.cleaning import check_folder, clean, write_kept
    from ibllm_tools.data.store import FeatureStore

    store = FeatureStore.open(folder)
    if out is not None:
        check_folder(store, out)
    senses = _senses_of(store, options, *model)
    with _progress() as bar:
        found = clean(store, options, senses, bar)
        if out is not None:
            write_kept(store, found, out, bar)
    return found.report


def _print(table: Any, out: Path | None) -> None:
    from rich.console import Console

    Console().print(table)
    if out is not None:
        typer.echo(f"{out}: ready; train with `ibllm train bind --data {out} …`")


def _as_tuple(values: list[str] | None) -> tuple[Any, ...]:
    """Repeated options, each of which may list several with commas."""
    return tuple(part.strip() for value in values or [] for part in value.split(",") if part)


def _duplicates(value: str) -> Any:
    if value not in {"rows", "media", "off"}:
        raise typer.BadParameter(f"--duplicates: found {value!r}, expected rows, media or off")
    return value


def _senses_of(
    store: FeatureStore,
    options: CleaningOptions,
    model: str,
    device: str | None,
    dtype: str | None,
) -> Senses | None:
    """The encoder that made the store, if texts have to be compared with it."""
    if not options.needs_similarity:
        return None
    from ibllm_tools.data.store import identify_encoder
    from ibllm_tools.engine import open_senses

    senses = open_senses(model, device=device, dtype=dtype)
    store.require(identify_encoder(senses.encoder, senses.config, model))
    if "text" in senses.encoder.config.trunks:
        return senses
    if options.min_similarity is None and options.keep_share is None:
        return None
    raise ConfigurationError(
        f"{model}: its encoder has no text trunk, which --min-similarity and --keep-share need; "
        "leave them out, or use an encoder that has one"
    )


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on standard error, for each step of the work."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    tasks: dict[str, TaskID] = {}
    with Progress(console=Console(stderr=True), transient=True) as bar:

        def tell(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=total)
            bar.update(tasks[label], completed=done)

        yield tell
