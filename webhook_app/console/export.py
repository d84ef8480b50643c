"""CSV export of a list, a batch at a time, safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

from webhook_app.outbox.queries import Event

COLUMNS = (
    "id",
    "received_at",
    "occurred_at",
    "provider",
    "state",
    "action",
    "reason",
    "identity_kind",
    "identity_value",
    "pseudonym",
    "attempts",
    "settled_at",
    "error",
    "esp_event_id",
    "esp_message_id",
)

#: A cell that begins so is a formula to Excel, LibreOffice and Google Sheets, and a person chose what is in it.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def lines(batches: Iterable[list[Event]]) -> Iterator[str]:
    yield _write([COLUMNS])
    for batch in batches:
        yield _write([cell(getattr(event, column)) for column in COLUMNS] for event in batch)


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """A small one, whole; the first row names the columns."""
    return _write([list(rows[0]) if rows else [], *([cell(value) for value in row.values()] for row in rows)])


def cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def _write(rows: Iterable[Iterable[str]]) -> str:
    page = io.StringIO()
    csv.writer(page).writerows(rows)
    return page.getvalue()
