"""`ibllm mcp` as a client meets it: tools, folders, progress, cancelling, and what is refused."""

import base64
import io
import os
import threading
import time
from pathlib import Path

import anyio
import pytest
from chat_samples import picture, sound
from PIL import Image as PilImage
from serving_server import post
from tiny_model import save_tiny_model

pytest.importorskip("mcp", reason="needs the extra [mcp]")

from mcp_parts import (
    EndlessChat,
    LoudnessReader,
    SquareFinder,
    called,
    connected,
    listing,
    running,
    said,
)

from ibllm_tools import ChatImageBindLLM, ConfigurationError, ImageBindEmbeddings
from ibllm_tools.demo import MEDIA_FOLDER
from ibllm_tools.mcp_server import HttpSettings, McpSettings

pytestmark = pytest.mark.enable_socket
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """An open folder, a closed one beside it, and ways from one to the other."""
    base = tmp_path_factory.mktemp("places")
    (base / "open" / "deep").mkdir(parents=True)
    (base / "closed").mkdir()
    square = PilImage.new("RGB", (160, 90), "black")
    square.paste("white", (20, 30, 60, 70))
    for name in ("open/square.png", "closed/secret.png", "open.png"):
        square.save(base / name)
    PilImage.effect_noise((90, 90), 80).save(base / "open" / "deep" / "inner.png")
    (base / "open" / "tone.wav").write_bytes(base64.b64decode(sound()["base64"]))
    (base / "open" / "leak.png").symlink_to(base / "closed" / "secret.png")
    (base / "open" / "door").symlink_to(base / "closed")
    (base / "open" / "short cut.png").symlink_to(base / "open" / "deep" / "inner.png")
    os.mkfifo(base / "open" / "pipe.png")
    return base


@pytest.fixture(scope="module")
def settings(tmp_path_factory, places):
    folder = save_tiny_model(tmp_path_factory.mktemp("tiny"))
    return McpSettings(
        chat=ChatImageBindLLM(model=str(folder), max_tokens=8),
        detector=SquareFinder(),
        recognizer=LoudnessReader(),
        allowed_dirs=(places / "open",),
        index_dir=tmp_path_factory.mktemp("indexes"),
        client_roots=False,
    )


@pytest.fixture(scope="module")
def url(settings):
    with running(settings) as address:
        yield address


async def test_every_tool_has_schemas_and_says_that_it_changes_nothing(url):
    async with connected(url) as session:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
    assert set(tools) == {
        "perceive",
        "analyze_video",
        "detect_objects",
        "transcribe_speech",
        "embed_media",
        "find_similar",
        "list_media",
    }
    for tool in tools.values():
        told = tool.model_dump(by_alias=True)
        assert told["inputSchema"]["type"] == told["outputSchema"]["type"] == "object"
        assert told["annotations"]["readOnlyHint"] is True
    asked = tools["perceive"].model_dump(by_alias=True)["inputSchema"]
    assert asked["required"] == ["question", "media"]


async def test_without_experts_their_tools_are_not_offered(settings):
    bare = settings.model_copy(update={"detector": False, "recognizer": False})
    with running(bare) as address:
        async with connected(address) as session:
            names = {tool.name for tool in (await session.list_tools()).tools}
            wrong = await called(session, "detect_objects", image="square.png")
    assert not names & {"detect_objects", "transcribe_speech"}
    assert wrong["isError"]
    assert "perceive" in said(wrong)


async def test_media_are_mixed_by_their_weights(url):
    async with connected(url) as session:
        image = {"path": "square.png", "weight": 0.5}
        heard = {"data": sound()["base64"], "weight": 2, "name": "noise"}
        found = await called(session, "perceive", question="What is it?", media=[image, heard])
        alone = await called(session, "perceive", question="What is it?", media=["square.png"])
    values = found["structuredContent"]
    assert values["media"] == [
        {"name": "square.png", "modality": "image", "weight": 0.5},
        {"name": "noise", "modality": "audio", "weight": 2.0},
    ]
    assert values["answer"] == said(found)
    assert values["answer"] != alone["structuredContent"]["answer"]  # tiny models tell apart


async def test_the_content_blocks_of_mcp_are_media(url):
    data = picture()["base64"]
    blocks = [
        {"type": "image", "data": data, "mimeType": "image/png"},
        {"type": "audio", "data": sound()["base64"], "mimeType": "audio/wav"},
        {"type": "resource", "resource": {"uri": "x:1", "blob": data, "mimeType": "image/png"}},
        {"type": "resource_link", "uri": "square.png", "name": "square"},
        f"data:image/png;base64,{data}",
    ]
    async with connected(url) as session:
        found = await called(session, "perceive", question="What is it?", media=blocks)
    modalities = [used["modality"] for used in found["structuredContent"]["media"]]
    assert modalities == ["image", "audio", "image", "image", "image"]


