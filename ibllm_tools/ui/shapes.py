"""A point cloud for a message of the page: `cloud.js` draws it and lets people turn it.

Not Gradio's Model3D: where a message changes while that loads its code, as an answer that
streams does, its picture never comes; and it needs WebGL, which not every browser has.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_SHOWN = 4096
SCRIPT = Path(__file__).parent / "cloud.js"
_FULL = 65535


def cloud(xyz: NDArray[np.float32], label: str) -> str:
    """Write points as a picture that can be turned.

    Args:
        xyz: (N, 3) float32; of more than 4096 points an even part is shown.
        label: What stands below it.

    Returns:
        HTML; the points are in it as 16-bit numbers, within the smallest cube around them.
    """
    if len(xyz) > MAX_SHOWN:
        xyz = xyz[np.linspace(0, len(xyz) - 1, MAX_SHOWN).astype(int)]
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    unit = (xyz - (low + high) / 2) / max(float((high - low).max()), 1e-9)  # -0.5 … 0.5
    points = np.round((unit + 0.5) * _FULL).clip(0, _FULL).astype("<u2")
    text, name = base64.b64encode(points.tobytes()).decode(), html.escape(label)
    return (
        f'<figure class="cloud"><canvas class="cloud" tabindex="0" role="img" '
        f'aria-label="{name}" data-points="{text}"></canvas>'
        f"<figcaption>{name}</figcaption></figure>"
    )
