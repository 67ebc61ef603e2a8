"""The web page without a browser: words, files, guard, shapes, neighbours, and how it answers."""

import asyncio
import base64
import json
import re

import httpx
import numpy as np
import pytest
from expert_models import rt_detr
from scripted_brain import ScriptedBrain, call, result
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from ibllm_tools.attachments import AttachmentFiles
from ibllm_tools.errors import IbllmError, MediaError
from ibllm_tools.media import Media, MediaPolicy
from ibllm_tools.ui.asking import Answerer, Choices
from ibllm_tools.ui.guard import MAX_JSON_BYTES, Guard
from ibllm_tools.ui.neighbours import Neighbour, Sensor, as_markdown
from ibllm_tools.ui.shapes import MAX_SHOWN, cloud
from ibllm_tools.ui.talk import Talk
from ibllm_tools.ui.tray import DEMO_MEDIA, Uploads
from ibllm_tools.ui.words import WORDS, preferred_language, words_of

# words


def test_both_languages_say_everything_with_the_same_gaps():
    english, chinese = WORDS["en"], WORDS["zh"]
    assert list(english) == list(chinese)
    for key, text in english.items():
        assert re.findall(r"{\w+", text) == re.findall(r"{\w+", chinese[key]), key
        assert chinese[key].strip()
        assert re.search(r"[\u4e00-\u9fff]", chinese[key]), f"{key} is not translated"


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("de-DE, de;q=0.9, en;q=0.8, zh;q=0.1", "en"),
        ("fr", "en"),
        (None, "en"),
        ("", "en"),
    ],
)
def test_the_browser_chooses_the_first_language(accepted, language):
    assert preferred_language(accepted) == language


# shapes


def points_of(text):
    points = re.search('data-points="([^"]+)"', text)[1]
    return np.frombuffer(base64.b64decode(points), "<u2").reshape(-1, 3) / 65535 - 0.5


@pytest.mark.parametrize("n", [1, 10, MAX_SHOWN + 1000])
def test_every_point_is_drawn_where_it_is(n):
    xyz = np.random.default_rng(0).normal(3, 5, (n, 3)).astype(np.float32)
    points = points_of(cloud(xyz, "x"))
    assert points.shape == (min(n, MAX_SHOWN), 3)
    if n <= MAX_SHOWN:
        middle = (xyz.max(axis=0) + xyz.min(axis=0)) / 2
        scale = max((xyz.max(axis=0) - xyz.min(axis=0)).max(), 1e-9)
        assert np.allclose(points, (xyz - middle) / scale, atol=1e-4)


def test_the_name_of_a_shape_opens_no_tag():
    text = cloud(np.zeros((1, 3), np.float32), 'a"><script>alert(1)</script>.ply')
    assert "<script" not in text
    assert text.count('"') % 2 == 0


# uploads


def test_only_uploads_are_read(tmp_path):
    inside, outside = tmp_path / "uploads", tmp_path / "secret.jpg"
    inside.mkdir()
    outside.write_bytes((DEMO_MEDIA / "dog.jpg").read_bytes())
    (inside / "dog.jpg").write_bytes(outside.read_bytes())
    (inside / "link.jpg").symlink_to(outside)
    uploads = Uploads(inside, MediaPolicy())
    assert uploads.read(str(inside / "dog.jpg"), "depth", 0.5).modality == "depth"
    for path in (outside, inside / "link.jpg", inside / ".." / "secret.jpg"):
        with pytest.raises(MediaError, match="not uploaded here"):
            uploads.read(str(path))


def test_a_file_says_what_it_is_or_why_it_cannot_be_read(tmp_path):
    (tmp_path / "note.bin").write_bytes(b"\x00\x01 no medium")
    uploads = Uploads(tmp_path, MediaPolicy(max_bytes=20_000), also=[DEMO_MEDIA])
    shape, large, note = (
        uploads.inspect(str(path))
        for path in (DEMO_MEDIA / "piano.jpg", DEMO_MEDIA / "fish.ply", tmp_path / "note.bin")
    )
    assert (shape.modality, shape.choices) == ("image", ("image", "depth", "thermal"))
    assert large.modality is None
    assert "20,000" in large.problem
    assert note.modality is None
    assert note.choices == ()


