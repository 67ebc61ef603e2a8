"""How good a model is, measured: the whole scorecard of pocket, for any folder of media.

```
gallery (media) + asking (model) -> session -> sections -> scorecard -> table, JSON, pictures, card
```
Every answer is greedy. The headline answers go through `ChatImageBindLLM.invoke`, the others in
batches that give the same answers; the scorecard measures that they do.
"""

from __future__ import annotations

from ibllm_tools.evaluate.results import Measure, Section, Target
from ibllm_tools.evaluate.scorecard import SECTIONS, Scorecard, evaluate
from ibllm_tools.evaluate.tables import as_table

__all__ = ["SECTIONS", "Measure", "Scorecard", "Section", "Target", "as_table", "evaluate"]
