"""Code blocks of Markdown files, run as a reader would run them, beside the demo media.

`python` and `bash` blocks run; `py`, `sh` and others are shown only, but their `ibllm` lines parse.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MEDIA = ROOT / "ibllm_tools" / "demo_media"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(pages, language):
    """The blocks of one language, as parameters with the page's name in their ids."""
    return [
        pytest.param(code, id=f"{page.stem}-{number}")
        for page in pages
        for number, (found, code) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
        if found == language
    ]


def run_python(code, folder, capsys):
    script = folder / "block.py"
    script.write_text(code, encoding="utf-8")
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.strip()


def run_shell(code):
    ibllm = f'ibllm() {{ "{sys.executable}" -m ibllm_tools.cli "$@"; }}'
    script = f"set -euo pipefail\n{ibllm}\n{code}"
    own = {name: str(Path.cwd() / name) for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME")}
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=290,
        env={**os.environ, **own},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def command_lines(pages):
    """The words after `ibllm` in every shell block, as parameters."""
    for page in pages:
        for language, code in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language in {"bash", "sh"}:
                for line in code.replace("\\\n", " ").splitlines():
                    words = shlex.split(line, comments=True)
                    if "ibllm" in words:
                        asked = words[words.index("ibllm") + 1 :]
                        yield pytest.param(asked, id=f"{page.stem}-{' '.join(asked)[:40]}")


def parse_command(words):
    """Parse `ibllm WORDS` as the program would, without running it."""
    from typer.main import get_command

    from ibllm_tools.cli import app

    group = get_command(app)
    context = group.make_context("ibllm", list(words))
    name, command, rest = group.resolve_command(context, list(words))
    return command.make_context(name, rest, parent=context).params
