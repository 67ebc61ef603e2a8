"""Threads of the media agent in PostgreSQL: a server of our own, on a socket in a folder."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from chat_samples import picture
from langchain_core.messages import HumanMessage
from scripted_brain import ScriptedBrain, call, result

from ibllm_tools import AttachmentMiddleware, create_media_agent

postgres = pytest.importorskip("langgraph.checkpoint.postgres", reason="extra [agents] is missing")


def program(name):
    """Debian keeps the server's programs outside of the path."""
    found = shutil.which(name) or max(
        map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default=None
    )
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install postgresql")
    return found


def unprivileged():
    """PostgreSQL refuses to run as root; Debian's package brings a user for it."""
    return {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}


@pytest.fixture(scope="module")
def server():
    initdb, run = program("initdb"), program("postgres")
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as folder:
        if unprivileged():
            shutil.chown(folder, "postgres", "postgres")
        data = f"{folder}/data"
        make = [initdb, "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **unprivileged())
        start = [run, "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        process = subprocess.Popen(start, cwd=folder, stderr=subprocess.DEVNULL, **unprivileged())
        try:
            place = f"host={folder} user=tester dbname=postgres"
            wait_for(place, process)
            yield place
        finally:
            process.terminate()
            process.wait(100)


def wait_for(place, process):
    import psycopg

    for _ in range(900):
        try:
            psycopg.connect(place).close()
        except psycopg.OperationalError:
            assert process.poll() is None, "the server ended by itself"
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the server did not start in 90 s")


def test_a_thread_goes_on_with_another_connection_and_holds_no_bytes(server, tmp_path):
    thread = {"configurable": {"thread_id": "1"}}
    photo = picture(0, name="p.png")

    def agent_with(saver, *script):
        brain = ScriptedBrain(script=script)
        return create_media_agent(brain, checkpointer=saver, attachments_dir=tmp_path)

    with postgres.PostgresSaver.from_conn_string(server) as saver:
        saver.setup()
        agent_with(saver, "A photo.").invoke({"messages": [HumanMessage(["look", photo])]}, thread)
    with postgres.PostgresSaver.from_conn_string(server) as saver:
        script = [call("perceive", question="?", attachments=["image-1"]), result]
        question = {"messages": [HumanMessage("What was it?")]}
        state = agent_with(saver, *script).invoke(question, thread)
        assert state["messages"][0].content == "look [image-1: p.png]"
        assert state["messages"][-2].status == "success"
        with saver._cursor() as cursor:
            cursor.execute("SELECT sum(length(blob)) AS n FROM checkpoint_blobs")
            assert cursor.fetchone()["n"] < 50_000
            cursor.execute("SELECT blob FROM checkpoint_blobs WHERE blob IS NOT NULL")
            blobs = b"".join(bytes(row["blob"]) for row in cursor.fetchall())
        assert photo["base64"][:100].encode() not in blobs
        middleware = AttachmentMiddleware(tmp_path)
        slim = middleware.slim(saver)
        assert middleware.clean(slim, min_age_s=-60) == []
        saver.delete_thread("1")
        assert len(middleware.clean(slim, min_age_s=-60)) == 1
