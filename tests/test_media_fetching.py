"""Downloads under the media policy, from a real server on this machine."""

import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
from media_samples import sample

from ibllm_tools.errors import MediaError
from ibllm_tools.media import MediaPolicy, fetching, load

PNG = sample("image.png")


def image(url):
    return {"type": "image", "url": str(url)}


def refused(given, policy, match):
    with pytest.raises(MediaError, match=match) as caught:
        load(given, policy)
    return str(caught.value)


# --- a real server --------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path; `moves` counts what was asked."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Host")))
        getattr(self, "at_" + self.path.split("?")[0].strip("/").split("/")[0].split(".")[0])()

    def answer(self, body=PNG, status=200, **headers):
        self.send_response(status)
        for key, value in ({"Content-Length": len(body)} | headers).items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def at_photo(self):
        self.answer()

    def at_missing(self):
        self.answer(b"no", 404)

    def at_empty(self):
        self.answer(b"")

    def at_page(self):
        self.answer(b"<!doctype html><html>", Content_Type="image/png")

    def at_moved(self):
        self.answer(b"", 302, Location="/photo.png")

    def at_loop(self):
        self.answer(b"", 302, Location="/loop")

    def at_away(self):
        self.answer(b"", 307, Location=self.server.away)

    def at_gzip(self):
        self.answer(PNG, Content_Encoding="gzip")

    def at_large(self):
        self.answer(b"x" * 300_000)

    def at_lies(self):
        """Says little and sends much."""
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(PNG)
        self.close_connection = True

    def at_short(self):
        """Says much and sends little."""
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(PNG)
        self.close_connection = True

    def at_stream(self):
        """Says nothing and sends for ever."""
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x" * 65536)
        except OSError:
            self.server.broken.set()
        self.close_connection = True

    def at_drip(self):
        self.send_response(200)
        self.end_headers()
        self.drip(b"x")

    def at_header(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        self.drip(b"y")

    def drip(self, byte):
        try:
            for _ in range(200):
                self.wfile.write(byte)
                self.wfile.flush()
                time.sleep(0.05)
        except OSError:
            self.server.broken.set()
        self.close_connection = True

    def at_silent(self):
        time.sleep(3)
        self.close_connection = True

    def at_chunked(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(f"{len(PNG):x}\r\n".encode() + PNG + b"\r\n0\r\n\r\n")

    def at_nonsense(self):
        self.wfile.write(b"\x00\x01\x02 this is no HTTP\r\n\r\n")
        self.close_connection = True


@pytest.fixture
def server(socket_enabled):
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.asked, made.broken, made.away = [], threading.Event(), "http://example.com/"
    made.root = f"http://127.0.0.1:{made.server_port}"
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def policy_for(server, **more):
    host = f"127.0.0.1:{server.server_port}"
    return MediaPolicy(**{"allowed_hosts": (host,), "allow_private_addresses": True} | more)


@pytest.mark.parametrize("path", ["photo.png", "photo.png?size=1&x=2", "moved", "chunked"])
def test_a_listed_host_is_fetched(server, path):
    item = load(image(f"{server.root}/{path}"), policy_for(server))
    assert item.pixels.size == (40, 30)
    assert server.asked[0] == (f"/{path}", f"127.0.0.1:{server.server_port}")


def test_every_spelling_of_a_url_is_fetched(server):
    url = f"{server.root}/photo.png"
    for given in (
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": url},
        {"type": "image", "source_type": "url", "url": url},
        {"type": "image", "source": {"type": "url", "url": url}},
    ):
        assert load(given, policy_for(server)).name in {"photo.png", f"{given['type']} block"}


def test_a_private_address_is_refused_without_leave(server):
    policy = policy_for(server, allow_private_addresses=False)
    refused(image(f"{server.root}/photo.png"), policy, "private")
    assert server.asked == []


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("missing", "404"),
        ("empty", "no bytes"),
        ("page", "web page"),
        ("gzip", "compressed"),
        ("short", "cut off|broken answer"),
        ("loop", "redirects"),
        ("nonsense", "broken answer"),
    ],
)
def test_answers_that_are_no_medium(server, path, match):
    refused(image(f"{server.root}/{path}"), policy_for(server), match)


def test_a_length_that_is_too_small_cuts_the_medium(server):
    refused(image(f"{server.root}/lies"), policy_for(server), "without its end")


@pytest.mark.parametrize(
    "away",
    [
        "http://example.com/photo.png",
        "http://127.0.0.1:1/photo.png",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:image/png;base64,AAAA",
        "//localhost/photo.png",
    ],
)
def test_a_redirect_elsewhere_is_refused(server, away):
    server.away = away
    refused(image(f"{server.root}/away"), policy_for(server), "not allowed|URL")


