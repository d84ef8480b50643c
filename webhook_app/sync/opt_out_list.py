"""A list of opt-outs in a CSV file: which column is what, and the change that each row means."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError

from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.providers.fields import Address, Id, Text
from webhook_app.providers.kept import keep_row
from webhook_app.sync import times
from webhook_app.sync.consent_columns import Column
from webhook_app.sync.csv_file import CannotImport, CsvFile, NotCsv, Row, rows
from webhook_app.sync.known_exports import AS_OF, REJECTED, Export, plain, recognise
from webhook_app.sync.row_choice import Only, places_called, quoted, shown_titles
from webhook_app.sync.times import PastTime

#: What no column says: the file is a list of opt-outs.
REASON = "import"
#: Different texts of a column that are looked at to find out whether they are times.
TIMES_SAMPLED = 200

#: Our name of a column → how exports call it, as `plain` writes it.
COLUMNS = {
    "email": (
        *("email", "e mail", "email address", "e mail address", "emailaddress", "mail", "recipient", "contact email"),
        *("e mail adresse", "emailadresse", "adresse e mail", "e mailadres", "correo", "correo electrónico"),
    ),
    "external_id": ("external id", "externalid", "customer id", "customerid", "user id", "userid"),
    "time": ("time", "timestamp", "date", "created", "created at", "occurred at", "unsubscribed at", "opt out time"),
    "reason": ("reason", "suppression reason", "unsub reason", "unsubscribe reason", "unsub source"),
}
KIND_OF = {"email": IdentityKind.EMAIL, "external_id": IdentityKind.EXTERNAL}

_SHORTENED = re.compile(r"\d+([.,]\d+)?E\+?\d+", re.IGNORECASE)
#: Names of columns that say when somebody opted out, of those that hold a time for sure, or perhaps, and of those that
#: hold another one.
_OPT_OUT_TIME = re.compile(r"unsub|opt(ed)? ?out|suppress|block|black|abmeld|abgemeldet|d[ée]sabonn|d[ée]sinscri")
_TIME_NAME = re.compile(r"\b(time|date|timestamp|datum|zeit|zeitpunkt)\b")
_TIME_PERHAPS = re.compile(r"\b(when|since|at|on)\b")
_OTHER_TIME = re.compile(r"\b(sms|push|whats ?app|phone|mobile|birth ?(day|date)|time ?zone|rejected as of)\b")


class ExternalId(Id):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not text:
            raise ValidationError("is empty")
        if _SHORTENED.fullmatch(text):
            raise ValidationError("is a number that a spreadsheet has shortened; export the column as text")
        return text


class ImportedRow(Schema):
    """The cells of one row, under our names of the columns; cells that are empty are left out."""

    class Meta:
        unknown = EXCLUDE

    email = Address()
    external_id = ExternalId()
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
    #: The kind of export it is, if it is known.
    export: Export | None = None
    #: Of mended rejects: the column with the date of the list that they were rejected from.
    as_of: int | None = None


def names_identity(cells: Sequence[str], chosen: Collection[str] = ()) -> bool:
    """Whether the cells are a header with a column that says who; `chosen` are titles that a person has named."""
    titles = {plain(cell) for cell in cells}
    usual = {name for kind in KIND_OF for name in COLUMNS[kind]}
    return not titles.isdisjoint(usual | set(map(plain, chosen))) or recognise(cells) is not None


def layout_of(first: Row, names: Mapping[str, str], identity: str, *, no_time: bool = False) -> Layout:
    """Read the header. `names` are columns that the person has named, `identity` the column chosen, if any.

    Raises `CannotImport`.
    """
    cells = [cell.strip() for cell in first.cells]
    if len(cells) == 1 and not names and _is_address(cells[0]):
        return Layout(places={"email": 0}, header=("email",), has_header=False, identity="email")
    export = recognise(cells)
    wanted = [name for name in COLUMNS if not (no_time and name == "time")]
    places = {name: place for name in wanted if (place := _place(name, cells, names, export)) is not None}
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
    as_of = next((place for place, cell in enumerate(cells) if plain(cell) == AS_OF), None)
    return Layout(
        places=places,
        header=tuple(cells),
        has_header=True,
        identity=identity or known[0],
        export=export,
        as_of=as_of,
    )


def _place(name: str, header: list[str], names: Mapping[str, str], export: Export | None) -> int | None:
    chosen = names.get(name)
    usual = _usual_names(name, export)
    found = places_called(chosen, header) if chosen else [at for at, cell in enumerate(header) if plain(cell) in usual]
    if chosen and not found:
        raise CannotImport(f"there is no column {chosen}; there are: {shown_titles(header)}")
    if chosen and _is_address(header[found[0]]):
        raise CannotImport("the first line names no columns, it has an address: add a header line")
    if len(found) > 1:
        option, both = f"--{name.replace('_', '-')}", " and ".join(header[place] for place in found)
        has_titles = len({plain(header[place]) for place in found}) == len(found)
        how = "" if has_titles else ", by its place: " + " or ".join(f'{option} "#{place + 1}"' for place in found)
        raise CannotImport(f"{both} could each be the {name}: name one with {option}{how}")
    return found[0] if found else None


def _usual_names(name: str, export: Export | None) -> set[str]:
    usual = set(COLUMNS[name])
    if export is None:
        return usual
    if name == "external_id":
        # `user id` in an ESP's export is its own id, unless somebody says that it is the customer's.
        return {"external id", "externalid"}
    chosen = {"email": export.email, "time": export.time, "reason": export.reason}[name]
    return {chosen} if chosen else usual


def _is_address(text: str) -> bool:
    try:
        _ROW.load({"email": text})
    except ValidationError:
        return False
    return True


# ---------------------------------------------------------------- looking at all of it first


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What stands in the columns of the rows that are meant."""

    columns: tuple[Column, ...]
    #: Place of a column → some of the different texts in it.
    samples: Mapping[int, tuple[str, ...]]
    #: How many rows are not meant.
    left_out: int = 0


