"""From a client's call to a tool's result; whatever goes wrong becomes words for an LLM."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel

from ibllm_tools.errors import IbllmError
from ibllm_tools.mcp_server import arguments
from ibllm_tools.mcp_server.answers import failure, result_of
from ibllm_tools.mcp_server.folders import Folders, folders_of_roots
from ibllm_tools.mcp_server.protocol import Peer, RootsNeeded
from ibllm_tools.mcp_server.searching import FolderTools
from ibllm_tools.mcp_server.settings import McpSettings
from ibllm_tools.mcp_server.tools import SensingTools, Tool

_TELL_EVERY_S = 0.2
_TELL_TIMEOUT_S = 30.0
_LOG = logging.getLogger(__name__)
INSTRUCTIONS = (
    'Tools that see, hear and read 3D shapes. Pass media as {{"path": ...}} for a file in a '
    'folder that may be read ({folders}), or as {{"data": base64}}; addresses are not opened. '
    "list_media tells which files there are. The model that perceives is {model}{note}."
)
_POCKET = ", a miniature that knows 45 everyday things; take its answers as hints"


class Calls:
    """Answers the calls of all clients."""

    def __init__(self, settings: McpSettings) -> None:
        """Make the tools; nothing is loaded."""
        self._settings = settings
        self._allowed = Folders.of(settings.allowed_dirs)
        tools = [*SensingTools(settings).tools(), *FolderTools(settings).tools()]
        self.tools: dict[str, Tool] = {tool.name: tool for tool in tools}

    def instructions(self) -> str:
        """What clients may tell their LLM."""
        folders = [str(folder) for folder in self._allowed.allowed]
        if self._settings.client_roots:
            folders.append("the roots of this client")
        model = getattr(self._settings.chat, "model", type(self._settings.chat).__name__)
        return INSTRUCTIONS.format(
            folders=", ".join(folders) or "none is allowed",
            model=model,
            note=_POCKET if model == "pocket" else "",
        )

    async def __call__(self, name: str, given: Mapping[str, Any], peer: Peer) -> dict[str, Any]:
        """Answer one call.

        Returns:
            The JSON of an MCP tool result; a problem is a result, too, with `isError`.

        Raises:
            RootsNeeded: The client has to be asked for its roots first.
        """
        try:
            tool = self.tools.get(name)
            if tool is None:
                return failure(f"there is no tool {name!r}; there are {', '.join(self.tools)}")
            checked = arguments.parse(tool.arguments, given)
            call = _ClientCall(await self._folders(checked, peer), peer)
            return result_of(await tool.run(checked, call))
        except IbllmError as error:
            return failure(str(error))
        except RootsNeeded:
            raise
        except Exception as error:  # noqa: BLE001 - a bug must not end the session
            _LOG.exception("%s failed", name)
            kind = type(error).__name__
            return failure(f"{name} failed inside the server ({kind}); its log says where")

    async def _folders(self, checked: BaseModel, peer: Peer) -> Folders:
        """What this client may read; its roots are asked for only where a path is named."""
        if not self._settings.client_roots or not _names_files(checked):
            return self._allowed
        return self._allowed + folders_of_roots(await peer.roots())


class _ClientCall:
    """One call, seen by a tool."""

    def __init__(self, folders: Folders, peer: Peer) -> None:
        self.folders = folders
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self._told_at = -_TELL_EVERY_S

    async def tell(self, done: float, total: float | None, message: str) -> None:
        """Tell of progress from the event loop; a few times a second are enough, and the end."""
        now = self._loop.time()
        if done != total and now - self._told_at < _TELL_EVERY_S:
            return
        self._told_at = now
        await self._peer.progress(done, total, message)

    def tell_soon(self, done: float, total: float | None, message: str) -> None:
        """Tell of progress from a worker thread; waits until it is sent, so that order holds.

        Telling is a courtesy: where the client is gone, the work ends by its own cancellation.
        """
        if self._loop.is_closed():
            return
        telling = self.tell(done, total, message)
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(telling, self._loop).result(timeout=_TELL_TIMEOUT_S)


def _names_files(checked: BaseModel) -> bool:
    if isinstance(checked, (arguments.SimilarArgs, arguments.ListArgs)):
        return True
    return any(medium.path is not None for medium in arguments.media_in(checked))
