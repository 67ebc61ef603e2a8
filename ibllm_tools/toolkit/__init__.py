"""Tools by which any LLM perceives the attachments of its conversation.

```
tool call (ids) -> access -> records, media, decoded items
  perceiving: perceive, analyze_video        likeness: find_similar, embed_media
  experts:    detect_objects, transcribe_speech
-> text for the LLM, and an artifact of JSON values and media blocks for programs
```
"""

from __future__ import annotations

from ibllm_tools.toolkit.toolkit import ImageBindLLMToolkit

__all__ = ["ImageBindLLMToolkit"]