def survey(
    file: CsvFile, layout: Layout, only: Sequence[Only], *, tick: Callable[[int], None] = lambda _: None
) -> Survey:
    """Count what the columns say. A column of `only` is counted in all rows, the others where `only` holds."""
    titles = Counter(map(plain, layout.header))
    columns = [
        Column(title=title, place=place, has_own_title=titles[plain(title)] == 1)
        for place, title in enumerate(layout.header)
    ]
    samples: list[dict[str, None]] = [{} for _ in columns]
    filtered, left_out = {one.place for one in only}, 0
    for number, row in enumerate(_data(file, layout), start=1):
        is_meant = all(one.holds(row.cells) for one in only)
        left_out += not is_meant
        for column, seen in zip(columns, samples, strict=True):
            if is_meant or column.place in filtered:
                cell = row.cells[column.place] if column.place < len(row.cells) else ""
                column.count(cell)
                if len(seen) < TIMES_SAMPLED and cell.strip():
                    seen[cell.strip()] = None
        if number % 1000 == 0:
            tick(number)
    for column, seen in zip(columns, samples, strict=True):
        column.is_reason = column.place == layout.places.get("reason") or "reason" in column.name.split()
        column.is_time = _is_time(column, list(seen))
    texts = {place: tuple(seen) for place, seen in enumerate(samples)}
    return Survey(columns=tuple(columns), samples=texts, left_out=left_out)


def _data(file: CsvFile, layout: Layout) -> Iterator[Row]:
    read = rows(file)
    if layout.has_header:
        next(read)
    return (row for row in read if not row.problem)


def _is_time(column: Column, texts: list[str]) -> bool:
    if not texts or "@" in texts[0] or _OTHER_TIME.search(column.name):
        return False
    if _TIME_NAME.search(column.name):
        return True  # also where nobody can read it: it is asked about then
    are_times = sum(map(times.is_time, texts)) > len(texts) // 2
    if _TIME_PERHAPS.search(column.name):
        return are_times or any(times.formats(texts))
    # Numbers alone are no times: an id is one, too.
    return any(not text.replace(".", "").isdecimal() for text in texts) and (are_times or any(times.formats(texts)))


def settle_time(layout: Layout, seen: Survey, *, has_contacts: bool, is_named: bool) -> Layout:
    """Find the column that says when somebody opted out. `has_contacts`: others are in the file, too.

    Raises `CannotImport` where there are times, and none of them is surely that one.
    """
    place = layout.places.get("time")
    if is_named or (place is not None and layout.export is not None and layout.export.time):
        return layout
    candidates = [column for column in seen.columns if column.is_time and column.place not in _who(layout)]
    telling = [column for column in candidates if _OPT_OUT_TIME.search(column.name)]
    if len(telling) == 1:
        return replace(layout, places={**layout.places, "time": telling[0].place})
    # In a list of contacts `created` is when the contact was.
    if place is not None and not telling and not has_contacts:
        return layout
    if not candidates and place is None:
        return layout
    asked = telling or candidates or [column for column in seen.columns if column.place == place]
    titles = ", ".join(column.title for column in asked[:5])
    raise CannotImport(
        f"is one of these columns when the person opted out: {titles}? Say --time {quoted(asked[0].to_type)}, or "
        "--no-time if none is"
    )


def _who(layout: Layout) -> set[int]:
    return {place for name, place in layout.places.items() if name in KIND_OF}


