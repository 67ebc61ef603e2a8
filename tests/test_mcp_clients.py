"""`ibllm mcp` as its own process: the official client, and LangChain's adapters in an agent."""

import json
import os
import re
import signal
import subprocess
import sys
import warnings
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from scripted_brain import ScriptedBrain, call

pytest.importorskip("mcp", reason="needs the extra [mcp]")

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_parts import called, connected, listing, said

from ibllm_tools.demo import MEDIA_FOLDER

pytestmark = [pytest.mark.enable_socket, pytest.mark.timeout(300)]  # they start processes
TESTS = Path(__file__).parent
SERVER = ["-m", "ibllm_tools.cli", "mcp"]
FIRST_VERSION = "IBLLM_MCP1"


def environment(**more):
    inherited = {name: os.environ[name] for name in os.environ if not name.startswith("PYTEST")}
    return {**inherited, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), **more}


@asynccontextmanager
async def started(arguments, errors, roots=None, **variables):
    """A session of the official client with a server that it starts."""
    server = StdioServerParameters(
        command=sys.executable, args=arguments, env=environment(**variables)
    )
    async with (
        stdio_client(server, errlog=errors) as streams,
        ClientSession(*streams, list_roots_callback=roots) as session,
    ):
        await session.initialize()
        yield session


async def test_over_stdio_a_client_asks_about_the_files_of_its_roots(tmp_path):
    roots = listing(MEDIA_FOLDER)
    right = 0
    with (tmp_path / "errors").open("w+") as errors:
        async with started(SERVER, errors, roots, XDG_CACHE_HOME=str(tmp_path)) as session:
            for file, names in [
                ("dog.jpg", "dog"),
                ("piano.jpg", "piano"),
                ("boat.jpg", "boat|ship|sea"),
                ("sea.ogg", "sea|wave|water"),
                ("airplane.jpg", "plane"),
            ]:
                found = await called(
                    session, "perceive", question="What is this?", media=[{"path": file}]
                )
                right += re.search(names, said(found).lower()) is not None
            refused = await called(session, "perceive", question="?", media=["/etc/passwd"])
            alike = await called(session, "find_similar", media=["dog.ogg"], modality="image", k=1)
    assert right >= 3  # whichever edition of pocket
    assert refused["isError"]
    assert alike["structuredContent"]["results"][0]["path"] == "dog.jpg"


async def test_nothing_else_gets_between_the_messages_on_standard_output(tmp_path):
    path = tmp_path / "errors"
    with path.open("w+") as errors:
        async with started([str(TESTS / "mcp_noisy_server.py")], errors) as session:
            for _ in range(2):
                found = await called(session, "perceive", question="?", media=[{"text": "dog"}])
                assert said(found) == "heard ''"
    heard = path.read_text()
    for noise in ("from print", "from a descriptor", "from a child"):
        assert f"noise {noise}" in heard


def test_the_server_ends_when_its_client_goes():
    done = subprocess.run(
        [sys.executable, *SERVER], input=b"not json\n", capture_output=True, timeout=200,
        env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0
    for line in done.stdout.splitlines():
        assert json.loads(line)["jsonrpc"] == "2.0"


def test_ctrl_c_ends_a_server_that_waits_for_its_client():
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment()}
    with subprocess.Popen([sys.executable, *SERVER], **pipes) as server:
        server.stdin.write(json.dumps(hello).encode() + b"\n")
        server.stdin.flush()
        assert b"ibllm-tools" in server.stdout.readline()
        server.send_signal(signal.SIGINT)
        assert server.wait(100) == -signal.SIGINT


async def test_over_http_the_command_tells_its_address(tmp_path):
    command = [sys.executable, *SERVER, "--http", "--port", "0", "--allow-dir", str(MEDIA_FOLDER)]
    variables = environment(IBLLM_API_KEY="secret")
    async with await anyio.open_process(command, env=variables, stderr=subprocess.PIPE) as server:
        told = b""
        while b"\n" not in told:
            told += await server.stderr.receive()
        address = re.search(rb"http://127\.0\.0\.1:\d+/mcp", told)[0].decode()
        async with connected(address, key="secret") as session:
            found = await called(session, "list_media", modality="video")
        server.terminate()
        with anyio.fail_after(100):
            await server.wait()
    assert [file["path"] for file in found["structuredContent"]["files"]] == ["dog.mp4"]


async def test_an_agent_uses_the_tools_through_langchains_adapter():
    pytest.importorskip("fastmcp", reason="needs langchain[mcp]")
    from fastmcp.client.transports import StdioTransport

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from langchain.mcp import MCPAdapter
    arguments = [*SERVER, "--allow-dir", str(MEDIA_FOLDER)]
    script = [
        call("perceive", question="What is this?", media=[{"path": "dog.jpg"}]),
        call("perceive", question="What is this?", media=[{"path": "/etc/passwd"}]),
        "done",
    ]
    transport = StdioTransport(sys.executable, arguments, env=environment(), keep_alive=False)
    async with MCPAdapter(transport) as adapter:
        agent = create_agent(ScriptedBrain(script=script), await adapter.list_tools())
        state = await agent.ainvoke({"messages": [HumanMessage("Look")]})
    check(
        [
            {"status": message.status, "text": message.text, "artifact": message.artifact}
            for message in state["messages"]
            if message.type == "tool"
        ]
    )


def test_an_agent_uses_the_tools_through_langchain_mcp_adapters():
    folder = os.environ.get(FIRST_VERSION)
    if not folder:
        pytest.skip(f"{FIRST_VERSION} names no folder with mcp<2 and langchain-mcp-adapters")
    done = subprocess.run(
        [sys.executable, str(TESTS / "mcp_first_version.py"), str(MEDIA_FOLDER)],
        capture_output=True, text=True, timeout=280, check=False,
        env=environment(PYTHONPATH=os.pathsep.join([folder, str(TESTS.parent)])),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "find_similar" in found["tools"]
    check(found["told"])


def check(told):
    """The first call was answered with values for programs, the second was refused in words."""
    answered, refused = told
    assert answered["status"] == "success"
    assert answered["artifact"]["structured_content"]["media"][0]["name"] == "dog.jpg"
    assert answered["text"] == answered["artifact"]["structured_content"]["answer"]
    assert refused["status"] == "error"
    assert "may be read" in refused["text"]
