"""`flask import`: what a file becomes in the outbox."""

import csv
import gc
import os
import signal
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select

from tests.outbox.world import ConcernedBy, concerned_by_word
from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.outbox import Intake, OutboxUnavailable, Queue
from webhook_app.outbox.routing import RoutingCondition
from webhook_app.outbox.tables import consents, events
from webhook_app.sync.importing import BATCH

EXPORTED = datetime(2026, 1, 5, 10, 15, 30, tzinfo=UTC)

Run = Callable[..., Result]


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app(FORWARD_OPT_INS="true", EMARSYS_TOKENS="a-long-enough-token-for-emarsys-0")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "list.csv"


@pytest.fixture
def run(app: Flask, file: Path) -> Run:
    def run(content: str | bytes, *arguments: str, provider: str = "sendgrid", answer: str = "") -> Result:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.utime(file, (EXPORTED.timestamp(), EXPORTED.timestamp()))
        return app.test_cli_runner().invoke(args=["import", provider, str(file), *arguments], input=answer)

    return run


def stored(app: Flask) -> list[Any]:
    with app.extensions["database"].read() as connection:
        return list(connection.execute(select(events).order_by(events.c.id)).all())


def when(row: Any) -> datetime:
    return datetime.fromtimestamp(row.occurred_at / 1e6, UTC)


def test_a_row_is_an_opt_out_at_its_time(run: Run, app: Flask) -> None:
    result = run("email,created,reason\nJane@Example.com,1760000000,complaint\n", "--yes")
    assert result.exit_code == 0, result.output
    (row,) = stored(app)
    assert (row.provider, row.state, row.action, row.identity_value) == (
        "sendgrid",
        "pending",
        "opt_out",
        "Jane@Example.com",
    )
    assert (row.reason, when(row).timestamp()) == ("complaint", 1760000000)


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        ("jane@example.com\nmax@example.com\n", ()),
        ("E-Mail Address;Created At\njane@example.com;2026-01-01\nmax@example.com;2026-01-01\n", ()),
        ("Kontakt\tName\njane@example.com\tJane\nmax@example.com\tMax\n", ("--email", "kontakt")),
        ("email,external_id\njane@example.com,1\nmax@example.com,2\n", ("--identity", "email")),
        ("email,time\njane@example.com,2026-01-01 10:00:00 UTC\nmax@example.com,2026-01-01T10:00:00+02:00\n", ()),
        ("email,,\njane@example.com,,\nmax@example.com\n", ()),
    ],
    ids=["no header", "other names", "a chosen column", "both identifiers", "times", "ragged"],
)
def test_columns_are_found_however_the_export_calls_them(
    content: str, arguments: tuple[str, ...], run: Run, app: Flask
) -> None:
    result = run(content, "--yes", *arguments)
    assert result.exit_code == 0, result.output
    assert [row.identity_value for row in stored(app)] == ["jane@example.com", "max@example.com"]


def test_an_external_id_is_kept_exactly(run: Run, app: Flask) -> None:
    result = run(
        'external_id,email\n="0042",jane@example.com\nAbC,\n', "--identity", "external_id", "--yes", provider="emarsys"
    )
    assert result.exit_code == 0, result.output
    assert [(row.identity_kind, row.identity_value) for row in stored(app)] == [
        ("external", "0042"),
        ("external", "AbC"),
    ]


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        ("", (), "list.csv is empty"),
        (b"PK\x03\x04rest", (), "is a workbook or an archive, not CSV"),
        ("jane@example.com,Jane\nmax@example.com,Max\n", (), "the first line names no column email or external_id"),
        ("Name,Kontakt\nJane,j@example.com\n", ("--email", "Mail"), "no column Mail; there are: Name, Kontakt"),
        ("email,e-mail\na@b.de,c@d.de\n", (), "email and e-mail could each be the email: name one with --email"),
        ("email,external_id\na@b.de,1\n", (), "say which of them Dynamic Yield knows"),
        ("external_id\n1\n", (), "knows people of sendgrid by their address only"),
        ("email\njane\n", (), "there is no row in list.csv that can be imported"),
        ("email\njane@example.com\n", ("--as-of", "yesterday"), "--as-of is not a time"),
        ("email\njane@example.com\n", ("--encoding", "klingon"), "no encoding called klingon"),
    ],
)
def test_a_file_that_cannot_be_imported_costs_one_clear_line_and_stores_nothing(
    content: str | bytes, arguments: tuple[str, ...], said: str, run: Run, app: Flask
) -> None:
    result = run(content, "--yes", *arguments)
    assert result.exit_code == 1, result.output
    assert said in result.output
    assert stored(app) == []


