"""`flask import`: the opt-outs from before the webhook, out of a CSV file, through the same outbox."""

import csv
import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import click
from flask import current_app
from flask.cli import with_appcontext
from marshmallow import EXCLUDE, Schema, ValidationError

from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.csv_reading import CsvFile, NotCsv, Row, look_through, rows
from webhook_app.outbox import Database, Intake, OutboxUnavailable, schema
from webhook_app.outbox.hashing import load_hasher
from webhook_app.outbox.imports import Import, Imports
from webhook_app.outbox.lookup import Known, is_backlog_over, is_being_worked_off, newest_changes
from webhook_app.providers import explain
from webhook_app.providers.fields import Address, Text, Timestamp

BATCH = 1000  # rows in one commit; a webhook that comes in between waits for no more than that
#: How many changes may wait to be sent before an import pauses: a fresh opt-out waits behind them.
AHEAD = 20_000
AHEAD_WAIT = 0.2  # seconds
DATABASE_TRIES = 6
DATABASE_WAIT = 5.0  # seconds
#: What no column says: the file is a list of opt-outs.
REASON = "import"
#: Numbers below this are no Unix times but dates without separators (20260105) or Excel's days (45662).
FIRST_UNIX_TIME = 1_000_000_000
#: How far in the future a time may lie: a clock that goes wrong, or a zone that is not UTC.
TOLERANCE = timedelta(days=1)

#: Dynamic Yield knows external ids only of other integrations than these.
EMAIL_ONLY = frozenset({"sendgrid", "responsys"})

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


@dataclass(slots=True, kw_only=True)
class Check:
    """What the first look at every row has found; nothing is stored yet."""

    good: int = 0
    untimed: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def check(reader: Reader, rejects: Path, *, tick: Callable[[int], None] = lambda _: None) -> Check:
    """Try every row, and write those that cannot be imported to `rejects`, each with its reason."""
    found = Check()
    writer = _Rejects(rejects, reader)
    try:
        for number, (row, change) in enumerate(reader.rows(), start=1):
            if isinstance(change, ValidationError):
                reason = explain(change)
                found.rejected += 1
                found.reasons[reason] += 1
                writer.write(row, reason)
            else:
                found.good += 1
                found.untimed += not reader.has_time(row)
            if number % BATCH == 0:
                tick(number)
    finally:
        writer.close()
    return found


