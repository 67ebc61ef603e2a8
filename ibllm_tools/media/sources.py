"""Where the bytes of a medium come from; the only place that opens a file.

base64 and `data:` always work. A path or URL in a message is followed only where the policy says.
"""

from __future__ import annotations

import binascii
import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from ibllm_tools.errors import MediaError
from ibllm_tools.media.blocks import Located
from ibllm_tools.media.fetching import fetch
from ibllm_tools.media.policy import MediaPolicy
from ibllm_tools.media.problems import problem, shown

_CHUNK = 2**20
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def read(located: Located, policy: MediaPolicy) -> tuple[bytes, str | None]:
    """Return the bytes that `located` names, and the MIME type if a data URL states one.

    Raises:
        MediaError: The policy does not allow it, or it is missing, too large or not base64.
    """
    value = located.value
    if isinstance(value, bytes):
        check_size(len(value), policy, located.name)
        return value, located.mime
    if located.where == "base64":
        return decode_base64(value, policy, located.name), located.mime
    if located.where == "file_id":
        raise problem(
            located.name,
            f"file_id {shown(value)} without a store of files",
            "the bytes themselves",
            "pass base64, or load with lookup=",
        )
    if located.where == "path":
        return _read_allowed(value, policy, located.name), located.mime
    return _read_url(value, policy, located)


def check_size(size: int, policy: MediaPolicy, name: str) -> None:
    """Raise `MediaError` if `size` bytes are more than the policy allows."""
    if size > policy.max_bytes:
        raise problem(
            name,
            f"{size:,} bytes or more",
            f"at most {policy.max_bytes:,}",
            "make it smaller, or raise MediaPolicy.max_bytes",
        )


def decode_base64(text: str, policy: MediaPolicy, name: str) -> bytes:
    """Decode strict base64; its length is checked before anything is decoded."""
    check_size(len(text) // 4 * 3 - text[-2:].count("="), policy, name)
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise problem(
            name,
            f"text that is not base64 ({shown(str(error))})",
            "standard base64 with padding and without line breaks",
            "encode the bytes with base64.b64encode",
        ) from error


def read_file(path: str | os.PathLike[str], policy: MediaPolicy, name: str) -> bytes:
    """Read a regular file within the size limit; the caller has the right to name it."""
    # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a valid path"
        raise problem(
            name, f"no readable file ({reason})", "a file", "check the path and its permissions"
        ) from error
    try:
        return _read_handle(handle, policy, name)
    except OSError as error:
        raise problem(name, "a file that fails to read", "a file", "check the disk") from error
    finally:
        os.close(handle)


def _read_handle(handle: int, policy: MediaPolicy, name: str) -> bytes:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
        raise problem(name, kind, "a regular file", "name the file itself")
    check_size(status.st_size, policy, name)
    chunks, total = [], 0
    while chunk := os.read(handle, _CHUNK):
        total += len(chunk)
        check_size(total, policy, name)
        chunks.append(chunk)
    if not total:
        raise problem(name, "an empty file", "an encoded medium", "check how it was written")
    return b"".join(chunks)


def _read_url(url: str, policy: MediaPolicy, located: Located) -> tuple[bytes, str | None]:
    scheme = url[: url.find(":")].lower() if _SCHEME.match(url) else ""
    name = located.name
    if scheme == "data":
        data, mime = _read_data_url(url, policy, name)
        return data, located.mime or mime
    if scheme in {"http", "https"}:
        return fetch(url, policy, name), located.mime
    if scheme == "file":
        return _read_allowed(_file_path(url, name), policy, name), located.mime
    if not scheme:
        return _read_allowed(url, policy, name), located.mime
    raise problem(
        name, f"a URL of scheme {shown(scheme)}", "data, http, https or file", "pass base64"
    )


def _read_data_url(url: str, policy: MediaPolicy, name: str) -> tuple[bytes, str | None]:
    head, comma, body = url[5:].partition(",")
    if not comma or len(head) > 1000:
        raise problem(name, "a data URL without a comma", "data:TYPE;base64,…", "write it so")
    parts = [part.strip() for part in head.split(";")]
    mime = parts[0].lower() or None
    if parts[-1].lower() == "base64":
        # A URL may escape the three base64 characters that have a meaning in URLs.
        text = unquote(body) if "%" in body[: 4 * policy.max_bytes] else body
        return decode_base64(text, policy, name), mime
    check_size(len(body) // 3, policy, name)
    data = unquote_to_bytes(body)
    check_size(len(data), policy, name)
    return data, mime


def _file_path(url: str, name: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise problem(name, "a broken file URL", "file:///folder/file", "write it so") from error
    if parts.netloc not in {"", "localhost"} or not parts.path:
        raise problem(
            name, "a file URL with a host", "file:///folder/file", "write it with three slashes"
        )
    return unquote(parts.path)


def _read_allowed(path: str, policy: MediaPolicy, name: str) -> bytes:
    """Read a file that a message names: only below an allowed folder, links resolved."""
    if not policy.allowed_dirs:
        raise _refused(path, "no folder is allowed", name)
    real = _resolved(path, policy, name)
    data = read_file(real, policy, name)
    # The path may have been swapped for a link while it was read; then nothing is returned.
    if _resolved(str(real), policy, name) != real:
        raise _refused(path, "it changed while it was read", name)
    return data


def _resolved(path: str, policy: MediaPolicy, name: str) -> Path:
    try:
        real = Path(path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise _refused(path, "it is missing or outside the allowed folders", name) from error
    folders = [Path(folder).expanduser().resolve() for folder in policy.allowed_dirs]
    if not any(real.is_relative_to(folder) for folder in folders):
        # The same words as for a missing file, so that a message cannot probe the disk.
        raise _refused(path, "it is missing or outside the allowed folders", name)
    return real


def _refused(path: str, why: str, name: str) -> MediaError:
    return problem(
        name,
        f"the path {shown(path)}, refused: {why}",
        "base64, or a file below MediaPolicy.allowed_dirs",
        "pass Media.from_path(...) from your own code, or allow the folder",
    )
