"""The agents of the paper's section 3.3, as LangGraph graphs that `agents/` and the CLI run.

```
detection          answer -> nouns -> detector -> which claims hold -> picture   (figure 10)
modality_experts   frames, sound track, detector, transcript -> one answer       (figure 9)
api_control        question -> fewest tools -> guarded calls -> answer           (figure 12)
perception         question -> route -> model or expert -> answer
dialog             many turns over changing media

state (messages, attachments) -> steps (what is told) -> brain (who answers)
```
Each module has `create_graph(model, ...)`, which reads no weights before the first run.
"""

from __future__ import annotations

from ibllm_tools.agent_graphs.opening import NAMES, open_graph

__all__ = ["NAMES", "open_graph"]
