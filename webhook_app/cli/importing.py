"""`flask import`: the opt-outs from before the webhook, out of a CSV file."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
from flask import current_app
from flask.cli import with_appcontext
from marshmallow import ValidationError

from webhook_app.cli import shared
from webhook_app.outbox import Database, OutboxUnavailable, schema
from webhook_app.outbox.imports import Import, Imports
from webhook_app.outbox.lookup import is_backlog_over, is_being_worked_off
from webhook_app.sync.consent_columns import about_consent
from webhook_app.sync.consent_values import Said
from webhook_app.sync.csv_file import CannotImport, NotCsv, look_through, rows
from webhook_app.sync.importing import Check, check_list, store
from webhook_app.sync.opt_out_list import (
    COLUMNS,
    KIND_OF,
    ListReader,
    Survey,
    check_times,
    layout_of,
    names_identity,
    settle_time,
    survey,
)
from webhook_app.sync.row_choice import NotOptOuts, check_columns, parse_only, values_of
from webhook_app.sync.times import PastTime, has_zone, is_pattern

#: How many changes may wait to be sent before an import pauses: a fresh opt-out waits behind them.
AHEAD = 20_000
AHEAD_WAIT = 0.2  # seconds

#: Dynamic Yield knows external ids only of other integrations than these.
EMAIL_ONLY = frozenset({"sendgrid", "responsys"})


@click.command("import")
@click.argument("provider")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--email", help='The column with the address, by its title or its place ("#2").')
@click.option("--external-id", help="The column with your own id of the person.")
@click.option("--time", help="The column that says when they opted out.")
@click.option("--reason", help="The column that says why.")
@click.option("--identity", type=click.Choice(list(KIND_OF)), help="Which identifier, where the file has both.")
@click.option("--as-of", help="When the list was exported, for rows without a time.  [default: the file's last change]")
@click.option("--only", multiple=True, metavar="COLUMN=VALUE,…", help="Take only rows in which a column says this.")
@click.option("--all-rows", is_flag=True, help="Take every row, whatever its columns say: everybody has opted out.")
@click.option("--time-format", metavar="FORMAT", help="How times are written, like %d.%m.%Y.  [default: ISO 8601]")
@click.option("--time-zone", metavar="NAME", help="The zone of times without one, like Europe/Berlin.  [default: UTC]")
@click.option("--no-time", is_flag=True, help="No column says when they opted out.")
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

    An export of all contacts is refused, with the column and the values that tell who of them has opted out.
    Checks the whole file first; rows that cannot be imported go to FILE.rejects.csv with the reason. An import that
    was cut off goes on where it stopped when the same command is run again; importing a file twice adds nothing.
    """
    database = shared.database()
    try:
        shared.find_provider(provider)
        if problem := schema.problem(database):
            raise CannotImport(str(problem))
        reader = _open(file, provider, as_of, how)
        imports = Imports(database)
        record = _record(
            imports, _import_id(reader, provider), reader.as_of, as_of_given=as_of is not None, again=again
        )
        reader = replace(reader, as_of=record.as_of)
        found = _check_aloud(reader, provider)
        if dry_run or not yes:
            _show(found)
        if dry_run:
            return
        if not yes:
            click.confirm(
                f"Import {_count(found.good - found.no_section - found.unclear, 'row')} as opt-outs of {provider}?",
                abort=True,
            )
        _store_aloud(reader, provider, record, found, imports=imports, database=database, ahead=ahead)
    except (CannotImport, NotCsv, NotOptOuts) as error:
        name = f"{file.name} " if isinstance(error, NotCsv | NotOptOuts) else ""
        raise click.ClickException(f"{name}{error}") from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    except OutboxUnavailable as error:
        raise click.ClickException(
            f"the database cannot be used: {error}. What was imported so far is safe; run the command again to go on"
        ) from None


