"""What a line is: a message, or a command with arguments."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from ibllm_tools.errors import ConfigurationError

COMMANDS = {
    "attach": ("FILE[:MODALITY][@WEIGHT] …", "attach media to the next message; alone: list all"),
    "weight": ("[NAME] NUMBER", "set how much an attachment counts among others"),
    "detach": ("[NAME]", "take an attachment out of the talk"),
    "cache": ("on|off|k N|t X|alpha X", "set the visual cache; alone: show it"),
    "agent": ("[NAME|off]", "let an agent answer: media, or one by name; alone: media"),
    "save": ("[-f] [ID] FILE", "save the talk (.md, .json), or an attachment by its id"),
    "new": ("[NAME]", "begin another thread"),
    "threads": ("", "list all threads"),
    "thread": ("NAME", "go on with another thread"),
    "forget": ("NAME", "delete a thread for good"),
    "help": ("", "show this"),
    "quit": ("", "leave; the thread stays (also Ctrl-D)"),
}


@dataclass(frozen=True)
class Command:
    """A command of a person."""

    name: str
    arguments: tuple[str, ...] = ()


def read_line(line: str, *, drops: bool = False) -> Command | str | None:
    """Tell a command from a message.

    Args:
        line: What was typed; `//` at its beginning stands for a `/` of a message.
        drops: Whether a line of nothing but paths of files attaches them, as where files are
            dropped on a terminal.

    Returns:
        A command, the text of a message, or None where there is nothing.

    Raises:
        ConfigurationError: There is no such command, or its quotes do not end.
    """
    text = line.strip()
    if not text:
        return None
    if drops and (files := _dropped(text)):
        return Command("attach", files)
    if not text.startswith("/"):
        return text
    if text.startswith("//"):
        return text[1:]
    word, _, rest = text[1:].partition(" ")
    if word not in COMMANDS:
        raise ConfigurationError(
            f"found no command /{word}; expected one of /{', /'.join(COMMANDS)}; a message that "
            "begins with / is written with two"
        )
    return Command(word, _split(rest))


def _split(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigurationError(f"found a quote without its end in {text!r}; close it") from error


def _dropped(text: str) -> tuple[str, ...]:
    """The files that a line names, if it holds nothing else."""
    if not text.startswith(("/", "'", '"', "~", "file://")):
        return ()
    try:
        words = shlex.split(text)
    except ValueError:
        return ()
    paths = [Path(word.removeprefix("file://")).expanduser() for word in words]
    try:
        return tuple(map(str, paths)) if all(path.is_file() for path in paths) else ()
    except (OSError, ValueError):
        return ()


def described() -> str:
    """The commands, for /help."""
    width = max(len(f"/{name} {takes}") for name, (takes, _) in COMMANDS.items())
    return "\n".join(f"/{name} {takes}".ljust(width) + f"  {does}"
                     for name, (takes, does) in COMMANDS.items())  # fmt: skip