def check_times(title: str, texts: Sequence[str], time: PastTime) -> None:
    """Ask how times are written that nobody can read for sure. Raises `CannotImport`."""
    if not texts or any(_can_read(time, text) for text in texts):
        return  # those that cannot be read are rejected one by one
    fitting = list(itertools.islice(times.formats(texts), 2))
    first = next((text for text in texts if not text.isdecimal()), texts[0])[:40]
    if fitting:
        how = "say " + " or ".join(f'--time-format "{pattern}"' for pattern in fitting)
    else:
        how = "export them like 2026-01-05T10:15:30Z, or say how with --time-format, as strptime writes it"
    raise CannotImport(f"the times in {title} are written like {first}: {how}; or --no-time")


def _can_read(time: PastTime, text: str) -> bool:
    try:
        time.deserialize(text)
    except ValidationError:
        return False
    return True


# ---------------------------------------------------------------- row by row


def _cell(row: Row, place: int | None) -> str:
    return row.cells[place].strip() if place is not None and place < len(row.cells) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListReader:
    """Turns the rows of a file into changes, the same ones each time it is asked."""

    file: CsvFile
    layout: Layout
    #: When a row without a time was an opt-out for sure.
    as_of: datetime
    #: The rows that are meant.
    only: tuple[Only, ...] = ()
    time_format: str | None = None
    time_zone: tzinfo = UTC

    def rows(self) -> Iterator[tuple[Row, ConsentChange | ValidationError]]:
        """Every row that is meant, with the change it means, or why it means none. Raises `NotCsv`."""
        read = rows(self.file)
        if self.layout.has_header:
            next(read)
        time = self.time
        for row in read:
            try:
                self._check_whole(row)
                if all(one.holds(row.cells) for one in self.only):
                    yield row, self._change(row, time)
            except ValidationError as error:
                yield row, error

    @property
    def time(self) -> PastTime:
        return PastTime(pattern=self.time_format, zone=self.time_zone)

    def raw(self, row: Row) -> bytes:
        used = {name: row.cells[place] for name, place in self.layout.places.items() if place < len(row.cells)}
        return keep_row(self.file.path.name, row.line, used)

    def has_time(self, row: Row) -> bool:
        return any(_cell(row, place) for place in (self.layout.places.get("time"), self.layout.as_of))

    def as_of_row(self, row: Row) -> datetime:
        """As of when a row without a time counts: a mended one keeps the date of the list that it is from.

        Raises `ValidationError` where that cannot be read: the date of the rejects is a later one.
        """
        if self.layout.as_of is None:
            return self.as_of
        cell = "" if row.problem else _cell(row, self.layout.as_of)
        if not cell:
            raise ValidationError("is empty", REJECTED[AS_OF])
        return self._time(cell, PastTime(), REJECTED[AS_OF])

    def _change(self, row: Row, time: PastTime) -> ConsentChange:
        places, identity = self.layout.places, self.layout.identity
        cells = {name: row.cells[place].strip() for name, place in places.items() if place < len(row.cells)}
        if not cells.get(identity):
            raise ValidationError("is empty", identity)
        occurred_at = self._time(cells["time"], time) if cells.get("time") else self.as_of_row(row)
        # Exactly one identifier: the other one is not even looked at.
        loaded = _ROW.load({name: cell for name, cell in cells.items() if cell and name in (identity, "reason")})
        return ConsentChange(
            action=Action.OPT_OUT,
            identity=Identity(kind=KIND_OF[identity], value=loaded[identity]),
            reason=loaded.get("reason") or REASON,
            occurred_at=occurred_at,
        )

    def _time(self, cell: str, time: PastTime, name: str = "time") -> datetime:
        try:
            return time.deserialize(cell) or self.as_of
        except ValidationError as error:
            raise ValidationError({name: error.messages}) from None

    def _check_whole(self, row: Row) -> None:
        if row.problem:
            raise ValidationError(row.problem, "row")
        self._check_columns(row)
        count, expected = len(row.cells), len(self.layout.header)
        if any(cell.strip() for cell in row.cells[expected:]):
            raise ValidationError(f"has {count} cells, the header has {expected}", "row")
        if not row.is_ended and count < expected:
            raise ValidationError("is cut off: the file ends in the middle of it", "row")

    def _check_columns(self, row: Row) -> None:
        """Two files put together: from a second header on, a cell may be another column's."""
        place = self.layout.places[self.layout.identity]
        cell = row.cells[place] if place < len(row.cells) else ""
        if "@" in cell or not self.layout.has_header:
            return
        header, cells = [plain(title) for title in self.layout.header], [plain(cell) for cell in row.cells]
        # Where the address should be stands the title of a column.
        if plain(cell) not in header or not plain(cell):
            return
        if cells != header:
            raise NotCsv(f"changes its columns in line {row.line}: import the two parts as files of their own")
        raise ValidationError("is the header again", "row")
