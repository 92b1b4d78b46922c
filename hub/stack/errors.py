"""What can go wrong with the local stack. Every error is one sentence for a person, followed by what to do about it.

StackError
├── PackageError            a pinned artifact could not be fetched or is not what was pinned
├── MachineUnfit            disk, memory, platform or folder permissions do not suffice
├── PortInUse               somebody else listens where a part wants to
├── AlreadyRunning          a launcher holds this data folder
├── NotRunning              no launcher holds this data folder
├── PartFailed              a part did not become healthy
└── UnknownPart             a control command named a part that does not exist
"""

from pathlib import Path


class StackError(Exception):
    """A problem of the local stack, with its remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}".strip())
        self.problem = problem
        self.remedy = remedy


class PackageError(StackError):
    """An artifact could not be fetched, or its content is not what was pinned."""


class MachineUnfit(StackError):
    """This machine, as it is now, cannot run the stack."""


class PortInUse(StackError):
    """A port that a part needs is taken."""

    def __init__(self, part: str, port: int, holder: str) -> None:
        super().__init__(
            f"Port {port}, needed by {part}, is in use by {holder}.",
            f"Stop that process, choose another with --port {part}=NUMBER, or let payhub choose with --free-ports.",
        )
        self.part = part
        self.port = port
        self.holder = holder


class AlreadyRunning(StackError):
    """Another launcher runs on the same data folder."""

    def __init__(self, data_folder: Path, launcher: str) -> None:
        super().__init__(
            f"A stack is already running on {data_folder} ({launcher}).",
            f"Stop it with 'payhub down --data-dir {data_folder}', or use another folder with --data-dir.",
        )


class NotRunning(StackError):
    """No launcher runs on the data folder."""

    def __init__(self, data_folder: Path) -> None:
        super().__init__(f"No stack is running on {data_folder}.", "Start one with 'payhub up'.")


class PartFailed(StackError):
    """A part ended or stayed unhealthy while the stack was starting."""

    def __init__(self, part: str, reason: str, log_file: Path | None, last_lines: tuple[str, ...]) -> None:
        remedy = f"Its log is {log_file}." if log_file else ""
        super().__init__(f"{part} {reason}.", remedy)
        self.part = part
        self.reason = reason
        self.log_file = log_file
        self.last_lines = last_lines


class UnknownPart(StackError):
    """A control command named a part that the stack does not have."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"There is no part called {name!r}.", f"The parts are: {', '.join(known)}.")
