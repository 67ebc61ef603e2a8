"""Tar shards of the webdataset form: members of one name and several endings are one row.

```
000000000.jpg  000000000.txt  000000000.json      img2dataset
000000001.depth.png  000000001.txt                the modality before the ending
```
Nothing is extracted: a member's name is only a key, so `..`, absolute names, links and devices
can do nothing. Members are read by offset when they are wanted; those of a compressed shard are
held in memory. Headers come from `tarfile`, block by block, because its own iteration ends
silently where a shard is cut off.
"""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from ibllm_tools.data.columns import Found, is_media_column
from ibllm_tools.data.placing import HeldBytes, Reader, SpanBytes, modality_of_name
from ibllm_tools.data.rows import Fault, Row
from ibllm_tools.media import MediaPolicy
from ibllm_tools.media.problems import shown

_BLOCK = tarfile.BLOCKSIZE
_TEXT_ENDINGS = {"txt", "caption", "text"}
MAX_TEXT_BYTES = 2**20
MAX_JSON_BYTES = 16 * 2**20
_MAX_NAME_BYTES = 2**16
_LONG_NAME, _PAX = (tarfile.GNUTYPE_LONGNAME,), (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_GLOBAL = (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK)


class _CutOffError(Exception):
    """The shard ends, or cannot be read, at this point."""


@dataclass(frozen=True)
class _Member:
    name: str
    type: bytes
    start: int
    size: int


@dataclass
class _Group:
    """The members of one row so far."""

    key: str
    texts: dict[str, str] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    media: list[Found] = field(default_factory=list)
    fault: tuple[str, str] | None = None


def read_tar(path: Path, name: str, policy: MediaPolicy) -> Iterator[Row | Fault]:
    """Read a shard, plain or gzipped, in one pass.

    Args:
        path: The file.
        name: What keys and reports call it.
        policy: How large a member may be.
    """
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if packed else raw
        shard = _Shard(path, name, policy, file, None if packed else os.fstat(raw.fileno()).st_size)
        yield from shard.rows()


class _Shard:
    def __init__(
        self, path: Path, name: str, policy: MediaPolicy, file: IO[bytes], size: int | None
    ) -> None:
        self._path, self._name, self._policy = path, name, policy
        self._file, self._size = file, size
        self._next = 0  # offset of the next header
        self._group: _Group | None = None

    def rows(self) -> Iterator[Row | Fault]:
        """One row for each run of members with the same key."""
        cut = ""
        try:
            while (member := self._header()) is not None:
                yield from self._sorted_in(member)
        except _CutOffError as error:
            cut = str(error)
        except (OSError, EOFError, zlib.error) as error:
            cut = f"{type(error).__name__}: {error}"
        if self._group is not None:
            yield self._ended(self._group)
        if cut:
            where = f"{self._name}@{self._next}"
            yield Fault(where, "tar is cut off or damaged", f"{cut}; the rest cannot be read")

    def _sorted_in(self, member: _Member) -> Iterator[Row | Fault]:
        """Add a member to the row that it belongs to; give the row before it."""
        where = f"{self._name}/{shown(member.name)}"
        if member.type in {tarfile.DIRTYPE, *_GLOBAL}:
            return
        if member.type not in tarfile.REGULAR_TYPES or member.type == tarfile.GNUTYPE_SPARSE:
            yield Fault(where, "tar member is no plain file", f"type {shown(repr(member.type))}")
            return
        pure = PurePosixPath(member.name)
        if pure.is_absolute() or ".." in pure.parts or "\0" in member.name or not pure.name:
            yield Fault(where, "tar member has an unsafe name", "absolute, or with ..")
            return
        key, _, ending = pure.name.partition(".")
        key = (pure.parent / key).as_posix()
        if self._group is not None and self._group.key != key:
            yield self._ended(self._group)
            self._group = None
        self._group = self._group or _Group(key)
        try:
            self._read_into(self._group, member, ending.lower())
        except BaseException:
            self._group = None  # it is not whole
            raise

    def _read_into(self, group: _Group, member: _Member, ending: str) -> None:
        if ending in _TEXT_ENDINGS:
            self._read_text(group, member)
        elif ending == "json":
            self._read_json(group, member)
        elif modality_of_name(f"x.{ending}") or ending.endswith("npy"):
            if member.size > self._policy.max_bytes:
                group.fault = ("tar member is too large", f"{member.name}: {member.size:,} bytes")
            else:
                group.media.append(Found(f"{self._name}/{member.name}", self._reader(member)))

    def _read_text(self, group: _Group, member: _Member) -> None:
        if member.size > MAX_TEXT_BYTES:
            group.fault = ("tar member is too large", f"{member.name}: {member.size:,} bytes")
            return
        try:
            group.texts["caption"] = self._bytes(member).decode("utf-8-sig")
        except UnicodeDecodeError:
            group.fault = ("broken text", f"{member.name} is no UTF-8")

    def _read_json(self, group: _Group, member: _Member) -> None:
        if member.size > MAX_JSON_BYTES:
            group.fault = ("tar member is too large", f"{member.name}: {member.size:,} bytes")
            return
        try:
            value = json.loads(self._bytes(member))
        except (ValueError, RecursionError) as error:
            group.fault = ("broken JSON", f"{member.name}: {shown(str(error))}")
            return
        if isinstance(value, dict):
            # Media come from the shard alone; what the JSON says of paths is of another machine.
            columns = {k: v for k, v in value.items() if not is_media_column(str(k))}
            group.columns.update(columns)

    def _ended(self, group: _Group) -> Row | Fault:
        where = f"{self._name}/{group.key}"
        if group.fault is not None:
            return Fault(where, *group.fault)
        media = {"media": group.media} if group.media else {}
        return Row(where, {"id": where, **group.columns, **group.texts, **media})

    # bytes

    def _reader(self, member: _Member) -> Reader:
        if self._size is not None:
            return SpanBytes(self._path, member.start, member.size, self._policy)
        return HeldBytes(self._bytes(member), self._policy)

    def _bytes(self, member: _Member) -> bytes:
        self._file.seek(member.start)
        data = self._file.read(member.size)
        if len(data) != member.size:
            raise _CutOffError(f"{shown(member.name)} ends early")
        return data

    def _header(self) -> _Member | None:
        """The next member, long names resolved; None at the end mark."""
        name: str | None = None
        size: int | None = None
        while True:
            info, start = self._raw_header()
            if info is None:
                return None
            length = info.size if size is None else size
            self._check_room(start, length)
            self._next = start + -(-length // _BLOCK) * _BLOCK
            special = _Member(info.name, info.type, start, length)
            if info.type in _LONG_NAME:
                name = self._small(special).rstrip(b"\0").decode("utf-8", "replace")
            elif info.type in _PAX:
                records = _pax_records(self._small(special))
                name, size = records.get("path", name), _size_of(records, size)
            elif info.type not in _GLOBAL:
                return _Member(name or info.name, info.type, start, length)

    def _raw_header(self) -> tuple[tarfile.TarInfo | None, int]:
        self._file.seek(self._next)
        block = self._file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise _CutOffError("the end mark is missing")
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            return None, 0
        except tarfile.HeaderError as error:
            raise _CutOffError(f"no tar header ({error})") from error
        has_data = info.type not in {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE}
        info.size = info.size if has_data else 0
        return info, self._next + _BLOCK

    def _check_room(self, start: int, size: int) -> None:
        if size < 0 or (self._size is not None and start + size > self._size):
            raise _CutOffError(f"a member of {size:,} bytes does not fit into the file")

    def _small(self, member: _Member) -> bytes:
        if member.size > _MAX_NAME_BYTES:
            raise _CutOffError(f"a header of {member.size:,} bytes")
        return self._bytes(member)


def _pax_records(data: bytes) -> dict[str, str]:
    """The `length key=value` lines of an extended header; what does not parse is left out."""
    records: dict[str, str] = {}
    while data:
        digits, _, _ = data.partition(b" ")
        if not digits.isdigit() or not 0 < int(digits) <= len(data) or len(digits) > 6:
            break
        line, data = data[len(digits) + 1 : int(digits)], data[int(digits) :]
        key, _, value = line.rstrip(b"\n").partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return records


def _size_of(records: dict[str, str], size: int | None) -> int | None:
    text = records.get("size", "")
    return int(text) if text.isdecimal() and len(text) < 19 else size
