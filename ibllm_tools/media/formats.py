"""Formats: told from the bytes, never from a name alone, and compared with the declared MIME type.

This module knows signatures and MIME types; it decodes nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from ibllm_tools.media.items import Modality
from ibllm_tools.media.problems import problem, shown

Family = Literal["picture", "audio", "video", "array", "csv", "shape", "torch"]


@dataclass(frozen=True)
class Format:
    """One accepted file format.

    Attributes:
        name: Short name used in code and errors.
        family: Which decoder reads it.
        mimes: MIME types that mean it; the first is the one that we write.
        suffixes: File endings that mean it.
        container: The demuxer's name, for sound and video.
    """

    name: str
    family: Family
    mimes: tuple[str, ...]
    suffixes: tuple[str, ...]
    container: str = ""


_FORMATS = (
    Format("jpeg", "picture", ("image/jpeg", "image/jpg", "image/pjpeg"), (".jpg", ".jpeg")),
    Format("png", "picture", ("image/png", "image/x-png", "image/apng"), (".png",)),
    Format("gif", "picture", ("image/gif",), (".gif",)),
    Format("webp", "picture", ("image/webp",), (".webp",)),
    Format("bmp", "picture", ("image/bmp", "image/x-bmp", "image/x-ms-bmp"), (".bmp",)),
    Format("tiff", "picture", ("image/tiff",), (".tif", ".tiff")),
    Format(
        "wav",
        "audio",
        ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"),
        (".wav",),
        "wav",
    ),
    Format("flac", "audio", ("audio/flac", "audio/x-flac"), (".flac",), "flac"),
    Format(
        "ogg",
        "audio",
        ("audio/ogg", "audio/opus", "audio/vorbis", "application/ogg", "audio/x-ogg", "video/ogg"),
        (".ogg", ".oga", ".opus"),
        "ogg",
    ),
    Format("mp3", "audio", ("audio/mpeg", "audio/mp3", "audio/x-mp3"), (".mp3",), "mp3"),
    Format("aac", "audio", ("audio/aac", "audio/x-aac", "audio/aacp"), (".aac",), "aac"),
    Format(
        "mp4",
        "video",
        (
            "video/mp4",
            "video/quicktime",
            "video/x-m4v",
            "video/3gpp",
            "audio/mp4",
            "audio/m4a",
            "audio/x-m4a",
            "application/mp4",
        ),
        (".mp4", ".m4v", ".mov", ".m4a", ".3gp"),
        "mov",
    ),
    Format(
        "matroska",
        "video",
        ("video/webm", "video/x-matroska", "video/matroska", "audio/webm", "audio/x-matroska"),
        (".webm", ".mkv", ".mka"),
        "matroska",
    ),
    Format("avi", "video", ("video/x-msvideo", "video/avi", "video/msvideo"), (".avi",), "avi"),
    Format("npy", "array", ("application/x-npy", "application/npy"), (".npy",)),
    Format("csv", "csv", ("text/csv", "application/csv"), (".csv",)),
    Format("ply", "shape", ("model/ply", "application/ply", "application/x-ply"), (".ply",)),
    Format("obj", "shape", ("model/obj", "application/x-tgif"), (".obj",)),
    Format("off", "shape", ("model/off", "application/off"), (".off",)),
    Format(
        "stl",
        "shape",
        ("model/stl", "model/x.stl-ascii", "model/x.stl-binary", "application/sla"),
        (".stl",),
    ),
    Format("xyz", "shape", ("model/xyz", "model/x-xyz", "text/csv"), (".xyz", ".txt")),
    Format("pt", "torch", ("application/x-pytorch", "application/x-torch"), (".pt", ".pth")),
)

FORMATS = {format_.name: format_ for format_ in _FORMATS}

# Types that say nothing about the content. Core's message normaliser stamps application/pdf on
# every OpenAI `file` block, whatever it holds, so that type says nothing either.
_VAGUE_MIMES = {
    "application/octet-stream",
    "binary/octet-stream",
    "application/pdf",
    "application/zip",
    "text/plain",
}

_FORMATS_OF: dict[Modality, tuple[str, ...]] = {
    "image": ("jpeg", "png", "gif", "webp", "bmp", "tiff"),
    "depth": ("png", "tiff", "npy", "jpeg", "webp", "bmp"),
    "thermal": ("png", "tiff", "npy", "jpeg", "webp", "bmp"),
    "audio": ("wav", "flac", "ogg", "mp3", "aac", "mp4", "matroska"),
    "video": ("mp4", "matroska", "avi"),
    "imu": ("npy", "csv"),
    "point": ("ply", "obj", "off", "stl", "npy", "pt", "xyz"),
}


def formats_of(modality: Modality) -> str:
    """Name the formats that `modality` may come in, for errors."""
    return ", ".join(_FORMATS_OF[modality])


def recognise(data: bytes, modality: Modality | None, mime: str | None, name: str) -> Format:
    """Tell the format of `data` and check it against what the block declared.

    Args:
        data: The encoded medium.
        modality: What the block says that it is, if it says so.
        mime: The declared MIME type, if any.
        name: The medium's name; its ending helps with formats that have no signature.

    Raises:
        MediaError: The bytes are empty, of no accepted format, or not what was declared.
    """
    if not data:
        raise problem(name, "no bytes at all", "an encoded medium", "check the file or the upload")
    mime = _clean_mime(mime)
    format_ = FORMATS.get(_signature(data) or _textual(data, modality, mime, name))
    if format_ is None:
        expected, advice = "an image, a sound, a video or a 3D shape", "PNG, WAV, MP4 or PLY"
        if modality in _FORMATS_OF:
            expected, advice = formats_of(modality), "one of these formats"
        raise problem(name, _describe(data), expected, f"convert it to {advice}")
    if mime and mime not in _VAGUE_MIMES and not _agree(mime, format_):
        raise problem(
            name,
            f"{format_.mimes[0]} content under the MIME type {shown(mime)}",
            "a MIME type that fits the content",
            f"declare {format_.mimes[0]}, or leave mime_type out",
        )
    if modality in _FORMATS_OF and format_.name not in _FORMATS_OF[modality]:
        raise problem(
            name,
            f"{format_.mimes[0]} content in a medium declared as {modality}",
            f"one of {formats_of(modality)}",
            "correct the block's type or modality",
        )
    return format_


def _clean_mime(mime: str | None) -> str:
    return (mime or "").split(";")[0].strip().lower()


def _agree(mime: str, format_: Format) -> bool:
    if mime.endswith("/*"):
        return any(known.startswith(mime[:-1]) for known in format_.mimes)
    return mime in format_.mimes


def _signature(data: bytes) -> str:
    """Name the format whose magic bytes open `data`, or an empty string."""
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF":
        return {b"WAVE": "wav", b"WEBP": "webp", b"AVI ": "avi"}.get(data[8:12], "")
    if data[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"}:
        return "mp4" if data[8:12] not in {b"avif", b"avis", b"heic", b"mif1"} else ""
    if len(data) >= 4 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return _mpeg_audio(data)
    return ""


_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"\x93NUMPY", "npy"),
    (b"ply\n", "ply"),
    (b"ply\r", "ply"),
    (b"PK\x03\x04", "pt"),
)


def _mpeg_audio(data: bytes) -> str:
    version, layer = data[1] >> 3 & 3, data[1] >> 1 & 3
    if layer == 0:
        return "aac" if data[1] & 0xF0 == 0xF0 else ""
    bit_rate, sample_rate = data[2] >> 4, data[2] >> 2 & 3
    valid = version != 1 and bit_rate != 15 and sample_rate != 3
    return "mp3" if valid else ""


_NUMBER = rb"[+-]?(?:\d+\.?\d*|\.\d+|nan|inf)(?:[eE][+-]?\d+)?"
_NUMERIC_ROW = re.compile(rb"[ \t]*" + _NUMBER + rb"(?:[ \t]*[,;][ \t]*|[ \t]+)" + _NUMBER, re.I)
_VERTEX_ROW = re.compile(rb"^[ \t]*v[ \t]+" + _NUMBER, re.I | re.M)
_NAMED_ROWS = re.compile(
    rb"[A-Za-z][^\r\n,]*(?:,[^\r\n,]*){5,6}\r?\n" + _NUMBER + rb"[ \t]*,", re.I
)
_COMMA_ROW = re.compile(rb"^[^\r\n]*,[^\r\n]*,", re.M)


def _textual(data: bytes, modality: Modality | None, mime: str, name: str) -> str:
    """Name a format without magic bytes; the declared type and the file ending break ties."""
    head = data[:4096]
    hint = _hinted(mime, name)
    if hint == "stl" or (not hint and _is_binary_stl(data)):
        return "stl"
    if b"\0" in head:
        return ""
    return _text_format(head, data, hint, modality)


def _text_format(head: bytes, data: bytes, hint: str, modality: Modality | None) -> str:
    start = head.lstrip()
    if re.match(rb"(?:ST)?C?N?4?OFF\b", start):
        return "off"
    if start[:5].lower() == b"solid" and b"facet" in head:
        return "stl"
    if _VERTEX_ROW.search(head) or (hint == "obj" and _VERTEX_ROW.search(data)):
        return "obj"
    if modality == "imu" or (hint == "csv" and modality is None):
        return "csv" if _COMMA_ROW.search(head) or _NUMERIC_ROW.match(start) else ""
    if modality is None and _NAMED_ROWS.match(start.removeprefix(b"\xef\xbb\xbf")):
        return "csv"
    lines = re.sub(rb"(?m)^[ \t]*(?:#|//)[^\n]*\n?", b"", head).lstrip()
    return "xyz" if _NUMERIC_ROW.match(lines) else ""


def _hinted(mime: str, name: str) -> str:
    suffix = PurePath(name).suffix.lower()
    for format_ in _FORMATS:
        if mime in format_.mimes:
            return format_.name
    for format_ in _FORMATS:
        if suffix and suffix in format_.suffixes:
            return format_.name
    return ""


def _is_binary_stl(data: bytes) -> bool:
    """Binary STL has no magic; its triangle count must account for every byte."""
    if len(data) < 84:
        return False
    return len(data) == 84 + 50 * int.from_bytes(data[80:84], "little")


def _describe(data: bytes) -> str:
    for magic, what in _REFUSED:
        if data[: len(magic)].lower() == magic:
            return what
    if data[4:8] == b"ftyp":
        return "an AVIF or HEIC picture"
    return "content of no known format"


_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"%pdf", "a PDF document"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"#extm3u", "a playlist"),
    (b"ffconcat", "a playlist"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"\x1f\x8b", "a gzip archive"),
)
