"""A report in other forms: CSV for spreadsheets, and a page to print. Both are made of the JSON that was kept."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from ledger.export import harmless

COLUMNS: Final = (
    *("transfer_id", "store_id", "sequence", "section", "type", "credit_id", "currency", "amount", "commission", "net"),
    *("amount_before", "commission_before", "at", "reason"),
)
_NUMERIC: Final = frozenset({"sequence", "amount", "commission", "net", "amount_before", "commission_before"})

_pages: Final = Environment(
    loader=PackageLoader("ledger.disbursement"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def as_csv(content: Mapping[str, Any]) -> str:
    """A line of names, a line per balance update, and the total last (RFC 4180). No cell begins a formula."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(COLUMNS)
    common = {
        "transfer_id": content["transferId"],
        "store_id": content["store"]["id"],
        "currency": content["currency"],
    }
    for line in content["lines"]:
        change = line["change"] or {}
        before = {"amount_before": change.get("amountBefore"), "commission_before": change.get("commissionBefore")}
        writer.writerow(_cells({**common, **line, "credit_id": line["creditId"], **before}))
    writer.writerow(_cells({**common, **content["totals"]["all"], "section": "total"}))
    return written.getvalue()


def _cells(row: Mapping[str, Any]) -> list[str]:
    values = ((name, row.get(name)) for name in COLUMNS)
    return ["" if value is None else str(value) if name in _NUMERIC else harmless(str(value)) for name, value in values]


def as_html(content: Mapping[str, Any]) -> str:
    """A page that prints on paper: no script, nothing from elsewhere."""
    return _pages.get_template("report.html").render(content)
