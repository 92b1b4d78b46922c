"""What a person sees while the stack comes up: progress bars on a terminal, plain lines anywhere else.

Everything goes to standard error; standard output is for results alone.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from hub.stack.errors import PartFailed, StackError
from hub.stack.launcher import Step
from hub.stack.packages import Advance

_SMALL = 3_000_000
"""Bytes below which a download gets no line of its own."""


class Display:
    """Shows downloads, steps and failures; may be used from several threads."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._lively = sys.stderr.isatty() and not quiet
        self._progress: Progress | None = None
        self._small: TaskID | None = None
        self._lock = threading.Lock()

    @contextmanager
    def session(self) -> Iterator[None]:
        """Keeps the progress bars on screen, on a terminal."""
        if not self._lively:
            yield
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console) as progress:
            self._progress = progress
            yield
        self._progress = self._small = None

    @contextmanager
    def downloading(self, name: str, total_bytes: int) -> Iterator[Advance]:
        """Show one download; small ones share a bar."""
        begun = time.monotonic()
        if self._progress is not None:
            progress, task = self._progress, self._task(name, total_bytes)
            yield lambda piece: progress.advance(task, piece)
            return
        if total_bytes >= _SMALL:
            self._console.print(f"downloading {name} ({total_bytes / 1e6:.0f} MB)")
        yield lambda _: None
        if total_bytes >= _SMALL:
            self._console.print(f"downloaded  {name} in {time.monotonic() - begun:.1f} s")

    def note(self, sentence: str) -> None:
        """Show one sentence."""
        self._console.print(sentence, soft_wrap=True)

    def step(self, step: Step) -> None:
        """Show something the launcher did."""
        colour = {"healthy": "green", "done": "green", "failed": "red"}.get(step.phase, "dim")
        took = f"  {step.seconds:.1f} s" if step.seconds else ""
        detail = f"  {step.detail}" if step.detail else ""
        self._console.print(f"[{colour}]{step.phase:9}[/] {step.name}{took}{detail}", soft_wrap=True)

    def failure(self, error: StackError) -> None:
        """Show why the stack did not come up, with the end of the failing part's log."""
        if isinstance(error, PartFailed) and error.last_lines:
            self._console.print(f"the last lines of {error.log_file or error.part}:", style="dim", soft_wrap=True)
            for line in error.last_lines:
                self._console.print(f"  {line}", style="dim", markup=False, soft_wrap=True)
        self._console.print(f"[red]{error.problem}[/] {error.remedy}", soft_wrap=True)

    def _task(self, name: str, total_bytes: int) -> TaskID:
        with self._lock:
            progress = self._progress
            if progress is None:  # the session ended meanwhile
                raise RuntimeError("no progress bars are shown")
            if total_bytes >= _SMALL:
                return progress.add_task(name, total=total_bytes)
            if self._small is None:
                self._small = progress.add_task("small packages", total=0)
            progress.update(self._small, total=(progress.tasks[self._small].total or 0) + total_bytes)
            return self._small
