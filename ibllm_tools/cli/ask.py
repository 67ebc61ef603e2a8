"""`ibllm ask`: a question about media, answered as it comes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ibllm_tools.cli.files import load_media, read_media
from ibllm_tools.cli.options import (
    DeviceOption,
    DtypeOption,
    FilesArgument,
    JsonOption,
    ModalityOption,
    ModelOption,
    print_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ibllm_tools.cache import CacheSettings
    from ibllm_tools.engine import Engine, Finish
    from ibllm_tools.media import Media


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
    cache_dir: Annotated[
        Path | None, typer.Option(help="Use this visual cache; see `ibllm cache build`.")
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question about media; the answer is printed as it comes."""
    started = time.perf_counter()
    media = read_media(files or [], modality or [])
    items = load_media(media)
    from ibllm_tools.decoding import MAX_TOKENS, Sampling
    from ibllm_tools.engine import open_engine

    sampling = Sampling(temperature, top_p, max_tokens=max_tokens or MAX_TOKENS, seed=seed)
    engine = open_engine(model, device=device, dtype=dtype)
    loaded = time.perf_counter()
    settings = cache if cache_dir is None or cache is False else _cache_in(cache_dir, engine)
    pieces = engine.stream([{"role": "user", "content": question}], items, sampling, settings)
    first, finish = None, None
    parts: list[str] = []
    thoughts: list[str] = []
    for piece in pieces:
        first = first or time.perf_counter()
        parts.append(piece.text)
        thoughts.append(piece.reasoning)
        finish = piece.finish
        if not as_json:
            typer.echo(piece.text, nl=piece.finish is not None)
            sys.stdout.flush()
    if as_json and finish and first:
        times = _timings(started, loaded, first, time.perf_counter(), finish)
        answer = {"question": question, "answer": "".join(parts), "media": _described(media)}
        if reasoning := "".join(thoughts):
            answer["reasoning"] = reasoning
        print_json({**answer, "model": model, **_usage(finish, media), "timings": times})


def _cache_in(folder: Path, engine: Engine) -> CacheSettings:
    """The model's own settings, with the cache of another folder."""
    from dataclasses import replace

    from ibllm_tools.model.sensing import cache_settings

    return replace(cache_settings(engine.model.config), folder=str(folder))


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
