"""Class archives: what halves the time and the processor seconds that a Java server needs to start.

A Java program can write down the classes it loaded, parsed and verified, and map that file when it starts again. Each
server is therefore run once, right after it was provisioned, on a folder and ports of its own; its archive then serves
all stacks on the machine. Where that fails, servers only start more slowly.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from hub.stack.errors import StackError
from hub.stack.packages import Downloads, ProgramCache
from hub.stack.ports import SERVER_PORTS, choose_free
from hub.stack.privileges import ServerUser
from hub.stack.servers import ServerSite, elasticsearch, kafka, zeebe
from hub.stack.state import Profile, new_state
from hub.stack.supervision import Part, SupervisedPart

_JAVA_SERVERS: dict[str, Callable[[ServerSite], Part]] = {
    "kafka": kafka,
    "elasticsearch": elasticsearch,
    "zeebe": zeebe,
}


def warm_up(cache: ProgramCache, programs: Iterable[str], user: ServerUser | None, downloads: Downloads) -> None:
    """Make the class archives of those Java servers among `programs` that have none yet. Never fails."""
    wanted = tuple(name for name in programs if name in _JAVA_SERVERS and not cache.class_archive(name).exists())
    if not wanted:
        return
    with cache.incoming(downloads) as folder:
        missing = tuple(name for name in wanted if not cache.class_archive(name).exists())
        if missing:
            downloads.note(f"preparing {', '.join(missing)} to start faster, once for this machine")
            asyncio.run(_make_archives(cache, missing, user, folder, downloads))


async def _make_archives(
    cache: ProgramCache, programs: tuple[str, ...], user: ServerUser | None, folder: Path, downloads: Downloads
) -> None:
    # The barebone profile keeps Zeebe from looking for Kafka; free ports keep all of them from meeting anybody.
    state = new_state(Profile.BAREBONE, choose_free(dict.fromkeys(SERVER_PORTS, 0)))
    site = ServerSite(cache, folder, user, state, logs=folder, records_classes=True)

    async def make(program: str) -> None:
        # Writing the archive is part of stopping, and takes longer than stopping does.
        part = replace(_JAVA_SERVERS[program](site), stop_seconds=120)
        supervised = SupervisedPart(part, folder / f"{program}.log", folder / f"{program}.json")
        archive, beside = cache.class_archive(program), folder / f"{program}.jsa"
        try:
            await supervised.start()
        except StackError as error:
            downloads.note(f"{program} will start without a class archive: {error.problem}")
        await supervised.stop()
        try:
            shutil.copyfile(folder / program / "classes.jsa", beside)
        except FileNotFoundError:
            beside.touch()  # empty: it cannot be made here, and is not tried again
        beside.chmod(0o644)
        beside.rename(archive)

    await asyncio.gather(*(make(program) for program in programs))