def test_rejects_that_cannot_be_written_stop_it_before_anything_is_stored(run: Run, app: Flask, file: Path) -> None:
    file.with_suffix(".rejects.csv").mkdir()
    result = run("email\njane\nmax@example.com\n", "--yes")
    assert result.exit_code == 1
    assert "list.rejects.csv: Is a directory" in result.output
    assert stored(app) == []


def test_an_unknown_provider_is_said(run: Run) -> None:
    result = run("email\njane@example.com\n", provider="sendgird")
    assert result.exit_code == 1
    assert "there is no provider sendgird; there are:" in result.output


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("jane", "email: is not an email address"),
        (",2026-01-01", "email: is empty"),
        ("a@b.de,05.01.2026", "time: is not a time; write it like 2026-01-05T10:15:30Z, or as Unix seconds"),
        ("a@b.de,20260105", "time: is a date without separators or a spreadsheet's number; write it like 2026-01-05"),
        ("a@b.de,46027.4", "time: is a date without separators or a spreadsheet's number; write it like 2026-01-05"),
        ("a@b.de,2999-01-01", "time: lies in the future"),
        ("a@b.de,2026-01-01,x,y", "row: has 4 cells, the header has 3"),
        ('a@b.de,2026-01-01,"x\nz",y', "row: has 4 cells, the header has 3"),
        ('"a@b.de', "row: has quotes that do not match"),
    ],
)
def test_a_bad_row_goes_to_the_rejects_with_its_reason_and_its_neighbours_are_imported(
    row: str, reason: str, run: Run, app: Flask, file: Path
) -> None:
    result = run(f"email,time,note\nbefore@example.com,2026-01-01,\n{row}\nafter@example.com,2026-01-01,\n", "--yes")
    assert result.exit_code == 0, result.output
    assert [row.identity_value for row in stored(app)] == ["before@example.com", "after@example.com"]
    header, reject = csv.reader(file.with_suffix(".rejects.csv").read_text().splitlines())
    assert header == ["email", "time", "note", "rejected_line", "rejected_because", "rejected_as_of"]
    assert reject[-3:] == ["3", reason, EXPORTED.isoformat()]
    assert f"1  {reason}" in result.output


def test_a_shortened_number_is_no_external_id(run: Run, file: Path) -> None:
    run("external_id\n1.23457E+11\n42\n", "--yes", provider="emarsys")
    assert "spreadsheet has shortened" in file.with_suffix(".rejects.csv").read_text()


@pytest.mark.parametrize("none", ["NULL", "none", "0", "{{id}}", "undefined", "N/A", "%%ID%%"])
def test_what_stands_where_there_was_no_id_is_no_external_id(none: str, run: Run, app: Flask, file: Path) -> None:
    result = run(f"external_id\n{none}\n42\n", "--yes", provider="emarsys")
    assert result.exit_code == 0, result.output
    assert [row.identity_value for row in stored(app)] == ["42"]
    assert "external_id: is what stands where there was no id" in file.with_suffix(".rejects.csv").read_text()


def test_mended_rejects_can_be_imported_as_they_are(run: Run, app: Flask, file: Path) -> None:
    run("email,reason\njane,x\nmax@example.com,\n", "--yes")
    rejects = file.with_suffix(".rejects.csv").read_text()
    result = run(rejects.replace("jane,", "jane@example.com,", 1), "--yes")
    assert result.exit_code == 0, result.output
    assert [(row.identity_value, row.reason) for row in stored(app)][-1] == ("jane@example.com", "x")