def _open(file: Path, provider: str, as_of: str | None, how: Mapping[str, Any]) -> ListReader:
    names = {name: value for name in COLUMNS if (value := how.get(name))}
    chosen = [value for name, value in names.items() if name in KIND_OF]
    with click.progressbar(length=file.stat().st_size, label="Reading  ") as bar:
        source = look_through(
            file, encoding=how["encoding"], is_header=lambda cells: names_identity(cells, chosen), tick=bar.update
        )
    first = next(rows(source), None)
    if first is None or first.problem:
        raise CannotImport(f"the first line of {file.name} {first.problem if first else 'is missing'}")
    layout = layout_of(first, names, how["identity"] or "", no_time=how["no_time"])
    if layout.identity == "external_id" and provider in EMAIL_ONLY:
        raise CannotImport(
            f"Dynamic Yield knows people of {provider} by their address only: the file needs a column email"
        )
    reader = ListReader(
        file=source,
        layout=layout,
        as_of=_as_of(as_of, file),
        only=tuple(parse_only(given, layout.header) for given in how["only"]),
        time_format=_time_format(how["time_format"]),
        time_zone=_time_zone(how["time_zone"]),
    )
    return _look_at_columns(reader, how) if layout.has_header else reader


def _look_at_columns(reader: ListReader, how: Mapping[str, Any]) -> ListReader:
    """Make sure that its rows are opt-outs, and find out when they were."""
    if reader.layout.export:
        click.echo(f"By its columns: {reader.layout.export.title}.")
    with click.progressbar(length=reader.file.lines, label="Looking  ") as bar:
        seen = survey(reader.file, reader.layout, reader.only, tick=_stepper(bar))
    if reader.only:
        click.echo(f"--only leaves out {_count(seen.left_out, 'row')}.")
    consent = about_consent(seen.columns)
    if not how["all_rows"]:
        _check_consent(reader, seen)
    for column in {one.place: one for one in (*consent, *(seen.columns[only.place] for only in reader.only))}.values():
        if not column.is_free_text:
            click.echo(f"The column {values_of(column)}.")
    if how["no_time"]:
        return _without_time(reader, how["time"])
    has_contacts = bool(reader.only) or any(not column.is_reason for column in consent)
    layout = settle_time(reader.layout, seen, has_contacts=has_contacts, is_named=bool(how["time"]))
    if (place := layout.places.get("time")) is not None:
        check_times(layout.header[place], seen.samples[place], reader.time)
        if not how["time_zone"] and not all(map(has_zone, seen.samples[place])):
            click.echo(f"Times in {layout.header[place]} that name no zone are taken as UTC (--time-zone).")
    return replace(reader, layout=layout)


def _check_consent(reader: ListReader, seen: Survey) -> None:
    export, layout = reader.layout.export, reader.layout
    is_told = any(Said.OUT in column.said for column in about_consent(seen.columns))
    if export and export.not_opt_outs and not is_told:
        whom = "every row that --only chose" if reader.only else "everybody in it"
        raise NotOptOuts(f"{export.not_opt_outs}. --all-rows opts {whom} out")
    used = [place for name, place in layout.places.items() if name in (*KIND_OF, "time")]
    is_known = export is not None and not export.has_contacts
    check_columns(seen.columns, reader.only, used=used, is_known=is_known)


def _without_time(reader: ListReader, named: str | None) -> ListReader:
    if named:
        raise CannotImport("--time and --no-time contradict each other")
    places = {name: place for name, place in reader.layout.places.items() if name != "time"}
    return replace(reader, layout=replace(reader.layout, places=places))


def _time_format(given: str | None) -> str | None:
    if given and not is_pattern(given):
        raise CannotImport(f"--time-format {given} is none: write it like %d.%m.%Y %H:%M")
    return given


def _time_zone(given: str | None) -> tzinfo:
    try:
        return ZoneInfo(given) if given else UTC
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CannotImport(f"--time-zone {given} is not known here: write it like Europe/Berlin") from None


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


