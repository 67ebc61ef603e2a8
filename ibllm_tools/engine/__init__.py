"""The serving engine: one loaded model that answers many requests at once.

```
open_engine("pocket") -> engine.stream(messages, media, sampling) -> Piece, Piece, ...
open_senses("pocket") -> senses.embed(rows of items)              -> (N, D) unit vectors

consumer's thread or task        scheduler's thread, one per engine
turns, prompt ids, media  ─────> queue ─> Batch (SlotCache, Bank): join, prefill a chunk,
Channel <──────────────────────── pieces  one token for every answer, leave; again
```

Answers of one model are computed together, which is many times as fast as one after another. An
answer joins and leaves between two steps. Each has its own place in the cache, its own injection,
random state and text; what differs from computing it alone is rounding: about 3e-5 in float32
logits, which changes no token in practice. **In bfloat16 and float16 the rounding is about 1e-2
and does change tokens: there an answer may differ from the one that the same request gets alone.**
"""

from ibllm_tools.decoding import Sampling, TokenLogprob
from ibllm_tools.engine.answers import Finish, FinishReason, Piece
from ibllm_tools.engine.opening import Placement, open_engine, open_senses
from ibllm_tools.engine.senses import Senses
from ibllm_tools.engine.serving import Engine

__all__ = [
    "Engine",
    "Finish",
    "FinishReason",
    "Piece",
    "Placement",
    "Sampling",
    "Senses",
    "TokenLogprob",
    "open_engine",
    "open_senses",
]
