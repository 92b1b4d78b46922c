"""Logs that can be searched and that hold nothing personal.

One JSON object per line on standard error (readable lines on a terminal). Whatever is logged passes a last filter: keys
that name personal data or secrets lose their value, and text that looks like a CLABE, a card, an RFC, a CURP, a token
or a key is masked even inside a sentence. The filter is the net; the rule is not to log such things at all.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from functools import cache
from typing import Any, Final

import structlog
from structlog.typing import Processor

MASK: Final = "***"

_SECRET_KEYS: Final = re.compile(
    r"(?i)secret|password|passphrase|token|authorization|private_?key|firma|joined|"
    r"^(payer|payee|name|holder_?name|identifier|account|clabe|card|msisdn|rfc|curp|tax_?id|rfc_?curp|variables|body)$"
)
_PERSONAL: Final = re.compile(
    r"""
      (?<![0-9a-zA-Z-])[0-9]{15,18}(?![0-9a-zA-Z-])      # a CLABE or a card; engine keys are logged as numbers
    | \b[A-ZÑ&]{3,4}[0-9]{6}[A-Z0-9]{3}\b                # RFC
    | \b[A-Z]{4}[0-9]{6}[HM][A-Z]{5}[A-Z0-9]{2}\b        # CURP
    | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*   # a JSON web token
    | -----BEGIN[^-]*-----                               # a key
    | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)                    # user and password inside a URL
    """,
    re.VERBOSE,
)


_SUSPECT: Final = re.compile(r"[0-9]{6}|eyJ|-----|://")  # a cheap look: nothing is masked that has none of these


def redact_text(text: str) -> str:
    """The same text with everything that looks personal or secret masked."""
    return _PERSONAL.sub(MASK, text) if _SUSPECT.search(text) else text


@cache
def _is_secret(key: str) -> bool:
    """Whether a key's value is masked whatever it is. Keys are words of the code: few, and worth remembering."""
    return _SECRET_KEYS.search(key) is not None


def _redact(value: Any) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {key: MASK if _is_secret(str(key)) else _redact(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_redact(inner) for inner in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    return redact_text(str(value))


def redacting(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor that masks; it runs last before rendering."""
    for key, value in event.items():
        event[key] = MASK if _is_secret(key) else _redact(value)
    return event


def configure_logging(component: str, level: str = "INFO", *, as_json: bool = False) -> None:
    """Send this process's logs, our own and the libraries', to standard error in one form.

    JSON lines, except on a terminal, where people read them, unless `as_json`.
    """
    readable = sys.stderr.isatty() and not as_json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending: list[Processor] = [
        structlog.processors.format_exc_info,
        redacting,
        structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These tell of every request, and httpx's lines hold whole URLs.
    for noisy in (
        "httpx",
        "httpcore",
        "pyzeebe",
        "uvicorn.access",
        "alembic.runtime.migration",
        "kafka",
        "elastic_transport",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(component=component)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module: `log = logger(__name__)`."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return bound
