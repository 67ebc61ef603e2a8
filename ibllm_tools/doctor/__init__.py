"""What `ibllm doctor` reports: packages, weights, devices, memory, experts, extras, limits.

```
examining.examine ─┬─ packages   versions against what is required, extras and their commands
                   ├─ weights    of the model, from headers alone; of the experts that ship
                   ├─ machine    devices, memory that is there and memory that is needed
                   └─ kept       what this user's folders hold
trial.answer ── one question about a picture, asked for real
describing.describe ── the report for people
```
"""

from __future__ import annotations

from ibllm_tools.doctor.describing import describe
from ibllm_tools.doctor.examining import Report, examine
from ibllm_tools.doctor.trial import try_out

__all__ = ["Report", "describe", "examine", "try_out"]
