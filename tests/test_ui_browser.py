"""The web page in a browser: headless Chromium drives `ibllm ui` as a person would."""

import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the page needs `pip install ibllm-tools[ui]`")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs Debian's package chromium", allow_module_level=True)

DEMO = Path(__file__).parent.parent / "ibllm_tools" / "demo_media"
QUIET = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-3d-apis",  # shapes are drawn without
]
START_S, WAIT_MS = 600, 300_000  # a busy machine is slow, not stuck

pytestmark = pytest.mark.timeout(1200)  # 10 s on a free machine, each

NOTICE = """() => new MutationObserver(() => {
  window.noticed ||= /exceeds|too large|maximum/i.test(document.body.innerText);
}).observe(document.body, { childList: true, subtree: true, characterData: true })"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """`ibllm ui` on a free port."""
    folder = tmp_path_factory.mktemp("ui")
    command = [sys.executable, "-m", "ibllm_tools.cli", "ui", "--port", "0", "--max-mib", "1"]
    env = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with (folder / "log").open("w") as errors:
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env, cwd=folder
        )
    timer = threading.Timer(START_S, server.kill)
    timer.start()
    line = server.stdout.readline()
    timer.cancel()
    found = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert found, (folder / "log").read_text()
    yield found[0]
    server.terminate()
    server.wait(120)
    assert not list(folder.glob("ibllm-ui-*")), "uploads were left behind"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def opened(browser, address, width=1280, locale="en-US"):
    """The page in a fresh profile; whatever it asks of other hosts fails the test."""
    context = browser.new_context(viewport={"width": width, "height": 844}, locale=locale)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.locator("#composer textarea").wait_for()
    page.locator("#status").wait_for(state="attached")
    yield page
    elsewhere = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert asked
    assert not elsewhere
    context.close()


def attach(page, *names):
    page.set_input_files("#composer input[type=file]", [str(DEMO / name) for name in names])
    page.locator("#tray input[type=range]:visible").nth(len(names) - 1).wait_for()


def answer_of(page, n=1):
    """Wait until the answer to the n-th question is whole; return what the model said."""
    page.wait_for_function(
        "(n) => document.querySelectorAll('#chat .message-row.bot-row').length >= n", arg=n
    )
    page.get_by_text(re.compile("tokens/s|个词元")).wait_for()
    page.locator("#composer").get_by_role("button", name=re.compile("Submit|提交")).wait_for()
    return page.locator("#chat .message-row.bot-row").nth(n - 1).inner_text()


def test_a_photo_and_a_sound_are_asked_about(address, browser):
    with opened(browser, address) as page:
        attach(page, "piano.jpg", "dog.ogg")
        tray = page.locator("#tray")
        tray.get_by_text("piano.jpg (picture): weight").first.wait_for()
        tray.get_by_text("dog.ogg (sound): weight").first.wait_for()
        page.get_by_role("spinbutton", name=re.compile("dog.ogg")).fill("0.5")
        page.fill("#composer textarea", "What could be happening?")
        page.keyboard.press("Enter")
        answer = answer_of(page)
        asked = page.locator("#chat .message-row.user-row")
        asked.locator("img").wait_for()
        asked.locator("audio, [data-testid*=audio], canvas, .audio").first.wait_for(
            state="attached"
        )
        assert "What could be happening?" in asked.inner_text()
        assert re.search(r"\b(piano|dog|music|bark\w*)\b", answer), answer
        page.get_by_role("button", name="What the visual cache pulled in").click()
        table = page.locator("#chat table")
        table.nth(1).wait_for()
        assert table.count() == 2
        assert "piano" in table.first.inner_text()
        tray.wait_for(state="hidden")

        page.get_by_text("中文").click()
        page.get_by_role("button", name="新对话").click()
        page.get_by_text("添加一个文件，或试试示例").wait_for()
        assert page.locator("#chat .message-row").count() == 0


def test_on_a_phone_everything_is_reached_by_keyboard(address, browser):
    with opened(browser, address, width=390, locale="zh-CN") as page:
        page.get_by_text("使用视觉缓存", exact=True).wait_for()
        page.get_by_role("button", name="一张照片", exact=True).focus()
        page.keyboard.press("Enter")
        page.locator("#tray input[type=range]:visible").first.wait_for()
        wide = "document.documentElement.scrollWidth > window.innerWidth"
        assert not page.evaluate(wide)
        page.locator("#composer textarea").focus()
        reached = []
        for _ in range(4):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.ariaLabel"))
            if reached[-1] in {"提交", "Submit"}:
                break
        assert reached[-1] in {"提交", "Submit"}, reached
        box = page.locator("#composer button:focus").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        page.keyboard.press("Enter")
        assert re.search(r"[\u4e00-\u9fff]", answer_of(page))
        assert not page.evaluate(wide)


def test_a_shape_turns(address, browser):
    drawn = "canvas => canvas.toDataURL()"
    with opened(browser, address) as page:
        page.get_by_role("button", name="A 3D shape").click()
        page.locator("#tray input[type=range]:visible").first.wait_for()
        page.locator("#composer textarea").press("Enter")
        canvas = page.get_by_role("img", name=re.compile("fish.ply"))
        page.wait_for_function(
            "() => document.querySelector('#chat canvas')?.dataset.turned !== undefined"
        )
        answer_of(page)
        picture = Image.open(BytesIO(canvas.screenshot())).convert("RGB")
        assert len(picture.resize((80, 60)).getcolors(4800)) > 50, "nothing is drawn"

        at_first = canvas.evaluate(drawn)
        canvas.press("ArrowRight")
        by_key = canvas.evaluate(drawn)
        assert by_key != at_first
        canvas.press("ArrowLeft")
        assert canvas.evaluate(drawn) == at_first
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 220, box["y"] + 110, steps=4)
        page.mouse.up()
        assert canvas.evaluate(drawn) not in {at_first, by_key}


def test_sessions_see_nothing_of_each_other_and_errors_are_plain(address, browser, tmp_path):
    large, broken = tmp_path / "large.jpg", tmp_path / "broken.jpg"
    large.write_bytes(b"\xff\xd8\xff" + bytes(2**20))
    broken.write_bytes((DEMO / "dog.jpg").read_bytes()[:3000])
    with opened(browser, address) as one, opened(browser, address) as other:
        one.evaluate(NOTICE)
        one.set_input_files("#composer input[type=file]", str(large))
        one.wait_for_function("window.noticed")
        one.set_input_files("#composer input[type=file]", str(broken))
        one.locator("#tray input[type=range]:visible").first.wait_for()
        one.fill("#composer textarea", "What is this?")
        one.keyboard.press("Enter")
        one.get_by_text("That did not work").wait_for()
        said = one.locator("#chat").inner_text()
        assert "broken.jpg: found" in said
        assert "Traceback" not in said
        assert other.locator("#chat .message-row").count() == 0
        other.fill("#composer textarea", "Hello!")
        other.keyboard.press("Enter")
        answer_of(other)
        assert "broken.jpg" not in other.locator("#chat").inner_text()
        assert "Hello!" not in one.locator("#chat").inner_text()


@pytest.mark.parametrize("path", ["/etc/hostname", "http://127.0.0.1:1/x.jpg"])
def test_a_request_cannot_name_files_of_the_server(address, browser, path):
    context = browser.new_context()
    config = context.request.get(f"{address}config").json()
    submit = next(d for d in config["dependencies"] if any(t[1] == "submit" for t in d["targets"]))
    composer = submit["inputs"][0]
    data = [
        c["props"].get("value")
        for i in submit["inputs"]
        for c in config["components"]
        if c["id"] == i
    ]
    assert submit["inputs"].index(composer) == 0
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    data[0] = {"text": "What is this?", "files": [file]}
    body = {"data": data, "fn_index": submit["id"], "session_hash": "stranger"}
    joined = context.request.post(f"{address}gradio_api/queue/join", data=body)
    if path.startswith("http"):
        assert joined.status == 403
    else:
        events = context.request.get(
            f"{address}gradio_api/queue/data?session_hash=stranger", timeout=WAIT_MS
        ).text()
        assert '"success":false' in events.replace(" ", "")
        assert Path(path).read_text().strip() not in events
    fetched = context.request.get(f"{address}gradio_api/file={path}")
    assert fetched.status == 403
    renamed = context.request.get(address, headers={"host": "evil.example"})
    assert renamed.status == 400
    context.close()
