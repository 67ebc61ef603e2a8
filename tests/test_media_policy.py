"""The media policy: what a message may open. Real files, a real HTTP server, no patched network."""

import base64

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


# --- files ----------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """An allowed folder beside a private one."""
    allowed, private = tmp_path / "allowed", tmp_path / "private"
    for folder in (allowed, private):
        folder.mkdir()
        (folder / "photo.png").write_bytes(PNG)
    return allowed, private


def test_by_default_a_message_opens_no_file(folders):
    allowed, _ = folders
    for given in (
        image(allowed / "photo.png"),
        image((allowed / "photo.png").as_uri()),
        {"type": "image", "path": str(allowed / "photo.png")},
        {"type": "image_url", "image_url": {"url": (allowed / "photo.png").as_uri()}},
        {"type": "image", "base64": str(allowed / "photo.png")},
        image("photo.png"),
        image("/etc/passwd"),
        image("~/.ssh/id_rsa"),
    ):
        with pytest.raises(MediaError):
            load(given)


def test_files_below_an_allowed_folder_open(folders):
    allowed, _ = folders
    policy = MediaPolicy(allowed_dirs=(allowed,))
    (allowed / "sub folder").mkdir()
    (allowed / "sub folder" / "100%.png").write_bytes(PNG)
    for given in (
        image(allowed / "photo.png"),
        image((allowed / "photo.png").as_uri()),
        image((allowed / "sub folder" / "100%.png").as_uri()),
        image(f"file://localhost{allowed}/photo.png"),
        {"type": "image", "path": str(allowed / "photo.png")},
    ):
        item = load(given, policy)
        assert item.pixels.size == (40, 30)
    assert load(image(allowed / "photo.png"), policy).name == "photo.png"


def test_nothing_outside_the_folder_opens(folders):
    allowed, private = folders
    policy = MediaPolicy(allowed_dirs=(allowed,))
    (allowed / "link.png").symlink_to(private / "photo.png")
    (allowed / "linked").symlink_to(private)
    (allowed.parent / "allowed-too").mkdir()
    (allowed.parent / "allowed-too" / "photo.png").write_bytes(PNG)
    for path in (
        private / "photo.png",
        allowed / "link.png",
        allowed / "linked" / "photo.png",
        allowed / ".." / "private" / "photo.png",
        f"{allowed.as_uri()}/%2e%2e/private/photo.png",
        allowed.parent / "allowed-too" / "photo.png",
        "file://server/share/photo.png",
        "file:",
        "photo.png\0",
    ):
        refused(image(path), policy, "refused|file URL")


def test_a_message_cannot_probe_which_files_exist(folders):
    allowed, private = folders
    policy = MediaPolicy(allowed_dirs=(allowed,))
    there = refused(image(private / "photo.png"), policy, "refused")
    missing = refused(image(private / "nothing.png"), policy, "refused")
    assert there.replace("photo.png", "nothing.png") == missing


def test_links_within_and_to_the_allowed_folder_work(folders):
    allowed, private = folders
    (allowed / "inner.png").symlink_to(allowed / "photo.png")
    assert load(image(allowed / "inner.png"), MediaPolicy(allowed_dirs=(allowed,)))
    (private / "way").symlink_to(allowed)
    assert load(image(allowed / "photo.png"), MediaPolicy(allowed_dirs=(private / "way",)))


def test_the_size_limit_holds_for_files(folders):
    allowed, _ = folders
    policy = MediaPolicy(allowed_dirs=(allowed,), max_bytes=100)
    refused(image(allowed / "photo.png"), policy, "max_bytes")


# --- hosts, without a network ---------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://example.com/x.png", "https://127.0.0.1/x.png", "HTTP://LOCALHOST/", "http://[::1]/"],
)
def test_by_default_no_host_is_contacted(url):
    refused(image(url), MediaPolicy(), "not allowed")


@pytest.mark.parametrize(
    ("allowed", "url"),
    [
        ("example.com", "http://example.com.evil.org/x.png"),
        ("example.com", "http://evil-example.com/x.png"),
        ("example.com", "http://sub.example.com/x.png"),
        ("*.example.com", "http://example.com/x.png"),
        ("*.example.com", "http://evilexample.com/x.png"),
        ("example.com", "http://example.com:8080/x.png"),
        ("example.com:8080", "http://example.com/x.png"),
        ("example.com", "http://evil.org#example.com"),
        ("example.com", "http://evil.org\\@example.com/"),
        ("example.com", "http://user@example.com/x.png"),
        ("example.com", "http://user:word@example.com/x.png"),
        ("example.com", "http:///x.png"),
        ("example.com", "http://example.com:99999/x.png"),
        ("example.com", "http://[example.com/x.png"),
        ("example.com", "http://example.com/a b"),
        ("example.com", "http://example.com/x\r\nHost: evil"),
        ("example.com", "http://ex\u0430mple.com/x.png"),
    ],
)
def test_urls_of_other_hosts_are_refused(allowed, url):
    with pytest.raises(MediaError):
        load(image(url), MediaPolicy(allowed_hosts=(allowed,)))


@pytest.mark.parametrize("host", ["", "*", "*.", "a/b", "user@host", "host:port", "host:99999"])
def test_wrong_hosts_are_refused_when_the_policy_is_made(host):
    with pytest.raises(ValueError, match="validation error"):
        MediaPolicy(allowed_hosts=(host,))


ADDRESSES = {
    "127.0.0.1": False,
    "127.8.8.8": False,
    "10.1.2.3": False,
    "172.16.0.1": False,
    "192.168.1.1": False,
    "169.254.169.254": False,
    "100.64.0.1": False,
    "0.0.0.0": False,
    "255.255.255.255": False,
    "224.0.0.1": False,
    "240.0.0.1": False,
    "192.0.2.1": False,
    "::1": False,
    "::": False,
    "fe80::1": False,
    "fe80::1%eth0": False,
    "fc00::1": False,
    "ff02::1": False,
    "2001:db8::1": False,
    "::ffff:127.0.0.1": False,
    "::ffff:10.0.0.1": False,
    "64:ff9b::7f00:1": False,
    "64:ff9b:1::1": False,
    "2002:7f00:1::": False,
    "2002:a00:1::": False,
    "nonsense": False,
    "8.8.8.8": True,
    "1.1.1.1": True,
    "2606:4700:4700::1111": True,
    "64:ff9b::808:808": True,
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_which_addresses_are_public(address):
    assert fetching._is_public(address) == ADDRESSES[address]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "0"])
def test_a_listed_host_may_not_be_a_private_address(host, socket_enabled):
    policy = MediaPolicy(allowed_hosts=(host,))
    refused(image(f"http://{host}/x.png"), policy, "private|resolve|not allowed")


def test_base64_and_data_urls_work_under_any_policy():
    text = base64.b64encode(PNG).decode()
    for given in (
        {"type": "image", "base64": text},
        image(f"data:image/png;base64,{text}"),
        image(f"DATA:image/png;charset=utf-8;BASE64,{text}"),
        image("data:image/png;base64," + text.replace("+", "%2B").replace("=", "%3D")),
        image("data:text/plain,0%200%200%0A1%201%201") | {"type": "point_cloud"},
    ):
        load(given, MediaPolicy(max_bytes=10_000))