# guard


async def echo(request):
    return JSONResponse({"got": len(await request.body())})


ROUTES = [Route("/{path:path}", echo, methods=["GET", "POST"])]


def ask_guard(method, path, **given):
    async def asked():
        transport = httpx.ASGITransport(Guard(Starlette(routes=ROUTES)))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            return await client.request(method, path, **given)

    return asyncio.run(asked())


def joined(path):
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    return {"data": [{"text": "?", "files": [file]}], "fn_index": 3}


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/x.jpg", "HTTPS://example.com/x", " ftp://host/x", "file:///etc/passwd"]
)
def test_a_file_by_url_is_refused(url):
    assert ask_guard("POST", "/gradio_api/queue/join", json=joined(url)).status_code == 403
    hidden = {"content": json.dumps(joined(url)), "headers": {"content-type": "text/plain"}}
    assert ask_guard("POST", "/gradio_api/queue/join", **hidden).status_code == 403
    assert ask_guard("GET", f"/gradio_api/file={url.strip()}").status_code == 403
    assert ask_guard("GET", f"/gradio_api/proxy={url.strip()}").status_code == 403


def test_what_is_allowed_passes_unchanged_with_a_policy():
    body = joined("/tmp/uploads/a: b.jpg")
    found = ask_guard("POST", "/gradio_api/queue/join", json=body)
    assert found.json() == {"got": len(found.request.content)}
    assert ask_guard("GET", "/gradio_api/file=/tmp/uploads/x.jpg").status_code == 200
    assert ask_guard("POST", "/upload", files={"a": b"http://x"}).status_code == 200
    policy = found.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_long_json_is_refused():
    long = {"data": ["x" * MAX_JSON_BYTES]}
    assert ask_guard("POST", "/gradio_api/queue/join", json=long).status_code == 413


# neighbours


def test_neighbours_are_what_the_cache_pulls_in():
    sensor = Sensor("pocket")
    settings = sensor.settings()
    names = ["dog.jpg", "piano.jpg", "airplane.jpg", "boat.jpg", "motorcycle.jpg"]
    media = [Media.from_path(DEMO_MEDIA / name) for name in names]
    found = sensor.look(media, settings, MediaPolicy())
    assert [name for name, _ in found] == names
    for _, hits in found:
        assert len(hits) == settings.k
        assert sum(hit.share for hit in hits) == pytest.approx(1, abs=1e-4)
        assert [h.similarity for h in hits] == sorted((h.similarity for h in hits), reverse=True)
    named = [name.removesuffix(".jpg") == hits[0].names["en"] for name, hits in found]
    assert sum(named) >= 3
    assert sensor.look([], settings, MediaPolicy()) == []


def test_a_name_stays_in_its_cell():
    hit = Neighbour({"en": "a|b\n<img src=x>`", "zh": "狗"}, 0.5, 0.25)
    table = as_markdown([("x*y.jpg", [hit] * 7)], words_of("en"), "en")
    row = next(line for line in table.splitlines() if "img" in line)
    assert row.count("|") == 4
    assert "\\<img" in row
    assert "+2" in table
    assert "| 狗 |" in as_markdown([("x", [hit])], words_of("zh"), "zh")


# answers


@pytest.fixture
def answerer(tmp_path):
    (tmp_path / "shown").mkdir()
    return Answerer(
        Sensor("pocket"), MediaPolicy(), AttachmentFiles(tmp_path / "files"), tmp_path / "shown"
    )


def ask(answerer, talk, question, media=(), choices=None, stop_after=None):
    async def asked():
        stream = answerer.answer(talk, question, list(media), choices or Choices())
        seen = []
        async for _ in stream:
            seen.append(json.dumps(talk.shown, default=str))
            if stop_after is not None and len(seen) == stop_after:
                await stream.aclose()
                break
        return seen

    return asyncio.run(asked())


