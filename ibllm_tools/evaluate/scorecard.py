"""The whole scorecard: runs the sections, and writes them as JSON and as a table.

JSON, format 1: `format`, `model`, `data`, `split`, `limit`, `through`, `command`, `versions`,
`seconds`, `media` (rows by kind), `notes`, and `sections`: each with `name`, `title`,
`seconds`, `notes`, `measures` (see `Measure`; shares run from 0 to 1; `mark` is met, missed,
"no target" or "no data") and `details` (tables behind the figures).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.evaluate.results import Section
from ibllm_tools.evaluate.session import Session

FORMAT = 1
SECTIONS = ("names", "cache", "mixing", "language", "unknown", "tools", "speed")
_VERSIONED = ("torch", "transformers", "langchain-core", "numpy")


@dataclass
class Scorecard:
    """All sections of one evaluation, and how it was made.

    Attributes:
        model: "pocket", a folder, or a hub id.
        data: The folder of the media.
        split: Which split.
        limit: Rows of each measure at most; None for all.
        through: "batch" or "chat": how all but the headline answers were asked.
        command: The command line that gives it again.
        versions: Of the packages that answers may depend on.
        media: Rows by kind.
        notes: What was missing in the data.
        sections: The figures.
        seconds: How long it took.
        format: The version of this layout.
    """

    model: str
    data: str
    split: str
    limit: int | None
    through: str
    command: str
    versions: dict[str, str] = field(default_factory=dict)
    media: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    seconds: float = 0.0
    format: int = FORMAT

    def section(self, name: str) -> Section | None:
        """Return the section of this name, or None."""
        return next((s for s in self.sections if s.name == name), None)

    def to_json(self) -> str:
        """Write one JSON document; see the module for its layout."""
        entry = asdict(self)
        entry["sections"] = [section.to_dict() for section in self.sections]
        return json.dumps(entry, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Scorecard:
        """Read what `to_json` wrote.

        Raises:
            ConfigurationError: It is no scorecard of this format.
        """
        try:
            entry: dict[str, Any] = json.loads(text)
            sections = [Section.from_dict(s) for s in entry.pop("sections")]
            card = cls(**entry, sections=sections)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(
                f"found no scorecard ({error}); expected what `ibllm eval pocket --json` prints"
            ) from error
        if card.format != FORMAT:
            raise ConfigurationError(f"found scorecard format {card.format}, expected {FORMAT}")
        return card


def evaluate(
    data_dir: Path | str,
    *,
    split: str = "val",
    model: str = "pocket",
    sections: Sequence[str] = SECTIONS,
    limit: int | None = None,
    unknown: Path | str | None = None,
    through: Literal["batch", "chat"] = "batch",
    device: str | None = None,
    progress: bool = True,
) -> Scorecard:
    """Score a model on a split of a folder of media.

    Args:
        data_dir: Folder with parquet files of the pack's schema: any of photos, sounds, shapes.
        split: The split's name.
        model: "pocket", a folder, or a hub id.
        sections: Which parts; see `SECTIONS`.
        limit: Rows of each measure at most, a repeatable sample; all by default.
        unknown: A folder of media of things that the model cannot know.
        through: "batch", or "chat" to ask everything by `ChatImageBindLLM.invoke` (slow).
        device: As in torch; by default an accelerator where there is one.
        progress: Draw progress bars on a terminal's stderr.

    Raises:
        ConfigurationError: There is no such folder or section.
        CheckpointError: There is no such model.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    from ibllm_tools.evaluate.asking import Interviewer
    from ibllm_tools.evaluate.gallery import open_gallery

    strange = [name for name in sections if name not in SECTIONS]
    if strange:
        raise ConfigurationError(f"found sections {strange}; expected some of {list(SECTIONS)}")
    started = time.perf_counter()
    gallery = open_gallery(data_dir, split, limit=limit, model=model)
    ask = Interviewer(model, device=device, through=through, progress=progress)
    folder = None if unknown is None else Path(unknown)
    session = Session(ask, gallery, limit=limit, unknown=folder)
    card = Scorecard(
        model=model,
        data=str(data_dir),
        split=split,
        limit=limit,
        through=through,
        command=_command(model, split, limit, unknown, through),
        versions=_versions(),
        media={kind: len(rows) for kind, rows in gallery.rows.items()},
        notes=gallery.notes,
    )
    card.sections = [_measure(session, name) for name in SECTIONS if name in sections]
    card.seconds = time.perf_counter() - started
    return card


def _measure(session: Session, name: str) -> Section:
    started = time.perf_counter()
    section = _measurer(name)(session)
    section.seconds = time.perf_counter() - started
    return section


def _measurer(name: str) -> Callable[[Session], Section]:
    from ibllm_tools.evaluate.cache_grid import measure_cache
    from ibllm_tools.evaluate.language import measure_language
    from ibllm_tools.evaluate.mixing import measure_mixing
    from ibllm_tools.evaluate.names import measure_names
    from ibllm_tools.evaluate.speed import measure_speed
    from ibllm_tools.evaluate.tools import measure_tools
    from ibllm_tools.evaluate.unknown import measure_unknown

    return {
        "names": measure_names,
        "cache": measure_cache,
        "mixing": measure_mixing,
        "language": measure_language,
        "unknown": measure_unknown,
        "tools": measure_tools,
        "speed": measure_speed,
    }[name]


def _command(
    model: str, split: str, limit: int | None, unknown: Path | str | None, through: str
) -> str:
    """The command line without its sections; a section's own command adds `--sections`."""
    words = ["ibllm eval pocket --data DIR"]
    words += [f"--split {split}"] if split != "val" else []
    words += [f"--model {model}"] if model != "pocket" else []
    words += [f"--limit {limit}"] if limit is not None else []
    words += ["--unknown FOLDER"] if unknown is not None else []
    words += [f"--through {through}"] if through != "batch" else []
    return " ".join(words)


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
