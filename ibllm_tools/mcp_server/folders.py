"""The folders that a client may read; every path that it writes is checked here.

Links are resolved before the check, and the bytes are read through the media policy, which
resolves and checks again. A refusal reads the same whether or not there is such a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ibllm_tools.errors import MediaError
from ibllm_tools.media import Media, MediaPolicy, Modality
from ibllm_tools.media.blocks import Located
from ibllm_tools.media.problems import shown
from ibllm_tools.media.sources import read

_SHOWN = 5


class FolderError(MediaError):
    """A client named a file or folder that it may not read, or an address."""


@dataclass(frozen=True)
class Folders:
    """Folders (or single files, where a root is one) with links resolved."""

    allowed: tuple[Path, ...] = ()

    @classmethod
    def of(cls, paths: Iterable[str | Path]) -> Folders:
        """Resolve folders; one that is missing is left out."""
        found = []
        for path in paths:
            try:
                found.append(Path(path).expanduser().resolve(strict=True))
            except (OSError, RuntimeError, ValueError):
                continue
        return cls(tuple(dict.fromkeys(found)))

    def __add__(self, other: Folders) -> Folders:
        return Folders(tuple(dict.fromkeys((*self.allowed, *other.allowed))))

    def place(self, named: str) -> Path:
        """Return the file or folder that a client names, links resolved.

        Args:
            named: An absolute path, a path relative to an allowed folder, or a `file:` URL.

        Raises:
            FolderError: It is missing, or not below an allowed folder; or it is an address.
        """
        for candidate in self._candidates(_as_path(named)):
            try:
                real = candidate.resolve(strict=True)
            except (OSError, RuntimeError, ValueError):
                continue
            if self.holds(real):
                return real
        raise FolderError(
            f"{shown(named)}: found no such file or folder that may be read; expected "
            f"{self._expected()}"
        )

    def folder(self, named: str | None) -> Path:
        """Return the folder that a client names; by default the first that is allowed.

        Raises:
            FolderError: As `place`; or it is a file.
        """
        folders = [path for path in self.allowed if path.is_dir()]
        if named is None and folders:
            return folders[0]
        found = self.place(named or ".")
        if not found.is_dir():
            raise FolderError(f"{shown(named)}: found a file; expected a folder with media in it")
        return found

    def holds(self, real: Path) -> bool:
        """Tell whether a path without links lies below an allowed folder."""
        return any(real.is_relative_to(folder) for folder in self.allowed)

    def medium(
        self, named: str, modality: Modality | None, weight: float, limits: MediaPolicy
    ) -> Media:
        """Read a media file that a client names.

        Raises:
            FolderError: It may not be read.
            MediaError: It is no medium, or larger than the limits allow.
        """
        real = self.place(named)
        policy = limits.model_copy(update={"allowed_dirs": self.allowed, "allowed_hosts": ()})
        data, _ = read(Located("path", str(real), modality, None, weight, real.name), policy)
        return Media.from_bytes(data, modality=modality, weight=weight, name=real.name)

    def name_of(self, real: Path) -> str:
        """How a client may name a file: relative to a folder, where that means no other file."""
        for folder in self.allowed:
            if real.is_relative_to(folder) and real != folder:
                name = real.relative_to(folder)
                first = next(place for place in self._candidates(name) if place.exists())
                return name.as_posix() if first.resolve() == real else str(real)
        return str(real)

    def _candidates(self, path: Path) -> list[Path]:
        return [path] if path.is_absolute() else [folder / path for folder in self.allowed]

    def _expected(self) -> str:
        if not self.allowed:
            return (
                "the bytes themselves as base64 in `data`, because no folder is allowed; the "
                "person who runs the server can allow one with --allow-dir FOLDER"
            )
        names = ", ".join(str(folder) for folder in self.allowed[:_SHOWN])
        return (
            f"a path below {names}; see list_media for what is there, pass the bytes as base64 "
            "in `data`, or ask the user to allow the folder"
        )


def folders_of_roots(uris: Iterable[str]) -> Folders:
    """The folders that a client's roots name; roots of other schemes count for nothing."""
    paths = []
    for uri in uris:
        try:
            paths.append(_as_path(uri))
        except FolderError:
            continue
    return Folders.of(path for path in paths if path.is_absolute())


def _as_path(named: str) -> Path:
    """The path of a name or `file:` URL.

    Raises:
        FolderError: It is a URL of another scheme or of another host.
    """
    scheme, colon, _ = named.partition(":")
    if scheme.lower() == "file" and colon:
        try:
            parts = urlsplit(named)
        except ValueError:
            parts = urlsplit("file://unreadable/")
        if parts.netloc in {"", "localhost"}:
            return Path(url2pathname(parts.path))
    elif "://" not in named:
        return Path(named)
    raise FolderError(
        f"{shown(named)}: found an address; expected a path, or base64 in `data`, because this "
        "server opens no addresses; fetch it yourself and pass its bytes"
    )
