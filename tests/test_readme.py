"""The README's blocks run as a reader would run them, beside the demo media."""

import re
import shutil

import pytest
from documented import BLOCK, MEDIA, ROOT, blocks, run_python, run_shell

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


@pytest.fixture
def beside_media(tmp_path, monkeypatch):
    shutil.copytree(MEDIA, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("code", blocks([README], "python"))
def test_python_block_runs_and_prints(code, beside_media, capsys):
    run_python(code, beside_media, capsys)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("code", blocks([README], "bash"))
def test_shell_block_runs_line_by_line_and_prints(code, beside_media):
    run_shell(code)


def test_python_is_never_hidden_from_the_tests():
    assert {"python", "bash"} <= {language for language, _ in BLOCK.findall(TEXT)}


def test_the_two_commands_are_make_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make ([\w-]+)", TEXT, re.MULTILINE)
    assert {"demo", "test"} <= set(commands)
    for target in commands:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_picture_and_page_that_is_linked_exists():
    links = re.findall(r"\]\((?!http)([^)#]+)", TEXT)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
