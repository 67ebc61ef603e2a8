"""Where lines come from: a person who types, or a pipe."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from ibllm_tools.errors import MissingExtraError
from ibllm_tools.terminal.brains import AGENTS
from ibllm_tools.terminal.commands import COMMANDS

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

PROMPT = "› "


class Lines(Protocol):
    """A source of lines."""

    drops: bool
    """Whether lines come from a person, who may drop files on the terminal."""

    async def read(self) -> str | None:
        """Read a line; None at the end.

        Raises:
            KeyboardInterrupt: The person gave a line up.
        """
        ...


class PipedLines:
    """Lines of a pipe or file, one message or command each."""

    drops = False

    def __init__(self, stream: TextIO | None = None) -> None:
        """Read a stream; by default standard input."""
        self._stream = stream or sys.stdin

    async def read(self) -> str | None:
        """Read a line outside the event loop."""
        return await asyncio.to_thread(self._stream.readline) or None


class TypedLines:
    """Lines of a person, with history, completion, and several lines by Alt-Enter."""

    drops = True

    def __init__(
        self,
        history: Path,
        toolbar: Callable[[], str],
        *,
        keyboard: Input | None = None,
        display: Output | None = None,
    ) -> None:
        """Keep typed lines in `history`.

        Args:
            history: A file, made where it is missing.
            toolbar: Tells what stands below the line.
            keyboard: By default the terminal's.
            display: By default the terminal's.

        Raises:
            MissingExtraError: prompt_toolkit is not installed.
        """
        try:
            from prompt_toolkit import PromptSession
            from prompt_toolkit.history import FileHistory
        except ImportError as error:
            raise MissingExtraError("prompt-toolkit", "chat") from error
        history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        history.touch(mode=0o600)
        self._session: PromptSession[str] = PromptSession(
            history=FileHistory(str(history)),
            completer=_completer(),
            complete_while_typing=False,
            key_bindings=_keys(),
            bottom_toolbar=toolbar,
            input=keyboard,
            output=display,
        )

    async def read(self) -> str | None:
        """Read what the person typed; several lines where they were made so."""
        try:
            return await self._session.prompt_async(PROMPT)
        except EOFError:
            return None


def _keys() -> Any:
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _completer() -> Any:
    from prompt_toolkit.completion import Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    class Commands(Completer):
        """Names of commands, then files or agents."""

        def __init__(self) -> None:
            self._paths = PathCompleter(expanduser=True)

        def get_completions(self, document: Document, event: Any) -> Iterable[Completion]:
            text = document.text_before_cursor
            if not text.startswith("/"):
                return
            word, space, rest = text[1:].partition(" ")
            if not space:
                for name in COMMANDS:
                    if name.startswith(word):
                        yield Completion(f"/{name} ", start_position=-len(text))
            elif word in {"attach", "save"}:
                last = rest.rpartition(" ")[2]
                yield from self._paths.get_completions(Document(last), event)
            elif word == "agent":
                for name in (*AGENTS, "off"):
                    if name.startswith(rest):
                        yield Completion(name, start_position=-len(rest))

    return Commands()
