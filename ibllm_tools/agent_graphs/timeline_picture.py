"""The picture of what experts found: frames with boxes by time, and words over the wave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from ibllm_tools.agent_graphs.verdict_picture import INK, PAPER, as_png
from ibllm_tools.experts import Detections, Transcript, draw_detections, draw_transcript
from ibllm_tools.media import Audio, Image, Item, Video
from ibllm_tools.routing.tool_texts import counted
from ibllm_tools.toolkit.experts import mono

if TYPE_CHECKING:
    from ibllm_tools.media import Media

WIDTH_PX, MAX_FRAMES = 1200, 12
LEAST_COLUMNS, MOST_COLUMNS = 2, 4
MARGIN_PX, GAP_PX, CAPTION_PX, TEXT_PX = 24, 8, 30, 15


def draw_timeline(looked: Sequence[tuple[Item, dict[str, Any]]]) -> Media | None:
    """Draw what was found in media.

    Args:
        looked: Media with their facts: `seen` with `boxes`, and `transcript`.

    Returns:
        A PNG of `WIDTH_PX` pixels in width; None where there is nothing to draw.
    """
    labels = sorted({label for _, facts in looked for label in _labels(facts)})
    rows = [
        row
        for item, facts in looked
        for row in (*_frames(item, facts, labels), *_wave(item, facts))
    ]
    if not rows:
        return None
    page = PilImage.new("RGB", (WIDTH_PX, MARGIN_PX + sum(row.height for row in rows)), PAPER)
    y = MARGIN_PX
    for row in rows:
        page.paste(row, (0, y))
        y += row.height
    return as_png(page, "timeline.png")


def _labels(facts: dict[str, Any]) -> set[str]:
    return {label for entry in facts.get("seen", ()) for label in entry["objects"]}


def _frames(item: Item, facts: dict[str, Any], labels: Sequence[str]) -> list[PilImage.Image]:
    """Rows of frames with their boxes and times; a label has one colour in all of them."""
    seen, boxes = facts.get("seen", []), facts.get("boxes", [])
    n_shown = min(len(seen), MAX_FRAMES)
    places = [i * len(seen) // n_shown for i in range(n_shown)]
    n_columns = min(max(n_shown, LEAST_COLUMNS), MOST_COLUMNS)
    width = (WIDTH_PX - 2 * MARGIN_PX + GAP_PX) // n_columns - GAP_PX
    tiles = []
    for place in places:
        start_s = seen[place]["start_s"]
        picture = _picture(
            item, start_s, seen[place + 1]["start_s"] if place + 1 < len(seen) else 0
        )
        drawn = draw_detections(picture, Detections.model_validate(boxes[place]), labels)
        time = f"{start_s:g} s: " if isinstance(item, Video) else ""
        found = counted(seen[place]["objects"]) or "nothing found"
        tiles.append(_tile(drawn, width, f"{time}{found}"))
    return [_row(tiles[i : i + n_columns]) for i in range(0, len(tiles), n_columns)]


def _picture(item: Item, start_s: float, end_s: float) -> PilImage.Image:
    """The frame that the detector looked at."""
    if isinstance(item, Image):
        return item.pixels
    assert isinstance(item, Video)
    span = (start_s, max(end_s, min(start_s + 1.0, item.duration_s)))
    return PilImage.fromarray(item.frames([span], 1)[0][0])


def _tile(picture: PilImage.Image, width: int, caption: str) -> PilImage.Image:
    height = max(1, round(picture.height * width / picture.width))
    tile = PilImage.new("RGB", (width, height + CAPTION_PX), PAPER)
    tile.paste(picture.resize((width, height), PilImage.Resampling.LANCZOS), (0, 0))
    font = ImageFont.load_default(TEXT_PX)
    ImageDraw.Draw(tile).text((0, height + 4), caption, fill=INK, font=font)
    return tile


def _row(tiles: Sequence[PilImage.Image]) -> PilImage.Image:
    row = PilImage.new("RGB", (WIDTH_PX, max(tile.height for tile in tiles)), PAPER)
    for place, tile in enumerate(tiles):
        row.paste(tile, (MARGIN_PX + place * (tile.width + GAP_PX), 0))
    return row


def _wave(item: Item, facts: dict[str, Any]) -> list[PilImage.Image]:
    """The words of the sound track at their times."""
    sound = item.audio() if isinstance(item, Video) else item
    if "transcript" not in facts or not isinstance(sound, Audio):
        return []
    transcript = Transcript.model_validate(facts["transcript"])
    return [draw_transcript(mono(sound), sound.rate_hz, transcript)]
