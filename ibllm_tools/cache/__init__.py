"""The visual cache: pulls the embedding of any modality towards those of images.

```
vectors ─ building (millions: a sample trains, blocks are added on disk) ─ folder
folder ─ VisualCache ─ blend (query towards its nearest images)
```
"""

from __future__ import annotations

from ibllm_tools.cache.building import build_cache, recall_at, spread_rows
from ibllm_tools.cache.settings import FORMS, CacheSettings
from ibllm_tools.cache.visual import VisualCache, open_cache

__all__ = [
    "FORMS",
    "CacheSettings",
    "VisualCache",
    "build_cache",
    "open_cache",
    "recall_at",
    "spread_rows",
]
