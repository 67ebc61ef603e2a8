"""Small made-up media, and messages that hold them, for the tests of the chat model."""

import numpy as np
from langchain_core.messages import HumanMessage

from ibllm_tools import Media


def picture(seed=0, **options):
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return Media.from_array(pixels, "image", **options)


def sound(seed=0, **options):
    wave = np.random.default_rng(seed).uniform(-0.5, 0.5, 8000).astype(np.float32)
    return Media.from_array(wave, "audio", rate_hz=16000, **options)


def cloud(seed=0, **options):
    xyz = np.random.default_rng(seed).normal(size=(300, 3)).astype(np.float32)
    return Media.from_array(xyz, "point", **options)


def ask(*content):
    return [HumanMessage(list(content))]
