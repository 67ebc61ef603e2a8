"""Hostile media: every one is a `MediaError`, within seconds, in bounded memory, with no trace."""

import base64
import io
import json
import os
import random
import time

import numpy as np
import pytest
from hostile_media import B64, LIMIT_S, block, refused
from media_samples import (
    MAKERS,
    cloud,
    encode_npy,
    encode_ply,
    encode_sound,
    encode_video,
    sample,
)

from ibllm_tools.errors import MediaError
from ibllm_tools.media import ACCEPTED, Media, MediaPolicy, load

# --- the block ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"type": "hologram", "base64": B64},
        {"type": "document", "base64": B64},
        {"type": 5},
        {},
        {"type": "non_standard"},
        {"type": "non_standard", "value": "x"},
        {"type": "non_standard", "value": {"type": "non_standard", "value": {"type": "image"}}},
        {"type": "tool_call", "name": "f", "args": {}},
        "just text",
        None,
        ["image"],
    ],
)
def test_an_unknown_block_is_told_what_is_accepted(given):
    assert ACCEPTED[:40] in refused(given)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"type": "image"}, "holds nothing"),
        ({"type": "image", "base64": B64, "url": "data:,x"}, "base64 and url"),
        ({"type": "image", "base64": 5}, "base64 of 5"),
        ({"type": "image", "url": ["x"]}, "a list"),
        ({"type": "image", "url": {"url": "x"}}, "a dict"),
        ({"type": "image", "base64": B64, "mime_type": 3}, "mime_type"),
        ({"type": "image", "base64": B64, "extras": "depth"}, "extras"),
        ({"type": "image", "base64": B64, "extras": {"modality": "smell"}}, "smell"),
        ({"type": "image", "base64": B64, "extras": {"modality": 7}}, "modality 7"),
        ({"type": "image", "base64": B64, "extras": {"modality": "audio"}}, "audio"),
        ({"type": "text", "text": "x"}, "extras.modality"),
        ({"type": "text", "text": "x", "extras": {"modality": "audio"}}, "audio"),
        ({"type": "text", "text": None, "extras": {"modality": "text"}}, "None"),
        ({"type": "text", "text": " \n", "extras": {"modality": "text"}}, "empty"),
        ({"type": "text", "text": "x" * 10**6, "extras": {"modality": "text"}}, "1,000,000"),
        ({"type": "image", "file_id": "file-1"}, "file-1"),
        ({"type": "image_url", "image_url": {}}, "holds nothing"),
        ({"type": "input_audio", "input_audio": {"format": "wav"}}, "holds nothing"),
        ({"type": "image", "url": "ftp://example.com/x.png"}, "ftp"),
        ({"type": "image", "url": "javascript:alert(1)"}, "javascript"),
        ({"type": "image", "url": "data:image/png;base64"}, "comma"),
        ({"type": "image", "url": ""}, "refused"),
    ],
)
def test_a_wrong_block_is_told_what_is_wrong(given, match):
    refused(given, match)


@pytest.mark.parametrize(
    "weight",
    [0, -1, float("nan"), float("inf"), -float("inf"), 10**400, "0.5", None, True, [1], 1j],
)
def test_a_weight_is_finite_and_above_zero(weight):
    if weight is not None:
        refused({"type": "image", "base64": B64, "extras": {"weight": weight}}, "weight")
    with pytest.raises(MediaError, match="weight"):
        Media.from_bytes(sample("image.png"), weight=weight)


@pytest.mark.parametrize(
    "text",
    ["", "=", "abc", "ab=c", "****", B64[:-3], B64 + "\n", B64 + "====", "é" * 8, B64[:8] + " "],
)
def test_bad_base64(text):
    refused({"type": "image", "base64": text})
    refused({"type": "image", "url": f"data:image/png;base64,{text}"})


def test_too_large_is_told_before_decoding():
    policy = MediaPolicy(max_bytes=1000)
    big = "A" * 4_000_000
    for given in (
        {"type": "image", "base64": big},
        {"type": "image", "url": f"data:image/png;base64,{big}"},
        {"type": "image", "url": f"data:image/png,{big}"},
        {"type": "image", "url": "data:image/png," + "%41" * 1001},
        {"type": "image", "source_type": "base64", "data": b"x" * 1001},
    ):
        assert "AAAA" not in refused(given, "1,000", policy)


def test_errors_never_echo_long_data():
    for given in (
        {"type": "x" * 10**6},
        {"type": "image", "url": "zzz:" + "y" * 10**6},
        {"type": "image", "base64": B64, "extras": {"modality": "m" * 10**6}},
        {"type": "image", "base64": "!" * 10**6, "extras": {"name": "n" * 10**6}},
        {"type": "image", "base64": B64, "mime_type": "m" * 10**6},
    ):
        refused(given)


