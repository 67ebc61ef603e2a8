"""The picture of a verdict: boxes of what was found, and below them which claims hold."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from ibllm_tools.experts import draw_detections
from ibllm_tools.media import Media
from ibllm_tools.routing.tool_texts import counted

if TYPE_CHECKING:
    from ibllm_tools.agent_graphs.evidence import Evidence
    from ibllm_tools.experts.results import Detections

WIDTH_PX, LINE_PX, MARGIN_PX, TEXT_PX = 640, 24, 12, 16
PAPER, INK = "#ffffff", "#1c1917"
COLOURS = {
    "confirmed": "#00695c",
    "contradicted": "#b3261e",
    "not found": "#a04000",
    "cannot be checked": "#57534e",
}


def draw_verdict(
    pictures: Sequence[tuple[PilImage.Image, Detections]], evidence: Evidence
) -> Media:
    """Draw pictures with their boxes, one below the other, and the claims under them.

    Returns:
        A PNG of `WIDTH_PX` pixels in width.
    """
    drawn = [_fitted(draw_detections(picture, found)) for picture, found in pictures]
    lines = _lines(evidence)
    height = sum(picture.height for picture in drawn) + LINE_PX * len(lines) + 2 * MARGIN_PX
    page = PilImage.new("RGB", (WIDTH_PX, height), PAPER)
    y = 0
    for picture in drawn:
        page.paste(picture, (0, y))
        y += picture.height
    canvas, font = ImageDraw.Draw(page), ImageFont.load_default(TEXT_PX)
    y += MARGIN_PX
    for text, colour in lines:
        canvas.text((MARGIN_PX, y), _shortened(text, font), fill=colour, font=font)
        y += LINE_PX
    return as_png(page, "verdict.png")


def as_png(picture: PilImage.Image, name: str) -> Media:
    """A picture as a content block."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG")
    return Media.from_bytes(buffer.getvalue(), modality="image", name=name)


def _lines(evidence: Evidence) -> list[tuple[str, str]]:
    score = evidence.reliability
    told = "nothing that was said can be checked" if score is None else f"reliability {score:.0%}"
    lines = [(told, INK)]
    lines += [(f"{c.said}: {c.verdict} - {c.reason}", COLOURS[c.verdict]) for c in evidence.claims]
    if evidence.unmentioned:
        also = f"not mentioned: {counted(evidence.unmentioned)}"
        lines.append((also, COLOURS["cannot be checked"]))
    return lines


def _fitted(picture: PilImage.Image) -> PilImage.Image:
    height = max(1, round(picture.height * WIDTH_PX / picture.width))
    return picture.resize((WIDTH_PX, height), PilImage.Resampling.LANCZOS)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while len(text) > 1 and font.getlength(text) > WIDTH_PX - 2 * MARGIN_PX:
        text = f"{text.removesuffix('...')[:-1]}..."
    return text
