"""Small media of every accepted format, made on the spot, so that tests need no binary files."""

import functools
import io
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

HERE = Path(__file__).parent / "media"


def picture(width=40, height=30):
    """(H, W, 3) uint8 with smooth colours, so that lossy formats stay close."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)]
    return np.stack(planes, axis=2).astype(np.uint8)


def encode_picture(format_, array=None, **options):
    buffer = io.BytesIO()
    Image.fromarray(picture() if array is None else array).save(buffer, format_, **options)
    return buffer.getvalue()


def tone(rate_hz=16000, seconds=0.5, channels=1):
    """(S, C) float32 sine waves of amplitude 0.5."""
    t = np.arange(int(rate_hz * seconds)) / rate_hz
    waves = [0.5 * np.sin(2 * np.pi * 220 * (c + 1) * t) for c in range(channels)]
    return np.stack(waves, axis=1).astype(np.float32)


def encode_sound(format_="WAV", subtype=None, rate_hz=16000, seconds=0.5, channels=1):
    buffer = io.BytesIO()
    soundfile.write(
        buffer, tone(rate_hz, seconds, channels), rate_hz, format=format_, subtype=subtype
    )
    return buffer.getvalue()


def frame_picture(i, size=(64, 48)):
    """(H, W, 3): frame i of a test video; its brightness tells its number."""
    return np.full((size[1], size[0], 3), 10 + 4 * i, np.uint8)


def encode_video(
    container,
    codec,
    n_frames=30,
    fps=10,
    audio=None,
    size=(64, 48),
    gop=8,
    options=None,
    half=False,
):
    """A video whose frame i is grey of value 10 + 4 i, with a tone if `audio` names a codec."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"clip.{container}"
        with av.open(str(path), "w", options=options or {}) as output:
            stream = output.add_stream(codec, rate=fps)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.codec_context.gop_size = gop
            stream.codec_context.bit_rate = 2_000_000
            if codec == "mpeg4":
                stream.codec_context.max_b_frames = 0
            sound = output.add_stream(audio, rate=48000, layout="mono") if audio else None
            for i in range(n_frames):
                picture_ = frame_picture(i, size)
                if half:
                    picture_[:, : size[0] // 2] = 240
                image = av.VideoFrame.from_ndarray(picture_, format="rgb24")
                output.mux(stream.encode(image))
            output.mux(stream.encode(None))
            if sound is not None:
                _encode_tone(output, sound, n_frames / fps)
        return path.read_bytes()


def encode_track(container, codec, seconds=0.5, rate_hz=48000):
    """A sound alone, in a container that PyAV writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"sound.{container}"
        with av.open(str(path), "w") as output:
            _encode_tone(
                output, output.add_stream(codec, rate=rate_hz, layout="mono"), seconds, rate_hz
            )
        return path.read_bytes()


def _encode_tone(output, stream, seconds, rate_hz=48000):
    samples = tone(rate_hz, seconds).T
    size = stream.codec_context.frame_size or 1024
    for start in range(0, samples.shape[1], size):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[:, start : start + size]), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts = rate_hz, start
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def encode_npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def cloud(n=50):
    return np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)


CUBE = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
QUADS = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
TRIANGLES = [t for q in QUADS for t in ([q[0], q[1], q[2]], [q[0], q[2], q[3]])]


def _rows(array, prefix=""):
    return "".join(prefix + " ".join(f"{v:.6g}" for v in row) + "\n" for row in array)


def encode_ply(order="ascii", faces=None, points=None):
    points = CUBE if points is None else points
    head = f"ply\nformat {order} 1.0\ncomment test\nelement vertex {len(points)}\n"
    head += "property float x\nproperty float y\nproperty float z\nproperty uchar red\n"
    if faces:
        head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\n"
    head += "end_header\n"
    if order == "ascii":
        body = _rows(np.c_[points, np.full(len(points), 7)])
        body += "".join(f"{len(f)} {' '.join(map(str, f))}\n" for f in faces or [])
        return (head + body).encode()
    sign = "<" if order == "binary_little_endian" else ">"
    body = b"".join(struct.pack(sign + "fffB", *p, 7) for p in points)
    body += b"".join(struct.pack(f"{sign}B{len(f)}i", len(f), *f) for f in faces or [])
    return head.encode() + body


def encode_obj():
    faces = "".join("f " + " ".join(f"{i + 1}//1" for i in q) + "\n" for q in QUADS)
    return ("# cube\nmtllib none.mtl\n" + _rows(CUBE, "v ") + "vn 0 0 1\n" + faces).encode()


def encode_off(head="OFF\n"):
    faces = "".join(f"4 {' '.join(map(str, q))}\n" for q in QUADS)
    return f"{head}8 6 0\n{_rows(CUBE)}{faces}".encode()


def encode_stl(binary=True):
    if binary:
        body = b"".join(
            struct.pack("<12fH", 0, 0, 0, *CUBE[t].ravel().tolist(), 0) for t in TRIANGLES
        )
        return b"made by a test".ljust(80) + struct.pack("<I", len(TRIANGLES)) + body
    body = "".join(
        "facet normal 0 0 0\nouter loop\n" + _rows(CUBE[t], "vertex ") + "endloop\nendfacet\n"
        for t in TRIANGLES
    )
    return f"solid cube\n{body}endsolid cube\n".encode()


def encode_pt(value):
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def zip_of(entries, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tiny_pickle(storage="FloatStorage", count=3, shape=(1, 3), strides=(3, 1)):
    """The pickle of a tensor whose numbers may lie."""

    def number(value):
        return pickle.dumps(value, 2)[2:-1]

    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
        + f"ctorch\n{storage}\n".encode()
        + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + number(count)
        + b"tQ"
        + number(0)
        + number(tuple(shape))
        + number(tuple(strides))
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )


def pt(data=bytes(12), **more):
    """A torch file made without torch."""
    return zip_of({"a/data.pkl": tiny_pickle(**more), "a/data/0": data})


def _imu_csv():
    rows = "\n".join(",".join(f"{v:.4f}" for v in row) for row in np.ones((20, 6)) * 0.5)
    return f"ax,ay,az,gx,gy,gz\n{rows}\n".encode()


MAKERS = {
    "image.jpg": lambda: encode_picture("JPEG", quality=95),
    "image.png": lambda: encode_picture("PNG"),
    "image.gif": lambda: encode_picture("GIF"),
    "image.webp": lambda: encode_picture("WEBP", lossless=True),
    "image.bmp": lambda: encode_picture("BMP"),
    "image.tiff": lambda: encode_picture("TIFF", compression="tiff_lzw"),
    "audio.wav": encode_sound,
    "audio24.wav": lambda: encode_sound(subtype="PCM_24"),
    "audio.flac": lambda: encode_sound("FLAC"),
    "audio.ogg": lambda: encode_sound("OGG"),
    "audio.opus": lambda: encode_track("ogg", "libopus"),
    "audio.mp3": lambda: encode_sound("MP3"),
    "audio.m4a": lambda: encode_track("mp4", "aac"),
    "audio.aac": lambda: encode_track("adts", "aac"),
    "audio.webm": lambda: encode_track("webm", "libopus"),
    "video.mp4": lambda: encode_video("mp4", "libx264", audio="aac"),
    "front.mp4": lambda: encode_video("mp4", "libx264", options={"movflags": "faststart"}),
    "video.mov": lambda: encode_video("mov", "mpeg4"),
    "video.webm": lambda: encode_video("webm", "libvpx-vp9", audio="libopus"),
    "video.mkv": lambda: encode_video("mkv", "libx264"),
    "video.avi": lambda: encode_video("avi", "mpeg4"),
    "reordered.avi": lambda: encode_video("avi", "libx264"),
    "points.npy": lambda: encode_npy(cloud()),
    "imu.npy": lambda: encode_npy(np.ones((6, 50), np.float32)),
    "imu.csv": _imu_csv,
    "ascii.ply": encode_ply,
    "little.ply": lambda: encode_ply("binary_little_endian", TRIANGLES),
    "big.ply": lambda: encode_ply("binary_big_endian", QUADS),
    "cube.obj": encode_obj,
    "cube.off": encode_off,
    "binary.stl": encode_stl,
    "text.stl": lambda: encode_stl(binary=False),
    "cloud.pt": lambda: pt(cloud().tobytes(), count=150, shape=(50, 3)),
    "cloud.xyz": lambda: _rows(cloud()).encode(),
}


@functools.cache
def sample(name):
    """The bytes of a sample: made once, or a file of tests/media."""
    return MAKERS[name]() if name in MAKERS else (HERE / name).read_bytes()
