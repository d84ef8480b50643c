"""Importing a list of opt-outs through the same outbox: look at every row first, then store them batch by batch."""

import csv
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, TextIO

from marshmallow import ValidationError

from webhook_app.consent import ConsentChange
from webhook_app.outbox import Added, Database, Intake, OutboxUnavailable
from webhook_app.outbox.hashing import load_hasher
from webhook_app.outbox.imports import Import, Imports
from webhook_app.outbox.lookup import NewestChange
from webhook_app.outbox.routing import ConditionFailed, RoutingCondition, concerned
from webhook_app.providers import explain
from webhook_app.sync.csv_file import Row
from webhook_app.sync.known_changes import known_changes, sections_of
from webhook_app.sync.known_exports import REJECTED, plain
from webhook_app.sync.opt_out_list import ListReader

#: Changes with the rows they are from.
Batch = list[tuple[ConsentChange, bytes]]
BATCH = 1000  # rows in one commit; a webhook that comes in between waits for no more than that
SAMPLE = 3  # rows that are shown as they would be taken
DATABASE_TRIES = 6
DATABASE_WAIT = 5.0  # seconds


@dataclass(slots=True, kw_only=True)
class Check:
    """What the first look at every row has found; nothing is stored yet."""

    good: int = 0
    untimed: int = 0
    #: Of the good ones: what concerns no section and is left out, and what the condition of one makes no sense of.
    no_section: int = 0
    unclear: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    #: The first changes, for the person who has to agree.
    sample: list[ConsentChange] = field(default_factory=list)


def check_list(
    reader: ListReader,
    rejects: Path,
    provider: str,
    *,
    sections: Mapping[str, RoutingCondition] | None = None,
    tick: Callable[[int], None] = lambda _: None,
) -> Check:
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
                # Written out only for a condition to look at: a file may have a million rows.
                taken = not sections or _is_taken(found, provider, change, reader.raw(row), sections)
                if taken and len(found.sample) < SAMPLE:
                    found.sample.append(change)
            if number % BATCH == 0:
                tick(number)
    finally:
        writer.close()
    return found


def _is_taken(
    found: Check, provider: str, change: ConsentChange, raw: bytes, sections: Mapping[str, RoutingCondition]
) -> bool:
    """Whether a good row concerns a section; counted where it does not."""
    try:
        names = concerned(sections, provider, change, raw)
    except ConditionFailed:
        found.unclear += 1
        return False
    found.no_section += not names
    return bool(names)


class _Rejects:
    """The file of rejected rows: can be mended and imported as it is. Made only when there is one."""

    def __init__(self, path: Path, reader: ListReader) -> None:
        self._path = path
        self._reader = reader
        # Of rejects that are rejected once more, the columns are made anew.
        self._places = [place for place, title in enumerate(reader.layout.header) if plain(title) not in REJECTED]
        self._header = [reader.layout.header[place] for place in self._places]
        self._file: TextIO | None = None
        self._csv: Any = None

    def write(self, row: Row, reason: str) -> None:
        if self._file is None:
            # It holds addresses.
            opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.fchmod(opened, 0o600)
            self._file = os.fdopen(opened, "w", newline="", encoding="utf-8")
            self._csv = csv.writer(self._file)
            self._csv.writerow([*self._header, *REJECTED.values()])
        width = len(self._reader.layout.header)
        cells = [*row.cells, *[""] * (width - len(row.cells))]
        kept = [*(cells[place] for place in self._places), *cells[width:]]
        self._csv.writerow([*kept, row.line, reason, self._as_of(row)])

    def _as_of(self, row: Row) -> str:
        """Mended and imported, it counts as of this list: a later date would undo what came after it."""
        try:
            return self._reader.as_of_row(row).isoformat()
        except ValidationError:
            return ""  # to be filled in, from the first rejects

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def store(
    reader: ListReader,
    provider: str,
    record: Import,
    *,
    database: Database,
    imports: Imports,
    sections: Mapping[str, RoutingCondition] | None = None,
    make_room: Callable[[], None] = lambda: None,
    tick: Callable[[int], None] = lambda _: None,
) -> None:
    """Add every good row that is not on disk yet, a batch a commit. Raises `OutboxUnavailable`.

    `record` says where to go on. `make_room` is called before each batch, `tick` hears how many rows are done.
    """
    intake, hasher = Intake(database, sections=sections), load_hasher(database)
    # Of one section alone it need not be asked which one an opt-out concerns.
    several = sections if sections and len(sections) > 1 else {}
    batch: Batch = []
    number, is_ended = 0, Event()

    def add(batch: Batch) -> Added:
        # What a webhook has said, or a comparison with the ESP's lists has found, need not be sent again.
        people = ((change.identity, sections_of(several, provider, change, raw)) for change, raw in batch)
        known = known_changes(database, hasher, people)
        news = [entry for entry, newest in zip(batch, known, strict=True) if not _is_known(newest, entry[0])]
        return intake.add(provider, changes=news)

    def flush(batch: Batch, number: int, *, finished: bool = False) -> int:
        added: Added = _patiently(lambda: add(batch), is_ended)
        duplicates = len(batch) - added.accepted - added.no_section - added.quarantined
        _patiently(
            lambda: imports.advance(
                record.id, rows=number, accepted=added.accepted, duplicates=duplicates, finished=finished
            ),
            is_ended,
        )
        return number

    # A batch is read while the database takes the one before. This thread waits for the worker: Ctrl-C ends it.
    with ThreadPoolExecutor(1, thread_name_prefix="import") as storing:
        under_way: Future[int] | None = None
        try:
            for number, (row, change) in enumerate(reader.rows(), start=1):
                if number <= record.rows:
                    continue
                if isinstance(change, ConsentChange):
                    batch.append((change, reader.raw(row)))
                if len(batch) == BATCH:
                    if under_way:
                        tick(under_way.result())
                    _patiently(make_room, is_ended)
                    under_way, batch = storing.submit(flush, batch, number), []
            if under_way:
                tick(under_way.result())
            _patiently(make_room, is_ended)
            tick(flush(batch, number, finished=True))
        finally:
            is_ended.set()


def _is_known(newest: Sequence[NewestChange | None], change: ConsentChange) -> bool:
    at = change.occurred_at
    return at is not None and all(one is not None and one.covers_opt_out(at) for one in newest)


def _patiently(write: Callable[[], Any], is_ended: Event) -> Any:
    """A database that restarts, or is locked for a moment, ends no import of a million rows."""
    for _ in range(DATABASE_TRIES - 1):
        try:
            return write()
        except OutboxUnavailable:
            if is_ended.wait(DATABASE_WAIT):
                raise
    return write()
