"""The progress bar of filling a store: examples, examples per second, what was skipped."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

from ibllm_tools.data.examples import SourceReport


class Progress:
    """A bar on standard error, or nothing; a context manager."""

    def __init__(self, *, shown: bool) -> None:
        """Prepare the bar; `shown` is whether to draw it."""
        self._bar: Any = None
        if shown:
            from rich.console import Console
            from rich.progress import Progress as Bar
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

            numbers = TextColumn("{task.completed:,.0f} examples")
            speed = TextColumn("{task.fields[speed]}")
            skipped = TextColumn("{task.fields[skipped]:,} skipped")
            columns = (SpinnerColumn(), numbers, speed, skipped, TimeElapsedColumn())
            self._bar = Bar(*columns, console=Console(file=sys.stderr))
            self._task = self._bar.add_task("embed", total=None, speed="", skipped=0)

    def advance(self, count: int, report: SourceReport) -> None:
        """Count examples that were written."""
        if self._bar is None:
            return
        elapsed = self._bar.tasks[0].elapsed or 0.0
        done = self._bar.tasks[0].completed + count
        speed = f"{done / elapsed:,.1f}/s" if elapsed else ""
        skipped = report.read - report.kept
        self._bar.update(self._task, completed=done, speed=speed, skipped=skipped)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
