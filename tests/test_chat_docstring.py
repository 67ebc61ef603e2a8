"""Every block of the class's docstring runs as it stands, one after the other, beside the media."""

import ast
import inspect
import re
import shutil
import textwrap
from pathlib import Path

import pytest

import ibllm_tools
from ibllm_tools import ChatImageBindLLM

MEDIA = Path(ibllm_tools.__file__).parent / "demo_media"
DOC = inspect.cleandoc(ChatImageBindLLM.__doc__)
BLOCKS = [
    textwrap.dedent(code)
    for code in re.findall(r"^ *```python\n(.*?)^ *```$", DOC, re.DOTALL | re.MULTILINE)
]
SECTIONS = [
    "Setup",
    "Key init args — completion params",
    "Key init args — client params",
    "Instantiate",
    "Invoke",
    "Stream",
    "Async",
    "Tool calling",
    "Structured output",
    "JSON mode",
    "Image input",
    "Audio input",
    "Video input",
    "Token usage",
    "Logprobs",
    "Response metadata",
]


def test_sections_come_in_langchains_order():
    found = re.findall(r"^(\S.*):$", DOC, re.MULTILINE)
    assert [section for section in found if section in SECTIONS] == SECTIONS


def test_every_fence_is_a_block_that_runs():
    assert DOC.count("```") == 2 * len(BLOCKS)
    assert len(BLOCKS) >= 14


@pytest.fixture
def beside_media(tmp_path, monkeypatch):
    shutil.copytree(MEDIA, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


async def run(code, names):
    """Run a block, with `await` at its top level; return the value of its last line."""
    tree = ast.parse(code)
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        tree.body[-1] = ast.Assign([ast.Name("_", ast.Store())], last.value)
        ast.fix_missing_locations(tree)
    names.pop("_", None)
    ran = eval(  # the blocks are our own
        compile(tree, "<docstring>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names
    )
    if inspect.isawaitable(ran):
        await ran
    return names.get("_")


async def test_the_blocks_run_one_after_the_other(beside_media, capsys):
    names = {"__name__": "docstring"}
    for code in BLOCKS:
        value = await run(code, names)
        if isinstance(ast.parse(code).body[-1], ast.Expr):
            assert value not in (None, "")
    assert len(names["answers"]) == 2
    assert names["Seen"](name="dog", kind="animal")
    assert capsys.readouterr().out.strip()
