"""Options that several commands share, and how they print."""

from __future__ import annotations

import json
from typing import Annotated

import typer

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


def print_json(value: object) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))