@pytest.mark.parametrize("header", ["email,reason", "email,time"])
def test_mended_rejects_keep_the_date_of_the_file_they_are_from(header: str, run: Run, app: Flask, file: Path) -> None:
    """Otherwise they would undo the opt-ins that came between the list and its mending."""
    run(f"{header}\njane,\nmax,\nlee@example.com,\n", "--yes", "--as-of", "2025-12-24T10:00:00Z")
    rejects = file.with_suffix(".rejects.csv")
    opted_in(app, datetime(2025, 12, 31, tzinfo=UTC))
    mended = rejects.read_text().replace("jane,", "jane@example.com,", 1)
    assert run(mended, "--yes").exit_code == 0
    # What is still wrong is rejected once more, and keeps the date again.
    assert rejects.read_text().splitlines()[0] == f"{header},rejected_line,rejected_because,rejected_as_of"
    result = run(rejects.read_text().replace("max,", "max@example.com,", 1), "--yes")
    assert "without a time" not in result.output
    assert sorted(sent(app)) == [
        ("jane@example.com", "opt_in"),
        ("lee@example.com", "opt_out"),
        ("max@example.com", "opt_out"),
    ]
    found = {row.identity_value: when(row) for row in stored(app) if row.action == "opt_out"}
    assert {moment.isoformat() for moment in found.values()} == {"2025-12-24T10:00:00+00:00"}


def test_mended_rejects_of_a_known_export_are_still_that_export(run: Run, app: Flask, file: Path) -> None:
    run("email,created,ip\njane,1760000000,\nmax@example.com,1760000000,\n", "--yes")
    rejects = file.with_suffix(".rejects.csv").read_text()
    result = run(rejects.replace("jane", "jane@example.com"), "--yes")
    assert "By its columns: SendGrid's spam reports." in result.output
    assert [when(row).timestamp() for row in stored(app)] == [1760000000, 1760000000]


def test_a_date_of_rejects_that_nobody_can_read_costs_that_row(run: Run, app: Flask, file: Path) -> None:
    run("email,rejected_as_of\njane@example.com,24.12.25\nmax@example.com,2025-12-24\n", "--yes")
    assert [row.identity_value for row in stored(app)] == ["max@example.com"]
    assert "rejected_as_of: is not a time" in file.with_suffix(".rejects.csv").read_text()


@pytest.mark.parametrize(
    "row",
    ["jane@example.com,x,24.12.25", "jane@example.com", '"jane@example.com,x,2025-12-24', "jane,x,", "jane,,never"],
)
def test_a_date_of_rejects_that_is_lost_is_asked_for(row: str, run: Run, app: Flask, file: Path) -> None:
    """The date of the second rejects is later than that of the list, and would undo the opt-ins between them."""
    run(f"email,reason,rejected_as_of\n{row}\nmax@example.com,,2025-12-24\n", "--yes")
    rejects = file.with_suffix(".rejects.csv")
    header, reject = csv.reader(rejects.read_text().splitlines())
    assert header == ["email", "reason", "rejected_line", "rejected_because", "rejected_as_of"]
    assert reject[-1] == ""
    # Mended but for the date.
    result = run(",".join(header) + "\njane@example.com,x,2,,\nlee@example.com,x,3,,2025-12-24\n", "--yes")
    assert "1  rejected_as_of: is empty" in result.output
    assert [row.identity_value for row in stored(app)] == ["max@example.com", "lee@example.com"]


def test_a_date_of_rejects_is_not_missed_where_a_row_has_a_time(run: Run, app: Flask) -> None:
    assert run("email,time,rejected_as_of\njane@example.com,2025-12-01,\n", "--yes").exit_code == 0
    assert len(stored(app)) == 1


