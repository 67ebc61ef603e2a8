"""A detector that really detects, in made pictures: coloured squares stand for things."""

import numpy as np
from PIL import Image, ImageDraw

from ibllm_tools import Media
from ibllm_tools.experts import Detection, Detections

COLOURS = {"dog": (220, 30, 30), "boat": (30, 30, 220), "traffic light": (30, 200, 30)}


class ColourDetector:
    """Finds squares by their colour; each is one thing. `any_noun` makes it open-vocabulary."""

    def __init__(self, *, any_noun=False):
        self.any_noun = any_noun
        self.asked = []

    def classes(self):
        return None if self.any_noun else tuple(COLOURS)

    def detect(self, image, labels=None, threshold=None):
        self.asked.append(labels)
        pixels = np.asarray(image.convert("RGB")).astype(int)
        found = []
        for label in COLOURS if labels is None else [x for x in labels if x in COLOURS]:
            near = (np.abs(pixels - COLOURS[label]) < 60).all(-1)
            # Squares stand on a grid of 40 pixels, see `squares`.
            for x in range(0, near.shape[1] - 39, 40):
                share = near[:40, x : x + 40].mean()
                if share > 0.3:
                    found.append(Detection(label=label, score=0.9, box=(x + 8, 8, x + 32, 32)))
        width, height = image.size
        return Detections(detections=found, width_px=width, height_px=height, model="colours")


def squares_picture(labels, size):
    """(H, W, 3) with a square for each label, from left to right."""
    picture = Image.new("RGB", size, "white")
    for place, label in enumerate(labels):
        x = 40 * place
        ImageDraw.Draw(picture).rectangle((x + 8, 8, x + 32, 32), fill=COLOURS[label])
    return np.asarray(picture)


def squares(*labels, name="squares.png"):
    """A picture with a square for each label, as a content block."""
    pixels = squares_picture(labels, (40 * max(len(labels), 2), 40))
    return Media.from_array(pixels, "image", name=name)
