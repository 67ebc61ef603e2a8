"""The LangGraph application folder: `langgraph validate`, `langgraph dev`, README and pictures."""

import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from ibllm_tools import Media
from ibllm_tools.agent_graphs import NAMES
from ibllm_tools.demo import MEDIA_FOLDER

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "agents"
README = FOLDER / "README.md"


@pytest.fixture(scope="module")
def langgraph():
    found = os.environ.get("IBLLM_LANGGRAPH") or shutil.which("langgraph")
    if not found:
        pytest.skip("no langgraph program: `make langgraph`, or set IBLLM_LANGGRAPH")
    return found


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A copy of langgraph.json with absolute paths, so that the server's files stay apart."""
    told = json.loads((ROOT / "langgraph.json").read_text("utf-8"))
    told["dependencies"] = [str(ROOT)]
    told["graphs"] = {name: str(ROOT / place) for name, place in told["graphs"].items()}
    path = tmp_path_factory.mktemp("served") / "langgraph.json"
    path.write_text(json.dumps(told))
    return path


def test_langgraph_json_names_every_agent():
    told = json.loads((ROOT / "langgraph.json").read_text("utf-8"))
    assert sorted(told["graphs"]) == sorted(NAMES)
    for name, place in told["graphs"].items():
        path, _, variable = place.partition(":")
        assert (ROOT / path).resolve() == FOLDER / f"{name}.py"
        assert variable == "graph"


def test_langgraph_json_is_valid(langgraph):
    done = subprocess.run(
        [langgraph, "validate"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "valid" in done.stdout


def test_the_entries_make_their_graphs_and_load_no_weights():
    code = (
        "import runpy, sys\n"
        "for path in sys.argv[1:]: print(runpy.run_path(path)['graph'].name)\n"
        "from ibllm_tools.experts.registry import REGISTRY\n"
        "print(REGISTRY.loaded(), any('modeling' in name for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *(FOLDER / f"{name}.py" for name in NAMES)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [*NAMES, "[] False"], done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_shows_the_graph_as_it_is(name):
    """Each PNG carries its nodes and edges; `python agents/draw_graphs.py` draws them anew."""
    drawing = runpy.run_path(str(FOLDER / "draw_graphs.py"))
    now = drawing["shown"](runpy.run_path(str(FOLDER / f"{name}.py"))["graph"])
    with Image.open(FOLDER / f"{name}.png") as picture:
        assert json.loads(picture.text["graph"]) == now


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_tells_of_each_agent_with_picture_and_trace(name):
    parts = README.read_text("utf-8").split("\n## ")
    (part,) = [part for part in parts if part.startswith(f"{name}\n")]
    assert f"({name}.png)" in part
    assert f"ibllm agent {name} " in part


@pytest.fixture(scope="module")
def served(langgraph, settings):
    """`langgraph dev` on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1"}
    env |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(settings.parent)}
    command = [langgraph, "dev", "--config", settings, "--no-browser", "--no-reload"]
    with (settings.parent / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=settings.parent,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait(100)


def wait_for(url, process, log):
    import httpx

    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/ok", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.enable_socket
def test_langgraph_dev_serves_every_agent(served, settings):
    from langgraph_sdk import get_sync_client

    url, process = served
    wait_for(url, process, settings.parent / "log")
    client = get_sync_client(url=url)
    assert {found["graph_id"] for found in client.assistants.search()} == set(NAMES)
    photo = dict(Media.from_path(MEDIA_FOLDER / "dog.jpg"))
    content = [{"type": "text", "text": "What is this?"}, photo]
    thread = client.threads.create()
    events = list(
        client.runs.stream(
            thread["thread_id"],
            "modality_experts",
            input={
                "messages": [{"role": "user", "content": content}],
                "attachments": {"image-9": {"sha256": "0" * 64}},  # nobody's to give
            },
            stream_mode=["custom", "values"],
        )
    )
    steps = [event.data["step"] for event in events if event.event == "custom"]
    assert steps[0] == "attach"
    assert "answer" in steps
    state = client.threads.get_state(thread["thread_id"])["values"]
    assert state["messages"][-1]["content"]
    assert "image-9" not in state["attachments"]
    assert state["attachments"]["image-1"]["name"] == "dog.jpg"
    # The server refuses whatever would block its event loop; a chat model in an agent runs there.
    thread = client.threads.create()["thread_id"]
    message = {"messages": [{"role": "user", "content": content}]}
    answered = client.runs.wait(thread, "dialog", input=message)
    assert answered["messages"][-1]["type"] == "ai", answered
    assert answered["messages"][-1]["content"]