@pytest.mark.parametrize(("arguments", "answer", "exit_code"), [(["--dry-run"], "", 0), ([], "n\n", 1), ([], "", 1)])
def test_ten_thousand_bad_lines_are_ten_lines_on_the_screen_and_nothing_is_stored_unless_agreed(
    arguments: list[str], answer: str, exit_code: int, run: Run, app: Flask, file: Path
) -> None:
    bad = "".join(f"person-{number}\n" for number in range(10_000))
    result = run(f"email\n{bad}jane@example.com\n", *arguments, answer=answer)
    assert result.exit_code == exit_code
    assert "10,000 rows cannot be imported" in result.output
    assert len(result.output.splitlines()) < 12
    assert len(file.with_suffix(".rejects.csv").read_text().splitlines()) == 10_001
    assert file.with_suffix(".rejects.csv").stat().st_mode & 0o777 == 0o600
    assert stored(app) == []


def test_importing_a_file_twice_adds_nothing(run: Run, app: Flask) -> None:
    content = "email,time\njane@example.com,\nmax@example.com,2026-01-01\n"
    run(content, "--yes")
    result = run(content, "--yes")
    assert result.exit_code == 1
    assert "this file was imported on" in result.output
    result = run(content, "--yes", "--again")
    assert "0 new, 2 known already" in result.output
    assert len(stored(app)) == 2


def test_a_row_that_stands_in_two_exports_with_its_time_is_one_change(run: Run, app: Flask) -> None:
    run("email,time\njane@example.com,2026-01-01\n", "--yes")
    run("time;email\n2026-01-01;jane@example.com\n2026-01-02;max@example.com\n", "--yes")
    assert len(stored(app)) == 2


def test_whoever_a_webhook_has_told_of_is_not_sent_again(run: Run, app: Flask) -> None:
    person = Identity(kind=IdentityKind.EMAIL, value="Jane@example.com")
    told = ConsentChange(action=Action.OPT_OUT, identity=person, reason="unsubscribe", occurred_at=EXPORTED)
    Intake(app.extensions["database"]).add("sendgrid", changes=[(told, b"{}")])
    result = run(
        f"email,time\njane@example.com,{EXPORTED.isoformat()}\nmax@example.com,{EXPORTED.isoformat()}\n", "--yes"
    )
    assert "1 new, 1 known already" in result.output
    assert [row.identity_value for row in stored(app)] == ["Jane@example.com", "max@example.com"]


def sent(app: Flask) -> list[tuple[str, str]]:
    """What the worker would send now, one claim after the other."""
    return [
        (claimed.change.identity.value, claimed.change.action)
        for claimed in Queue(app.extensions["database"]).claim(100)
        if claimed.change
    ]


def opted_in(app: Flask, at: datetime) -> None:
    person = Identity(kind=IdentityKind.EMAIL, value="jane@example.com")
    change = ConsentChange(action=Action.OPT_IN, identity=person, reason="group_resubscribe", occurred_at=at)
    Intake(app.extensions["database"]).add("sendgrid", changes=[(change, b"{}")])


@pytest.mark.parametrize(
    ("opt_in_at", "arguments", "action"),
    [
        # The list was exported at 10:15:30 and has no times.
        (datetime(2026, 1, 5, 10, 15, 29, tzinfo=UTC), (), "opt_out"),
        (datetime(2026, 1, 5, 10, 15, 31, tzinfo=UTC), (), "opt_in"),
        (datetime(2026, 1, 5, 10, 15, 29, tzinfo=UTC), ("--as-of", "2026-01-01"), "opt_in"),
        (datetime(2026, 1, 5, 10, 15, 31, tzinfo=UTC), ("--as-of", "2026-02-01"), "opt_out"),
    ],
)
def test_a_row_without_a_time_is_the_state_as_of_the_export(
    opt_in_at: datetime, arguments: tuple[str, ...], action: str, run: Run, app: Flask
) -> None:
    opted_in(app, opt_in_at)
    run("email\njane@example.com\n", "--yes", *arguments)
    assert sent(app) == [("jane@example.com", action)]


