"""Who may come in, how much may be sent, what happens to clients that leave, and how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from engine_gates import time_over
from serving_server import PATIENCE_S, get, post, serving
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from ibllm_tools.cli import app
from ibllm_tools.engine import open_engine
from ibllm_tools.errors import ConfigurationError, IbllmError
from ibllm_tools.serving import ServeSettings, create_app, environment_keys
from ibllm_tools.serving.problems import as_api_error
from ibllm_tools.serving.wire import MAX_CHOICES

pytestmark = pytest.mark.enable_socket

CHAT = "/v1/chat/completions"
LONG = 16_000
MAX_BODY = 20_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose answers end only with their tokens."""
    return str(save_tiny_model(tmp_path_factory.mktemp("model"), n_context=2 * LONG))


@pytest.fixture(scope="module")
def address(folder):
    with serving(models={"tiny": folder}, max_body_bytes=MAX_BODY, max_requests=4) as found:
        yield found


@pytest.fixture
def engine(folder):
    return open_engine(folder)


def body(n_tokens=4, **more):
    said = [{"role": "user", "content": "hi"}]
    return {"model": "tiny", "messages": said, "max_tokens": n_tokens, **more}


def wait_until(is_so):
    ends = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < ends, "it did not come to be"
        time.sleep(0.02)


def figure(address, start):
    lines = get(f"{address}/metrics").text.splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(start)), 0.0)


class LongAnswer:
    """A client in the midst of a long streamed answer."""

    def __init__(self, address, **more):
        self._client = httpx.Client(timeout=PATIENCE_S)
        request = self._client.build_request(
            "POST", address + CHAT, json=body(LONG, stream=True, **more)
        )
        self.reply = self._client.send(request, stream=True)
        assert self.reply.status_code == 200
        self.lines = self.reply.iter_lines()
        next(self.lines)

    def leave(self):
        self.reply.close()
        self._client.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", ""])
def test_others_are_not_let_in_without_a_key(host):
    with pytest.raises(ConfigurationError, match="IBLLM_API_KEY"):
        ServeSettings(host=host).check_reach()
    ServeSettings(host=host, api_keys=["k"]).check_reach()
    ServeSettings(host=host, is_forced=True).check_reach()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_no_key(host):
    ServeSettings(host=host).check_reach()


def test_keys_come_from_the_environment():
    found = environment_keys({"IBLLM_API_KEY": " k-1 ", "IBLLM_API_KEYS": "k-2,,k-3, k-1"})
    assert [key.get_secret_value() for key in found] == ["k-1", "k-2", "k-3"]
    assert environment_keys({}) == ()
    assert "k-1" not in repr(ServeSettings(api_keys=found))


@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_web_page_cannot_reach_it_by_a_name_of_its_own(address, name):
    reply = get(f"{address}/v1/models", headers={"Host": name})
    assert reply.status_code == 403
    assert reply.json()["error"]["code"] == "unknown_host"


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:99", "[::1]:8000", "127.0.0.1"])
def test_names_of_the_loopback_address_are_known(address, name):
    assert get(f"{address}/v1/models", headers={"Host": name}).status_code == 200


