"""Headers that claim more than there is, and bombs: refused in time and in bounded memory."""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hostile_media import block, refused
from media_samples import (
    encode_npy,
    encode_off,
    encode_picture,
    pt,
    sample,
    tiny_pickle,
    zip_of,
)

# --- headers that claim more than there is, and bombs ---------------------------------------


def png(width, height, idat=b""):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(idat, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + packed


def npy(shape, descr="<f4", body=b""):
    head = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    head = head.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode("latin1") + body


def encode_npy_objects():
    buffer = io.BytesIO()
    np.save(buffer, np.array([[1, "a", None]], object), allow_pickle=True)
    return buffer.getvalue()


def wav(rate=16000, channels=1, bits=16, tag=1, claim=None, samples=b"\0\0" * 100):
    align = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels & 0xFFFF, rate, rate * align % 2**32, align, bits)
    size = len(samples) if claim is None else claim
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", size) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(width, height):
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 1078, 0, 54, 40, width, height, 1, 24, *[0] * 6)


def ply(counts, body=b"", order="binary_little_endian", face="list uchar int vertex_indices"):
    head = f"ply\nformat {order} 1.0\nelement vertex {counts[0]}\n"
    head += "property float x\nproperty float y\nproperty float z\n"
    head += f"element face {counts[1]}\nproperty {face}\nend_header\n"
    return head.encode() + body


def gif_of_screen(width, height):
    return b"GIF89a" + struct.pack("<HH", width, height) + sample("image.gif")[10:]


