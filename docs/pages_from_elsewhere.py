"""Pages of the site that lie elsewhere in the repository or come from the program itself.

MkDocs calls the `on_...` functions. Links are written as they work in the repository; here they
are turned to where the site has the same thing, or to the plain name of a file it has not.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = "docs"
# Page of the site: file of the repository.
ELSEWHERE = {
    "model-card.md": "ibllm_tools/pocket/README.md",
    "detector-card.md": "ibllm_tools/pocket_detector/README.md",
    "recognizer-card.md": "ibllm_tools/pocket_recognizer/README.md",
    "benchmarks.md": "tests/benchmarks/RESULTS.md",
    "agents.md": "agents/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
# Folders whose pictures the site shows, under the same names.
PICTURES = ("agents",)
ELSEWHERE = {page: source for page, source in ELSEWHERE.items() if (ROOT / source).exists()}
PAGE_OF = {source: page for page, source in ELSEWHERE.items()} | {"README.md": "index.md"}
LINK = re.compile(r"(?P<shown>!?\[[^\]]*\])\((?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")
COMMANDS = "reference/cli.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere."""
    for page, source in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_relinked(text, source, page)))
    for picture in _pictures():
        files.append(File.generated(config, picture, abs_src_path=str(ROOT / picture)))
    files.append(File.generated(config, COMMANDS, content=commands()))
    return files


def _pictures() -> list[str]:
    found = [path for folder in PICTURES for path in (ROOT / folder).glob("*.png")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn the links of a page that is written in docs/."""
    here = page.file.src_uri
    return markdown if here in ELSEWHERE else _relinked(markdown, posixpath.join(DOCS, here), here)


def _relinked(text: str, source: str, page: str) -> str:
    """Links of a file of the repository, as the page of the site needs them."""
    pictures = set(_pictures())

    def turned(match: re.Match[str]) -> str:
        shown, anchor = match["shown"], match["anchor"] or ""
        found = posixpath.normpath(posixpath.join(posixpath.dirname(source), match["target"]))
        target = found if found in pictures else PAGE_OF.get(found)
        if target is None and found.startswith(f"{DOCS}/"):
            target = found.removeprefix(f"{DOCS}/")
        if target is None:
            return f"{shown[1:-1]} (`{found}`)"
        return f"{shown}({posixpath.relpath(target, posixpath.dirname(page) or '.')}{anchor})"

    return LINK.sub(turned, text)


def commands() -> str:
    """The page of the command line, from the program's own help."""
    import typer

    from ibllm_tools.cli import app

    lines = ["# Command line", "", app.info.help or "`ibllm COMMAND --help` says the same.", ""]
    return "\n".join(lines + _described(typer.main.get_command(app), "ibllm"))


def _described(command: Any, name: str) -> list[str]:
    if subcommands := getattr(command, "commands", None):
        parts = [_described(sub, f"{name} {key}") for key, sub in sorted(subcommands.items())]
        return [line for part in parts for line in part]
    told = (command.help or "").split("\f")[0].strip()
    lines = [f"## {name}", "", told, "", "| option | |", "|---|---|"]
    for option in command.params:
        if getattr(option, "hidden", False):
            continue
        names = ", ".join(f"`{text}`" for text in [*option.opts, *option.secondary_opts])
        if option.param_type_name == "argument":
            names = f"`{option.metavar or option.name.upper()}`"
        lines.append(f"| {names} | {_cell(option)} |")
    return [*lines, ""]


def _cell(option: Any) -> str:
    told = " ".join((getattr(option, "help", None) or "").split())
    default = option.default
    plain = isinstance(default, (int, float, str)) and not isinstance(default, bool)
    shown = f" Default: `{default}`." if plain and default != "" else ""
    return (told + shown).replace("|", "\\|") or "–"
