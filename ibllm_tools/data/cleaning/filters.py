"""The filters: each takes out rows that are still there, and says why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibllm_tools.data.cleaning.languages import LANGUAGES
from ibllm_tools.data.cleaning.near_duplicates import find_near_duplicates
from ibllm_tools.data.cleaning.options import CleaningOptions
from ibllm_tools.data.cleaning.report import (
    BINS,
    MAX_EXAMPLES,
    CleaningReport,
    Gone,
    shortened,
)
from ibllm_tools.data.cleaning.survey import Survey, text_of
from ibllm_tools.data.store import FeatureStore

Mask = NDArray[np.bool_]


@dataclass
class Verdict:
    """The reason of each row that goes."""

    survey: Survey
    options: CleaningOptions
    reason: NDArray[np.int8] = field(init=False)
    instead: NDArray[np.int64] = field(init=False)
    value: NDArray[np.float32] = field(init=False)
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.survey.language)
        self.reason = np.full(n, -1, np.int8)
        self.instead = np.full(n, -1, np.int64)
        self.value = np.full(n, np.nan, np.float32)

    @property
    def left(self) -> Mask:
        """(N,) bool: rows that still stay."""
        stays: Mask = self.reason < 0
        return stays

    def remove(self, reason: str, gone: Mask, value: Any = np.nan, instead: Any = -1) -> None:
        """Take out rows that are still there."""
        if reason not in self.names:
            self.names.append(reason)
        gone = gone & self.left
        self.reason[gone] = self.names.index(reason)
        self.value[gone] = np.broadcast_to(value, gone.shape)[gone]
        self.instead[gone] = np.broadcast_to(instead, gone.shape)[gone]


def judge_texts(verdict: Verdict) -> None:
    """Language and length."""
    survey, options = verdict.survey, verdict.options
    if options.languages:
        allowed = [LANGUAGES.index(language) for language in options.languages]
        verdict.remove("language", ~np.isin(survey.language, allowed))
    chinese = survey.language == LANGUAGES.index("zh")
    for mask, low, high in (
        (~chinese, options.min_words, options.max_words),
        (chinese, options.min_characters, options.max_characters),
    ):
        if low is not None:
            verdict.remove("too short", mask & (survey.length < low), survey.length)
        if high is not None:
            verdict.remove("too long", mask & (survey.length > high), survey.length)


def judge_duplicates(verdict: Verdict) -> None:
    """Rows that repeat media and text, media alone, or a text that many media share."""
    survey, options = verdict.survey, verdict.options
    if options.duplicates != "off":
        first = _first_of(survey.row_hash, verdict.left)
        verdict.remove("duplicate row", first >= 0, instead=first)
    if options.duplicates == "media":
        quality = np.nan_to_num(survey.similarity, nan=-2.0)
        first = _first_of(survey.media_hash, verdict.left & (survey.media_hash > 0), quality)
        verdict.remove("duplicate medium", first >= 0, instead=first)
    if options.max_repeats is not None:
        repeats = _media_per_text(survey, verdict.left)
        verdict.remove("repeated caption", repeats > options.max_repeats, repeats)


def _first_of(
    keys: NDArray[np.uint64], among: Mask, quality: NDArray[np.float32] | None = None
) -> NDArray[np.int64]:
    """For each row that repeats a key: the row that stays, the best or first; else -1."""
    rows = np.flatnonzero(among)
    stays = np.full(len(keys), -1, np.int64)
    if quality is not None:
        rows = rows[np.argsort(-quality[rows], kind="stable")]
    _, first, group = np.unique(keys[rows], return_index=True, return_inverse=True)
    leader = rows[first[group.reshape(-1)]]
    repeated = leader != rows
    stays[rows[repeated]] = leader[repeated]
    return stays


def _media_per_text(survey: Survey, left: Mask) -> NDArray[np.int64]:
    """How many different media a row's text stands beside; 0 for rows without media."""
    repeats = np.zeros(len(left), np.int64)
    rows = np.flatnonzero(left & (survey.media_hash > 0))
    pairs = np.stack([survey.text_hash[rows], survey.media_hash[rows]], axis=1)
    texts, counts = np.unique(np.unique(pairs, axis=0)[:, 0], return_counts=True)
    repeats[rows] = counts[np.searchsorted(texts, survey.text_hash[rows])]
    return repeats