async def test_objects_come_with_a_picture_of_their_boxes(url, places):
    async with connected(url) as session:
        found = await called(session, "detect_objects", image="square.png")
        plain = await called(session, "detect_objects", image="square.png", draw=False)
    values = found["structuredContent"]
    assert values["counts"] == {"square": 1}
    assert values["detections"][0]["box"] == [20, 30, 60, 70]
    assert (values["name"], values["width_px"], values["height_px"]) == ("square.png", 160, 90)
    text, drawn = found["content"]
    assert "1 square (left)" in text["text"]
    assert "square 0.90 (20, 30, 60, 70)" in text["text"]
    with PilImage.open(io.BytesIO(base64.b64decode(drawn["data"]))) as shown:
        assert shown.format == "JPEG"
        assert max(shown.size) <= 1280
        colours = {round(sum(pixel) / 3) for pixel in shown.convert("RGB").get_flattened_data()}
        assert len(colours) > 20  # the original has two
    assert [part["type"] for part in plain["content"]] == ["text"]


async def test_speech_is_written_down(url):
    async with connected(url) as session:
        found = await called(session, "transcribe_speech", audio="tone.wav", draw=True)
        wrong = await called(session, "transcribe_speech", audio="square.png")
    assert found["structuredContent"]["text"] == "loud"
    assert found["structuredContent"]["name"] == "tone.wav"
    assert [part["type"] for part in found["content"]] == ["text", "image"]
    assert wrong["isError"]
    assert "square.png is of modality image" in said(wrong)


async def test_a_video_is_looked_through_second_by_second(url):
    data = base64.b64encode((MEDIA_FOLDER / "dog.mp4").read_bytes()).decode()
    steps = []

    async def progress(done, total, message):
        steps.append((done, message))

    async with connected(url) as session:
        found = await called(session, "analyze_video", progress, video={"data": data, "name": "a"})
    values = found["structuredContent"]
    assert values["duration_s"] == pytest.approx(4, abs=0.5)
    assert [seen["objects"] for seen in values["seen"]] == [{"square": 1}] * len(values["seen"])
    assert len(values["seen"]) == 4
    assert steps
    assert [step for step, _ in steps] == sorted(step for step, _ in steps)


async def test_one_vector_for_a_mixture(url):
    async with connected(url) as session:
        mixed = await called(session, "embed_media", media=[{"text": "dog"}, "square.png"])
        alone = await called(session, "embed_media", media="square.png")
    vectors = [found["structuredContent"]["vector"] for found in (mixed, alone)]
    assert vectors[0] != vectors[1]
    for vector in vectors:
        assert sum(value * value for value in vector) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "named",
    [
        "{base}/closed/secret.png",
        "{base}/open.png",  # its name only begins like the folder
        "../closed/secret.png",
        "deep/../../closed/secret.png",
        "leak.png",
        "door/secret.png",
        "file://{base}/closed/secret.png",
        "{base}/closed/nothing.png",
        "/etc/passwd",
        "~/.bashrc",
        "square.png\0.jpg",
        "",
    ],
)
async def test_nothing_outside_of_the_folders_is_read(url, places, named):
    async with connected(url) as session:
        found = await called(
            session, "perceive", question="What?", media=[{"path": named.format(base=places)}]
        )
    assert found["isError"]
    assert "structuredContent" not in found
    # The same words for a file that is there and for one that is not.
    assert "found no such file or folder that may be read" in said(found) or named == ""
    assert str(places / "open") in said(found) or named == ""


@pytest.mark.parametrize("named", ["http://127.0.0.1/a.png", "ftp://x/a.png", "file://host/a.png"])
async def test_addresses_are_not_opened(url, named):
    async with connected(url) as session:
        for medium in ({"path": named}, {"data": named}):
            found = await called(session, "perceive", question="What?", media=[medium])
            assert found["isError"]
            assert "base64" in said(found)


@pytest.mark.parametrize("named", ["pipe.png", "deep", "."])
async def test_what_is_no_regular_file_is_named(url, named):
    async with connected(url) as session:
        found = await called(session, "perceive", question="What?", media=[named])
    assert found["isError"]
    assert "regular file" in said(found)


async def test_files_in_the_folders_are_read_by_every_spelling(url, places):
    spellings = [
        "square.png",
        "./deep/../square.png",
        str(places / "open" / "square.png"),
        (places / "open" / "square.png").as_uri(),
        "short cut.png",
    ]
    async with connected(url) as session:
        found = await called(session, "perceive", question="What?", media=spellings)
    assert len(found["structuredContent"]["media"]) == 5


