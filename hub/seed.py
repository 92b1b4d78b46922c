"""Load tenants, fees, accounts, allow-lists and stores from one JSON file (docs/seed.md). Again: nothing changes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

import connectors.channel.seed as channel_seed
import connectors.stp.seed as stp_seed
import ledger.disbursement.seed as stores_seed
import ledger.seed as ledger_seed


class SeedError(Exception):
    """The file cannot be used; the text names the place in it and the fix. Nothing of it was loaded."""


@dataclass(frozen=True, slots=True)
class Seeded:
    """What the file holds."""

    tenants: int
    accounts: int


async def seed(file: Path, database_url: str, ledger_url: str) -> Seeded:
    """Check the whole file first, then load it. Raises `SeedError`."""
    books, tenants, receivers, stores = _read(file)
    try:
        await ledger_seed.seed(ledger_url, books)
        await channel_seed.seed(database_url, tenants)
        await stp_seed.seed(database_url, receivers)
        await stores_seed.seed(ledger_url, stores)
    except (ledger_seed.SeedConflict, stores_seed.StoresNotSeeded) as error:
        raise SeedError(f"{file}: {error}") from None
    return Seeded(len(books.tenants), sum(len(tenant.accounts) for tenant in books.tenants))


def _read(file: Path) -> tuple[ledger_seed.Seed, channel_seed.Seed, stp_seed.Seed, stores_seed.Seed]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SeedError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise SeedError(f"{file} is not JSON: {error}") from None
    try:
        return (
            ledger_seed.Seed.model_validate(document),
            channel_seed.Seed.model_validate(document),
            stp_seed.Seed.model_validate(document),
            stores_seed.Seed.model_validate(document),
        )
    except ValidationError as error:
        problems = (
            f"/{'/'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise SeedError(f"{file}: " + "; ".join(problems)) from None
