"""Shared fixtures: the folder of reference numbers, and one thread setting for all tests."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SUITE = "LangChain's suite"  # a property of reports, so that it comes back from xdist's workers


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Keep quick cases that LangChain's suites mark as benchmarks: they belong to the suites."""
    for item in items:
        if suite := standard_suite(item):
            item.user_properties.append((SUITE, suite))
        if item.function.__module__.startswith("langchain_tests."):
            item.own_markers = [mark for mark in item.own_markers if mark.name != "benchmark"]


class Golden:
    """Reads the reference numbers; a case whose file, tensor or entry is absent is skipped."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        path = self.root / name
        if not path.exists():
            pytest.skip(f"the golden folder {self.root} has no {name}")
        return path

    def json(self, name: str):
        """The content of a JSON file; its objects skip on a missing entry."""
        text = self.path(name).read_text(encoding="utf-8")
        return json.loads(text, object_hook=lambda entries: _Stored(entries, name))

    def tensors(self, name: str):
        """All tensors of a safetensors file, as a mapping that skips on a missing name."""
        from safetensors.torch import load_file

        return _Stored(load_file(self.path(name)), name)


class _Stored(dict):
    def __init__(self, entries, file: str) -> None:
        super().__init__(entries)
        self.file = file

    def __missing__(self, key: str):
        pytest.skip(f"{self.file} has no {key}")


def golden_root() -> Path:
    """Where the reference numbers lie; also for use while parametrising."""
    return Path(os.environ.get("IBLLM_GOLDEN") or Path(__file__).parent / "golden").resolve()


def stored_names(file: str, *usual: str) -> list[str]:
    """The usual names and all others in a safetensors or JSON file, for parametrising.

    Usual names that the folder lacks stay in the list, so that their cases are seen as skipped.
    """
    path = golden_root() / file
    names: list[str] = []
    if path.suffix == ".json" and path.exists():
        names = list(json.loads(path.read_text(encoding="utf-8")))
    elif path.exists():
        from safetensors import safe_open

        with safe_open(path, "pt") as tensors:
            names = sorted(tensors.keys())
    return list(dict.fromkeys([*usual, *names]))


def stored_entry(file: str, *keys: str):
    """One entry of a JSON file, for parametrising; None where the folder lacks it."""
    path = golden_root() / file
    entry = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    for key in keys:
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry


@pytest.fixture(scope="session")
def golden() -> Golden:
    return Golden(golden_root())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show LangChain's standard suites by name with their counts."""
    counts: dict[str, Counter[str]] = {}
    for outcome in ("passed", "skipped", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            name = dict(report.user_properties).get(SUITE)
            if name and (report.when == "call" or outcome != "passed"):
                counts.setdefault(name, Counter())[outcome] += 1
    if counts:
        terminalreporter.section("LangChain's standard suites")
    for name, found in sorted(counts.items()):
        said = ", ".join(f"{n} {outcome}" for outcome, n in found.items())
        terminalreporter.write_line(f"{name}: {said}")


def standard_suite(item: pytest.Item) -> str | None:
    """The suite of `langchain_tests` that an item belongs to."""
    for base in getattr(getattr(item, "cls", None), "__mro__", ()):
        if base.__module__.startswith("langchain_tests") and base.__name__.endswith("Tests"):
            return base.__name__
    return None