def test_an_answer_comes_piece_by_piece_with_its_neighbours(answerer):
    talk, photo = Talk(), Media.from_path(DEMO_MEDIA / "dog.jpg")
    choices = Choices(cache=answerer.sensor.settings(), language="zh")
    seen = ask(answerer, talk, "What is in the photo?", [photo], choices)
    assert len(seen) >= 2
    asked, answered = talk.history
    assert asked.content == ["What is in the photo?", photo]
    texts = [m["content"] for m in talk.shown if not m.get("metadata")]
    assert texts == [answered.text]
    assert answered.text
    assert [m["metadata"]["status"] for m in talk.shown if m.get("metadata")][-1] == "done"
    assert talk.shown[-1]["metadata"]["title"] == WORDS["zh"]["neighbours"]
    assert "dog.jpg" in talk.shown[-1]["content"]
    n_shown = len(talk.shown)
    ask(answerer, talk, "Is it an animal?")
    assert len(talk.history) == 4
    assert len(talk.shown) > n_shown


def test_stopping_keeps_what_was_said(answerer):
    class Slow(ScriptedBrain):
        async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
            from langchain_core.messages import AIMessageChunk
            from langchain_core.outputs import ChatGenerationChunk

            for word in ("one ", "two ", "three "):
                await asyncio.sleep(0.1)
                yield ChatGenerationChunk(message=AIMessageChunk(word))

    answerer.chat = lambda choices: Slow()
    talk = Talk()
    ask(answerer, talk, "Count.", stop_after=2)
    assert talk.history[-1].text == "one two "
    talk = Talk()
    answerer.chat = lambda choices: ScriptedBrain(script=[""])
    ask(answerer, talk, "Say nothing.")
    assert talk.history == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MediaError("x.jpg: found <b>a bomb</b>; expected a picture"), "&lt;b>a bomb"),
        (IbllmError("the queue is full"), "the queue is full"),
        (ZeroDivisionError("secret detail"), "ZeroDivisionError"),
    ],
)
def test_an_error_is_a_plain_message_and_no_part_of_the_conversation(answerer, error, expected):
    def failing(messages):
        raise error

    answerer.chat = lambda choices: ScriptedBrain(script=[failing])
    talk = Talk()
    ask(answerer, talk, "What?")
    assert expected in talk.shown[-1]["content"]
    assert "secret" not in talk.shown[-1]["content"]
    assert talk.history == []


def test_tools_show_their_steps_and_boxes(answerer, tmp_path):
    detector = rt_detr(tmp_path / "detector")
    brain = ScriptedBrain(script=[call("detect_objects", image="image-1", threshold=0.0), result])
    answerer.chat = lambda choices: brain
    answerer.experts["detector"] = detector
    talk, photo = Talk(), Media.from_path(DEMO_MEDIA / "dog.jpg")
    ask(answerer, talk, "How many dogs?", [photo], Choices(way="tools"))
    step, boxes, said = talk.shown
    assert step["metadata"]["title"] == "detect_objects"
    assert step["metadata"]["status"] == "done"
    assert 'image="image-1"' in step["metadata"]["log"]
    assert "detector, image-1: " in step["content"]
    drawn = boxes["content"]["path"]
    assert drawn.startswith(str(tmp_path / "shown"))
    assert Media.from_path(drawn).modality == "image"
    assert said["content"].startswith("It says: detector")
    assert talk.history[-1].text == said["content"]
    assert len(talk.history) == 2


def test_a_route_shows_its_steps_and_one_answer(answerer):
    talk, photo = Talk(), Media.from_path(DEMO_MEDIA / "dog.jpg")
    ask(answerer, talk, "What is this?", [photo], Choices(way="perception", language="zh"))
    steps, *_, said = talk.shown
    assert steps["metadata"] == {"title": WORDS["zh"]["steps"], "status": "done"}
    assert "**route**" in steps["content"]
    assert "**attach**" in steps["content"]
    assert said["content"] == talk.history[-1].text
    assert [m["content"] for m in talk.shown].count(said["content"]) == 1