def test_a_redirect_to_a_private_address_is_refused(server, monkeypatch):
    """The first host is public as far as the resolver says; the second is not."""
    real = socket.getaddrinfo

    def resolve(host, port, *args, **kwargs):
        answers = real("127.0.0.1", port, *args, **kwargs)
        if host != "public.test":
            return answers
        return [(*entry[:4], ("8.8.8.8", port)) for entry in answers]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(
        fetching, "_connected", _connecting_to(server.server_port, fetching._connected)
    )
    server.away = f"http://inner.test:{server.server_port}/photo.png"
    port = server.server_port
    policy = MediaPolicy(allowed_hosts=(f"public.test:{port}", f"inner.test:{port}"))
    message = refused(image(f"http://public.test:{port}/away"), policy, "private")
    assert "inner.test" in message
    assert [path for path, _ in server.asked] == ["/away"]


def _connecting_to(port, connected):
    """Let 8.8.8.8 be this machine, where the packets would have gone in earnest."""

    def connect(target, addresses, *rest):
        here = tuple("127.0.0.1" if a == "8.8.8.8" else a for a in addresses)
        return connected(target, here, *rest)

    return connect


def test_the_checked_address_is_the_one_connected_to(server, monkeypatch):
    """A name that answers differently the second time changes nothing: it is asked once."""
    real, asked = socket.getaddrinfo, []

    def resolve(host, port, *args, **kwargs):
        asked.append(host)
        return real("127.0.0.1" if asked.count("name.test") < 2 else "127.0.0.2", port, *args)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    policy = policy_for(server, allowed_hosts=(f"name.test:{server.server_port}",))
    load(image(f"http://name.test:{server.server_port}/photo.png"), policy)
    assert asked.count("name.test") == 1
    assert server.asked == [("/photo.png", f"name.test:{server.server_port}")]


def test_the_size_limit_holds_while_streaming(server):
    policy = policy_for(server, max_bytes=200_000)
    refused(image(f"{server.root}/large"), policy, "max_bytes")
    refused(image(f"{server.root}/stream"), policy, "max_bytes")
    assert server.broken.wait(60)


@pytest.mark.parametrize("path", ["drip", "header", "silent"])
def test_slow_servers_are_cut(server, path):
    policy = policy_for(server, fetch_timeout_s=0.6, connect_timeout_s=0.5)
    start = time.monotonic()
    refused(image(f"{server.root}/{path}"), policy, "too slow")
    assert time.monotonic() - start < 9


def test_a_closed_port_and_an_unknown_name(server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    policy = policy_for(server, allowed_hosts=(f"127.0.0.1:{port}", "nowhere.invalid"))
    refused(image(f"http://127.0.0.1:{port}/x"), policy, "no connection")
    refused(image("http://nowhere.invalid/x"), policy, "resolve")


def test_proxies_of_the_environment_are_not_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert load(image(f"{server.root}/photo.png"), policy_for(server))


def test_a_slow_resolver_is_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: time.sleep(8) or [])
    policy = policy_for(server, allowed_hosts=("slow.test",), connect_timeout_s=0.2)
    start = time.monotonic()
    refused(image("http://slow.test/x"), policy, "resolve")
    assert time.monotonic() - start < 7.5


# --- TLS ------------------------------------------------------------------------------------


@pytest.fixture
def tls_server(server, tmp_path, monkeypatch):
    """The same server behind a certificate for `right.test`, which this test trusts."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl program to make a certificate")
    path = tmp_path / "certificate.pem"
    command = (
        f"{openssl} req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 "
        f"-subj /CN=right.test -addext subjectAltName=DNS:right.test -keyout {path} -out {path}.c"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_name("certificate.pem.c").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, *a, **k: real("127.0.0.1", port, *a, **k)
    )
    return server


def test_tls_is_verified_against_the_name_not_the_address(tls_server):
    port = tls_server.server_port
    policy = policy_for(tls_server, allowed_hosts=(f"right.test:{port}", f"wrong.test:{port}"))
    assert load(image(f"https://right.test:{port}/photo.png"), policy)
    refused(image(f"https://wrong.test:{port}/photo.png"), policy, "no connection")


def test_a_certificate_that_nobody_trusts_is_refused(tls_server, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    port = tls_server.server_port
    policy = policy_for(tls_server, allowed_hosts=(f"right.test:{port}",))
    refused(image(f"https://right.test:{port}/photo.png"), policy, "no connection")