def test_a_copy_of_the_file_with_another_date_is_the_same_import(run: Run, app: Flask, file: Path) -> None:
    """Otherwise the copy would opt out again whoever has opted in since."""
    content = "email\njane@example.com\n"
    run(content, "--yes")
    os.utime(file)
    app.test_cli_runner().invoke(args=["import", "sendgrid", str(file), "--yes"])
    assert len(stored(app)) == 1


def only_of(reason: str) -> dict[str, RoutingCondition]:
    """One section, which what names this reason concerns; `broken` breaks its condition."""

    def holds(raw: bytes) -> bool:
        if b"broken" in raw:
            raise ValueError("jane@example.com")
        return reason.encode() in raw

    return {"default": ConcernedBy(holds)}


def test_rows_that_concern_no_section_are_told_from_those_that_are_known(run: Run, app: Flask) -> None:
    app.extensions["conditions"] = only_of("shop")
    content = "email,reason\na@b.de,shop\nc@d.de,blog\ne@f.de,blog\ng@h.de,broken\n"
    told = [
        "4 rows can be imported",
        "2 rows of them concern no section of Dynamic Yield (SECTION_WHEN, SECTIONS_FILE): left out.",
        "The condition of a section fails on 1 row of them: set aside in quarantine.",
    ]
    dry = run(content, "--dry-run").output
    assert [line for line in told if line not in dry] == []
    assert "c@d.de" not in dry  # it would not be taken
    result = run(content, "--yes")
    assert [line for line in told if line not in result.output] == []
    assert "Imported: 1 new, 0 known already, 2 that concern no section." in result.output
    assert "1 in quarantine: mend the section's condition, and import the file with --again." in result.output
    assert "@" not in result.output
    assert [(row.state, row.identity_value) for row in stored(app)] == [("pending", "a@b.de"), ("quarantined", None)]
    app.extensions["conditions"] = only_of("o")
    again = run(content.replace("broken", "whole"), "--yes").output
    assert "Imported: 3 new, 1 known already. The worker sends them." in again


def test_whom_one_section_has_heard_of_is_told_to_another_one_as_well(run: Run, app: Flask) -> None:
    app.extensions["conditions"] = concerned_by_word(uk="uk", ie="ie")
    assert "Imported: 1 new, 0 known already. The worker" in run("email,reason\na@b.com,uk\n", "--yes").output
    assert "Imported: 1 new, 0 known already. The worker" in run("email,reason\na@b.com,ie\n", "--yes").output
    both = run("email,reason\na@b.com,uk\na@b.com,ie\nc@d.com,fr\n", "--yes").output
    assert "Imported: 0 new, 2 known already, 1 that concern no section." in both
    with app.extensions["database"].read() as connection:
        assert set(connection.execute(select(consents.c.section)).scalars()) == {"uk", "ie"}


def test_a_file_of_which_no_row_concerns_a_section_is_refused_before_it_counts_as_imported(
    run: Run, app: Flask
) -> None:
    app.extensions["conditions"] = only_of("shop")
    result = run("email,reason\nc@d.de,blog\n", "--yes")
    assert result.exit_code == 1
    assert (
        "no row of list.csv concerns a section of Dynamic Yield: SECTION_WHEN, or when in SECTIONS_FILE"
        in result.output
    )
    app.extensions["conditions"] = only_of("blog")
    assert "Imported: 1 new, 0 known already. The worker" in run("email,reason\nc@d.de,blog\n", "--yes").output


