"""The feature store: the encoder is frozen, so every medium is encoded once.

```
sources ─ encoding (load, preprocess, encode) ─ FeatureWriter ─ folder ─ FeatureStore
```
A folder holds `store.json` (which encoder, counts, reports) and shards of vectors and rows; see
`shards`. It is filled in blocks that a journal records, so that a run that was killed goes on
where it stopped, and ends with the same bytes.
"""

from __future__ import annotations

from ibllm_tools.data.store.encoding import write_store
from ibllm_tools.data.store.identity import EncoderIdentity, identify_encoder
from ibllm_tools.data.store.reading import (
    FeatureStore,
    StoredMedium,
    StoredRow,
    is_store,
    part_name,
)
from ibllm_tools.data.store.writing import FeatureWriter

__all__ = [
    "EncoderIdentity",
    "FeatureStore",
    "FeatureWriter",
    "StoredMedium",
    "StoredRow",
    "identify_encoder",
    "is_store",
    "part_name",
    "write_store",
]
