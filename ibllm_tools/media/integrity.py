"""Checks that FFmpeg leaves out: a file that ends before its own headers say so is cut off."""

from __future__ import annotations

import zlib

from ibllm_tools.errors import MediaError
from ibllm_tools.media.problems import problem

_UNPACK_BYTES = 2**20
_STEP = "it is cut off: export or upload it again"


def check_complete(data: bytes, container: str, name: str) -> None:
    """Raise `MediaError` if `data` ends before its own headers say so.

    Args:
        data: The file.
        container: The demuxer's name. FLAC is left to its decoder, which compares the length, and
            AAC states none.
        name: The medium's name.
    """
    checks = {
        "wav": _check_riff,
        "avi": _check_riff,
        "ogg": _check_ogg,
        "mp3": _check_mp3,
        "mov": _check_boxes,
        "matroska": _check_segment,
    }
    if container in checks:
        checks[container](data, name)


def check_picture(data: bytes, name: str) -> None:
    """Raise `MediaError` if a PNG or JPEG picture claims more pixels than its bytes can hold.

    Pillow leaves the pixels that are missing black or grey.
    """
    if data[:4] == b"\x89PNG":
        _check_png(data, name)
    elif data[:2] == b"\xff\xd8":
        _check_jpeg(data, name)


_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Interlaced passes: first column, first row, column step, row step (PNG specification, 8.2).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
_LAST_PASS = (0, 1, 1, 2)