async def test_over_http_roots_count_only_where_they_are_switched_on(url, settings, places):
    wanted = {"question": "What?", "media": [str(places / "closed" / "secret.png")]}
    async with connected(url, roots=listing(places / "closed")) as session:
        refused = await called(session, "perceive", **wanted)
    assert refused["isError"]
    with running(settings.model_copy(update={"client_roots": True})) as trusting:
        async with connected(trusting, roots=listing(places / "closed")) as session:
            allowed = await called(session, "perceive", **wanted)
            listed = await called(session, "list_media")
        async with connected(trusting, roots=listing()) as session:
            again = await called(session, "perceive", **wanted)
    assert not allowed.get("isError")
    paths = {file["path"] for file in listed["structuredContent"]["files"]}
    assert {"square.png", "secret.png"} <= paths
    assert again["isError"]  # roots are each client's own


async def test_wrong_arguments_are_named_with_their_place(url):
    async with connected(url) as session:
        found = await called(session, "perceive", media=[{"path": "square.png", "weight": -1}])
        extra = await called(session, "embed_media", media="square.png", loud=True)
        source = await called(session, "perceive", question="What?", media=[{"modality": "imu"}])
        damaged = await called(session, "perceive", question="What?", media=[{"data": "!"}])
    assert all(result["isError"] for result in (found, extra, source, damaged))
    assert "question: " in said(found)
    assert "media.0.weight: " in said(found)
    assert "loud: " in said(extra)
    assert 'such as {"path": "dog.jpg"}' in said(source)
    assert "base64" in said(damaged)


async def test_a_bug_in_a_tool_is_an_answer_and_the_session_goes_on(settings, caplog):
    class Broken(SquareFinder):
        def detect(self, image, labels=None, threshold=None):
            raise KeyError("private detail")

    with running(settings.model_copy(update={"detector": Broken()})) as address:
        async with connected(address) as session:
            found = await called(session, "detect_objects", image="square.png")
            next_one = await called(session, "list_media")
    assert found["isError"]
    assert "KeyError" in said(found)
    assert "private detail" not in said(found)
    assert "private detail" in caplog.text
    assert not next_one.get("isError")


async def test_a_folder_is_searched_and_links_out_of_it_are_not(url, places):
    steps = []

    async def progress(done, total, message):
        steps.append((done, total))

    async with connected(url) as session:
        found = await called(session, "find_similar", progress, media=["square.png"], k=9)
        again = await called(session, "find_similar", text="dog", modality="audio")
        deep = await called(session, "find_similar", text="dog", folder="deep")
        outside = await called(session, "find_similar", text="dog", folder="door")
        neither = await called(session, "find_similar")
    values = found["structuredContent"]
    assert values["results"][0]["path"] == "square.png"
    assert {match["path"] for match in values["results"]} == {
        "square.png",
        "tone.wav",
        "deep/inner.png",
    }
    assert list(values["unreadable"]) == ["pipe.png"]
    assert steps[-1] == (4, 4)
    assert [match["path"] for match in again["structuredContent"]["results"]] == ["tone.wav"]
    assert [m["path"] for m in deep["structuredContent"]["results"]] == ["deep/inner.png"]
    assert outside["isError"]
    assert "either text or media" in said(neither)


async def test_a_file_that_becomes_a_link_while_a_search_runs_is_not_read(settings, tmp_path):
    """The link is made after the folder was listed, and before the file's turn comes."""
    secret = tmp_path / "secret.png"
    PilImage.new("RGB", (64, 64), "red").save(secret)
    folder = tmp_path / "open"
    folder.mkdir()
    for name in ("a", "z"):
        PilImage.effect_noise((64, 64), 90).save(folder / f"{name}.png")

    class Swapping(ImageBindEmbeddings):
        def iter_rows(self, rows):
            (folder / "z.png").unlink()
            (folder / "z.png").symlink_to(secret)
            return super().iter_rows(rows)

    swapping = Swapping(model=settings.chat.model)
    changed = {"allowed_dirs": (folder,), "embeddings": swapping}
    with running(settings.model_copy(update=changed)) as address:
        async with connected(address) as session:
            found = await called(session, "find_similar", text="dog")
    values = found["structuredContent"]
    assert [match["path"] for match in values["results"]] == ["a.png"]
    assert "outside the allowed folders" in values["unreadable"]["z.png"]


async def test_a_folder_with_too_many_files_is_not_searched(settings):
    with running(settings.model_copy(update={"max_files": 2})) as address:
        async with connected(address) as session:
            found = await called(session, "find_similar", text="dog")
    assert found["isError"]
    assert "further down" in said(found)


