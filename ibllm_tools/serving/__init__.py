"""An HTTP server that speaks OpenAI's API: chat with media, embeddings, transcriptions.

```
bytes ─ Envelope (ids, headers, metrics) ─ Gate (host, key, places, body limits) ─ app (routes)
chat:   wire.ChatRequest ─ conversation ─ chat_models.request ─ answering (deltas) ─ reply | events
others: embedding ─ embeddings;  transcription ─ experts
errors: problems (every exception -> status and OpenAI's error object)
```
It answers through the one engine of the process; media go through the one media policy. Needs the
extra `[serve]`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from ibllm_tools.errors import MissingExtraError
from ibllm_tools.serving.settings import API_KEYS, ServeSettings, environment_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

__all__ = ["API_KEYS", "ServeSettings", "create_app", "environment_keys", "run_server"]

_PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "prometheus_client": "prometheus-client",
    "python_multipart": "python-multipart",
}


def create_app(settings: ServeSettings | None = None) -> FastAPI:
    """Make the ASGI application, for any ASGI server; models load when it starts.

    Raises:
        MissingExtraError: The extra `[serve]` is not installed.
    """
    _check_installed()
    from ibllm_tools.serving.app import build_app

    return build_app(settings or ServeSettings())


def run_server(settings: ServeSettings, *, tell: Callable[[str], None] | None = None) -> None:
    """Serve until the process is told to stop; what runs then is finished.

    Args:
        settings: What to serve, and where.
        tell: Called with the server's address once it answers.

    Raises:
        ConfigurationError: Others could reach the server, and there is no key.
        MissingExtraError: The extra `[serve]` is not installed.
    """
    settings.check_reach()
    _check_installed()
    from ibllm_tools.serving.running import run

    run(settings, tell)


def _check_installed() -> None:
    for module, package in _PACKAGES.items():
        if find_spec(module) is None:
            raise MissingExtraError(package, "serve")