def test_control_characters_do_not_reach_the_terminal():
    assert "\x1b" not in refused({"type": "\x1b[31mred"})


# --- content that is something else ---------------------------------------------------------

OTHERS = {
    "pdf": b"%PDF-1.7 " + b"x" * 99,
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "web page": b"<!DOCTYPE html><html></html>",
    "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "list": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
    "script": b"#!/bin/sh\nid\n",
    "pickle": b"\x80\x04\x95\x00cposix\nsystem\n",
    "gzip": b"\x1f\x8b\x08" + bytes(40),
    "words": b"hello, this is a letter to nobody",
    "zeros": bytes(5000),
    "noise": random.Random(0).randbytes(5000),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize(
    "modality", [None, "image", "video", "audio", "depth", "thermal", "imu", "point"]
)
def test_other_content_is_refused_as_any_modality(other, modality):
    refused(block(OTHERS[other], modality))


@pytest.mark.parametrize("mime", ["audio/x-mpegurl", "application/vnd.apple.mpegurl"])
def test_playlists_open_nothing(mime, tmp_path):
    clip = tmp_path / "secret.mp4"
    clip.write_bytes(sample("front.mp4"))
    for text in (
        f"#EXTM3U\n#EXTINF:3,\n{clip.as_uri()}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{clip}'\n",
        f"<?xml version='1.0'?><MPD><BaseURL>{clip.as_uri()}</BaseURL></MPD>",
    ):
        refused(block(text.encode(), "video", mime_type=mime))
        refused(block(text.encode(), "audio"))


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("image.png", "audio/wav"),
        ("image.png", "image/jpeg"),
        ("audio.wav", "audio/mpeg"),
        ("audio.wav", "image/*"),
        ("video.webm", "video/mp4"),
        ("points.npy", "model/ply"),
        ("little.ply", "video/mp4"),
    ],
)
def test_content_must_be_what_the_mime_type_says(name, mime):
    refused(block(sample(name), mime_type=mime), mime)


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("image.png", "audio"),
        ("image.png", "video"),
        ("audio.wav", "image"),
        ("audio.wav", "video"),
        ("video.mp4", "image"),
        ("audio.m4a", "video"),
        ("little.ply", "image"),
        ("image.png", "point_cloud"),
        ("video.mkv", "audio"),
    ],
)
def test_content_must_be_what_the_block_says(name, type_):
    refused({"type": type_, "base64": base64.b64encode(sample(name)).decode()})


# --- limits of the policy -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "modality", "limit"),
    [
        (lambda: sample("image.png"), "image", {"max_pixels": 40 * 30 - 1}),
        (lambda: sample("image.webp"), "depth", {"max_pixels": 40 * 30 - 1}),
        (lambda: encode_npy(np.ones((40, 30))), "thermal", {"max_pixels": 40 * 30 - 1}),
        (lambda: sample("video.mp4"), "video", {"max_pixels": 64 * 48 - 1}),
        (lambda: sample("video.webm"), "video", {"max_pixels": 64 * 48 - 1}),
        (lambda: sample("video.mp4"), "video", {"max_seconds": 2.5}),
        (lambda: sample("video.mkv"), "video", {"max_seconds": 2.5}),
        (lambda: sample("reordered.avi"), "video", {"max_seconds": 2.5}),
        (lambda: sample("audio.wav"), "audio", {"max_seconds": 0.4}),
        (lambda: sample("audio.ogg"), "audio", {"max_seconds": 0.4}),
        (lambda: sample("audio.mp3"), "audio", {"max_seconds": 0.4}),
        (lambda: sample("audio.m4a"), "audio", {"max_seconds": 0.4}),
        (lambda: encode_npy(cloud(101)), "point", {"max_points": 100}),
        (lambda: encode_ply(points=cloud(101)), "point", {"max_points": 100}),
        (lambda: sample("cube.off"), "point", {"max_points": 7}),
        (lambda: sample("cube.obj"), "point", {"max_points": 7}),
        (lambda: sample("binary.stl"), "point", {"max_points": 7}),
        (lambda: sample("text.stl"), "point", {"max_points": 7}),
        (lambda: sample("cloud.xyz"), "point", {"max_points": 7}),
        (lambda: encode_npy(np.ones((6, 101))), "imu", {"max_points": 100}),
        (lambda: sample("imu.csv"), "imu", {"max_points": 7}),
        (lambda: sample("image.png"), "image", {"max_bytes": 100}),
    ],
)
def test_limits_hold_and_their_name_is_told(data, modality, limit):
    (name,) = limit
    given = block(data(), modality)
    load(given)
    refused(given, name, MediaPolicy(**limit))


