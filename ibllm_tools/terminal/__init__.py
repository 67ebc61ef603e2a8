"""`ibllm chat`: a conversation about media in a terminal, which outlives the terminal.

```
line ── reading (prompt_toolkit, or plain lines) ── session ──┬─ commands: /attach, /weight, …
                                                              └─ talking: a turn as events
brains: chat, media agent, agents by name ── one thread (SQLite, bytes in files) ── history
events ── screen (rich)                      saving: a transcript, or an attachment
```
"""

from __future__ import annotations

from ibllm_tools.terminal.settings import ChatSettings
from ibllm_tools.terminal.starting import chat_in_terminal

__all__ = ["ChatSettings", "chat_in_terminal"]
