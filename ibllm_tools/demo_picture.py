"""The picture of the demo: every medium beside what the model says about it.

Drawn in pixels on one page: three cards above, two wide ones below. This module knows
results, not models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ibllm_tools.errors import MissingExtraError
from ibllm_tools.media import Audio, Image, Item, Points, Video, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ibllm_tools.demo import Result

WIDTH_PX, HEIGHT_PX, DPI = 1600, 1200, 100
MARGIN, GAP, HEADER, FOOTER = 44, 24, 112, 46
CARD_HEIGHT = (HEIGHT_PX - HEADER - FOOTER - GAP) // 2
MEDIA_HEIGHT, PAD = 236, 22
CARDS_PER_ROW = (3, 2)

PAGE, CARD, EDGE = "#f6f4ef", "#ffffff", "#e5e1d8"
INK, GREY, FAINT = "#1c1917", "#78716c", "#ece8e0"
LINE_SPACING, CAPITAL_HEIGHT = 1.3, 0.76
POINT_PT = 72 / DPI  # font sizes below are in pixels
STFT_SAMPLES, STFT_STEP = 512, 160
N_FRAMES = 4


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels from the upper left corner of the page."""

    x: float
    y: float
    w: float
    h: float

    def inset(self, left: float, top: float, right: float, bottom: float) -> Box:
        """Return the box that is smaller by these margins."""
        return Box(self.x + left, self.y + top, self.w - left - right, self.h - top - bottom)

    def columns(self, n: int, gap: float) -> list[Box]:
        """Split into `n` boxes of equal width."""
        width = (self.w - gap * (n - 1)) / n
        return [Box(self.x + i * (width + gap), self.y, width, self.h) for i in range(n)]


