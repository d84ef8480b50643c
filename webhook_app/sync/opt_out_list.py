"""A list of opt-outs in a CSV file: which column is what, and the change that each row means."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError

from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.providers.fields import Address, Text, Timestamp
from webhook_app.sync.csv_file import CsvFile, Row, rows

#: What no column says: the file is a list of opt-outs.
REASON = "import"
#: Numbers below this are no Unix times but dates without separators (20260105) or Excel's days (45662).
FIRST_UNIX_TIME = 1_000_000_000
#: How far in the future a time may lie: a clock that goes wrong, or a zone that is not UTC.
TOLERANCE = timedelta(days=1)

#: Our name of a column → how exports call it, in lower case, with spaces for hyphens and underscores.
COLUMNS = {
    "email": ("email", "e mail", "email address", "e mail address", "emailaddress", "mail", "recipient"),
    "external_id": ("external id", "externalid", "customer id", "customerid", "user id", "userid"),
    "time": ("time", "timestamp", "date", "created", "created at", "occurred at", "unsubscribed at", "opt out time"),
    "reason": ("reason",),
}
KIND_OF = {"email": IdentityKind.EMAIL, "external_id": IdentityKind.EXTERNAL}

_SHORTENED = re.compile(r"\d+([.,]\d+)?E\+?\d+", re.IGNORECASE)
_UTC_IN_WORDS = re.compile(r"\s*(UTC|GMT)$", re.IGNORECASE)


class CannotImport(Exception):
    """Nothing can be imported like this. The text says what to do."""


class ExternalId(Text):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not text:
            raise ValidationError("is empty")
        if _SHORTENED.fullmatch(text):
            raise ValidationError("is a number that a spreadsheet has shortened; export the column as text")
        return text


class PastTime(Timestamp):
    """A time that has been. What a spreadsheet may have made of a date is refused, not guessed."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        try:
            moment = super()._deserialize(_UTC_IN_WORDS.sub("+00:00", value), attr, data, **kwargs)
        except ValidationError:
            raise ValidationError("is not a time; write it like 2026-01-05T10:15:30Z, or as Unix seconds") from None
        if value.replace(".", "", 1).isdecimal() and float(value) < FIRST_UNIX_TIME:
            raise ValidationError("is a date without separators or a spreadsheet's number; write it like 2026-01-05")
        if moment > datetime.now(UTC) + TOLERANCE:
            raise ValidationError("lies in the future")
        return moment


class ImportedRow(Schema):
    """The cells of one row, under our names of the columns; cells that are empty are left out."""

    class Meta:
        unknown = EXCLUDE

    email = Address()
    external_id = ExternalId()
    time = PastTime()
    reason = Text()


_ROW = ImportedRow()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which cell of a row is what."""

    #: Our name of a column → its place.
    places: Mapping[str, int]
    #: The header as it stands in the file; made up where it has none.
    header: tuple[str, ...]
    has_header: bool
    #: The column that says who: `email` or `external_id`.
    identity: str


def layout_of(first: Row, names: Mapping[str, str], identity: str) -> Layout:
    """Read the header. `names` are columns that the person has named, `identity` the column chosen, if any.

    Raises `CannotImport`.
    """
    cells = [cell.strip() for cell in first.cells]
    if len(cells) == 1 and not names and _is_address(cells[0]):
        return Layout(places={"email": 0}, header=("email",), has_header=False, identity="email")
    places = {name: place for name in COLUMNS if (place := _place(name, cells, names)) is not None}
    known = [name for name in KIND_OF if name in places]
    if not known:
        raise CannotImport(
            "the first line names no column email or external_id: add a header line, or name the column "
            f"with --email or --external-id (the first line has {len(cells)} cell{'s' * (len(cells) != 1)})"
        )
    if identity and identity not in known:
        raise CannotImport(f"there is no column {identity}")
    if not identity and len(known) > 1:
        raise CannotImport(
            "the file has both email and external_id: say which of them Dynamic Yield knows, "
            "with --identity email or --identity external_id"
        )
    return Layout(places=places, header=tuple(cells), has_header=True, identity=identity or known[0])


def _place(name: str, header: list[str], names: Mapping[str, str]) -> int | None:
    chosen = names.get(name)
    wanted = {_plain(chosen)} if chosen else set(COLUMNS[name])
    found = [place for place, cell in enumerate(header) if _plain(cell) in wanted]
    if chosen and not found:
        raise CannotImport(f"there is no column {chosen}; there are: {', '.join(header)}")
    if len(found) > 1:
        both = " and ".join(header[place] for place in found)
        raise CannotImport(f"{both} could each be the {name}: name one with --{name.replace('_', '-')}")
    return found[0] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _is_address(text: str) -> bool:
    try:
        _ROW.load({"email": text})
    except ValidationError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Turns the rows of a file into changes, the same ones each time it is asked."""

    file: CsvFile
    layout: Layout
    #: When a row without a time was an opt-out for sure.
    as_of: datetime

    def rows(self) -> Iterator[tuple[Row, ConsentChange | ValidationError]]:
        """Every row but the header, with the change it means, or why it means none."""
        read = rows(self.file)
        if self.layout.has_header:
            next(read)
        for row in read:
            try:
                yield row, self._change(row)
            except ValidationError as error:
                yield row, error

    def raw(self, row: Row) -> bytes:
        """What is kept of a row: the cells that were used, and where they stood."""
        used = {name: row.cells[place] for name, place in self.layout.places.items() if place < len(row.cells)}
        return json.dumps({"file": self.file.path.name, "line": row.line, **used}).encode()

    def has_time(self, row: Row) -> bool:
        place = self.layout.places.get("time")
        return place is not None and place < len(row.cells) and bool(row.cells[place].strip())

    def _change(self, row: Row) -> ConsentChange:
        if row.problem:
            raise ValidationError(row.problem, "row")
        if any(cell.strip() for cell in row.cells[len(self.layout.header) :]):
            raise ValidationError(f"has {len(row.cells)} cells, the header has {len(self.layout.header)}", "row")
        places, identity = self.layout.places, self.layout.identity
        cells = {name: row.cells[place].strip() for name, place in places.items() if place < len(row.cells)}
        if not cells.get(identity):
            raise ValidationError("is empty", identity)
        # Exactly one identifier: the other one is not even looked at.
        loaded = _ROW.load(
            {name: cell for name, cell in cells.items() if cell and (name == identity or name not in KIND_OF)}
        )
        return ConsentChange(
            action=Action.OPT_OUT,
            identity=Identity(kind=KIND_OF[identity], value=loaded[identity]),
            reason=loaded.get("reason") or REASON,
            occurred_at=loaded.get("time", self.as_of),
        )
