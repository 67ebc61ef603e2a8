"""The command line `ibllm`: a thin layer that parses, calls the package, and prints.

Heavy packages are imported inside the commands, so that `ibllm --help` answers at once.
Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ibllm_tools import __version__
from ibllm_tools.errors import ConfigurationError, IbllmError, MediaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ibllm_tools.engine import Finish
    from ibllm_tools.media import Item, Media

STDIN = "-"
DEBUG = "IBLLM_DEBUG"

app = typer.Typer(
    name="ibllm",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
train_app = typer.Typer(help="Train a model.", no_args_is_help=True, rich_markup_mode=None)
eval_app = typer.Typer(help="Score a model.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(train_app, name="train")
app.add_typer(eval_app, name="eval")

ModelOption = Annotated[str, typer.Option(help='"pocket", a model folder, or a hub id.')]
ModalityOption = Annotated[
    list[str] | None,
    typer.Option(help="What files are sensed as: once for all of them, or once per file."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
DeviceOption = Annotated[str | None, typer.Option(help="Such as cpu or cuda:0.")]
DtypeOption = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
FilesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE[:MODALITY][@WEIGHT]…",
        help="Media, such as dog.jpg, room.png:depth or sea.ogg@0.5; - reads standard input.",
        show_default=False,
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Ask an LLM about photos, sounds, 3D shapes, videos, and mixtures of them."""


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask.", show_default=False)],
    files: FilesArgument = None,
    model: ModelOption = "pocket",
    modality: ModalityOption = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from this much probability.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    cache: Annotated[
        bool | None, typer.Option("--cache/--no-cache", help="Use the visual cache or not.")
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question about media; the answer is printed as it comes."""
    started = time.perf_counter()
    media = read_media(files or [], modality or [])
    items = _load(media)
    from ibllm_tools.decoding import MAX_TOKENS, Sampling
    from ibllm_tools.engine import open_engine

    sampling = Sampling(temperature, top_p, max_tokens=max_tokens or MAX_TOKENS, seed=seed)
    engine = open_engine(model, device=device, dtype=dtype)
    loaded = time.perf_counter()
    pieces = engine.stream([{"role": "user", "content": question}], items, sampling, cache)
    first, parts, finish = None, [], None
    for piece in pieces:
        first = first or time.perf_counter()
        parts.append(piece.text)
        finish = piece.finish
        if not as_json:
            typer.echo(piece.text, nl=piece.finish is not None)
            sys.stdout.flush()
    if as_json and finish and first:
        times = _timings(started, loaded, first, time.perf_counter(), finish)
        answer = {"question": question, "answer": "".join(parts), "media": _described(media)}
        _print_json({**answer, "model": model, **_usage(finish, media), "timings": times})


def read_media(files: Sequence[str], modalities: Sequence[str]) -> list[Media]:
    """Read the files of a command line into content blocks.

    Args:
        files: `FILE[:MODALITY][@WEIGHT]`; "-" is standard input.
        modalities: None, one for all files, or one per file; stands behind a file's own.

    Raises:
        MediaError: A file cannot be read or is no medium.
        ConfigurationError: The modalities do not fit the number of files.
    """
    if len(modalities) not in {0, 1, len(files)}:
        raise ConfigurationError(
            f"found {len(modalities)} times --modality for {len(files)} files; "
            "give it once, or once per file"
        )
    per_file: list[str | None] = list(modalities) or [None]
    if len(per_file) == 1:
        per_file *= len(files)
    return [_read_medium(file, sensed) for file, sensed in zip(files, per_file, strict=True)]


def split_file(spec: str) -> tuple[str, str | None, float]:
    """Split `FILE[:MODALITY][@WEIGHT]`; a file of the whole name comes first.

    Returns:
        The path, the modality or None, and the weight.

    Raises:
        MediaError: What follows "@" is no number, and there is no file of that name.
    """
    from ibllm_tools.media import MODALITIES

    path, modality, weight = spec, None, 1.0
    head, at, tail = path.rpartition("@")
    if at and head and not Path(path).exists():
        try:
            path, weight = head, float(tail)
        except ValueError:
            raise MediaError(
                f"{spec}: found weight {tail!r}, expected a number above 0 after the last @; "
                "write for example dog.jpg@0.5 (there is no file of that name)"
            ) from None
    head, colon, tail = path.rpartition(":")
    if colon and head and tail in MODALITIES and not Path(path).exists():
        path, modality = head, tail
    return path, modality, weight


def _read_medium(spec: str, modality: str | None) -> Media:
    from ibllm_tools.media import Media

    path, own, weight = split_file(spec)
    sensed: Any = own or modality
    if path != STDIN:
        return Media.from_path(path, modality=sensed, weight=weight)
    data = sys.stdin.buffer.read()
    return Media.from_bytes(data, modality=sensed, weight=weight, name="standard input")


def _load(media: Sequence[Media]) -> list[Item]:
    from ibllm_tools.media import load

    return [load(medium) for medium in media]


@app.command()
def embed(
    files: FilesArgument = None,
    text: Annotated[list[str] | None, typer.Option(help="A text to embed; repeatable.")] = None,
    mix: Annotated[bool, typer.Option("--mix", help="One vector for all files together.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write an array to a .npy or .safetensors file.")
    ] = None,
    model: ModelOption = "pocket",
    modality: ModalityOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Embed media and texts in one space; prints a line per vector: name, tab, numbers."""
    if not files and not text:
        raise typer.BadParameter("nothing to embed; give FILES or --text")
    _check_out(out)
    media = read_media(files or [], modality or [])
    from ibllm_tools.embeddings import ImageBindEmbeddings

    embeddings = ImageBindEmbeddings(model=model, device=device, dtype=dtype)
    names = [medium.name for medium in media]
    rows: list[Any] = [media] if mix and media else list(media)
    names = [" + ".join(names), *(text or [])] if mix and media else [*names, *(text or [])]
    vectors = embeddings.embed_media(rows) + embeddings.embed_documents(list(text or []))
    if out is not None:
        _write_vectors(out, names, vectors)
        typer.echo(f"{out}: {len(vectors)} vectors of {len(vectors[0])} values")
    elif as_json:
        entries = [{"name": n, "vector": v} for n, v in zip(names, vectors, strict=True)]
        _print_json({"model": model, "embeddings": entries})
    else:
        for name, vector in zip(names, vectors, strict=True):
            typer.echo(f"{name}\t{' '.join(f'{value:.6g}' for value in vector)}")


def _check_out(out: Path | None) -> None:
    if out is not None and out.suffix not in {".npy", ".safetensors"}:
        raise typer.BadParameter(f"{out}: expected a file name ending in .npy or .safetensors")


def _write_vectors(out: Path, names: list[str], vectors: list[list[float]]) -> None:
    import numpy as np

    array = np.asarray(vectors, dtype=np.float32)
    if out.suffix == ".npy":
        np.save(out, array)
        return
    from safetensors.numpy import save_file

    save_file({"embeddings": array}, out, metadata={"names": json.dumps(names)})


@app.command()
def convert(
    imagebind: Annotated[Path, typer.Option(help="imagebind_huge.pth, as released.")],
    llama: Annotated[Path, typer.Option(help="The folder of a released LLaMA.")],
    adapter: Annotated[Path, typer.Option(help="The released adapter, such as 7B.pth.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    knn: Annotated[Path | None, typer.Option(help="The released knn.index.")] = None,
    point: Annotated[Path | None, typer.Option(help="Point-Bind's 3D trunk.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Another tokenizer.model.")] = None,
    dtype: DtypeOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files in OUT.")] = False,
) -> None:
    """Turn released weights into a model folder; pickles are read as weights only."""
    from ibllm_tools.convert import convert as convert_files

    folder = convert_files(
        out,
        imagebind=imagebind,
        llama=llama,
        adapter=adapter,
        knn=knn,
        point=point,
        tokenizer=tokenizer,
        dtype=dtype,
        overwrite=overwrite,
        progress=lambda text: typer.echo(text, err=True),
    )
    typer.echo(f'{folder}: ready; try `ibllm ask "What is this?" FILE --model {folder}`')


@train_app.command("pocket")
def train_pocket(
    data: Annotated[Path, typer.Option(help="The folder of the training pack.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    work: Annotated[
        Path | None, typer.Option(help="Checkpoints, to resume from; OUT-work by default.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.0, help="About how long, on two cores.")] = 80.0,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
) -> None:
    """Train the miniature model that ships with the package; resumes where it was stopped."""
    from ibllm_tools.train.pocket import train_pocket as train

    folder = train(data, out, work or out.with_name(f"{out.name}-work"), minutes=minutes, seed=seed)
    typer.echo(f'{folder}: ready; try `ibllm ask "What is this?" FILE --model {folder}`')


@eval_app.command("pocket")
def eval_pocket(
    data: Annotated[Path, typer.Option(help="The folder of the pack.")],
    split: Annotated[str, typer.Option(help="val, train or heldout.")] = "val",
    limit: Annotated[int | None, typer.Option(min=1, help="Media per kind.")] = None,
    model: ModelOption = "pocket",
    as_json: JsonOption = False,
) -> None:
    """Count how often a model names the right thing in photos, sounds and shapes."""
    from rich.console import Console

    from ibllm_tools.evaluate import evaluate, scores_as_json, scores_as_table

    scores = evaluate(data, split=split, model=model, limit=limit)
    if as_json:
        typer.echo(scores_as_json(scores))
    else:
        Console().print(scores_as_table(scores))


@app.command()
def doctor(model: ModelOption = "pocket", as_json: JsonOption = False) -> None:
    """Say what is installed, whether the model fits here, and what is missing."""
    from ibllm_tools.doctor import describe, examine

    report = examine(model)
    if as_json:
        _print_json(report)
    else:
        typer.echo(describe(report))
    if report["problems"]:
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("demo.png"),
    model: ModelOption = "pocket",
) -> None:
    """Ask about a photo, a sound, a 3D shape, a video and a mixture; write one picture."""
    from ibllm_tools.demo import run

    run(out, model=model)


def _described(media: Sequence[Media]) -> list[dict[str, Any]]:
    return [{"name": m.name, "modality": m.modality, "weight": m.weight} for m in media]


def _usage(finish: Finish, media: Sequence[Media]) -> dict[str, Any]:
    usage = {
        "input_tokens": finish.n_input_tokens,
        "output_tokens": finish.n_output_tokens,
        "media": len(media),
    }
    return {"usage": usage, "finish_reason": finish.reason}


def _timings(
    started: float, loaded: float, first: float, ended: float, finish: Finish
) -> dict[str, float]:
    rate = (finish.n_output_tokens - 1) / (ended - first) if finish.n_output_tokens > 1 else 0.0
    return {
        "load_s": round(loaded - started, 4),
        "first_token_s": round(first - loaded, 4),
        "total_s": round(ended - started, 4),
        "tokens_per_s": round(rate, 1),
    }


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def main() -> None:
    """Run the command line; errors are one line on stderr."""
    # Set before transformers is imported: its notes are not for the user of a command line.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except BrokenPipeError:
        # The reader went away; keep Python from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        typer.echo(f"ibllm: {_one_line(error)}", err=True)
        sys.exit(1)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, IbllmError):
        return text
    return f"{type(error).__name__}: {text} (set {DEBUG}=1 to see where)"


if __name__ == "__main__":
    main()
