"""The blocks in the docstrings of embeddings, store and retriever run, one after another."""

import inspect
import re
import shutil
from pathlib import Path

import pytest

import ibllm_tools
from ibllm_tools import ImageBindEmbeddings, ImageBindRetriever, ImageBindVectorStore

MEDIA = Path(ibllm_tools.__file__).parent / "demo_media"


def blocks(cls):
    return re.findall(r"```python\n(.*?)```", inspect.cleandoc(cls.__doc__), re.DOTALL)


@pytest.mark.parametrize("cls", [ImageBindEmbeddings, ImageBindVectorStore, ImageBindRetriever])
def test_a_docstring_runs_from_top_to_bottom(cls, tmp_path, monkeypatch):
    shutil.copytree(MEDIA, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert len(blocks(cls)) >= 2
    names = {}
    for block in blocks(cls):
        exec(inspect.cleandoc(block), names)


def test_what_the_store_docstring_promises(tmp_path, monkeypatch):
    """A filter by modality holds, and a sound finds its like."""
    shutil.copytree(MEDIA, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    store = ImageBindVectorStore()
    store.add_media(["dog.jpg", "boat.jpg", "sea.ogg"], ids=["dog", "boat", "sea"])
    assert [d.id for d in store.similarity_search("sea", filter={"modality": "audio"})] == ["sea"]
    found = store.similarity_search(Path("dog.ogg"), k=1, filter={"modality": "image"})
    assert [d.id for d in found] == ["dog"]
