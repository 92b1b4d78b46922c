"""Running the launcher in the background while the command that started it shows its progress.

The launcher is a fork of the command, in a session of its own, adopted by init. It tells what happens over a pipe, one
JSON object per line, until everything is healthy or has failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from hub.stack.errors import PartFailed, StackError
from hub.stack.launcher import Step
from hub.stack.state import StackState
from hub.stack.supervision import last_lines

Report = Callable[[Step], None]
Ready = Callable[[StackState], None]


def run_detached(run: Callable[[Report, Ready], None], log_file: Path, report: Report) -> StackState:
    """Do `run` in a process of its own and return its state as soon as it is ready; it goes on until it is stopped.

    `run` is given where to report steps and what to call when everything is healthy. What it prints goes to `log_file`.
    Raises StackError, as the launcher did, when it fails before that. Must be called while this process has one thread.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _become_launcher(run, log_file, writing)
    os.close(writing)
    os.waitpid(child, 0)
    return _follow(reading, log_file, report)


def _become_launcher(run: Callable[[Report, Ready], None], log_file: Path, pipe: int) -> None:
    """The child: detach, run, and leave without returning."""
    code = 1
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        _take_leave_of_terminal(log_file)
        teller = _Teller(pipe)
        teller.tell("launcher", {"pid": os.getpid()})
        try:
            run(lambda step: teller.tell("step", step.model_dump()), teller.ready)
            code = 0
        except StackError as error:
            traceback.print_exc()
            teller.failed(error)
        except Exception as error:  # noqa: BLE001 -- whatever it is, whoever follows must hear of it
            traceback.print_exc()
            teller.failed(StackError(f"The launcher failed: {error!r}.", f"Its log is {log_file}."))
    finally:
        os._exit(code)


class _Teller:
    """Writes to whoever follows, for as long as somebody does."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def tell(self, event: str, content: object) -> None:
        if self._pipe is None:
            return
        try:
            os.write(self._pipe, json.dumps({"event": event, "content": content}).encode() + b"\n")
        except BrokenPipeError:
            self._pipe = None

    def ready(self, state: StackState) -> None:
        self.tell("ready", state.model_dump(mode="json"))
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def failed(self, error: StackError) -> None:
        part = (
            {"part": error.part, "reason": error.reason, "log": str(error.log_file or ""), "lines": error.last_lines}
            if isinstance(error, PartFailed)
            else None
        )
        self.tell("failed", {"problem": error.problem, "remedy": error.remedy, "part": part})


def _follow(reading: int, log_file: Path, report: Report) -> StackState:
    launcher: int | None = None
    with os.fdopen(reading, encoding="utf-8") as lines:
        while True:
            try:
                line = lines.readline()
            except KeyboardInterrupt:
                if launcher is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(launcher, signal.SIGTERM)
                continue
            if not line:
                raise PartFailed("launcher", "ended before everything was healthy", log_file, last_lines(log_file))
            event = json.loads(line)
            content = event["content"]
            match event["event"]:
                case "launcher":
                    launcher = content["pid"]
                case "step":
                    report(Step.model_validate(content))
                case "ready":
                    return StackState.model_validate(content)
                case _:
                    raise _told(content)


def _told(content: dict[str, object]) -> StackError:
    part = content["part"]
    if not isinstance(part, dict):
        return StackError(str(content["problem"]), str(content["remedy"]))
    log = Path(part["log"]) if part["log"] else None
    return PartFailed(part["part"], part["reason"], log, tuple(part["lines"]))


def _take_leave_of_terminal(log_file: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
