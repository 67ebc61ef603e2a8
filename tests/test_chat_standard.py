"""LangChain's standard suites for chat models, in full, on pocket's own weights, without network.

The suites fetch a picture and a sound over HTTP for themselves; they get bundled ones instead.
The model fetches the picture by its URL too: over TLS, through the media policy, from a server on
this machine that stands in for the host.
"""

import http.server
import io
import shutil
import socket
import ssl
import subprocess
import threading
import wave
from pathlib import Path

import httpx
import numpy as np
import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from PIL import Image

from ibllm_tools import ChatImageBindLLM, Media, MediaPolicy
from ibllm_tools.checkpoints import POCKET_FOLDER
from ibllm_tools.media import load
from ibllm_tools.train.language import FORBIDDEN
from ibllm_tools.train.language import __file__ as FORBIDDEN_HOME

MEDIA = Path(__file__).parent.parent / "ibllm_tools" / "demo_media"
HOST = "raw.githubusercontent.com"
"""Where the suite's picture lies."""


def png_bytes():
    buffer = io.BytesIO()
    Image.open(MEDIA / "dog.jpg").save(buffer, "PNG")
    return buffer.getvalue()


def wav_bytes():
    sound = load(Media.from_path(MEDIA / "dog.ogg"))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.rate_hz)
        file.writeframes((sound.samples[0] * 32767).astype(np.int16).tobytes())
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def bundled_media(monkeypatch):
    made = {"png": png_bytes, "wav": wav_bytes}

    def get(url, **_):
        return httpx.Response(200, content=made[url[-3:]](), request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    monkeypatch.setenv("LANGCHAIN_TESTS_USER_AGENT", "ibllm-tools")


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        body = png_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.asked.append((self.headers["Host"], self.path))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate of the host, in one file."""
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    openssl = shutil.which("openssl")
    assert openssl, "the openssl program makes the certificate of the host that stands in"
    command = (
        f"{openssl} req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 "
        f"-subj /CN={HOST} -addext subjectAltName=DNS:{HOST} -keyout {path} -out {path}.c"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_name(f"{path.name}.c").read_text())
    return path


@pytest.fixture
def picture_host(socket_enabled, certificate, monkeypatch):
    """A server on this machine that answers for the host, as far as name and port go."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.asked = True, []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    resolve, connect = socket.getaddrinfo, socket.create_connection

    def to_server(address, *args, **kwargs):
        host, port = address
        return connect((host, server.server_port if port == 443 else port), *args, **kwargs)

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: resolve("127.0.0.1", *a, **k))
    monkeypatch.setattr(socket, "create_connection", to_server)
    yield server
    server.shutdown()
    server.server_close()


class Pocket:
    """What both suites need to know of the model that ships with the package."""

    @property
    def chat_model_class(self):
        return ChatImageBindLLM

    @property
    def chat_model_params(self):
        policy = MediaPolicy(allowed_hosts=(HOST,), allow_private_addresses=True)
        return {"media_policy": policy}

    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_image_inputs(self):
        return True

    @property
    def supports_image_urls(self):
        return True

    @property
    def supports_image_tool_message(self):
        return True

    @property
    def supports_audio_inputs(self):
        return True

    @property
    def supports_video_inputs(self):
        return True

    @property
    def supports_anthropic_inputs(self):
        return True

    @property
    def supports_model_override(self):
        return True

    @property
    def model_override_value(self):
        return str(POCKET_FOLDER)

    @property
    def enable_vcr_tests(self):
        return True


class TestUnit(Pocket, ChatModelUnitTests):
    @property
    def init_from_env_params(self):
        found = {"IBLLM_MODEL": str(POCKET_FOLDER), "IBLLM_DEVICE": "cpu"}
        return found, {}, {"model": str(POCKET_FOLDER), "device": "cpu"}


@pytest.mark.usefixtures("picture_host")
class TestIntegration(Pocket, ChatModelIntegrationTests):
    pass


def test_no_package_file_holds_a_prompt_or_tool_of_the_suites():
    package = Path(FORBIDDEN_HOME).parents[1]
    files = [f for s in ("py", "psv", "md", "json", "jinja") for f in package.rglob(f"*.{s}")]
    assert len(files) > 100
    for file in files:
        text = "" if file == Path(FORBIDDEN_HOME) else file.read_text(encoding="utf-8").lower()
        assert not [phrase for phrase in FORBIDDEN if phrase in text], file


def test_the_suites_picture_came_over_the_wire(picture_host):
    """The stand-in really is what the model asks, not a patch that hides the fetch."""
    chat = ChatImageBindLLM(**Pocket().chat_model_params, max_tokens=4)
    block = {"type": "image", "url": f"https://{HOST}/some/where/dog.png"}
    answer = chat.invoke([("user", [{"type": "text", "text": "What is it?"}, block])])
    assert answer.usage_metadata["input_token_details"] == {"image": 1}
    assert picture_host.asked == [(HOST, "/some/where/dog.png")]
