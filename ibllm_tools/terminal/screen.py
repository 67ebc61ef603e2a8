"""What a person sees: answers as they come, notes and steps dimly, problems in red.

Where nobody looks (a pipe), answers alone go to standard output, and the rest to standard error.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.text import Text

from ibllm_tools.terminal.talking import Event, Step, Thought, Token

if TYPE_CHECKING:
    from rich.status import Status

MAX_STEP = 400
_KEPT = frozenset("\n\t")


class Screen:
    """Writes to a terminal or to pipes."""

    def __init__(self, console: Console | None = None, notices: Console | None = None) -> None:
        """Use these consoles, or standard output and standard error."""
        self.console = console or Console(soft_wrap=True, highlight=False)
        beside = Console(stderr=True, soft_wrap=True, highlight=False)
        self._notices = notices or (self.console if self.lively else beside)
        self.failed = False

    @property
    def lively(self) -> bool:
        """Whether a person looks on."""
        return self.console.is_terminal

    def notice(self, text: str) -> None:
        """Say something about the talk."""
        self._tell(Text(legible(text), style="dim"))

    def fail(self, text: str) -> None:
        """Say what went wrong."""
        self.failed = True
        self._tell(Text(legible(text), style="red"))

    def quote(self, who: str, text: str) -> None:
        """Show a line of an earlier talk."""
        self._tell(Text(f"{who}{legible(text)}", style="dim"))

    def _tell(self, text: Text) -> None:
        """Print beside the answers; for a person, lines end between words."""
        self._notices.print(text, soft_wrap=not self.lively)

    def asked(self, text: str) -> None:
        """Show the question above its answer where its line does not stay visible by itself."""
        if self.lively:
            self.console.print(Text(f"› {legible(text)}", style="bold"))

    def answer(self) -> Answer:
        """Begin an answer; a context manager that takes events."""
        return Answer(self, self._notices)


class Answer:
    """One answer on the screen."""

    def __init__(self, screen: Screen, notices: Console) -> None:
        """Nothing is written before the first event."""
        self._screen = screen
        self._console = screen.console
        self._notices = notices
        self._status: Status | None = None
        self._thinking = False
        self._midline = False
        self.text = ""

    def __enter__(self) -> Self:
        if self._screen.lively:
            self._status = self._console.status(Text("…", style="dim"), spinner="dots")
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._settle()
        if self._midline or self._thinking:
            self._console.print()
        self._thinking = self._midline = False

    def tell(self, event: Event) -> None:
        """Show a piece."""
        self._settle()
        if isinstance(event, Token):
            self._token(event.text)
        elif isinstance(event, Thought):
            self._thought(event.text)
        else:
            self._step(event)

    def _settle(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _token(self, text: str) -> None:
        if self._thinking:
            self._console.print()
            self._thinking = False
        text = legible(text if self.text else text.lstrip())
        if text:
            self._console.print(Text(text), end="")
            self._midline = True
            self.text += text
            self._console.file.flush()

    def _thought(self, text: str) -> None:
        if not self._screen.lively:
            return
        if not self._thinking:
            self._line_end()
            self._console.print(Text("∴ ", style="dim italic"), end="")
            text = text.lstrip()
        self._thinking = True
        self._console.print(Text(legible(text).replace("\n", " "), style="dim italic"), end="")
        self._console.file.flush()

    def _step(self, event: Step) -> None:
        self._line_end()
        line = " ".join(legible(event.text).split())
        if len(line) > MAX_STEP:
            line = f"{line[: MAX_STEP - 1]}…"
        self._notices.print(Text(f"→ {line}", style="dim cyan"), soft_wrap=not self._screen.lively)

    def _line_end(self) -> None:
        if self._midline or self._thinking:
            self._console.print()
        self._midline = self._thinking = False


def legible(text: str) -> str:
    """Text without control characters, which could move the cursor or change the terminal."""
    return "".join(c for c in text if c.isprintable() or c in _KEPT)


def is_terminal() -> bool:
    """Whether a person types and looks."""
    return sys.stdin.isatty() and sys.stdout.isatty()
