"""The web page: chat with any mix of media, on this machine alone.

```
words, look ─┐
tray (files -> Media, weights) ─ page (Blocks) ─ serving (loopback, guard, limits)
asking (answers, tool steps) ─ neighbours, shapes ─┘
```
Nothing that the page shows or sends leaves the machine that serves it.
"""

from __future__ import annotations

from ibllm_tools.ui.serving import UiSettings, serve

__all__ = ["UiSettings", "serve"]
