"""Attachments: media of a conversation by id, with their bytes in content-addressed files.

```
media block -> reading.read_block -> files (sha256) + Attachment (id, what it is)
messages    -> messages.attach    -> text tags `[image-1: photo.jpg]`, records in the state
an LLM's id -> lookup             -> Attachment -> block -> a tool
checkpoint  -> checkpoints.slim   -> long base64 texts become files as well
```
What an LLM writes opens nothing: an id is looked up in the conversation's own state.
"""

from __future__ import annotations

from ibllm_tools.attachments.checkpoints import slim
from ibllm_tools.attachments.files import AttachmentFiles
from ibllm_tools.attachments.lookup import AttachmentError, attachments_of, open_attachment
from ibllm_tools.attachments.middleware import AttachmentMiddleware
from ibllm_tools.attachments.records import Attachment
from ibllm_tools.attachments.store import AttachmentStore

__all__ = [
    "Attachment",
    "AttachmentError",
    "AttachmentFiles",
    "AttachmentMiddleware",
    "AttachmentStore",
    "attachments_of",
    "open_attachment",
    "slim",
]
