"""From what a person wrote to files: names, globs, brace ranges and folders, in a fixed order."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from ibllm_tools.data.arrow import is_saved_dataset
from ibllm_tools.errors import DataError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
MAX_FILES = 1_000_000
_BY_SUFFIX = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".tar": "webdataset",
    ".tgz": "webdataset",
    ".parquet": "parquet",
}
READERS = ("json", "csv", "tsv", "webdataset", "parquet", "folder", "datasets")


def expand(spec: str) -> list[Path]:
    """The files that `spec` names: `a.json`, `*.parquet`, `{00000..00009}.tar`, `{a,b}.csv`.

    A file of the very name comes first. Files of a brace range need not exist; the reader
    reports those that are missing.

    Raises:
        DataError: Nothing of this name exists.
    """
    whole = Path(spec).expanduser()
    if whole.exists():
        return [whole]
    names = _braces(str(whole))
    paths: list[Path] = []
    for name in names:
        if glob.has_magic(name):
            # Path.glob takes no absolute pattern.
            paths += map(Path, sorted(glob.glob(name, recursive=True)))  # noqa: PTH207
        else:
            paths.append(Path(name))
    if not any(path.exists() for path in paths):
        raise DataError(f"{spec}: found no file or folder of this name; check the path")
    return paths


def _braces(spec: str) -> list[str]:
    """Every text that the braces of `spec` stand for."""
    open_: list[str] = [spec]
    done: list[str] = []
    while open_:
        text = open_.pop(0)
        match = _RANGE.search(text) or _CHOICE.search(text)
        if match is None:
            done.append(text)
            continue
        head, tail = text[: match.start()], text[match.end() :]
        open_ += [f"{head}{part}{tail}" for part in _parts(match)]
        if len(open_) + len(done) > MAX_FILES:
            raise DataError(f"{spec[:100]}: found more than {MAX_FILES:,} names; use a glob")
    return done


def _parts(match: re.Match[str]) -> list[str]:
    if match.re is _CHOICE:
        return match[1].split(",")
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < MAX_FILES:
        raise DataError(f"found {match[0]}, expected {{from..to}} of at most {MAX_FILES:,} names")
    return [str(number).zfill(len(match[1])) for number in range(first, last + 1)]


def reader_of(path: Path) -> tuple[str, list[Path]]:
    """Tell which reader a file or folder needs, and which files that reader takes.

    Raises:
        DataError: The ending is not known.
    """
    if path.is_dir():
        return _of_folder(path)
    suffix = ".tgz" if path.name.lower().endswith(".tar.gz") else path.suffix.lower()
    if suffix not in _BY_SUFFIX:
        raise DataError(
            f"{path}: found ending {suffix or 'none'!r}, expected one of "
            f"{', '.join(_BY_SUFFIX)} or a folder; pass format= (--format), one of "
            f"{', '.join(READERS)}"
        )
    return _BY_SUFFIX[suffix], [path]


def _of_folder(path: Path) -> tuple[str, list[Path]]:
    if is_saved_dataset(path):
        return "datasets", [path]
    for pattern, reader in (("*.tar", "webdataset"), ("*.tar.gz", "webdataset")):
        if next(path.glob(pattern), None):
            return reader, sorted(path.glob(pattern))
    for name in ("metadata.csv", "metadata.jsonl", "metadata.parquet"):
        if (path / name).is_file():
            return _BY_SUFFIX[Path(name).suffix], [path / name]
    if next(path.glob("*.parquet"), None):
        return "parquet", sorted(path.glob("*.parquet"))
    return "folder", [path]
