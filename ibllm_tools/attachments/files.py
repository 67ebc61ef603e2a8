"""Files named by the SHA-256 of their content: the bytes behind attachments and checkpoints."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ibllm_tools.errors import MediaError

_SHA = re.compile(r"[0-9a-f]{64}")
_SECONDS_PER_HOUR = 3600.0


class AttachmentFiles:
    """A folder of files that are named by their content; the same content is stored once.

    Every file is written as a whole or not at all, and only its owner may read it. Several
    processes may share a folder.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        """Use `folder`, or the user's private cache folder; it is made at the first write."""
        self.folder = Path(folder).expanduser() if folder is not None else default_folder()

    def put(self, data: bytes) -> str:
        """Store `data` if it is not there yet.

        Returns:
            Its SHA-256 in hex, which is its name.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        with suppress(FileNotFoundError):
            if path.stat().st_size == len(data):
                os.utime(path)  # young again, so that `clean` spares it
                return sha256
        self._write(path, data)
        return sha256

    def get(self, sha256: str) -> bytes:
        """Read a file, and compare its content with its name.

        Raises:
            MediaError: It is not there, or it was changed.
        """
        path = self.path(sha256)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _lost(sha256, "no file", self.folder) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _lost(sha256, "a file that was changed", self.folder)
        return data

    def __contains__(self, sha256: str) -> bool:
        return _SHA.fullmatch(sha256) is not None and self.path(sha256).is_file()

    def path(self, sha256: str) -> Path:
        """Tell where content lies, whether or not it is there.

        Raises:
            MediaError: `sha256` is no SHA-256 in hex.
        """
        if not isinstance(sha256, str) or not _SHA.fullmatch(sha256):
            raise MediaError("found no SHA-256; expected 64 hex digits; attach the medium again")
        return self.folder / sha256[:2] / sha256

    def clean(self, used: Iterable[str], *, min_age_s: float = _SECONDS_PER_HOUR) -> list[str]:
        """Delete the files that nothing refers to; nothing else ever deletes one.

        Args:
            used: The SHA-256 of what must stay.
            min_age_s: Files written or attached in the last so many seconds stay: a run that is
                under way has not saved its state yet.

        Returns:
            The SHA-256 of the deleted files.
        """
        kept, newest = set(used), time.time() - min_age_s
        deleted = []
        for path in self.folder.glob("??/*"):
            if path.name in kept or not _SHA.fullmatch(path.name):
                continue
            with suppress(FileNotFoundError):
                if path.stat().st_mtime <= newest:
                    path.unlink()
                    deleted.append(path.name)
        return sorted(deleted)

    def _write(self, path: Path, data: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        handle, part = tempfile.mkstemp(prefix=".part-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise


def default_folder() -> Path:
    """The private folder of this user: below the cache folder of the operating system."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ibllm-tools" / "attachments"


def _lost(sha256: str, found: str, folder: Path) -> MediaError:
    return MediaError(
        f"attachment {sha256[:12]}…: found {found} in {folder}; expected the attached content; "
        "attach the medium again"
    )
