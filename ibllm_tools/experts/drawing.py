"""Pictures of what experts found: boxes with labels, and words over a waveform.

Drawn with Pillow alone. Sizes follow the picture, so that labels can be read at any resolution.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from ibllm_tools.experts.inputs import check_sound, to_rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ibllm_tools.experts.results import Detections, Transcript, Word

# Dark enough for white text, and far apart for eyes that do not see red or green.
COLOURS = ("#0055a4", "#b3261e", "#00695c", "#7b1fa2", "#a04000", "#37474f", "#ad1457", "#33691e")
MIN_SIDE_PX = 480  # smaller pictures are enlarged for drawing
LABEL_SHARE, MIN_LABEL_PX, MAX_LABEL_PX = 0.03, 13, 48
# For words beyond Latin letters, which Pillow's own font lacks.
WIDE_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "Arial Unicode.ttf",
    "msyh.ttc",
)

WAVE_WIDTH_PX, WAVE_HEIGHT_PX, AXIS_PX, MARGIN_PX, ROW_PX = 1200, 170, 34, 24, 30
N_ROWS, WORD_PX, TITLE_PX = 4, 18, 16
PAGE, INK, GREY, BAND, WAVE = "#ffffff", "#1c1917", "#78716c", "#e3edf7", "#0055a4"
TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
MAX_TICKS = 14


class _Rect(NamedTuple):
    x0: float
    y0: float
    x1: float
    y1: float

    def meets(self, other: _Rect) -> bool:
        return (
            self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1
        )


def draw_detections(
    image: PilImage.Image, detections: Detections, labels: Sequence[str] = ()
) -> PilImage.Image:
    """Draw boxes with labels and scores over a picture.

    Args:
        image: The picture, of any mode; it is not changed.
        detections: What was found in it.
        labels: Labels in the order of their colours, where several pictures shall share these.

    Returns:
        A new RGB picture; of small pictures one enlarged to at least 480 pixels.

    Raises:
        MediaError: The picture is too large or too narrow.
    """
    picture = to_rgb(image)
    scale = max(1.0, MIN_SIDE_PX / max(picture.size))
    size = (round(picture.width * scale), round(picture.height * scale))
    page = picture.resize(size, PilImage.Resampling.LANCZOS) if scale > 1 else picture.copy()
    scale_x, scale_y = page.width / detections.width_px, page.height / detections.height_px
    px = int(min(max(LABEL_SHARE * max(page.size), MIN_LABEL_PX), MAX_LABEL_PX))
    canvas, taken = ImageDraw.Draw(page), list[_Rect]()
    names = {found.label for found in detections.detections}
    labels = [*labels, *sorted(names.difference(labels))]
    placed = []
    for found in detections.detections:
        x0, y0, x1, y1 = found.box
        rect = _Rect(x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y)
        colour = COLOURS[labels.index(found.label) % len(COLOURS)]
        canvas.rectangle(rect, outline="white", width=max(px // 4, 5))
        canvas.rectangle(rect, outline=colour, width=max(px // 6, 3))
        placed.append((rect, f"{found.label} {found.score:.0%}", colour))
    for rect, text, colour in placed:  # the surest get the best places for their labels
        _draw_label(canvas, page.size, rect, text, colour, px, taken)
    return page


def _draw_label(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: _Rect,
    text: str,
    colour: str,
    px: int,
    taken: list[_Rect],
) -> None:
    """Write a label on a plate near its box, off the plates that are already there."""
    font, pad = _font(px, is_latin=_is_latin(text)), px / 4
    text = _shortened(text, size[0] - 2 * pad, font)
    width, height = font.getlength(text) + 2 * pad, px * 1.25
    x = min(max(box.x0, 0), max(size[0] - width, 0))
    places = [box.y0 - height, box.y0, box.y1 - height, box.y1]
    places += [box.y0 + i * height for i in range(1, 12)]
    plates = [
        _Rect(x, y, x + width, y + height)
        for y in (min(max(y, 0), max(size[1] - height, 0)) for y in places)
    ]
    free = (p for p in plates if not any(p.meets(other) for other in taken))
    plate = next(free, plates[0])
    taken.append(plate)
    canvas.rectangle(plate, fill=colour)
    middle = (plate.x0 + pad, (plate.y0 + plate.y1) / 2)
    canvas.text(middle, text, fill="white", font=font, anchor="lm")


def draw_transcript(
    samples: NDArray[np.float32], rate_hz: int, transcript: Transcript
) -> PilImage.Image:
    """Draw a waveform with what is said, at its time, below it.

    Args:
        samples: (S,) mono float32 in [-1, 1].
        rate_hz: Samples per second.
        transcript: What was said. Segments stand for words where it has no times of words.

    Returns:
        An RGB picture, 1200 pixels wide.

    Raises:
        MediaError: The sound is empty, too long, not mono, or holds NaN.
    """
    sound = check_sound(samples, rate_hz)
    length_s = sound.size / rate_hz
    words, n_rows = _placed(transcript, length_s)
    height = 2 * MARGIN_PX + ROW_PX + WAVE_HEIGHT_PX + AXIS_PX + n_rows * ROW_PX
    page = PilImage.new("RGB", (WAVE_WIDTH_PX, height), PAGE)
    canvas = ImageDraw.Draw(page)
    top = MARGIN_PX + ROW_PX
    canvas.text((MARGIN_PX, MARGIN_PX), _title(transcript, length_s), INK, _font(TITLE_PX))
    for segment in transcript.segments:
        x0, x1 = _at(segment.start_s, length_s), _at(segment.end_s, length_s)
        canvas.rectangle((x0, top, max(x1, x0 + 1), top + WAVE_HEIGHT_PX), fill=BAND)
    _draw_wave(canvas, sound, top)
    _draw_axis(canvas, length_s, top + WAVE_HEIGHT_PX)
    for word in words:
        _draw_word(canvas, word, length_s, top + WAVE_HEIGHT_PX + AXIS_PX)
    return page


def _title(transcript: Transcript, length_s: float) -> str:
    said = f"speech ({transcript.language or 'language not known'})"
    return (
        f"{said if transcript.is_speech else 'no speech'} in {length_s:.1f} s, {transcript.model}"
    )


def _at(time_s: float, length_s: float) -> float:
    """The x of a time, in pixels."""
    return MARGIN_PX + (WAVE_WIDTH_PX - 2 * MARGIN_PX) * min(time_s / length_s, 1.0)


def _draw_wave(canvas: ImageDraw.ImageDraw, sound: NDArray[np.float32], top: int) -> None:
    """One vertical line per pixel, from the least to the greatest sample."""
    n_columns = WAVE_WIDTH_PX - 2 * MARGIN_PX
    edges = np.linspace(0, sound.size, n_columns + 1).astype(int)
    starts = np.minimum(edges[:-1], sound.size - 1)
    # Several columns may share a sample where there are fewer samples than pixels.
    lows = np.minimum.reduceat(sound, starts)
    highs = np.maximum.reduceat(sound, starts)
    loudest = max(float(np.abs(sound).max()), 1e-6)
    middle, half = top + WAVE_HEIGHT_PX / 2, 0.46 * WAVE_HEIGHT_PX
    for i, (low, high) in enumerate(zip(lows / loudest, highs / loudest, strict=True)):
        x = MARGIN_PX + i
        canvas.line((x, middle - high * half, x, middle - low * half + 1), fill=WAVE)


def _draw_axis(canvas: ImageDraw.ImageDraw, length_s: float, y: int) -> None:
    step_s = next((step for step in TICKS_S if length_s / step <= MAX_TICKS), TICKS_S[-1])
    canvas.line((MARGIN_PX, y, WAVE_WIDTH_PX - MARGIN_PX, y), fill=GREY)
    for i in range(int(length_s / step_s) + 1):
        x = _at(i * step_s, length_s)
        canvas.line((x, y, x, y + 5), fill=GREY)
        canvas.text((x, y + 7), f"{i * step_s:g} s", GREY, _font(13), anchor="ma")


class _Placed(NamedTuple):
    text: str
    start_s: float
    end_s: float
    x: float
    row: int


def _placed(transcript: Transcript, length_s: float) -> tuple[list[_Placed], int]:
    """Each word in the first row that is free at its place, and how many rows there are.

    What finds no place is left out.
    """
    placed: list[_Placed] = []
    row_ends = [0.0] * N_ROWS
    for text, start_s, end_s in _pieces(transcript):
        font = _font(WORD_PX, is_latin=_is_latin(text))
        text = _shortened(text, WAVE_WIDTH_PX - 2 * MARGIN_PX, font)
        x = min(_at(start_s, length_s), WAVE_WIDTH_PX - MARGIN_PX - font.getlength(text))
        row = next((i for i, end in enumerate(row_ends) if end <= x), None)
        if row is not None:
            row_ends[row] = x + font.getlength(text) + WORD_PX / 3
            placed.append(_Placed(text, start_s, end_s, x, row))
    return placed, max((word.row + 1 for word in placed), default=1)


def _draw_word(canvas: ImageDraw.ImageDraw, word: _Placed, length_s: float, top: int) -> None:
    y = top + word.row * ROW_PX
    canvas.line((_at(word.start_s, length_s), y, _at(word.end_s, length_s), y), WAVE, width=2)
    canvas.text((word.x, y + 4), word.text, INK, _font(WORD_PX, is_latin=_is_latin(word.text)))


def _pieces(transcript: Transcript) -> list[tuple[str, float, float]]:
    pieces: list[tuple[str, float, float]] = []
    for segment in transcript.segments:
        words: list[Word] = segment.words
        pieces += [(word.text, word.start_s, word.end_s) for word in words] or [
            (segment.text, segment.start_s, segment.end_s)
        ]
    return pieces


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _shortened(text: str, width_px: float, font: Font) -> str:
    while len(text) > 1 and font.getlength(text) > width_px:
        text = f"{text.rstrip('…')[:-1]}…" if len(text) > 2 else "…"
    return text


def _is_latin(text: str) -> bool:
    return all(ord(letter) < 0x250 for letter in text)


@lru_cache(maxsize=64)
def _font(px: int, *, is_latin: bool = True) -> Font:
    for name in () if is_latin else WIDE_FONTS:
        try:
            return ImageFont.truetype(name, px)
        except OSError:
            continue
    return ImageFont.load_default(px)
