"""Parameters of lists, the same for each."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Query

from ledger.paging import only_known_parameters

PageSize = Annotated[int, Query(ge=1, le=500)]
Cursor = Annotated[str | None, Query(alias="cursor", max_length=400, description="`nextCursor` of the page before.")]

STRICT: Final = [Depends(only_known_parameters)]
"""For each route that reads: a parameter that it does not know is refused."""
