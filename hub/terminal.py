"""What all commands share: their options, their answers as text or JSON, their errors, the stack that they mean."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, Protocol

import typer

from hub.settings import DatabaseSettings, SettingsError, read

# Each command imports what it needs where it runs: a worker must not carry the memory of everything else.
# ruff: noqa: PLC0415

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
LogsAsJson = Annotated[
    bool, typer.Option("--json", help="Errors and log lines as JSON on a terminal too; elsewhere log lines always are.")
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The data folder of `payhub up` [env PAYHUB_DATA_DIR; default: .payhub]."),
]
Host = Annotated[str, typer.Option(help="Address to listen on.")]


def say(answer: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    print(json.dumps(answer) if as_json else text)


def fail(problem: str, *, as_json: bool, **more: Any) -> NoReturn:
    if as_json:
        print(json.dumps({"error": problem, **more}))
    else:
        print(f"payhub: {problem}", file=sys.stderr)
    raise typer.Exit(1)


class Report(Protocol):
    """What a check found; its text is for people."""

    def as_json(self) -> dict[str, Any]: ...


def judge(report: Report, *, sound: bool, as_json: bool) -> None:
    """Tell a report; exit code 1 unless everything in it is `sound`."""
    if not sound:
        fail(str(report), as_json=as_json, report=report.as_json())
    say(report.as_json(), str(report), as_json=as_json)


@contextmanager
def explained(*kinds: type[Exception], as_json: bool = False) -> Iterator[None]:
    """Turn the errors that a person can mend into one sentence and exit code 1."""
    understood: tuple[type[Exception], ...] = (SettingsError, *kinds)
    try:
        yield
    except understood as error:
        fail(str(error.args[0]) if isinstance(error, KeyError) else str(error), as_json=as_json)


def use_stack(data_dir: Path | None) -> None:
    """Let this process find the stack of a data folder; what the environment already says wins."""
    from hub.stack.state import default_data_folder, load_state

    state = load_state(data_dir or default_data_folder())
    if state is not None:
        for variable, value in state.variables().items():
            os.environ.setdefault(variable, value)


def databases() -> tuple[str, str]:
    from ledger.settings import LedgerSettings

    try:
        return read(DatabaseSettings).url, read(LedgerSettings).database_url
    except SettingsError as error:
        hint = "start a hub with `payhub up`, name its folder with --data-dir, or set the variable"
        raise SettingsError(f"{error}; {hint}") from None
