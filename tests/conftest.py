"""Shared fixtures: the folder of reference numbers, and one thread setting for all tests."""

import json
import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Golden:
    """Reads the reference numbers; a case whose file or tensor is absent is skipped."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        path = self.root / name
        if not path.exists():
            pytest.skip(f"the golden folder {self.root} has no {name}")
        return path

    def json(self, name: str):
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def tensors(self, name: str):
        """All tensors of a safetensors file, as a mapping that skips on a missing name."""
        from safetensors.torch import load_file

        return _Tensors(load_file(self.path(name)), name)


class _Tensors(dict):
    def __init__(self, tensors, file: str) -> None:
        super().__init__(tensors)
        self.file = file

    def __missing__(self, key: str):
        pytest.skip(f"{self.file} has no tensor {key}")


def golden_root() -> Path:
    """Where the reference numbers lie; also for use while parametrising."""
    return Path(os.environ.get("IBLLM_GOLDEN", Path(__file__).parent / "golden"))


@pytest.fixture(scope="session")
def golden() -> Golden:
    return Golden(golden_root())
