"""`clean` judges the rows of a store, `write_kept` writes those that stay."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ibllm_tools.data.cleaning.filters import (
    Mask,
    Verdict,
    fill_report,
    judge_duplicates,
    judge_near_duplicates,
    judge_similarity,
    judge_texts,
)
from ibllm_tools.data.cleaning.options import CleaningOptions
from ibllm_tools.data.cleaning.report import CleaningReport
from ibllm_tools.data.cleaning.survey import Progress, TextSenses, survey_store
from ibllm_tools.data.store import FeatureStore, FeatureWriter
from ibllm_tools.data.store.reading import STORE_FILE, read_store_file
from ibllm_tools.errors import ConfigurationError


@dataclass(frozen=True)
class Cleaning:
    """Which rows stay, and the report."""

    kept: Mask
    report: CleaningReport


def clean(
    store: FeatureStore,
    options: CleaningOptions,
    senses: TextSenses | None = None,
    progress: Progress | None = None,
) -> Cleaning:
    """Judge every row of a store; nothing is written.

    Args:
        store: The features and texts.
        options: What to take out.
        senses: The encoder that made the features, for the similarity of texts. Without it, or
            without a text trunk, near-duplicates keep their first row.
        progress: Called with a label, rows done and rows in all.

    Raises:
        ConfigurationError: A similarity filter is asked for and there is no encoder.
    """
    if senses is None and (options.min_similarity is not None or options.keep_share is not None):
        raise ConfigurationError(
            "found a similarity filter and no encoder; pass the one that made the store"
        )
    tell = progress or (lambda _label, _done, _total: None)
    with tempfile.TemporaryDirectory(prefix="ibllm-clean-") as scratch:
        survey = survey_store(store, options, senses, Path(scratch), tell)
        verdict = Verdict(survey, options)
        judge_texts(verdict)
        judge_duplicates(verdict)
        report = CleaningReport(rows=len(store), settings=asdict(options))
        judge_similarity(verdict, report)
        judge_near_duplicates(verdict, report)
        fill_report(report, verdict, store)
        return Cleaning(verdict.left, report)


def write_kept(
    store: FeatureStore, cleaning: Cleaning, folder: Path, progress: Progress | None = None
) -> FeatureStore:
    """Write the rows that stay into a new store; goes on where it was stopped.

    Args:
        store: The store that was cleaned; it is not changed.
        cleaning: What `clean` found.
        folder: Of the new store.
        progress: Called with a label, rows done and rows in all.

    Raises:
        ConfigurationError: No row stays, or the folder cannot be used; see `check_folder`.
    """
    check_folder(store, folder)
    if not cleaning.kept.any():
        raise ConfigurationError(
            f"of {len(store):,} rows none stays, expected at least one; loosen the filters (the "
            "report of --dry-run says which took most)"
        )
    tell = progress or (lambda _label, _done, _total: None)
    rows = np.flatnonzero(cleaning.kept)
    digest = hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest()
    about = {"cleaned": {"settings": _plain(cleaning.report.settings), "rows": digest}}
    with FeatureWriter(folder, store.encoder, about=about) as writer:
        for place in range(writer.seen, len(rows)):
            row = store[int(rows[place])]
            writer.append(row, row.features)
            if place % 1024 == 0:
                writer.commit()
                tell("writing", place, len(rows))
        return writer.finish(store.reports)


def check_folder(store: FeatureStore, folder: Path) -> None:
    """Refuse a folder that the cleaned store cannot be written to; one that was begun can.

    Raises:
        ConfigurationError: It is, or lies in, a folder of the store, holds a finished store, or
            holds something else.
    """
    for source in store.folders:
        if folder.resolve().is_relative_to(source.resolve()):
            raise ConfigurationError(f"{folder} is the store itself; choose another folder")
    if (folder / STORE_FILE).is_file():
        if read_store_file(folder).get("complete"):
            raise ConfigurationError(f"{folder} holds a finished store; choose another folder")
    elif folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(
            f"{folder} is not empty and no feature store; choose another folder"
        )


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
