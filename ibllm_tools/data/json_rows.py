"""JSON files row by row: an array of objects, or one object a line; never the whole file at once.

A broken line costs one row. In an array nothing can be told apart after a broken row, so the
rest is reported as one fault.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ibllm_tools.data.rows import Fault, Row
from ibllm_tools.media.problems import shown

CHUNK_BYTES = 2**20
MAX_ROW_CHARS = 64 * 2**20
_BLANK = " \t\r\n"


def read_json(path: Path, name: str) -> Iterator[Row | Fault]:
    """Read a `.json` or `.jsonl` file; which of the two it is, its first character says."""
    with path.open("rb") as file:
        first = _first_byte(file)
        file.seek(0)
        yield from _array(file, name) if first == b"[" else _lines(file, name)


def _first_byte(file: IO[bytes]) -> bytes:
    head = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    return head[:1]


def _lines(file: IO[bytes], name: str) -> Iterator[Row | Fault]:
    number, overlong = 0, False
    while line := file.readline(MAX_ROW_CHARS):
        whole = line.endswith(b"\n") or len(line) < MAX_ROW_CHARS
        if overlong:  # the tail of a line that was given up
            overlong = not whole
            continue
        number += 1
        where = f"{name}:{number}"
        if not whole:
            overlong = True
            yield Fault(where, "row too long", f"more than {MAX_ROW_CHARS:,} bytes in one line")
        elif line.strip():
            yield _parsed_line(line, where)


def _parsed_line(line: bytes, where: str) -> Row | Fault:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Fault(where, "broken text", "bytes that are no UTF-8")
    except (ValueError, RecursionError) as error:
        return Fault(where, "broken JSON", shown(str(error)))
    return _row(value, where)


def _row(value: Any, where: str) -> Row | Fault:
    if isinstance(value, dict):
        return Row(where, value)
    return Fault(where, "row is no object", f"found {shown(value)}")


def _array(file: IO[bytes], name: str) -> Iterator[Row | Fault]:
    """Decode the objects of one array from a buffer that grows only as one row needs."""
    text = _Text(file)
    text.skip("[")
    index = 0
    while True:
        text.skip_blank()
        if text.peek() in {"]", ""}:
            break
        where = f"{name}:{index + 1}"
        value, problem = text.value()
        if problem:
            yield Fault(where, "broken JSON", f"{problem}; nothing after it can be read")
            return
        yield _row(value, where)
        index += 1
        text.skip_blank()
        if text.peek() == ",":
            text.skip(",")
        elif text.peek() not in {"]", ""}:
            yield Fault(where, "broken JSON", "no comma after this row; the rest cannot be read")
            return
    if text.peek() == "":
        why = text.failure or "the file ends before its closing bracket"
        yield Fault(f"{name}:{index + 1}", "file is cut off", why)


class _Text:
    """A window on a text file: the part from the next unread character."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._buffer = ""
        self._start = 0
        self._ended = False
        self.failure = ""

    def peek(self) -> str:
        while self._start >= len(self._buffer) and self._more(CHUNK_BYTES):
            pass
        return self._buffer[self._start : self._start + 1]

    def skip_blank(self) -> None:
        while (character := self.peek()) and character in _BLANK:
            self._start += 1

    def skip(self, character: str) -> None:
        self.skip_blank()
        assert self.peek() == character
        self._start += 1

    def value(self) -> tuple[Any, str]:
        """The next JSON value, or what is wrong with it."""
        wanted = CHUNK_BYTES
        while True:
            try:
                value, end = self._json.raw_decode(self._buffer, self._start)
            except RecursionError:
                return None, "nested too deeply"
            except ValueError as error:
                if len(self._buffer) - self._start > MAX_ROW_CHARS:
                    return None, f"one row of more than {MAX_ROW_CHARS:,} characters"
                if self._is_inside(error) or not self._more(wanted):
                    return None, self.failure or shown(str(error))
                wanted *= 2  # so that a long row is decoded only a few times
                continue
            if end == len(self._buffer) and self._more(CHUNK_BYTES):
                continue  # a number may go on in the next chunk
            self._start = end
            return value, ""

    def _is_inside(self, error: ValueError) -> bool:
        """Whether an error lies well before the end, so that more text cannot mend it."""
        if not isinstance(error, json.JSONDecodeError):
            return True
        open_string = error.msg.startswith("Unterminated string")
        return not open_string and error.pos < len(self._buffer) - 16

    def _more(self, wanted: int) -> bool:
        if self._ended:
            return False
        data = self._file.read(wanted)
        self._ended = not data
        try:
            text = self._decode.decode(data, final=not data)
        except UnicodeDecodeError:
            self._ended, self.failure, text = True, "bytes that are no UTF-8", ""
        self._buffer = self._buffer[self._start :] + text
        self._start = 0
        return bool(text) or not self._ended