def jpeg_of(width, height):
    data = bytearray(sample("image.jpg"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff_of(width):
    data = bytearray(sample("image.tiff"))
    offset = struct.unpack("<I", data[4:8])[0]
    data[offset + 2 : offset + 14] = struct.pack("<HHII", 256, 4, 1, width)
    return bytes(data)


def flac_claiming(n_samples):
    data = bytearray(sample("audio.flac"))
    tail = int.from_bytes(data[18:26], "big")
    data[18:26] = (tail >> 36 << 36 | n_samples).to_bytes(8, "big")
    return bytes(data)


def mp4_with(box, offset, value):
    data = bytearray(sample("front.mp4"))
    place = data.index(box) + 4 + offset
    data[place : place + len(value)] = value
    return bytes(data)


def webm_of(milliseconds):
    data = bytearray(sample("video.webm"))
    place = data.index(b"\x44\x89\x88") + 3
    data[place : place + 8] = struct.pack(">d", milliseconds)
    return bytes(data)


BOMBS = {
    "png of 65535 x 65535": (lambda: png(65535, 65535, bytes(10**6)), "image"),
    "png of 2^31 pixels a side": (lambda: png(2**31 - 1, 2**31 - 1), "image"),
    "png of no pixels": (lambda: png(0, 0), "image"),
    "png with fewer rows than it claims": (lambda: png(2000, 2000, bytes(6001 * 9)), "image"),
    "jpeg of 65535 x 65535": (lambda: jpeg_of(65535, 65535), "image"),
    "jpeg of 40 x 60000": (lambda: jpeg_of(40, 60000), "image"),
    "jpeg of very many scans": (
        lambda: sample("image.jpg")[:-2] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 500 + b"\xff\xd9",
        "image",
    ),
    "gif of 65535 x 65535": (lambda: gif_of_screen(65535, 65535), "image"),
    "bmp of 2^31": (lambda: bmp(2**31 - 1, 2**31 - 1), "image"),
    "bmp without pixels": (lambda: bmp(1000, 1000), "image"),
    "tiff of 2^30": (lambda: tiff_of(2**30), "image"),
    "npy of 10^15 values": (lambda: npy((10**12, 1000)), "depth"),
    "npy cloud of 10^12 points": (lambda: npy((10**12, 3)), "point"),
    "npy with a negative side": (lambda: npy((-1, 3)), "point"),
    "npy of objects": (encode_npy_objects, "point"),
    "npy of text": (lambda: encode_npy(np.array([["a", "b", "c"]])), "point"),
    "npy of complex numbers": (lambda: encode_npy(np.ones((5, 3), complex)), "point"),
    "npy of records": (lambda: encode_npy(np.zeros(3, [("x", "f4")])), "point"),
    "npy with a program for a header": (
        lambda: b"\x93NUMPY\x01\0\x76\0" + b"__import__('os').system('id')".ljust(118),
        "point",
    ),
    "npy with a deep header": (lambda: b"\x93NUMPY\x01\0\xff\xff" + b"(" * 65535, "point"),
    "npy with a longer header than file": (lambda: b"\x93NUMPY\x01\0\xff\xff{", "point"),
    "npy of no points": (lambda: npy((0, 3)), "point"),
    "npy of no map": (lambda: npy((0, 5)), "thermal"),
    "npy of nine axes": (lambda: encode_npy(np.ones((2,) * 9)), "depth"),
    "wav that claims 4 GiB": (lambda: wav(claim=2**32 - 1), "audio"),
    "wav that claims one byte more": (lambda: wav(claim=202), "audio"),
    "wav of 65535 channels": (lambda: wav(channels=65535, bits=8), "audio"),
    "wav of no rate": (lambda: wav(rate=0), "audio"),
    "wav of 4 GHz": (lambda: wav(rate=2**32 - 1), "audio"),
    "wav of no samples": (lambda: wav(samples=b""), "audio"),
    "wav of an unknown codec": (lambda: wav(tag=0x1234), "audio"),
    "wav of NaN": (lambda: wav(tag=3, bits=32, samples=struct.pack("<f", np.nan) * 9), "audio"),
    "wav of infinity": (lambda: wav(tag=3, bits=32, samples=struct.pack("<f", np.inf)), "audio"),
    "flac that claims 2^36 samples": (lambda: flac_claiming(2**36 - 1), "audio"),
    "flac that claims twice its length": (lambda: flac_claiming(16000), "audio"),
    "mp4 of ten hours": (lambda: mp4_with(b"mvhd", 16, struct.pack(">I", 36_000_000)), "video"),
    "webm of ten hours": (lambda: webm_of(36_000_000.0), "video"),
    "webm of four seconds instead of three": (lambda: webm_of(4_000.0), "video"),
    "mp4 of four seconds instead of three": (
        lambda: mp4_with(b"mvhd", 16, struct.pack(">I", 4_000)),
        "video",
    ),
    "mp4 of frames that are not there": (
        lambda: mp4_with(b"stsz", 8, struct.pack(">I", 2**31)),
        "video",
    ),
    "ply of 10^9 vertices": (lambda: ply((10**9, 0)), "point"),
    "ply of 10^40 vertices": (lambda: ply((10**40, 0)), "point"),
    "ply of one vertex more": (lambda: ply((2, 0), bytes(12)), "point"),
    "ascii ply of one vertex more": (lambda: ply((2, 0), b"0 0 0\n", "ascii"), "point"),
    "ascii ply of words": (lambda: ply((1, 0), b"a b c\n", "ascii"), "point"),
    "ply of no vertices": (lambda: ply((0, 0)), "point"),
    "ply of more faces": (lambda: ply((3, 10**6), bytes(36)), "point"),
    "ply of a face of 2^31 corners": (
        lambda: ply((1, 1), bytes(12) + struct.pack("<i", 2**31 - 1), face="list int int v"),
        "point",
    ),
    "ply of a face of minus one corner": (
        lambda: ply((1, 1), bytes(12) + struct.pack("<i", -1), face="list int int v"),
        "point",
    ),
    "ply of a missing corner": (
        lambda: ply((1, 1), bytes(12) + b"\3" + struct.pack("<3i", 0, 0, 7)),
        "point",
    ),
    "ply of negative corners": (
        lambda: ply((1, 1), bytes(12) + b"\3" + struct.pack("<3i", 0, 0, -1)),
        "point",
    ),
    "ply of infinity": (lambda: ply((1, 0), struct.pack("<3f", 0, np.inf, 0)), "point"),
    "ply of NaN": (lambda: ply((1, 0), b"nan 0 0\n", "ascii"), "point"),
    "ply without an end": (lambda: b"ply\nformat ascii 1.0\n" + b"comment\n" * 10**5, "point"),
    "ply of unknown format": (lambda: ply((1, 0), bytes(12), "zipped"), "point"),
    "ascii ply of blank lines": (lambda: ply((3, 0), b"\n \n" * 10**6, "ascii"), "point"),
    "stl of 2^32 triangles": (lambda: bytes(80) + b"\xff\xff\xff\xff" + bytes(500), "point"),
    "off of 10^9 vertices": (lambda: b"OFF\n1000000000 0 0\n0 0 0\n", "point"),
    "off of one more": (lambda: encode_off().replace(b"8 6 0", b"9 6 0"), "point"),
    "off without counts": (lambda: b"OFF\n", "point"),
    "off of a missing corner": (lambda: encode_off().replace(b"4 0 1", b"4 9 1"), "point"),
    "obj of a missing vertex": (lambda: b"v 0 0 0\nv 1 0 0\nf 1 2 9\n", "point"),
    "obj of vertex zero": (lambda: b"v 0 0 0\nv 1 0 0\nf 0 1 2\n", "point"),
    "obj of a word": (lambda: b"v 0 0 0\nv 1 x 0\n", "point"),
    "obj of two coordinates": (lambda: b"v 0 0\nv 1 0\n", "point"),
    "obj of infinity": (lambda: b"v 1 inf 0\n", "point"),
    "obj of 1e300": (lambda: b"v 1 1e300 0\nv 0 0 0\n", "point"),
    "stl text cut off": (lambda: sample("text.stl")[:500], "point"),
    "xyz of unequal rows": (lambda: b"0 0 0\n1 1\n", "point"),
    "xyz of NaN": (lambda: b"0 0 0\nnan 1 1\n", "point"),
    "xyz of two columns": (lambda: b"0 0\n1 1\n", "point"),
    "xyz of a million columns": (lambda: b"1 " * 10**6, "point"),
    "csv of five axes": (lambda: b"1,2,3,4,5\n1,2,3,4,5\n", "imu"),
    "csv of infinity": (lambda: b"1,2,3,4,5,inf\n", "imu"),
    "imu of seven axes": (lambda: encode_npy(np.ones((7, 9))), "imu"),
    "imu of NaN": (lambda: encode_npy(np.full((6, 9), np.nan)), "imu"),
    "imu of nothing": (lambda: npy((6, 0)), "imu"),
    "depth of NaN": (lambda: encode_npy(np.full((6, 9), np.nan)), "depth"),
    "depth of infinity": (lambda: encode_picture("TIFF", np.full((4, 4), np.inf, "f4")), "depth"),
    "thermal of NaN": (lambda: encode_npy(np.full((6, 9), np.nan)), "thermal"),
    "thermal beyond one": (lambda: encode_npy(np.full((6, 9), 36.6)), "thermal"),
    "cloud beyond float32": (lambda: encode_npy(np.full((6, 3), 1e300)), "point"),
    "pt that is compressed": (
        lambda: zip_of(
            {"a/data.pkl": tiny_pickle(), "a/data/0": bytes(10**7)}, zipfile.ZIP_DEFLATED
        ),
        "point",
    ),
    "pt with more shape than storage": (lambda: pt(shape=(10**9, 3)), "point"),
    "pt that repeats one value": (lambda: pt(shape=(10**12, 3), strides=(0, 0)), "point"),
    "pt with negative strides": (lambda: pt(shape=(4, 3), strides=(-3, 1)), "point"),
    "pt of an unknown type": (lambda: pt(storage="ComplexFloatStorage"), "point"),
    "pt of bits": (lambda: pt(storage="BoolStorage"), "point"),
    "pt without its storage": (lambda: zip_of({"a/data.pkl": tiny_pickle()}), "point"),
    "pt of many files": (
        lambda: zip_of({"a/data.pkl": tiny_pickle()} | {f"a/{i}": b"" for i in range(1100)}),
        "point",
    ),
    "zip of something else": (lambda: zip_of({"readme.txt": b"hello"}), "point"),
    "zip that is damaged": (lambda: pt()[:-10] + bytes(10), "point"),
    "pt of a number": (
        lambda: zip_of({"a/data.pkl": pickle.dumps({"weight": 3.5}, 2), "a/data/0": b""}),
        "point",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_and_false_headers(name, capfd):
    make, modality = BOMBS[name]
    given = block(make(), modality)
    if "stl" in name:
        given["mime_type"] = "model/stl"
    refused(given, "bad.bin: found")
    assert capfd.readouterr().err == ""


def test_all_bombs_together_stay_in_bounded_memory():
    """A process of its own measures its peak; about 100 MB are the libraries."""
    code = (
        "import sys, resource; sys.path.insert(0, sys.argv[1])\n"
        "import test_media_bombs as t\n"
        "from ibllm_tools import MediaError\n"
        "from ibllm_tools.media import load\n"
        "made = {name: t.block(make(), modality) for name, (make, modality) in t.BOMBS.items()}\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for given in made.values():\n"
        "    try: load(given)\n"
        "    except MediaError: pass\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert int(result.stdout.split()[-1]) < 150


def test_pickles_run_nothing(tmp_path):
    target = tmp_path / "owned"
    command = f"cposix\nsystem\n(X{chr(len(str(target)) + 6)}\0\0\0touch {target}tR."
    assert len(str(target)) < 100
    pickle = b"\x80\x02" + command.encode("latin1")
    for data in (
        pickle,
        zip_of({"a/data.pkl": pickle, "a/data/0": bytes(12)}),
        zip_of({"a/data.pkl": b"\x80\x02c__builtin__\neval\n(X\x01\0\0\x001tR.", "a/data/0": b""}),
    ):
        refused(block(data, "point"))
    assert not target.exists()
