"""HTTP(S) under the media policy, downloads and calls; the only place that opens a connection.

The host must be listed, every address that it resolves to must be public, and the connection goes
to the very address that was checked, so that a second name lookup can change nothing. Redirects
are followed by hand, with the same checks. Proxy variables of the environment are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from ibllm_tools.errors import MediaError
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.problems import problem, shown

_CHUNK = 64 * 2**10
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "ibllm-tools"}


@dataclass(frozen=True)
class _Target:
    scheme: str
    host: str
    port: int
    path: str


def fetch(url: str, policy: MediaPolicy, name: str) -> bytes:
    """Download `url` within the policy.

    Raises:
        MediaError: The host is not listed, resolves to a private address, redirects to such a
            one, answers with an error, is too slow, or sends too much or too little.
    """
    deadline = time.monotonic() + policy.fetch_timeout_s
    for _ in range(policy.max_redirects + 1):
        target = _target(url, policy, name)
        addresses = _checked_addresses(target, policy, name, deadline)
        body, redirect = _get(target, addresses, policy, name, deadline)
        if body is not None:
            return body
        url = urljoin(url, redirect)
    raise _refused(name, f"more than {policy.max_redirects} redirects", "pass the final address")


@dataclass(frozen=True)
class Answer:
    """What a server says to a call: its status, its media type, and the body."""

    status: int
    mime_type: str
    body: bytes


def send(
    method: str,
    url: str,
    policy: MediaPolicy,
    name: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request within the policy; redirects are answers, and not followed.

    Raises:
        MediaError: The host is not listed, resolves to a private address, is too slow, or sends
            too much or too little.
    """
    deadline = time.monotonic() + policy.fetch_timeout_s
    target = _target(url, policy, name)
    addresses = _checked_addresses(target, policy, name, deadline)
    with _exchange(target, addresses, policy, name, deadline) as connection:
        connection.request(method, target.path, body, {**_HEADERS, **(headers or {})})
        with connection.getresponse() as response:
            mime_type = response.headers.get_content_type()
            return Answer(response.status, mime_type, _body(response, policy, name, deadline))


def _refused(name: str, found: str, step: str) -> MediaError:
    return problem(name, found, "a URL that the media policy allows, or base64", step)


def _target(url: str, policy: MediaPolicy, name: str) -> _Target:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii").lower().rstrip(".")
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise _refused(name, "a URL that cannot be read", "correct it") from error
    if parts.scheme not in _PORTS or not host or any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise _refused(name, f"the URL {shown(url)}", "use http:// or https:// with a host")
    if parts.username is not None or parts.password is not None:
        raise _refused(name, "a URL with a user name in it", "leave the name out")
    if not is_listed(host, port, policy.allowed_hosts):
        raise _refused(
            name,
            f"the host {shown(host)}:{port}, which is not allowed",
            "pass base64, or add the host to MediaPolicy.allowed_hosts",
        )
    query = f"?{parts.query}" if parts.query else ""
    path = (parts.path or "/") + query
    if not path.isascii():
        raise _refused(name, "a URL with unescaped characters", "percent-encode it")
    return _Target(parts.scheme, host, port, path)


def is_listed(host: str, port: int, allowed: tuple[str, ...]) -> bool:
    """Whether a host and port are on a list of `MediaPolicy.allowed_hosts`."""
    for entry in allowed:
        # A bare IPv6 address has colons of its own and cannot carry a port.
        parts = urlsplit(
            f"//[{entry}]" if entry.count(":") > 1 and "[" not in entry else f"//{entry}"
        )
        listed = parts.hostname or ""
        ports = {parts.port} if parts.port else set(_PORTS.values())
        same = host == listed or (listed.startswith("*.") and host.endswith(listed[1:]))
        if same and port in ports:
            return True
    return False


def _checked_addresses(
    target: _Target, policy: MediaPolicy, name: str, deadline: float
) -> tuple[str, ...]:
    """Resolve the host once; all addresses must pass, and only these are connected to."""
    addresses = _resolve(target, min(policy.connect_timeout_s, _left(deadline, name)), name)
    for address in addresses:
        if not policy.allow_private_addresses and not _is_public(address):
            raise _refused(
                name,
                f"the host {shown(target.host)}, which resolves to a private or reserved address",
                "pass base64, or set MediaPolicy.allow_private_addresses if the host is yours",
            )
    return addresses


def _resolve(target: _Target, timeout_s: float, name: str) -> tuple[str, ...]:
    """Look the host up in a thread, because the system's resolver knows no time-out."""
    answers: queue.Queue[list[str]] = queue.Queue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            answers.put([str(entry[4][0]) for entry in found])
        except (OSError, UnicodeError):
            answers.put([])

    threading.Thread(target=look_up, daemon=True, name="ibllm-resolve").start()
    try:
        addresses = answers.get(timeout=timeout_s)
    except queue.Empty:
        addresses = []
    if not addresses:
        raise _refused(
            name, f"the host {shown(target.host)}, which does not resolve", "check its name"
        )
    return tuple(dict.fromkeys(addresses))