def _check_png(data: bytes, name: str) -> None:
    """Count the bytes that the pixel data unpack to, without keeping them."""
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    bits = data[24] * _PNG_CHANNELS.get(data[25], 4)
    passes = (*_PASSES, _LAST_PASS) if data[28] else ((0, 0, 1, 1),)
    needed = 0
    for column, row, column_step, row_step in passes:
        columns = max(0, -(-(width - column) // column_step))
        rows = max(0, -(-(height - row) // row_step))
        needed += rows * (1 + (columns * bits + 7) // 8) if columns else 0
    held = _unpacked_png(data, needed)
    if held < needed:
        raise _cut_off(name, f"a header that claims {needed:,} bytes of pixels and {held:,} held")


def _unpacked_png(data: bytes, needed: int) -> int:
    unpack = zlib.decompressobj()
    held, offset = 0, 8
    while offset + 8 <= len(data) and held < needed:
        size = int.from_bytes(data[offset : offset + 4], "big")
        if data[offset + 4 : offset + 8] == b"IDAT":
            packed = data[offset + 8 : offset + 8 + size]
            while packed and held < needed:
                held += len(unpack.decompress(packed, _UNPACK_BYTES))
                packed = unpack.unconsumed_tail
        offset += 12 + size
    return held + len(unpack.flush(1) if held < needed else b"")


def _check_jpeg(data: bytes, name: str) -> None:
    """Each block of 8 x 8 pixels takes at least two bits, or one if progressive."""
    offset = 2
    while offset + 10 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker in {0xC0, 0xC1, 0xC2}:
            height = int.from_bytes(data[offset + 5 : offset + 7], "big")
            width = int.from_bytes(data[offset + 7 : offset + 9], "big")
            blocks = -(-height // 8) * -(-width // 8)
            if blocks * (1 if marker == 0xC2 else 2) > 8 * len(data):
                raise _cut_off(name, f"a header that claims {width} x {height} pixels")
            return
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")


def _cut_off(name: str, found: str) -> MediaError:
    return problem(name, found, "a complete file", _STEP)


def _check_riff(data: bytes, name: str) -> None:
    end = len(data)
    # An odd last chunk may lack its padding byte.
    if end < 12 or 8 + int.from_bytes(data[4:8], "little") > end + 1:
        raise _cut_off(name, "a header that claims more bytes than there are")
    offset = 12
    while offset + 8 <= end:
        size = int.from_bytes(data[offset + 4 : offset + 8], "little")
        left = end - offset - 8
        if size > left:
            raise _cut_off(name, f"a chunk that claims {size:,} bytes where {left:,} follow")
        offset += 8 + size + (size & 1)


def _check_ogg(data: bytes, name: str) -> None:
    """Walk the pages: each must be whole, and the last must end its stream."""
    offset, flags = 0, 0
    while offset < len(data):
        table = data[offset + 26] if offset + 26 < len(data) else 0
        start = offset + 27 + table
        if data[offset : offset + 4] != b"OggS" or start > len(data):
            raise _cut_off(name, "a broken page")
        flags = data[offset + 5]
        offset = start + sum(data[offset + 27 : start])
    if offset > len(data):
        raise _cut_off(name, "a last page that claims more bytes than there are")
    if not flags & 4:
        raise _cut_off(name, "a stream without its last page")


def _check_boxes(data: bytes, name: str) -> None:
    """Walk the outer boxes of an MP4 or QuickTime file; each must be whole."""
    offset = 0
    while offset < len(data):
        size = int.from_bytes(data[offset : offset + 4], "big")
        if size == 1:
            size = int.from_bytes(data[offset + 8 : offset + 16], "big")
        elif size == 0:
            return
        if size < 8 or offset + size > len(data):
            raise _cut_off(name, "a box that claims more bytes than there are")
        offset += size


def stated_s(data: bytes, container: str) -> float:
    """The length in seconds that the head of an MP4 or QuickTime file states, which FFmpeg skips.

    Returns:
        Seconds, or 0 for another container or where nothing is stated.
    """
    place = _box(data, b"moov", 0, len(data)) if container == "mov" else None
    place = _box(data, b"mvhd", *place) if place else None
    if place is None:
        return 0.0
    body = data[place[0] : place[1]]
    long = body[:1] == b"\1"
    rate = int.from_bytes(body[20:24] if long else body[12:16], "big")
    length = int.from_bytes(body[24:32] if long else body[16:20], "big")
    unknown = length == (2**64 if long else 2**32) - 1
    return 0.0 if unknown or not rate else length / rate


def _box(data: bytes, kind: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Where the content of the first box of `kind` between two offsets lies."""
    while start + 8 <= end:
        size = int.from_bytes(data[start : start + 4], "big")
        head = 16 if size == 1 else 8
        if size == 1:
            size = int.from_bytes(data[start + 8 : start + 16], "big")
        if data[start + 4 : start + 8] == kind:
            return start + head, min(end, start + size) if size else end
        if size < head:
            return None
        start += size
    return None


def _check_segment(data: bytes, name: str) -> None:
    """The segment of a Matroska or WebM file, where it states its size, must be whole."""
    header_size, start = _ebml_number(data, 4)
    start += header_size
    if data[start : start + 4] != b"\x18\x53\x80\x67":
        raise _cut_off(name, "a Matroska header without a segment")
    size, begin = _ebml_number(data, start + 4)
    # All ones mean a live recording of unknown size.
    unknown = size + 1 == 1 << 7 * (begin - start - 4)
    if not unknown and begin + size > len(data):
        raise _cut_off(name, "a segment that claims more bytes than there are")


def _ebml_number(data: bytes, offset: int) -> tuple[int, int]:
    """Read a number of variable length; return it and the offset behind it."""
    first = data[offset] if offset < len(data) else 0
    length = 9 - first.bit_length()
    value = int.from_bytes(data[offset : offset + length], "big")
    return value & ((1 << 7 * length) - 1), offset + length


_RATES_KBPS = {
    # (MPEG version 1?, layer): bit rates by index, from ISO 11172-3 and 13818-3.
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def _check_mp3(data: bytes, name: str) -> None:
    """Walk the frames; the last one must be whole. Tags may follow it."""
    offset = first = _after_id3(data, name)
    n_frames = 0
    while length := _mp3_frame_length(data[offset : offset + 4]):
        offset += length
        n_frames += 1
    claimed = _mp3_claim(data[first : first + 200])
    if claimed >= n_frames:
        raise _cut_off(name, f"{n_frames:,} frames under a header that claims {claimed:,} more")
    if offset > len(data):
        raise _cut_off(name, f"a last frame that lacks {offset - len(data):,} bytes")
    if 0 < len(data) - offset < 4:
        raise _cut_off(name, "a last frame that lacks most of its bytes")


def _mp3_claim(head: bytes) -> int:
    """How many frames follow the first one, if that is a Xing or Info header; otherwise -1."""
    place = max(head.find(b"Xing"), head.find(b"Info"))
    if place < 0 or not head[place + 7 : place + 8] or not head[place + 7] & 1:
        return -1
    return int.from_bytes(head[place + 8 : place + 12], "big")


def _after_id3(data: bytes, name: str) -> int:
    if data[:3] != b"ID3":
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 0x7F
    offset = 10 + size + (10 if data[5:6] and data[5] & 0x10 else 0)
    if offset >= len(data):
        raise _cut_off(name, "a tag that claims more bytes than there are")
    return offset


def _mp3_frame_length(head: bytes) -> int:
    """Bytes of the frame that opens with `head`, or 0 if none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bit_rate, sample_rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bit_rate in {0, 15} or sample_rate == 3:
        return 0
    bits = _RATES_KBPS[version == 3, layer][bit_rate] * 1000
    rate_hz = _SAMPLE_RATES_HZ[version][sample_rate]
    if layer == 1:
        return (12 * bits // rate_hz + padding) * 4
    samples = 144 if layer == 2 or version == 3 else 72
    return samples * bits // rate_hz + padding