async def test_a_path_that_is_found_can_be_used_again(settings, places):
    folders = (places / "open", places / "closed", places / "open" / "deep")
    (places / "closed" / "square.png").write_bytes((places / "open" / "square.png").read_bytes())
    with running(settings.model_copy(update={"allowed_dirs": folders})) as address:
        async with connected(address) as session:
            listed = await called(session, "list_media", modality="image")
            for file in listed["structuredContent"]["files"]:
                if file["path"] != "pipe.png":
                    found = await called(session, "embed_media", media=file["path"])
                    assert not found.get("isError")
    paths = [file["path"] for file in listed["structuredContent"]["files"]]
    assert str(places / "closed" / "square.png") in paths  # the short name means another file


async def test_a_client_that_cancels_stops_the_answer(settings):
    chat = EndlessChat()
    steps, enough = [], anyio.Event()

    async def progress(done, total, message):
        steps.append(done)
        if len(steps) == 3:
            enough.set()

    async def ask(session):
        await called(session, "perceive", progress, question="What?", media=["square.png"])

    with running(settings.model_copy(update={"chat": chat})) as address:
        async with connected(address) as session:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, session)
                await enough.wait()
                tasks.cancel_scope.cancel()
            with anyio.fail_after(60):
                while not chat.ended:
                    await anyio.sleep(0.05)
            still = await called(session, "list_media")
    assert steps[-1] > len(steps)  # told a few times a second, not at every word
    assert not still.get("isError")


async def test_a_search_that_is_cancelled_keeps_what_it_encoded(settings, tmp_path):
    n_files = 60
    for n in range(n_files):
        PilImage.effect_noise((32, 32), 50 + n).save(tmp_path / f"{n}.png")
    begun, cancelled, totals = anyio.Event(), threading.Event(), []

    async def progress(done, total, message):
        totals.append(total)
        begun.set()

    async def search(session):
        return await called(session, "find_similar", progress, text="dog")

    class Slow(ImageBindEmbeddings):
        def iter_rows(self, rows):
            for n, result in enumerate(super().iter_rows(rows)):
                if n == 4:
                    assert cancelled.wait(60)
                    time.sleep(2)  # until the server has heard of it
                yield result

    slow = Slow(model=settings.chat.model)
    changed = {"allowed_dirs": (tmp_path,), "embeddings": slow}
    with running(settings.model_copy(update=changed)) as address:
        async with connected(address) as session:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(search, session)
                await begun.wait()
                tasks.cancel_scope.cancel()
            cancelled.set()
            totals.clear()
            found = await search(session)
    assert found["structuredContent"]["n_searched"] == n_files
    assert 0 < totals[-1] < n_files


def test_a_web_page_with_a_name_of_its_own_reaches_nothing(url):
    def status(**headers):
        return post(url, json=HELLO, headers={**HEADERS, **headers}).status_code

    assert status() == 200
    assert status(Host="evil.example:80") == 421
    assert status(Host="127.0.0.1.evil.example:80") == 421
    assert status(Origin="http://evil.example") == 403
    assert status(Origin="http://localhost:3000") == 200
    assert post(url, content=b"{}", headers={"Content-Type": "text/plain"}).status_code >= 400


async def test_a_key_is_asked_for(settings):
    with running(settings, keys=("one", "two"), max_body_bytes=2000) as address:
        for sent in ({}, {"Authorization": "Bearer no"}, {"Authorization": "one"}):
            answer = post(address, json=HELLO, headers={**HEADERS, **sent})
            assert answer.status_code == 401
            assert "Bearer KEY" in answer.json()["error"]
        big = {**HEADERS, "Authorization": "Bearer two"}
        assert post(address, content=b"x" * 3000, headers=big).status_code == 413
        async with connected(address, key="two") as session:
            assert (await session.list_tools()).tools


def test_nobody_listens_to_the_network_by_mistake():
    with pytest.raises(ConfigurationError, match="IBLLM_API_KEY"):
        HttpSettings(host="192.168.1.5")
    with pytest.raises(ConfigurationError, match="--allow-host"):
        HttpSettings(host="0.0.0.0", keys=("key",))
    assert HttpSettings(host="0.0.0.0", keys=("key",), allowed_hosts=("a.example",)).names() == [
        "0.0.0.0",
        "a.example",
    ]
    assert HttpSettings(host="::", keys=("key",), allowed_hosts=("a",)).names()[0] == "[::]"
    assert "key" not in repr(HttpSettings(keys=("key",)))


def test_a_folder_that_is_missing_is_wrong_usage(capsys):
    from typer.testing import CliRunner

    from ibllm_tools.cli import app

    done = CliRunner().invoke(app, ["mcp", "--allow-dir", str(Path("nowhere"))])
    assert done.exit_code == 2
    assert "nowhere" in done.output