def test_every_response_has_security_headers_and_no_server_name(address):
    for path in ("/health", "/v1/nothing", "/openapi.json"):
        headers = get(address + path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers
    assert get(f"{address}/docs").status_code == 404


def test_scripts_of_listed_origins_alone(folder):
    origin = "https://pages.example"
    settings = {"cors_origins": [origin], "api_keys": ["k"]}
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-a"}
    with serving(models={"tiny": folder}, **settings) as found:
        replies = {
            name: httpx.options(found + CHAT, headers={"Origin": name, **ask}, timeout=PATIENCE_S)
            for name in (origin, "https://other.example")
        }
        refused = post(found + CHAT, json=body(), headers={"Origin": origin})
    assert replies[origin].status_code == 200
    assert replies[origin].headers["access-control-allow-origin"] == origin
    assert replies["https://other.example"].status_code == 400
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/nothing", {}, 404),
        ("GET", CHAT, {}, 405),
        ("POST", CHAT, {"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ("POST", CHAT, {"content": b"[" * 9000, "headers": {"content-type": "a/json"}}, 400),
        (
            "POST",
            CHAT,
            {"content": b'{"a":' * 3000, "headers": {"content-type": "application/json"}},
            400,
        ),
        ("POST", CHAT, {"content": b"{}"}, 415),
        ("POST", CHAT, {"data": {"model": "tiny"}}, 415),
        ("POST", CHAT, {"json": [1]}, 400),
        ("POST", CHAT, {"content": b""}, 400),
        ("POST", "/v1/audio/transcriptions", {"data": {"model": "tiny"}}, 400),
    ],
)
def test_every_error_has_openais_shape(address, method, path, options, status):
    reply = httpx.request(method, address + path, timeout=PATIENCE_S, **options)
    assert reply.status_code == status
    assert set(reply.json()) == {"error"}
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_a_body_that_is_no_json_is_told_with_its_place(address):
    headers = {"content-type": "application/json"}
    error = post(address + CHAT, content=b'{"model":', headers=headers).json()["error"]
    assert error["message"].startswith("the body is no JSON: ")
    assert error["message"].endswith(" at character 9")
    assert error["param"] is None


def test_faults_of_the_server_tell_nothing_to_the_client():
    found = as_api_error(ValueError("a secret"))
    assert found.status == 500
    assert "secret" not in json.dumps(found.body())


def raw(address, head, *parts):
    """Send bytes as they are; returns the status."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n")
        for part in parts:
            connection.sendall(part)
        return int(connection.recv(4000).split()[1])


HEAD = f"POST {CHAT} HTTP/1.1\nHost: localhost\nContent-Type: application/json\n"


def hold(address, asked):
    """Ask, and read nothing; closing the connection is leaving."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    sent = json.dumps(asked).encode()
    head = f"{HEAD}Content-Length: {len(sent)}\n\n".replace("\n", "\r\n")
    connection.sendall(head.encode() + sent)
    return connection


def test_a_large_body_is_refused_before_it_is_sent(address):
    assert raw(address, f"{HEAD}Content-Length: {MAX_BODY + 1}\n") == 413


def test_a_large_chunked_body_is_refused_while_it_is_sent(address):
    piece = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    status = raw(address, f"{HEAD}Transfer-Encoding: chunked\n", *[piece] * 5)
    assert status == 413


def test_a_large_upload_is_refused(address):
    for path in ("/v1/audio/transcriptions", CHAT, "/v1/embeddings"):
        reply = post(address + path, files={"file": b"x" * MAX_BODY})
        assert reply.status_code == 413
        assert reply.json()["error"]["code"] == "request_too_large"


def test_a_body_that_does_not_arrive_is_given_up(folder):
    with serving(models={"tiny": folder}, body_timeout_s=0.2) as found:
        assert raw(found, f"{HEAD}Content-Length: 100\n", b"{") == 408


def test_requests_together_hold_a_bounded_number_of_bytes(folder):
    options = {"max_held_bytes": 3000, "max_body_bytes": 2900}
    with serving(models={"tiny": folder}, **options) as found:
        first = LongAnswer(found, user="x" * 2000)
        reply = post(found + CHAT, json=body(user="x" * 2000))
        first.leave()
        assert reply.status_code == 429
        wait_until(lambda: get(f"{found}/health").json()["requests_open"] == 0)
        assert post(found + CHAT, json=body(user="x" * 2000)).status_code == 200


def test_a_full_server_says_when_to_ask_again(address, engine):
    clients = [LongAnswer(address) for _ in range(4)]
    reply = post(address + CHAT, json=body())
    assert reply.status_code == 429
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json()["error"]["code"] == "rate_limit_exceeded"
    assert get(f"{address}/health").json()["requests_open"] == 4
    for client in clients:
        client.leave()
    wait_until(lambda: engine.n_open == 0)
    assert post(address + CHAT, json=body()).status_code == 200


def test_a_full_queue_of_the_engine_is_told_before_a_stream_begins(folder, engine):
    n = MAX_CHOICES
    n_clients, rest = divmod(engine.slots + engine.queue, n)
    assert rest == 0
    with serving(models={"tiny": folder}) as found:
        waiting = [hold(found, body(LONG, n=n)) for _ in range(n_clients)]
        wait_until(lambda: engine.n_open == n_clients * n)
        for is_stream in (True, False):
            reply = post(found + CHAT, json=body(LONG, stream=is_stream))
            assert reply.status_code == 429
            assert "retry-after" in reply.headers
        for connection in waiting:
            connection.close()
        wait_until(lambda: engine.n_open == 0)


def test_a_client_that_leaves_a_stream_frees_its_place(address, engine):
    before = figure(address, "ibllm_clients_left_total")
    client = LongAnswer(address)
    assert engine.n_open == 1
    client.leave()
    wait_until(lambda: engine.n_open == 0)
    wait_until(lambda: figure(address, "ibllm_clients_left_total") > before)


def test_a_client_that_leaves_before_its_whole_answer_frees_its_place(address, engine):
    connection = hold(address, body(LONG, n=2))
    wait_until(lambda: engine.n_open == 2)
    connection.close()
    wait_until(lambda: engine.n_open == 0)
    wait_until(lambda: get(f"{address}/health").json()["requests_open"] == 0)


def test_an_answer_has_its_time(folder, engine, monkeypatch):
    with (
        serving(models={"tiny": folder}, timeout_s=1000) as found,
        time_over(engine, monkeypatch, after=9),
    ):
        reply = post(found + CHAT, json=body(LONG)).json()
    assert reply["choices"][0]["finish_reason"] == "length"
    assert 0 < reply["usage"]["completion_tokens"] < LONG


def test_the_figures_count_requests_and_tokens(address):
    labels = '{endpoint="/v1/chat/completions",status="200"}'
    names = {
        "requests": f"ibllm_requests_total{labels}",
        "written": 'ibllm_tokens_total{kind="completion",model="tiny"}',
        "read": 'ibllm_tokens_total{kind="prompt",model="tiny"}',
    }
    before = {key: figure(address, name) for key, name in names.items()}
    replies = [post(address + CHAT, json=body(7)).json() for _ in range(2)]
    post(address + CHAT, json=body(7, stream=True))
    after = {key: figure(address, name) for key, name in names.items()}
    assert after["requests"] - before["requests"] == 3
    assert after["written"] - before["written"] == 21
    assert after["read"] - before["read"] == 3 * replies[0]["usage"]["prompt_tokens"]
    assert figure(address, 'ibllm_answers_open{model="tiny"}') == 0
    assert figure(address, "ibllm_first_token_seconds_count") >= 1


def test_two_applications_of_one_process_count_apart(folder):
    for _ in range(2):
        create_app(ServeSettings(models={"tiny": folder}))


def test_what_runs_is_finished_when_the_server_is_told_to_stop(folder):
    """The program itself, by its command line, ended by a signal amid a stream."""
    command = [sys.executable, "-m", "ibllm_tools.cli", "serve", "--port=0", f"--model=m={folder}"]
    environment = {**os.environ, "IBLLM_API_KEY": "k", "COLUMNS": "100"}
    program = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    told = []
    for line in program.stderr:
        told.append(line)
        if "print(answer" in line:
            break
    address = re.search(r"http://[\d.:]+", "".join(told))[0]
    headers = {"Authorization": "Bearer k"}
    asked = body(500, stream=True) | {"model": "m"}
    with httpx.stream(
        "POST", address + CHAT, json=asked, headers=headers, timeout=PATIENCE_S
    ) as reply:
        lines = reply.iter_lines()
        next(lines)
        program.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    threading.Thread(target=program.stderr.read, daemon=True).start()
    program.wait(timeout=PATIENCE_S)
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    with pytest.raises(httpx.ConnectError):
        get(f"{address}/health")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--host=0.0.0.0"], "IBLLM_API_KEY"),
        (["--model=/no/such/folder"], "/no/such/folder"),
        (["--port={taken}"], "--port"),
    ],
    ids=["reach", "model", "port"],
)
def test_the_command_says_why_it_does_not_start(address, options, told, monkeypatch):
    monkeypatch.delenv("IBLLM_API_KEY", raising=False)
    monkeypatch.delenv("IBLLM_API_KEYS", raising=False)
    taken = address.rpartition(":")[2]
    options = [option.format(taken=taken) for option in options]
    done = CliRunner().invoke(app, ["serve", "--port=0", *options])
    assert done.exit_code == 1
    assert isinstance(done.exception, IbllmError)
    assert told in str(done.exception)
