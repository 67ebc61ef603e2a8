"""Serving the page: on this machine alone, within limits, with files in a private folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibllm_tools.checkpoints import POCKET
from ibllm_tools.errors import ConfigurationError, MissingExtraError
from ibllm_tools.media import MediaPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOOPBACK = "127.0.0.1"
_NAMES = ("127.0.0.1", "localhost", "[::1]", "::1")
_MAX_SESSIONS = 100


@dataclass(frozen=True)
class UiSettings:
    """What a page is served with.

    Attributes:
        model: "pocket", a folder, or a hub id.
        device: As in torch; by default an accelerator where there is one.
        dtype: "float32", "bfloat16" or "float16".
        host: Where to listen; by default nobody else reaches it.
        port: 0 takes a free one.
        policy: Limits on media; nothing it lists is followed, since media here are uploads.
        max_running: Answers under way at once.
        max_waiting: Questions that may wait; further ones are told to come back.
        experts: `detector` and `recognizer` as `create_media_agent` takes them.
    """

    model: str = POCKET
    device: str | None = None
    dtype: str | None = None
    host: str = LOOPBACK
    port: int = 7860
    policy: MediaPolicy = field(default_factory=MediaPolicy)
    max_running: int = 4
    max_waiting: int = 32
    experts: Mapping[str, Any] = field(default_factory=dict)


def serve(
    settings: UiSettings | None = None, *, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve the page until interrupted; the model is loaded first.

    Args:
        settings: By default pocket on this machine alone.
        on_ready: Called with the page's address when it can be opened.

    Raises:
        MissingExtraError: Gradio is not installed.
        ConfigurationError: The port is taken.
        CheckpointError: There is no such model.
    """
    settings = settings or UiSettings()
    folder = Path(tempfile.mkdtemp(prefix="ibllm-ui-"))  # only its owner may look inside
    try:
        _quiet(folder / "browser")
        _end_as_interrupted()
        blocks = _launch(settings, folder)
        if on_ready is not None:
            on_ready(blocks.local_url)
        blocks.block_thread()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end_as_interrupted() -> None:
    """Let a plain `kill` end the page like Ctrl+C, so that uploads are deleted."""
    import signal
    import threading

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _quiet(uploads: Path) -> None:
    """Tell Gradio, before it is imported, to ask nobody anything and where files go."""
    uploads.mkdir(mode=0o700)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(uploads / "examples")
    os.environ["GRADIO_SHARE"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def _launch(settings: UiSettings, folder: Path) -> Any:
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("gradio", "ui") from error
    from ibllm_tools.attachments.files import AttachmentFiles
    from ibllm_tools.ui.asking import Answerer
    from ibllm_tools.ui.look import CSS, theme
    from ibllm_tools.ui.neighbours import Sensor
    from ibllm_tools.ui.page import Page
    from ibllm_tools.ui.shapes import SCRIPT
    from ibllm_tools.ui.tray import DEMO_MEDIA, Uploads

    shown = folder / "browser"
    uploads = Uploads(shown, settings.policy)
    sensor = Sensor(settings.model, settings.device, settings.dtype)
    files = AttachmentFiles(folder / "attachments")
    answerer = Answerer(sensor, settings.policy, files, shown, settings.experts)
    blocks = Page(answerer, uploads, settings).blocks
    blocks.queue(max_size=settings.max_waiting, default_concurrency_limit=settings.max_running)
    try:
        blocks.launch(
            server_name=settings.host,
            server_port=settings.port or _free_port(settings.host),
            share=False,
            quiet=True,
            inbrowser=False,
            prevent_thread_lock=True,
            show_error=False,
            max_file_size=settings.policy.max_bytes,
            allowed_paths=[str(DEMO_MEDIA)],
            state_session_capacity=_MAX_SESSIONS,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            theme=theme(),
            css=CSS,
            js=SCRIPT.read_text(),
            app_kwargs={"middleware": _middleware(settings.host), "docs_url": None},
        )
    except OSError as error:
        raise ConfigurationError(
            f"port {settings.port} of {settings.host} cannot be used ({error}); "
            "choose another with --port, or --port 0 for a free one"
        ) from error
    return blocks


def _middleware(host: str) -> list[Any]:
    """On loopback, a page elsewhere cannot reach this one under another name."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from ibllm_tools.ui.guard import Guard

    around = [Middleware(Guard)]
    if host in _NAMES:
        around.append(Middleware(TrustedHostMiddleware, allowed_hosts=list(_NAMES)))
    return around


def _free_port(host: str) -> int:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host.strip("[]"), 0))
        port: int = probe.getsockname()[1]
    return port
