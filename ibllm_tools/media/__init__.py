"""Media: the only place where bytes enter. Blocks become decoded items under one policy.

```
block ─ blocks ─ sources (files, fetching) ─ formats ─┬─ images ─ Image, Depth, Thermal
                                                      ├─ audio, video ─ Audio, Video
                                                      ├─ points ─ Points
                                                      └─ signals ─ Imu
```
Nothing here knows torch, models or prompts.
"""

from __future__ import annotations

from ibllm_tools.media.blocks import ACCEPTED, is_media
from ibllm_tools.media.items import (
    MODALITIES,
    Audio,
    Depth,
    Image,
    Imu,
    Modality,
    Points,
    Text,
    Thermal,
)
from ibllm_tools.media.loading import Item, load
from ibllm_tools.media.media_block import Media
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.video import Video

__all__ = [
    "ACCEPTED",
    "MODALITIES",
    "Audio",
    "Depth",
    "Image",
    "Imu",
    "Item",
    "Media",
    "MediaPolicy",
    "Modality",
    "Points",
    "Text",
    "Thermal",
    "Video",
    "is_media",
    "load",
]