class _Rejects:
    """The file of rejected rows: can be mended and imported as it is. Made only when there is one."""

    def __init__(self, path: Path, reader: Reader) -> None:
        self._path = path
        self._header = reader.layout.header
        self._file: TextIO | None = None
        self._csv: Any = None

    def write(self, row: Row, reason: str) -> None:
        if self._file is None:
            # It holds addresses.
            opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.fchmod(opened, 0o600)
            self._file = os.fdopen(opened, "w", newline="", encoding="utf-8")
            self._csv = csv.writer(self._file)
            self._csv.writerow([*self._header, "rejected_line", "rejected_because"])
        cells = [*row.cells, *[""] * (len(self._header) - len(row.cells))]
        self._csv.writerow([*cells, row.line, reason])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def store(
    reader: Reader,
    provider: str,
    record: Import,
    *,
    database: Database,
    imports: Imports,
    make_room: Callable[[], None] = lambda: None,
    tick: Callable[[int], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Add every good row that is not on disk yet, a batch a commit. Raises `OutboxUnavailable`.

    `record` says where to go on. `make_room` is called before each batch, `tick` hears how many rows are done.
    """
    intake, hasher = Intake(database), load_hasher(database)
    batch: list[tuple[ConsentChange, bytes]] = []
    number = 0

    def add() -> int:
        # What a webhook has said, or a comparison with the ESP's lists has found, need not be sent again.
        known = newest_changes(database, hasher, (change.identity for change, _ in batch))
        news = [(change, raw) for change, raw in batch if not _is_known(known, change)]
        return intake.add(provider, changes=news).accepted

    def flush(*, finished: bool = False) -> None:
        _patiently(make_room, sleep)
        accepted = _patiently(add, sleep)
        duplicates = len(batch) - accepted
        _patiently(
            lambda: imports.advance(
                record.id, rows=number, accepted=accepted, duplicates=duplicates, finished=finished
            ),
            sleep,
        )
        batch.clear()
        tick(number)

    for number, (row, change) in enumerate(reader.rows(), start=1):
        if number <= record.rows:
            continue
        if isinstance(change, ConsentChange):
            batch.append((change, reader.raw(row)))
        if len(batch) == BATCH:
            flush()
    flush(finished=True)


def _is_known(known: Mapping[str, Known], change: ConsentChange) -> bool:
    newest = known.get(change.identity.key)
    return newest is not None and change.occurred_at is not None and newest.covers_opt_out(change.occurred_at)


def _patiently(write: Callable[[], Any], sleep: Callable[[float], None]) -> Any:
    """A database that restarts, or is locked for a moment, ends no import of a million rows."""
    for _ in range(DATABASE_TRIES - 1):
        try:
            return write()
        except OutboxUnavailable:
            sleep(DATABASE_WAIT)
    return write()


@click.command("import")
@click.argument("provider")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--email", help="The column with the address.")
@click.option("--external-id", help="The column with your own id of the person.")
@click.option("--time", help="The column that says when they opted out.")
@click.option("--reason", help="The column that says why.")
@click.option("--identity", type=click.Choice(list(KIND_OF)), help="Which identifier, where the file has both.")
@click.option("--as-of", help="When the list was exported, for rows without a time.  [default: the file's last change]")
@click.option("--encoding", default="", help="Like cp1250.  [default: found out]")
@click.option("--dry-run", is_flag=True, help="Check every row, and import none.")
@click.option("--again", is_flag=True, help="Import a file once more that was imported already.")
@click.option("--ahead", default=AHEAD, show_default=True, help="Pause while more changes than these wait; 0: never.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_appcontext
def import_file(
    provider: str, file: Path, as_of: str | None, dry_run: bool, again: bool, ahead: int, yes: bool, **how: Any
) -> None:
    """Import the opt-outs in FILE, a CSV with a column email or external_id, as if PROVIDER had sent them.

    Checks the whole file first; rows that cannot be imported go to FILE.rejects.csv with the reason. An import that
    was cut off goes on where it stopped when the same command is run again; importing a file twice adds nothing.
    """
    database: Database = current_app.extensions["database"]
    try:
        _check_provider(provider)
        if problem := schema.problem(database):
            raise CannotImport(problem)
        reader = _open(file, provider, as_of, how)
        imports = Imports(database)
        record = _record(
            imports, _import_id(reader, provider), reader.as_of, as_of_given=as_of is not None, again=again
        )
        reader = Reader(file=reader.file, layout=reader.layout, as_of=record.as_of)
        found = _check_aloud(reader)
        if dry_run:
            return
        if not yes:
            click.confirm(f"Import {_count(found.good, 'row')} as opt-outs of {provider}?", abort=True)
        _store_aloud(reader, provider, record, found, imports=imports, database=database, ahead=ahead)
    except (CannotImport, NotCsv) as error:
        name = f"{file.name} " if isinstance(error, NotCsv) else ""
        raise click.ClickException(f"{name}{error}") from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    except OutboxUnavailable as error:
        raise click.ClickException(
            f"the database cannot be used: {error}. What was imported so far is safe; run the command again to go on"
        ) from None


def _check_provider(provider: str) -> None:
    providers = current_app.extensions["providers"]
    if provider not in providers:
        raise CannotImport(f"there is no provider {provider}; there are: {', '.join(sorted(providers))}")


def _open(file: Path, provider: str, as_of: str | None, how: Mapping[str, str | None]) -> Reader:
    with click.progressbar(length=file.stat().st_size, label="Reading  ") as bar:
        source = look_through(file, encoding=how["encoding"] or "", tick=bar.update)
    first = next(rows(source), None)
    if first is None or first.problem:
        raise CannotImport(f"the first line of {file.name} {first.problem if first else 'is missing'}")
    names = {name: value for name in COLUMNS if (value := how.get(name))}
    layout = layout_of(first, names, how["identity"] or "")
    if layout.identity == "external_id" and provider in EMAIL_ONLY:
        raise CannotImport(
            f"Dynamic Yield knows people of {provider} by their address only: the file needs a column email"
        )
    return Reader(file=source, layout=layout, as_of=_as_of(as_of, file))


def _as_of(given: str | None, file: Path) -> datetime:
    """Rows without a time say that somebody was opted out when the list was made.

    They win over what was known before it, and never over what came after.
    """
    if given is None:
        return min(datetime.fromtimestamp(file.stat().st_mtime, UTC), datetime.now(UTC))
    try:
        return PastTime().deserialize(given) or datetime.now(UTC)
    except ValidationError as error:
        raise CannotImport(f"--as-of {error.messages[0]}") from None


def _import_id(reader: Reader, provider: str) -> str:
    """The same content, read in the same way, is the same import."""
    layout = reader.layout
    read_as = [reader.file.digest, provider, reader.file.encoding, layout.identity, sorted(layout.places.items())]
    return hashlib.sha256(json.dumps(read_as).encode()).hexdigest()


def _record(imports: Imports, import_id: str, as_of: datetime, *, as_of_given: bool, again: bool) -> Import:
    known = imports.find(import_id)
    if known is None or again:
        return Import(id=import_id, as_of=as_of)
    if known.finished_at:
        raise CannotImport(
            f"this file was imported on {_moment(known.finished_at)}: {_count(known.rows, 'row')}, "
            f"{known.accepted:,} of them new. To go through it once more, say --again"
        )
    if as_of_given and as_of != known.as_of:
        raise CannotImport(f"the import of this file was begun with --as-of {known.as_of.isoformat()}; say --again")
    return known


def _check_aloud(reader: Reader) -> Check:
    rejects = reader.file.path.with_suffix(".rejects.csv")
    with click.progressbar(length=reader.file.lines, label="Checking ") as bar:
        found = check(reader, rejects, tick=_stepper(bar))
    if found.rejected:
        click.echo(f"{_count(found.rejected, 'row')} cannot be imported; they are in {rejects}:")
        for reason, count in found.reasons.most_common(10):
            click.echo(f"{count:>9,}  {reason}")
    if not found.good:
        raise CannotImport(f"there is no row in {reader.file.path.name} that can be imported")
    click.echo(f"{_count(found.good, 'row')} can be imported ({reader.file.encoding}, by {reader.layout.identity}).")
    if found.untimed:
        click.echo(
            f"{_count(found.untimed, 'row')} of them without a time: as of {_moment(reader.as_of)}, when the list was "
            "made (say --as-of if that is wrong). A change after that is not overridden."
        )
    return found


def _store_aloud(
    reader: Reader, provider: str, record: Import, found: Check, *, imports: Imports, database: Database, ahead: int
) -> None:
    if record.rows:
        click.echo(f"Going on after row {record.rows:,}.")
    elif imports.find(record.id):
        imports.forget(record.id)
    imports.begin(record, provider)

    def make_room() -> None:
        while ahead and is_backlog_over(database, ahead) and is_being_worked_off(database, time.time()):
            time.sleep(AHEAD_WAIT)

    with click.progressbar(length=found.good + found.rejected, label="Importing") as bar:
        store(
            reader,
            provider,
            record,
            database=database,
            imports=imports,
            make_room=make_room,
            tick=_stepper(bar),
        )
    done = imports.find(record.id) or record
    click.echo(f"Imported: {done.accepted:,} new, {done.duplicates:,} known already. The worker sends them.")


def _stepper(bar: Any) -> Callable[[int], None]:
    """Moves a progress bar to a position."""
    return lambda position: bar.update(position - bar.pos)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