def _is_public(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return _is_public(str(embedded))
    if ip.version == 6 and ip in _LOCAL_NAT64:
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")


def _left(deadline: float, name: str) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise _too_slow(name)
    return left


def _too_slow(name: str) -> MediaError:
    return problem(
        name,
        "a server that is too slow",
        "the whole medium within MediaPolicy.fetch_timeout_s",
        "try again, or pass base64",
    )


class _Pinned(http.client.HTTPConnection):
    """A connection to one checked address; TLS is still verified against the host's name."""

    def __init__(self, target: _Target, address: str, timeout_s: float, life_s: float) -> None:
        super().__init__(target.host, target.port, timeout=timeout_s)
        self.default_port = _PORTS[target.scheme]
        self._target = target
        self._address = address
        self._wire: socket.socket | None = None
        # A socket's time-out restarts with every byte; this cuts a server that drips.
        self._watchdog = threading.Timer(life_s, self._cut)
        self._watchdog.daemon = True

    def connect(self) -> None:
        self._watchdog.start()
        plain = socket.create_connection((self._address, self._target.port), self.timeout)
        self.sock = self._wire = plain
        if self._target.scheme == "https":
            wrapped = ssl.create_default_context().wrap_socket(
                plain, server_hostname=self._target.host, do_handshake_on_connect=False
            )
            self.sock = self._wire = wrapped
            wrapped.do_handshake()

    def stop(self) -> None:
        """End the connection and its watchdog; `close` alone is called by http.client too early."""
        self._watchdog.cancel()
        self.close()

    def _cut(self) -> None:
        if self._wire is None:
            return
        try:
            # Not SSLSocket.shutdown, which would drop the TLS state under a reading thread.
            socket.socket.shutdown(self._wire, socket.SHUT_RDWR)
        except OSError:
            return


def _connected(
    target: _Target, addresses: tuple[str, ...], policy: MediaPolicy, name: str, deadline: float
) -> _Pinned:
    """Connect to the first checked address that answers."""
    last: Exception | None = None
    for address in addresses[:4]:
        life_s = _left(deadline, name)
        connection = _Pinned(target, address, min(policy.connect_timeout_s, life_s), life_s)
        try:
            connection.connect()
        except OSError as error:
            connection.stop()
            last = error
        else:
            return connection
    reason = shown(str(last))
    raise _refused(
        name, f"no connection to {shown(target.host)} ({reason})", "check the address"
    ) from last


def _get(
    target: _Target, addresses: tuple[str, ...], policy: MediaPolicy, name: str, deadline: float
) -> tuple[bytes | None, str]:
    """Send one request; return the body, or None and the address of a redirect."""
    with _exchange(target, addresses, policy, name, deadline) as connection:
        connection.request("GET", target.path, headers=_HEADERS)
        with connection.getresponse() as response:
            location = response.getheader("Location")
            if response.status in _REDIRECTS and location:
                return None, location
            if response.status != 200:
                raise _refused(name, f"HTTP status {response.status}", "check the address")
            return _body(response, policy, name, deadline), ""


@contextmanager
def _exchange(
    target: _Target, addresses: tuple[str, ...], policy: MediaPolicy, name: str, deadline: float
) -> Iterator[_Pinned]:
    """A connection for one request; what breaks in it becomes a `MediaError`."""
    connection = _connected(target, addresses, policy, name, deadline)
    try:
        yield connection
    except MediaError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        _left(deadline, name)
        if isinstance(error, TimeoutError):
            raise _too_slow(name) from error
        reason = shown(str(error) or type(error).__name__)
        raise _refused(name, f"a broken answer ({reason})", "check the server") from error
    finally:
        connection.stop()


def _body(
    response: http.client.HTTPResponse, policy: MediaPolicy, name: str, deadline: float
) -> bytes:
    if (response.getheader("Content-Encoding") or "identity").lower() != "identity":
        raise _refused(name, "a compressed answer", "let the server send it as it is")
    _check_size(response.length or 0, policy, name)
    chunks, total = [], 0
    while chunk := response.read(_CHUNK):
        total += len(chunk)
        _check_size(total, policy, name)
        _left(deadline, name)
        chunks.append(chunk)
    # The watchdog's cut looks like the end of an answer.
    _left(deadline, name)
    # Set by a Content-Length that promised more than came.
    if response.length:
        raise _refused(name, f"an answer cut off {response.length:,} bytes early", "try again")
    return b"".join(chunks)


def _check_size(size: int, policy: MediaPolicy, name: str) -> None:
    if size > policy.max_bytes:
        raise _refused(
            name,
            f"more than {policy.max_bytes:,} bytes",
            "make it smaller, or raise MediaPolicy.max_bytes",
        )
