"""`ibllm mcp`: perception as tools for any client of the Model Context Protocol.

```
client ── stdio or HTTP ── serving ── protocol (the mcp package, 1.x or 2.x)
                                        │ tools/call
          arguments (pydantic) ── folders (what may be opened) ── media policy
                                        │
          tools: perceive, analyze_video, detect_objects, transcribe_speech, embed_media
          searching: find_similar, list_media
                                        │
          answers: text, pictures, structured content with a schema
```
What a client writes opens a file only below a folder that the person who started the server
named, or that the client's own roots name; and never an address.
"""

from __future__ import annotations

from ibllm_tools.mcp_server.serving import HttpSettings, http_app, serve_http, serve_stdio
from ibllm_tools.mcp_server.settings import McpSettings

__all__ = ["HttpSettings", "McpSettings", "http_app", "serve_http", "serve_stdio"]