def test_a_long_silence_in_few_bytes():
    hour = encode_sound("FLAC", rate_hz=8000, seconds=1)
    silent = io.BytesIO()
    import soundfile

    soundfile.write(silent, np.zeros(8000 * 3600, np.int16), 8000, format="FLAC")
    assert len(silent.getvalue()) < 1_000_000
    refused(block(silent.getvalue(), "audio"), "600 s")
    load(block(hour, "audio"))


def test_decoding_stops_at_its_deadline():
    policy = MediaPolicy(decode_timeout_s=1e-9)
    refused(block(sample("video.mp4"), "video"), "longer than", policy)
    refused(block(sample("audio.ogg"), "audio"), "longer than", policy)


# --- damage ---------------------------------------------------------------------------------

MODALITY = {"image": "image", "audio": "audio", "audio24": "audio", "imu": "imu"}
# Formats in which a shorter file is a whole file of less content, or lacks but the last line end.
ENDLESS = {"cube.obj": 0, "cloud.xyz": 0, "imu.csv": 0, "audio.aac": 0, "text.stl": 5}
ENDLESS |= {"ascii.ply": 2, "cube.off": 2}


def modality_of(name):
    if name.split(".")[-1] in {"mp4", "mov", "mkv", "avi"} or name == "video.webm":
        return "video"
    return MODALITY.get(name.split(".")[0], "point")


def try_to_load(name, data):
    """None if it loads, else the error; anything but a MediaError fails the test."""
    start = time.process_time()
    error = None
    try:
        use(load(block(data, modality_of(name))))
    except MediaError as caught:
        error = caught
    assert time.process_time() - start < LIMIT_S
    assert len(str(error)) < 700
    return error


def use(item):
    if item.modality == "video":
        item.frames([(0.0, 1.0), (2.0, 3.0)], 2)
        item.audio()
    if item.modality == "audio":
        assert np.isfinite(item.samples).all()
    if item.modality == "point":
        assert np.isfinite(item.xyz).all()


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_that_is_cut_off_is_refused(name, capfd):
    data = sample(name)
    places = {len(data) * i // 25 for i in range(25)} | {1, 2, 4, 8, 12, 16, 32}
    places |= {len(data) - i for i in (1, 2, 3, 4, 8, 12, 16, 32)}
    slack = ENDLESS.get(name, None)
    for place in sorted(places):
        if not 0 <= place < len(data):
            continue
        error = try_to_load(name, data[:place])
        must = slack is None or (slack and place < len(data) - slack)
        assert error or not must, f"cut at {place} of {len(data)}"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", MAKERS)
def test_damaged_bytes_load_or_are_refused(name, capfd):
    data, dice = sample(name), random.Random(7)
    for _ in range(40):
        damaged = bytearray(data)
        for _ in range(dice.choice([1, 1, 3, 9])):
            reach = min(len(data), 300) if dice.random() < 0.5 else len(data)
            damaged[dice.randrange(reach)] = dice.choice([0, 255, dice.randrange(256)])
        try_to_load(name, bytes(damaged))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["image.png", "video.mp4", "audio.mp3", "little.ply"])
def test_doubled_and_shifted_content(name):
    data = sample(name)
    for changed in (data + data, data[7:], data + bytes(1000), data[::-1]):
        try_to_load(name, changed)


def test_a_video_whose_frame_size_changes_midway():
    small = encode_video("mp4", "libx264", n_frames=4)
    large = encode_video("mp4", "libx264", n_frames=4, size=(128, 96))
    for box in (b"avcC",):
        mixed = bytearray(small)
        place, other = mixed.index(box), large.index(box)
        size = int.from_bytes(mixed[place - 4 : place], "big")
        mixed[place : place + size - 4] = large[other : other + size - 4]
        try_to_load("video.mp4", bytes(mixed))


# --- files of one's own ---------------------------------------------------------------------


def test_own_files_that_are_no_media(tmp_path):
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    for path, match in [
        (tmp_path / "none.png", "No such file"),
        (tmp_path / "empty.png", "empty file"),
        (tmp_path / "pipe.png", "device or pipe"),
        (tmp_path, "a folder"),
        ("/dev/zero", "device or pipe"),
        ("a\0b", "not a valid path"),
    ]:
        start = time.process_time()
        with pytest.raises(MediaError, match=match):
            Media.from_path(path)
        assert time.process_time() - start < 1


def test_own_files_are_limited_in_size(tmp_path):
    path = tmp_path / "big.png"
    with path.open("wb") as file:
        file.truncate(10**9)
    with pytest.raises(MediaError, match="max_bytes"):
        Media.from_path(path)


def test_a_failing_medium_changes_nothing():
    given = [block(sample("image.png")), block(b"junk"), block(sample("audio.wav"))]
    before = json.dumps(given)
    results = []
    for one in given:
        try:
            results.append(load(one).modality)
        except MediaError:
            results.append(None)
    assert results == ["image", None, "audio"]
    assert json.dumps(given) == before
