"""Elasticsearch's client without what it would load on the side.

It imports pyarrow wherever that is installed, for one answer format that we never ask for: 27 MB of each process.
"""

from __future__ import annotations

import sys

_loaded = sys.modules.get("pyarrow")
if _loaded is None:
    sys.modules["pyarrow"] = None  # type: ignore[assignment] # this is how an import is made to fail

from elasticsearch import (  # noqa: E402 (only now, see above)
    ApiError,
    AsyncElasticsearch,
    BadRequestError,
    Elasticsearch,
    NotFoundError,
)

if _loaded is None:
    del sys.modules["pyarrow"]

__all__ = ["ApiError", "AsyncElasticsearch", "BadRequestError", "Elasticsearch", "NotFoundError"]
