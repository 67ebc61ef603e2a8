"""The picture of a cleaning: similarity with its threshold, what went, and group sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ibllm_tools.data.cleaning.report import REASONS, CleaningReport
from ibllm_tools.errors import MissingExtraError

_INK, _GREY, _KEPT, _GONE, _EDGE = "#1f2933", "#7b8794", "#2f7f79", "#d1603d", "#e4e7eb"
_MAX_GROUPS = 9


def draw_cleaning(report: CleaningReport, path: Path) -> None:
    """Draw a report into a picture file (`.png`, `.svg`, `.pdf`).

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    figure = Figure(figsize=(13, 4.4), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1.25, 0.9))
    _draw_similarity(left, report)
    _draw_reasons(middle, report)
    _draw_groups(right, report)
    share = report.kept / max(report.rows, 1)
    title = f"{report.kept:,} of {report.rows:,} rows stay ({share:.1%})"
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold", color=_INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _frame(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_EDGE)
    axes.tick_params(colors=_GREY, labelsize=9)


def _empty(axes: Any, text: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, ha="center", va="center", color=_GREY, transform=axes.transAxes)


def _draw_similarity(axes: Any, report: CleaningReport) -> None:
    _frame(axes, "Similarity of medium and text")
    filled = [i for i, n in enumerate(report.histogram) if n]
    if not filled:
        _empty(axes, "not measured")
        return
    step = 2.0 / len(report.histogram)
    starts = [-1.0 + i * step for i in range(len(report.histogram))]
    least = report.threshold
    colours = [_GONE if least is not None and x + step / 2 < least else _KEPT for x in starts]
    axes.bar(starts, report.histogram, width=step, align="edge", color=colours, edgecolor="white")
    axes.set_xlim(starts[filled[0]] - step, starts[filled[-1]] + 2 * step)
    axes.set_xlabel("cosine", color=_GREY)
    axes.set_ylabel("rows", color=_GREY)
    if least is not None:
        axes.axvline(least, color=_INK, linestyle="--", linewidth=1)
        side = "right" if least > (starts[filled[0]] + starts[filled[-1]]) / 2 else "left"
        gap = -6 if side == "right" else 6
        label = f"least allowed {least:.3f}"
        axes.set_ylim(0, max(report.histogram) * 1.15)
        axes.annotate(
            label,
            (least, 1.0),
            (gap, -10),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha=side,
            color=_INK,
            fontsize=9,
        )


def _draw_reasons(axes: Any, report: CleaningReport) -> None:
    _frame(axes, "What went, by the first reason that fits")
    reasons = [reason for reason in REASONS if report.removed.get(reason)]
    if not reasons:
        _empty(axes, "nothing")
        return
    counts = [report.removed[reason] for reason in reasons]
    axes.barh(reasons, counts, color=_GONE, height=0.6)
    axes.invert_yaxis()
    axes.set_xlim(0, max(counts) * 1.3)
    axes.set_xlabel("rows", color=_GREY)
    for place, count in enumerate(counts):
        label = f" {count:,} ({count / report.rows:.1%})"
        axes.text(count, place, label, va="center", color=_INK, fontsize=9)


def _draw_groups(axes: Any, report: CleaningReport) -> None:
    _frame(axes, "Groups of near-duplicates")
    if not report.groups:
        _empty(axes, "none")
        return
    sizes = sorted(report.groups)
    shown = {str(size): report.groups[size] for size in sizes[:_MAX_GROUPS]}
    if rest := sizes[_MAX_GROUPS:]:
        shown[f"{rest[0]}+"] = sum(report.groups[size] for size in rest)
    axes.bar(list(shown), list(shown.values()), color=_KEPT, width=0.6)
    axes.set_xlabel("rows in a group", color=_GREY)
    axes.set_ylabel("groups", color=_GREY)
    for place, count in enumerate(shown.values()):
        axes.text(place, count, f"{count:,}", ha="center", va="bottom", color=_INK, fontsize=9)
    axes.margins(y=0.12)
