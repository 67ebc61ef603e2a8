"""Parts for the tests of the MCP server: experts of our own, a chat model, servers, clients."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager, contextmanager

import mcp.types
import numpy as np
import uvicorn
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from ibllm_tools.experts.results import Detection, Detections, Segment, Transcript
from ibllm_tools.mcp_server import HttpSettings, http_app


class SquareFinder:
    """A detector of our own: finds the bright square."""

    def detect(self, image, labels=None, threshold=None):
        grey = np.asarray(image.convert("L"))
        ys, xs = np.nonzero(grey > 200)
        box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
        found = [Detection(label="square", score=0.9, box=box)]
        return Detections(
            detections=found, width_px=image.width, height_px=image.height, model="own"
        )

    def classes(self):
        return ("square",)


class LoudnessReader:
    """A recognizer of our own: hears "loud"."""

    def transcribe(self, samples, rate_hz, language=None):
        segment = Segment(text="loud", start_s=0, end_s=len(samples) / rate_hz, no_speech=0.1)
        return Transcript(text="loud", language="en", segments=[segment], is_speech=True,
                          model="own")  # fmt: skip


class EndlessChat(BaseChatModel):
    """Says words, fifty at a time, until it is stopped."""

    ended: list[str] = []  # noqa: RUF012 - pydantic copies it

    @property
    def _llm_type(self):
        return "endless"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        raise NotImplementedError

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        try:
            while True:
                for _ in range(50):
                    yield ChatGenerationChunk(message=AIMessageChunk("on and "))
                await asyncio.sleep(0.05)
        finally:
            self.ended.append("ended")


@contextmanager
def running(settings, **http):
    """Serve over HTTP in a thread; gives the address."""
    app = http_app(settings, HttpSettings(port=0, **http))
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.should_exit = True
        thread.join(60)


def listing(*folders):
    """A client's answer when it is asked for its roots."""

    async def roots(context):
        told = {"roots": [{"uri": folder.as_uri()} for folder in folders]}
        return mcp.types.ListRootsResult.model_validate(told)

    return roots


@asynccontextmanager
async def connected(url, *, key=None, roots=None):
    """A session of the official client."""
    headers = {"Authorization": f"Bearer {key}"} if key else None
    async with (
        create_mcp_http_client(headers) as http,
        streamable_http_client(url, http_client=http) as streams,
        ClientSession(*streams[:2], list_roots_callback=roots) as session,
    ):
        await session.initialize()
        yield session


async def called(session, name, progress_callback=None, **arguments):
    """The JSON of a tool's result; the client compares it with the tool's output schema."""
    found = await session.call_tool(name, arguments, progress_callback=progress_callback)
    return found.model_dump(by_alias=True, exclude_none=True)


def said(result):
    """The text of a result."""
    return "\n".join(part["text"] for part in result["content"] if part["type"] == "text")