def test_an_import_that_was_cut_off_goes_on_where_it_stopped(
    run: Run, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "email\n" + "".join(f"p{number}@example.com\n" for number in range(3 * BATCH + 5))
    add, calls = Intake.add, Counter[str]()

    def cut_off(self: Intake, *arguments: Any, **more: Any) -> Any:
        calls["add"] += 1
        if calls["add"] == 3:
            raise KeyboardInterrupt
        return add(self, *arguments, **more)

    monkeypatch.setattr(Intake, "add", cut_off)
    assert run(content, "--yes").exit_code == 1
    assert len(stored(app)) == 2 * BATCH
    calls["add"] = 10
    result = run(content, "--yes")
    assert f"Going on after row {2 * BATCH:,}" in result.output
    assert (result.exit_code, calls["add"]) == (0, 12), "what was stored before is not stored again"
    assert len(stored(app)) == 3 * BATCH + 5


def test_a_database_that_is_away_for_a_moment_is_waited_for(
    run: Run, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhook_app.sync.importing.DATABASE_WAIT", 0)
    add, calls = Intake.add, Counter[str]()

    def flaky(self: Intake, *arguments: Any, **more: Any) -> Any:
        calls["add"] += 1
        if calls["add"] < 3:
            raise OutboxUnavailable("the database is locked")
        return add(self, *arguments, **more)

    monkeypatch.setattr(Intake, "add", flaky)
    assert run("email\njane@example.com\n", "--yes").exit_code == 0
    assert len(stored(app)) == 1


def test_an_import_pauses_while_too_many_wait_and_somebody_works_them_off(
    run: Run, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh opt-out waits behind what an import has stored; a million rows would be twenty minutes."""
    database, waits = app.extensions["database"], []
    Queue(database).report("worker")

    def work(seconds: float) -> None:
        waits.append(seconds)
        with database.write() as connection:
            connection.execute(events.update().values(state="delivered"))

    monkeypatch.setattr("webhook_app.cli.importing.time", SimpleNamespace(sleep=work, time=time.time))
    content = "email\n" + "".join(f"p{number}@example.com\n" for number in range(2 * BATCH + 1))
    assert run(content, "--yes", "--ahead", str(BATCH // 2)).exit_code == 0
    assert len(waits) == 2


@pytest.fixture
def interruptible() -> Iterator[None]:
    """hypothesis watches the garbage collector from Python, and an interrupt that comes in there is lost."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_an_import_that_waits_for_the_worker(run: Run, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    Queue(app.extensions["database"]).report("worker")
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert len(waits) < 100, "it waits for ever"

    monkeypatch.setattr("webhook_app.cli.importing.time", SimpleNamespace(sleep=wait, time=time.time))
    content = "email\n" + "".join(f"p{number}@example.com\n" for number in range(3 * BATCH))
    assert run(content, "--yes", "--ahead", str(BATCH // 2)).exit_code == 1
    assert len(waits) == 1
    assert len(stored(app)) == BATCH


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_an_import_whose_database_is_away(run: Run, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook_app.sync.importing.DATABASE_WAIT", 0.3)
    add, calls = Intake.add, Counter[str]()

    def away(self: Intake, *arguments: Any, **more: Any) -> Any:
        calls["add"] += 1
        if calls["add"] == 1:
            return add(self, *arguments, **more)
        if calls["add"] == 2:
            os.kill(os.getpid(), signal.SIGINT)
        raise OutboxUnavailable("the database is away")

    monkeypatch.setattr(Intake, "add", away)
    assert run("email\n" + "".join(f"p{number}@example.com\n" for number in range(3 * BATCH)), "--yes").exit_code == 1
    assert calls["add"] == 2, "nothing is tried again"


def test_a_file_ten_times_as_long_needs_no_more_memory(app: Flask, tmp_path: Path) -> None:
    def peak(count: int) -> int:
        file = tmp_path / f"{count}.csv"
        file.write_text("email\n" + "".join(f"p{number}@example.com\n" for number in range(count)))
        tracemalloc.start()
        try:
            result = app.test_cli_runner().invoke(args=["import", "sendgrid", str(file), "--yes", "--ahead", "0"])
            assert f"{count:,} rows can be imported" in result.output
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2 * BATCH)  # what is loaded once
    short = peak(3 * BATCH)
    assert peak(30 * BATCH) < short + 2_000_000, "27,000 rows that were kept would be 30 MB"
