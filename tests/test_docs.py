"""The documentation site: built strictly, nothing fetched; its code runs, its map is true."""

import ast
import os
import re
import shutil
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec

import pytest
from documented import (
    MEDIA,
    ROOT,
    blocks,
    command_lines,
    parse_command,
    run_python,
    run_shell,
)

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
MAP = DOCS / "paper-to-code.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if find_spec("material") is None or find_spec("mkdocstrings") is None:
        pytest.skip("the extra [docs] is missing")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built_and_says_something(site):
    pages = {page.relative_to(DOCS).with_suffix(".html").as_posix() for page in PAGES}
    built = {page.relative_to(site).as_posix() for page in site.rglob("*.html")}
    assert pages | {"model-card.html", "benchmarks.html", "reference/cli.html"} <= built
    for page in pages:
        body = (site / page).read_text(encoding="utf-8").partition("<article")[2]
        assert len(re.sub(r"<[^>]+>", "", body).split()) > 40, page


def test_nothing_is_fetched_from_elsewhere(site):
    fetched = re.compile(r"""<(?:script|img|iframe|source)[^>]+src=["']?(?:https?:)?//[^"'\s>]+""")
    styles = re.compile(r"""<link[^>]+rel=["']?(?:stylesheet|preconnect|preload)[^>]*//[^>]*""")
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not fetched.findall(text) + styles.findall(text), page
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\(\s*[\"']?(?:https?:)?//[^)]+", style.read_text("utf-8")), style


def test_the_reference_shows_signatures_and_every_command(site):
    chat = (site / "reference" / "chat.html").read_text(encoding="utf-8")
    assert "ChatImageBindLLM" in chat
    assert "visual_cache" in chat
    from typer.main import get_command

    from ibllm_tools.cli import app

    shown = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    for name, command in get_command(app).commands.items():
        leaf = next(iter(sorted(getattr(command, "commands", {}))), "")
        assert f"ibllm {name} {leaf}".strip() in shown


@pytest.fixture
def beside_media(tmp_path, monkeypatch):
    shutil.copytree(MEDIA, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("code", blocks(PAGES, "python"))
def test_a_python_block_runs_and_prints(code, beside_media, capsys):
    run_python(code, beside_media, capsys)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("code", blocks(PAGES, "bash"))
def test_a_shell_block_runs_line_by_line_and_prints(code, beside_media):
    run_shell(code)


@pytest.mark.parametrize("words", list(command_lines([ROOT / "README.md", *PAGES])))
def test_every_command_is_one_that_the_program_takes(words, beside_media):
    parse_command(words)


def named_places():
    """`path` and `path::name` in backticks of the map, by line."""
    for line in MAP.read_text(encoding="utf-8").splitlines():
        for place in re.findall(r"`((?:ibllm_tools|tests)/[^`\s]+)`", line):
            yield pytest.param(*place.partition("::")[::2], id=place)


@lru_cache
def functions(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize(("path", "name"), list(named_places()))
def test_the_map_of_the_paper_names_what_is_there(path, name):
    assert (ROOT / path).exists(), path
    assert not name or name in functions(path), f"{path} has no {name}"


def test_every_row_of_the_map_names_code_and_a_test():
    rows = [line for line in MAP.read_text("utf-8").splitlines() if "`ibllm_tools/" in line]
    assert len(rows) > 15
    for row in rows:
        assert row.startswith("|")
        assert "`tests/" in row, row