class Page:
    """A matplotlib figure that is addressed in pixels from its upper left corner."""

    def __init__(self) -> None:
        """Open an empty page; needs matplotlib, and no display."""
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError("matplotlib", "demo") from error
        self.figure: Any = Figure(figsize=(WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI)
        self.figure.set_facecolor(PAGE)
        FigureCanvasAgg(self.figure)

    def axes(self, box: Box, **options: Any) -> Any:
        """Add axes without frame and ticks."""
        place = (box.x, HEIGHT_PX - box.y - box.h, box.w, box.h)
        unit = (WIDTH_PX, HEIGHT_PX, WIDTH_PX, HEIGHT_PX)
        axes = self.figure.add_axes([a / b for a, b in zip(place, unit, strict=True)], **options)
        axes.set_axis_off()
        return axes

    def text(self, x: float, y: float, text: str, px: float, **options: Any) -> None:
        """Write one line whose capitals have their upper left corner at (x, y)."""
        options = {"color": INK, "va": "baseline", **options}
        y += 0 if options["va"] == "center" else CAPITAL_HEIGHT * px
        options.setdefault("parse_math", False)
        self.figure.text(x / WIDTH_PX, 1 - y / HEIGHT_PX, text, fontsize=px * POINT_PT, **options)

    def width(self, text: str, px: float, weight: str = "normal") -> float:
        """Measure a text of one line, in pixels."""
        from matplotlib.font_manager import FontProperties

        font = FontProperties(size=px * POINT_PT, weight=weight)
        renderer = self.figure.canvas.get_renderer()
        return float(renderer.get_text_width_height_descent(text, font, ismath=False)[0])

    def paragraph(self, box: Box, text: str, px: float) -> None:
        """Write bold text into a box, broken into lines; what does not fit ends in an ellipsis."""
        lines, words = [""], text.split() or ["(no words)"]
        for word in words:
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self.width(longer, px, "bold") > box.w:
                lines.append(word)
            else:
                lines[-1] = longer
        n_lines = int(box.h // (px * LINE_SPACING))
        if len(lines) > n_lines:
            lines = [*lines[: n_lines - 1], f"{lines[n_lines - 1]} …"]
        for i, line in enumerate(lines):
            fitting = self._shortened(line, box.w, px)
            self.text(box.x, box.y + i * px * LINE_SPACING, fitting, px, weight="bold")

    def _shortened(self, line: str, width_px: float, px: float) -> str:
        while self.width(line, px, "bold") > width_px:
            line = f"{line.rstrip(' …')[:-1]}…"
        return line

    def panel(self, box: Box, colour: str, edge: str | None = None, radius: float = 14) -> None:
        """Fill a rounded rectangle."""
        from matplotlib.patches import FancyBboxPatch

        axes = self.axes(Box(0, 0, WIDTH_PX, HEIGHT_PX), xlim=(0, WIDTH_PX), ylim=(HEIGHT_PX, 0))
        axes.add_patch(
            FancyBboxPatch(
                (box.x + radius, box.y + radius),
                box.w - 2 * radius,
                box.h - 2 * radius,
                boxstyle=f"round,pad={radius}",
                facecolor=colour,
                edgecolor=edge or "none",
                linewidth=1,
            )
        )

    def save(self, path: Path) -> None:
        """Write a PNG."""
        self.figure.savefig(path, format="png", dpi=DPI)


def draw(results: Sequence[Result], path: Path, model: str) -> None:
    """Draw the results of a demo.

    Args:
        results: Five results, or fewer; three fit the upper row, two the lower one.
        path: The PNG to write, 1600 x 1200 pixels.
        model: The model's name, for the title.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    page = Page()
    page.text(MARGIN, 38, "One language model, five kinds of senses", 32, weight="bold")
    subtitle = f"ImageBind-LLM “{model}” answers, unedited, about media that it was not trained on."
    page.text(MARGIN, 80, subtitle, 17, color=GREY)
    for result, box in zip(results, _card_boxes(), strict=False):
        _draw_card(page, box, result)
    sources = (
        "Bars: from the least to the most similar of all concepts; the number is the cosine "
        "similarity of the medium and the concept's name.   "
        "Media: Caltech-101 (CC BY 4.0), ESC-10 (CC BY 3.0), Quaternius (CC0)."
    )
    page.text(MARGIN, HEIGHT_PX - 32, sources, 13, color=GREY)
    page.save(path)


def _card_boxes() -> list[Box]:
    boxes = []
    for row, n_cards in enumerate(CARDS_PER_ROW):
        top = HEADER + row * (CARD_HEIGHT + GAP)
        line = Box(MARGIN, top, WIDTH_PX - 2 * MARGIN, CARD_HEIGHT)
        boxes += line.columns(n_cards, GAP)
    return boxes


def _draw_card(page: Page, box: Box, result: Result) -> None:
    shot = result.shot
    page.panel(box, CARD, EDGE)
    inner = box.inset(PAD, PAD, PAD, PAD)
    page.text(inner.x, inner.y, shot.kind.upper(), 14, color=shot.colour, weight="bold")
    page.text(inner.x + inner.w, inner.y, shot.title, 14, color=GREY, ha="right")
    media = Box(inner.x, inner.y + 22, inner.w, MEDIA_HEIGHT)
    _draw_media(page, media, [load(medium) for medium in shot.media()], shot.colour)
    y = media.y + media.h + 14
    page.text(inner.x, y, shot.question, 15, color=GREY)
    rate = f"first token {result.first_token_s * 1000:,.0f} ms"
    rate += f" · {result.tokens_per_s:,.0f} tokens/s" if result.tokens_per_s else ""
    page.text(inner.x + inner.w, y + 1, rate, 13, color=GREY, ha="right")
    page.paragraph(Box(inner.x, y + 27, inner.w, 72), result.answer, 18)
    _draw_bars(page, Box(inner.x, inner.y + inner.h - 66, inner.w, 66), result)


def _draw_bars(page: Page, box: Box, result: Result) -> None:
    height = box.h / 3
    name_w, value_w = 110.0, 46.0
    track_w = box.w - name_w - value_w
    for i, (name, value) in enumerate(result.nearest):
        y = box.y + i * height
        colour = INK if i == 0 else GREY
        page.text(box.x, y + 5, name, 14, color=colour, weight="bold" if i == 0 else "normal")
        page.panel(Box(box.x + name_w, y + 5, track_w, 10), FAINT, radius=5)
        filled = max(track_w * result.share(value), 10)
        page.panel(Box(box.x + name_w, y + 5, filled, 10), result.shot.colour, radius=5)
        page.text(box.x + box.w, y + 5, f"{value:.2f}", 14, color=colour, ha="right")


def _draw_media(page: Page, box: Box, items: Sequence[Item], colour: str) -> None:
    gap = 34
    places = [box] if len(items) == 1 else box.columns(len(items), gap)
    for i, (place, item) in enumerate(zip(places, items, strict=True)):
        _draw_medium(page, place, item, colour)
        if i:
            page.text(place.x - gap / 2, box.y + box.h / 2, "+", 30, ha="center", va="center")


def _draw_medium(page: Page, box: Box, item: Item, colour: str) -> None:
    match item:
        case Image():
            _draw_picture(page, box, np.asarray(item.pixels))
        case Audio():
            _draw_sound(page, box, item, colour)
        case Points():
            _draw_points(page, box, item, colour)
        case Video():
            spans = [(i / N_FRAMES, (i + 1) / N_FRAMES) for i in range(N_FRAMES)]
            seconds = [(a * item.duration_s, b * item.duration_s) for a, b in spans]
            for place, frames in zip(
                box.columns(N_FRAMES, 8), item.frames(seconds, 1), strict=True
            ):
                _draw_picture(page, place, frames[0], fill=True)


def _draw_picture(page: Page, box: Box, pixels: Any, *, fill: bool = False) -> None:
    """Show a picture (H, W, 3) whole, or `fill` the box with the middle of it."""
    axes = page.axes(box)
    height, width = pixels.shape[:2]
    scales = box.w / width, box.h / height
    scale = max(scales) if fill else min(scales)
    half_w, half_h = box.w / scale / 2, box.h / scale / 2
    axes.imshow(pixels, interpolation="lanczos", aspect="auto")
    axes.set_xlim(width / 2 - half_w, width / 2 + half_w)
    axes.set_ylim(height / 2 + half_h, height / 2 - half_h)


def _draw_sound(page: Page, box: Box, sound: Audio, colour: str) -> None:
    """Draw the waveform above the spectrogram."""
    samples = sound.samples.mean(axis=0)
    wave = page.axes(Box(box.x, box.y, box.w, box.h * 0.36))
    n_bins = int(box.w / 3)
    peaks = np.array([np.abs(part).max() for part in np.array_split(samples, n_bins)])
    wave.bar(np.arange(n_bins), 2 * peaks, bottom=-peaks, width=0.55, color=colour)
    wave.set_xlim(-0.5, n_bins - 0.5)
    wave.set_ylim(-1.05 * peaks.max() - 1e-6, 1.05 * peaks.max() + 1e-6)
    axes = page.axes(Box(box.x, box.y + box.h * 0.4, box.w, box.h * 0.6))
    picture = _spectrogram(samples)
    low, high = np.percentile(picture, [5, 99.7])
    axes.imshow(picture, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high + 1e-6)


def _spectrogram(samples: Any) -> Any:
    """Decibels (frequencies, frames) of a waveform (S,), by a Hann-windowed transform."""
    padded = np.pad(samples, (0, max(0, STFT_SAMPLES - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, STFT_SAMPLES)[::STFT_STEP]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(STFT_SAMPLES), axis=1)) + 1e-5
    return 20 * np.log10(spectrum.T)


def _draw_points(page: Page, box: Box, points: Points, colour: str) -> None:
    """Draw a cloud from the side, its longest axis across, nearer points darker."""
    from matplotlib.colors import LinearSegmentedColormap

    xyz = points.xyz - points.xyz.mean(axis=0)
    extent = np.ptp(xyz, axis=0)
    up = int(extent.argmin())
    across = int(extent.argmax())
    depth = 3 - up - across
    turn = np.deg2rad(32)
    x = xyz[:, across] * np.cos(turn) + xyz[:, depth] * np.sin(turn)
    z = -xyz[:, across] * np.sin(turn) + xyz[:, depth] * np.cos(turn)
    y = xyz[:, up] * np.cos(turn / 2) + z * np.sin(turn / 2)
    near = LinearSegmentedColormap.from_list("near", ["#cfeee4", colour, "#04382a"])
    axes = page.axes(box)
    order = np.argsort(z)[::-1]
    axes.scatter(x[order], y[order], c=-z[order], cmap=near, s=7, linewidths=0)
    half_h = max(np.abs(y).max() * 1.12, np.abs(x).max() * 1.12 * box.h / box.w)
    axes.set_ylim(-half_h, half_h)
    axes.set_xlim(-half_h * box.w / box.h, half_h * box.w / box.h)
