"""Where the media of a data file may lie, and how their bytes are read when they are wanted.

Files are opened below one root only, links resolved; URLs only as the media policy says. All
reading goes through `media.sources`. The readers here are small and can be pickled, so that
worker processes can use them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePath

from ibllm_tools.data.rows import RowError
from ibllm_tools.errors import MediaError
from ibllm_tools.media import MediaPolicy, Modality
from ibllm_tools.media.blocks import Located
from ibllm_tools.media.formats import FORMATS
from ibllm_tools.media.problems import problem, shown
from ibllm_tools.media.sources import check_size, read

_BY_FAMILY: dict[str, Modality] = {
    "picture": "image",
    "audio": "audio",
    "video": "video",
    "shape": "point",
    "torch": "point",
}
# Sound in a container that is mostly known for video.
_SOUND_SUFFIXES = {".m4a", ".mka"}
_NAMED_MODALITIES: tuple[Modality, ...] = ("depth", "thermal", "imu", "point")


def modality_of_name(name: str) -> Modality | None:
    """Tell what a file is from its name; None where the name leaves it open.

    `room.depth.png` names its modality itself. An array (`.npy`) or table (`.csv`) may be
    several things.
    """
    path = PurePath(name)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    for modality in _NAMED_MODALITIES:
        if f".{modality}" in suffixes:
            return modality
    suffix = suffixes[-1] if suffixes else ""
    if suffix in _SOUND_SUFFIXES:
        return "audio"
    for format_ in FORMATS.values():
        if suffix in format_.suffixes and suffix != ".txt":
            return _BY_FAMILY.get(format_.family)
    return None


@dataclass(frozen=True)
class Place:
    """The folder and the policy under which the media of a data file are opened."""

    root: Path
    policy: MediaPolicy

    def locate(self, address: str) -> tuple[str, FileBytes | UrlBytes]:
        """Find a file below the root, or accept a URL; neither is read.

        Returns:
            The key of the medium, and its reader.

        Raises:
            RowError: It is missing, outside the root, or a URL that the policy cannot allow.
        """
        if "://" in address or address[:5].lower() == "data:":
            return self._url(address)
        path = _resolved(self.root, address)
        if not path.is_relative_to(self.root):
            raise RowError("file outside the media root", f"{shown(address)} is not below it")
        if not path.is_file():
            raise RowError("missing file", f"{shown(address)} is not below {self.root}")
        key = path.relative_to(self.root).as_posix()
        if not is_unicode(key):
            raise RowError("name is not valid Unicode", repr(key)[:60])
        return key, FileBytes(path, self.root, self.policy)

    def _url(self, url: str) -> tuple[str, UrlBytes]:
        if url[:5].lower() != "data:" and not self.policy.allowed_hosts:
            raise RowError("URL not allowed", f"{shown(url)}; no host is in the media policy")
        return shown(url) if url[:5].lower() == "data:" else url, UrlBytes(url, self.policy)


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: half a surrogate pair cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def open_place(root: Path, policy: MediaPolicy | None) -> Place:
    """Make a place; links in `root` itself are resolved once."""
    return Place(root.expanduser().resolve(), policy or MediaPolicy())


@dataclass(frozen=True)
class FileBytes:
    """Reads a file that must still lie below the root."""

    path: Path
    root: Path
    policy: MediaPolicy

    def __call__(self) -> bytes:
        """Return the file's bytes."""
        policy = self.policy.model_copy(update={"allowed_dirs": (self.root,)})
        return _read("path", str(self.path), policy, self.path.name)


@dataclass(frozen=True)
class UrlBytes:
    """Downloads from a host that the policy lists, or decodes a `data:` URL."""

    url: str
    policy: MediaPolicy

    def __call__(self) -> bytes:
        """Return the body."""
        policy = self.policy.model_copy(update={"allowed_dirs": ()})
        return _read("url", self.url, policy, self.url[:200].rsplit("/", 1)[-1])


@dataclass(frozen=True)
class HeldBytes:
    """Bytes that came with their row."""

    data: bytes
    policy: MediaPolicy

    def __call__(self) -> bytes:
        """Return them."""
        check_size(len(self.data), self.policy, "media")
        return self.data


@dataclass(frozen=True)
class SpanBytes:
    """Reads a span of a file, such as a member of a tar file that is not compressed."""

    path: Path
    start: int
    size: int
    policy: MediaPolicy

    def __call__(self) -> bytes:
        """Return exactly `size` bytes."""
        name = self.path.name
        check_size(self.size, self.policy, name)
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                data = file.read(self.size)
        except OSError as error:
            raise problem(name, "a file that fails to read", "a file", "check the disk") from error
        if len(data) != self.size:
            raise problem(name, "a file that ends early", "the file as listed", "fetch it anew")
        return data


Reader = FileBytes | UrlBytes | HeldBytes | SpanBytes


def _read(where: str, value: str, policy: MediaPolicy, name: str) -> bytes:
    return read(Located(where, value, None, None, 1.0, name), policy)[0]


def _resolved(root: Path, address: str) -> Path:
    try:
        return Path(os.path.realpath(root / address))
    except (OSError, ValueError) as error:
        raise RowError("missing file", f"{shown(address)} is not a path") from error


def sniffed(reader: Reader, name: str) -> Modality:
    """Tell what a medium without a telling name is, from its bytes.

    Raises:
        RowError: It cannot be read, or may be several things.
    """
    from ibllm_tools.media.detection import detect
    from ibllm_tools.media.formats import recognise

    try:
        data = reader()
        return detect(data, recognise(data, None, None, name), name)
    except MediaError as error:
        raise RowError("unclear medium", str(error)) from error