def _import_id(reader: ListReader, provider: str) -> str:
    """The same content, read in the same way, is the same import."""
    layout = reader.layout
    read_as: list[Any] = [
        *(reader.file.digest, provider, reader.file.encoding, layout.identity, sorted(layout.places.items()))
    ]
    if reader.only or reader.time_format or reader.time_zone is not UTC:
        only = sorted((one.place, sorted(one.values)) for one in reader.only)
        read_as += [only, reader.time_format, str(reader.time_zone)]
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


def _check_aloud(reader: ListReader, provider: str) -> Check:
    rejects = reader.file.path.with_suffix(".rejects.csv")
    with click.progressbar(length=reader.file.lines, label="Checking ") as bar:
        sections = current_app.extensions["conditions"]
        found = check_list(reader, rejects, provider, sections=sections, tick=_stepper(bar))
    if found.rejected:
        click.echo(f"{_count(found.rejected, 'row')} cannot be imported; they are in {rejects}:")
        for reason, count in found.reasons.most_common(10):
            click.echo(f"{count:>9,}  {reason}")
    if not found.good:
        raise CannotImport(f"there is no row in {reader.file.path.name} that can be imported")
    click.echo(f"{_count(found.good, 'row')} can be imported ({reader.file.encoding}, by {reader.layout.identity}).")
    _say_unconcerned(found, reader.file.path.name)
    if found.untimed:
        click.echo(
            f"{_count(found.untimed, 'row')} of them without a time: as of {_moment(reader.as_of)}, when the list was "
            "made (say --as-of if that is wrong). A change after that is not overridden."
        )
    return found


def _say_unconcerned(found: Check, name: str) -> None:
    """Rows that nobody will be sent. Where that is all of them, the condition was not made for a file."""
    if found.no_section == found.good:
        raise CannotImport(
            f"no row of {name} concerns a section of Dynamic Yield: SECTION_WHEN, or when in SECTIONS_FILE, leaves all "
            "of them out. A row of a file has no fields but email, external_id, time and reason"
        )
    if found.no_section:
        click.echo(
            f"{_count(found.no_section, 'row')} of them concern no section of Dynamic Yield (SECTION_WHEN, "
            "SECTIONS_FILE): left out."
        )
    if found.unclear:
        click.echo(
            f"The condition of a section fails on {_count(found.unclear, 'row')} of them: set aside in quarantine."
        )


def _show(found: Check) -> None:
    """The first rows, as they would be taken."""
    for change in found.sample:
        moment = _moment(change.occurred_at) if change.occurred_at else ""
        click.echo(f"  {change.identity.value}  opted out {moment}  ({change.reason})")


def _store_aloud(
    reader: ListReader, provider: str, record: Import, found: Check, *, imports: Imports, database: Database, ahead: int
) -> None:
    if record.rows:
        click.echo(f"Going on after row {record.rows:,}.")
    elif imports.find(record.id):
        imports.forget(record.id)
    imports.begin(record, provider)

    configured = current_app.extensions["sections"]

    def make_room() -> None:
        while ahead and is_backlog_over(database, ahead, configured) and is_being_worked_off(database):
            time.sleep(AHEAD_WAIT)

    with click.progressbar(length=found.good + found.rejected, label="Importing") as bar:
        store(
            reader,
            provider,
            record,
            database=database,
            imports=imports,
            sections=current_app.extensions["conditions"],
            make_room=make_room,
            tick=_stepper(bar),
        )
    done = imports.find(record.id) or record
    left_out = f", {found.no_section:,} that concern no section" if found.no_section else ""
    click.echo(f"Imported: {done.accepted:,} new, {done.duplicates:,} known already{left_out}. The worker sends them.")
    if found.unclear:
        click.echo(f"{found.unclear:,} in quarantine: mend the section's condition, and import the file with --again.")


def _stepper(bar: Any) -> Callable[[int], None]:
    """Moves a progress bar to a position."""
    return lambda position: bar.update(position - bar.pos)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