def judge_similarity(verdict: Verdict, report: CleaningReport) -> None:
    """Texts that do not fit their media: below a threshold, or the worst share."""
    options, similarity = verdict.options, verdict.survey.similarity
    judged = verdict.left & ~np.isnan(similarity)
    values = similarity[judged]
    if not len(values):
        return
    report.judged = len(values)
    report.histogram = np.histogram(values, BINS, (-1.0, 1.0))[0].tolist()
    threshold = options.min_similarity
    if options.keep_share is not None:
        # Rounded up, so that a share never takes the last row of a small store.
        stays = max(1, int(np.ceil(options.keep_share * len(values))))
        threshold = float(np.sort(values)[::-1][stays - 1])
    if threshold is not None:
        report.threshold = threshold
        verdict.remove("low similarity", judged & (similarity < threshold), similarity)


def judge_near_duplicates(verdict: Verdict, report: CleaningReport) -> None:
    """Media that are almost the same; the row stays whose text fits best."""
    survey, least = verdict.survey, verdict.options.near_duplicate
    if least is None or survey.vectors is None:
        return
    rows = np.flatnonzero(verdict.left & (survey.media_hash > 0))
    vectors = survey.vectors
    quality = np.nan_to_num(survey.similarity[rows], nan=-2.0)
    found = find_near_duplicates(
        lambda places: vectors[rows[places]].astype(np.float32), quality, least
    )
    near = np.flatnonzero(found.leader >= 0)
    instead, value = verdict.instead.copy(), verdict.value.copy()
    instead[rows[near]] = rows[found.leader[near]]
    value[rows[near]] = found.similarity[near]
    gone = np.zeros_like(verdict.left)
    gone[rows[near]] = True
    verdict.remove("near-duplicate", gone, value, instead)
    _, sizes = np.unique(found.leader[near], return_counts=True)
    report.groups = {int(size) + 1: n for size, n in Counter(sizes.tolist()).items()}


def fill_report(report: CleaningReport, verdict: Verdict, store: FeatureStore) -> None:
    """Count what went, and read a few rows again as examples."""
    survey, left = verdict.survey, verdict.left
    report.kept = int(left.sum())
    report.languages = {
        name: int((survey.language == code).sum()) for code, name in enumerate(LANGUAGES)
    }
    judged = ~np.isnan(survey.similarity)
    if judged.any() and (judged & left).any():
        means = survey.similarity[judged].mean(), survey.similarity[judged & left].mean()
        report.mean_similarity = float(means[0]), float(means[1])
    for code, reason in enumerate(verdict.names):
        rows = np.flatnonzero(verdict.reason == code)
        if len(rows):
            report.removed[reason] = len(rows)
            report.examples[reason] = [
                _gone(int(row), reason, verdict, store) for row in rows[:MAX_EXAMPLES]
            ]


def _gone(index: int, reason: str, verdict: Verdict, store: FeatureStore) -> Gone:
    row, value = store[index], float(verdict.value[index])
    instead = int(verdict.instead[index])
    why = {
        "language": LANGUAGES[verdict.survey.language[index]],
        "too short": f"{value:.0f} words or characters",
        "too long": f"{value:.0f} words or characters",
        "duplicate row": "same media and text",
        "duplicate medium": "same media",
        "repeated caption": f"beside {value:.0f} media",
        "low similarity": f"similarity {value:.3f}",
        "near-duplicate": f"similarity {value:.3f} to it",
    }[reason]
    return Gone(row.id, shortened(text_of(row)), why, store[instead].id if instead >= 0 else "")
