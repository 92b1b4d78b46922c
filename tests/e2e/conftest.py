from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from hub.trial import TrialHub


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(
    tmp_path_factory: pytest.TempPathFactory, zeebe_address: str, new_database: Callable[[], str]
) -> AsyncIterator[TrialHub]:
    """All processes of the hub on this run's servers, with a database of its own."""
    settings = {"PAYHUB_STP_INQUIRE_AFTER": "1", "PAYHUB_STP_INQUIRE_AGAIN_AFTER": "2"}
    async with TrialHub.open(tmp_path_factory.mktemp("hub"), zeebe_address, new_database(), settings) as running:
        await running.start_all()
        yield running
