"""`flask reconcile sendgrid`, and the same by schedule: what is on SendGrid's lists and what is known here."""

import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select, update

from tests.processes import wait_until
from tests.sendgrid_api import ALL_SCOPES, Account, Call, SendGrid
from webhook_app.consent import Action, ConsentChange, Identity, IdentityKind
from webhook_app.ops.status import findings
from webhook_app.outbox import Database, Intake, Queue
from webhook_app.outbox.lookup import SLACK
from webhook_app.outbox.maintenance import Maintenance
from webhook_app.outbox.quarantine import Quarantine
from webhook_app.outbox.reconciliations import Compared, Reconciled, Reconciliation, Reconciliations
from webhook_app.outbox.tables import events, reconciliations
from webhook_app.settings import Settings
from webhook_app.sync.api import ApiError
from webhook_app.sync.reconciling import OVERLAP, Reconciler, Stopped, scheduled
from webhook_app.sync.sources import sendgrid as sendgrid_source

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)

Run = Callable[..., Result]


def reconciler(settings: Settings, database: Database) -> Reconciler:
    return Reconciler(sendgrid_source(settings, sleep=lambda _: None), database, every=settings.reconcile_every)


@pytest.fixture
def make_settings(database_url: str, sendgrid: SendGrid) -> Callable[..., Settings]:
    def make(**environ: str) -> Settings:
        given = {"DATABASE_URL": database_url, "SENDGRID_API_KEY": "SG.full", "SENDGRID_API_URL": sendgrid.url}
        return Settings.from_environment(given | environ)

    return make


@pytest.fixture
def reconcile(database: Database, make_settings: Callable[..., Settings]) -> Callable[..., Reconciled]:
    """Compares at once; keyword arguments are environment variables."""

    def reconcile(since: datetime | None = None, **environ: str) -> Reconciled:
        settings = make_settings(**environ)
        return reconciler(settings, database).compare(since, lambda _list, _result: None)

    return reconcile


@pytest.fixture
def run(make_app: Callable[..., Flask], sendgrid: SendGrid) -> Run:
    def run(*arguments: str, **environ: str) -> Result:
        app = make_app(**({"SENDGRID_API_KEY": "SG.full", "SENDGRID_API_URL": sendgrid.url} | environ))
        return app.test_cli_runner().invoke(args=["reconcile", "sendgrid", *arguments])

    return run


def stored(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(events).order_by(events.c.id)).all())


def last_of(database: Database, name: str = "sendgrid") -> Reconciliation | None:
    return next((one for one in Reconciliations(database).all() if one.name == name), None)


def known(database: Database, action: Action, at: datetime, email: str = "jane@example.com", **more: Any) -> None:
    """A webhook has said this."""
    person = Identity(kind=IdentityKind.EMAIL, value=email)
    change = ConsentChange(action=action, identity=person, reason="webhook", occurred_at=at, message_id="m", **more)
    Intake(database).add("sendgrid", changes=[(change, b"{}")])


def test_whoever_is_on_a_list_and_unknown_here_is_opted_out_as_of_then(
    sendgrid: SendGrid, database: Database, reconcile: Callable[..., Reconciled]
) -> None:
    sendgrid.account.suppress("unsubscribes", "Global@Example.com", 1_760_000_000)
    sendgrid.account.suppress("group_suppressions", "group@example.com", 1_760_000_001)
    sendgrid.account.suppress("spam_reports", "spam@example.com", 1_760_000_002)
    sendgrid.account.suppress("bounces", "bounce@example.com", 1_760_000_003)
    assert reconcile() == Reconciled(checked=3, drift=3)
    found = [(row.identity_value, row.reason, row.occurred_at / 1e6, row.action, row.state) for row in stored(database)]
    assert found == [
        ("Global@Example.com", "global_unsubscribes", 1_760_000_000, "opt_out", "pending"),
        ("group@example.com", "group_unsubscribes", 1_760_000_001, "opt_out", "pending"),
        ("spam@example.com", "spam_reports", 1_760_000_002, "opt_out", "pending"),
    ]


def test_the_lists_and_groups_follow_the_settings(
    sendgrid: SendGrid, database: Database, reconcile: Callable[..., Reconciled]
) -> None:
    sendgrid.account.suppress("unsubscribes", "global@example.com", 1_760_000_000)
    sendgrid.account.suppress("bounces", "bounce@example.com", 1_760_000_000, status="5.1.1")
    sendgrid.account.suppress("group_suppressions", "ours@example.com", 1_760_000_000, group_id=7)
    sendgrid.account.suppress("group_suppressions", "theirs@example.com", 1_760_000_000, group_id=8)
    assert reconcile(SENDGRID_EVENTS="bounce,dropped,group_unsubscribe", SENDGRID_GROUP_IDS="7,9").drift == 2
    assert {row.identity_value for row in stored(database)} == {"bounce@example.com", "ours@example.com"}


@pytest.mark.parametrize(
    ("action", "at", "drift", "outranked"),
    [
        (Action.OPT_OUT, NOON, 0, 0),
        (Action.OPT_OUT, NOON + timedelta(days=9), 0, 0),
        # SendGrid writes the event and the entry on two machines: a little earlier is the same opt-out.
        (Action.OPT_OUT, NOON - SLACK, 0, 0),
        # Between this one and the entry the person may have opted in, which is not forwarded by default.
        (Action.OPT_OUT, NOON - SLACK - timedelta(seconds=1), 1, 0),
        (Action.OPT_IN, NOON - timedelta(seconds=1), 1, 0),
        (Action.OPT_IN, NOON, 1, 0),  # a tie is an opt-out
        (Action.OPT_IN, NOON + timedelta(seconds=1), 0, 1),
    ],
)
def test_what_is_missing_depends_on_the_newest_that_is_known(
    action: Action,
    at: datetime,
    drift: int,
    outranked: int,
    sendgrid: SendGrid,
    database: Database,
    reconcile: Callable[..., Reconciled],
) -> None:
    known(database, action, at)
    sendgrid.account.suppress("unsubscribes", "JANE@example.com", NOON.timestamp())
    assert reconcile() == Reconciled(checked=1, drift=drift, outranked=outranked)
    assert len(stored(database)) == 1 + drift
    # The newest wins, whoever said it.
    (claimed,) = Queue(database).claim(10)
    assert claimed.change is not None
    assert claimed.change.action is (Action.OPT_OUT if drift or action is Action.OPT_OUT else Action.OPT_IN)


@pytest.mark.parametrize("state", ["delivered", "dead", "superseded", "discarded"])
def test_whatever_became_of_an_opt_out_it_is_known(
    state: str, sendgrid: SendGrid, database: Database, reconcile: Callable[..., Reconciled]
) -> None:
    known(database, Action.OPT_OUT, NOON)
    with database.write() as connection:
        connection.execute(update(events).values(state=state, due_at=None, settled_at=1, raw=b"{}"))
    Maintenance(database).prune(NOON)  # retention empties the row; the hash stays
    sendgrid.account.suppress("unsubscribes", "jane@example.com", NOON.timestamp())
    assert reconcile().drift == 0


def test_what_a_test_button_made_up_is_nobody(
    sendgrid: SendGrid, database: Database, reconcile: Callable[..., Reconciled]
) -> None:
    known(database, Action.OPT_OUT, NOON, is_test=True)
    sendgrid.account.suppress("unsubscribes", "jane@example.com", NOON.timestamp())
    assert reconcile().drift == 1


def test_a_second_run_adds_nothing(
    sendgrid: SendGrid, database: Database, reconcile: Callable[..., Reconciled]
) -> None:
    for number in range(1100):
        sendgrid.account.suppress("unsubscribes", f"u{number}@example.com", 1_760_000_000 + number)
        sendgrid.account.suppress("group_suppressions", f"u{number}@example.com", 1_760_000_000, group_id=number % 3)
        sendgrid.account.suppress("group_suppressions", f"u{number}@example.com", 1_759_000_000, group_id=3)
    assert reconcile() == Reconciled(checked=3300, drift=1100)
    assert reconcile() == Reconciled(checked=3300, drift=0)
    assert len(stored(database)) == 1100


def test_an_entry_that_makes_no_sense_is_quarantined_once_and_costs_nobody_else(
    sendgrid: SendGrid, database: Database, reconcile: Callable[..., Reconciled]
) -> None:
    sendgrid.account.suppress("unsubscribes", "jane@example.com", NOON.timestamp())
    sendgrid.account.lists["unsubscribes"] += [{"email": "no address", "created": 1_760_000_000}, "what?"]  # type: ignore[list-item]
    for _ in range(2):
        assert reconcile().unreadable == 2
    assert [row.state for row in stored(database)].count("quarantined") == 2
    assert sorted(row.error for row in stored(database) if row.error) == [
        "on SendGrid's list Global Unsubscribes: email: is not an email address",
        "on SendGrid's list Global Unsubscribes: entry: is not a JSON object",
    ]


def test_an_entry_that_makes_no_sense_and_was_discarded_does_not_come_back(
    sendgrid: SendGrid, database: Database, reconcile: Callable[..., Reconciled]
) -> None:
    sendgrid.account.lists["unsubscribes"] += [{"email": "no address", "created": 1_760_000_000}, "what?"]  # type: ignore[list-item]
    reconcile()
    # Who has it read as a webhook first finds out no more.
    Quarantine(database).keep(2, "is not an event")
    assert Maintenance(database).discard([1, 2]) == 2
    reconcile()
    assert [(row.id, row.state) for row in stored(database)] == [(1, "discarded"), (2, "discarded")]


def test_only_entries_from_then_on_are_looked_at(
    sendgrid: SendGrid, database: Database, reconcile: Callable[..., Reconciled]
) -> None:
    for which in ("unsubscribes", "group_suppressions"):
        sendgrid.account.suppress(which, f"old-{which}@example.com", NOON.timestamp() - 1)
        sendgrid.account.suppress(which, f"new-{which}@example.com", NOON.timestamp())
    assert reconcile(since=NOON).checked == 2
    assert all(row.identity_value.startswith("new-") for row in stored(database))


def test_the_command_says_what_it_found(run: Run, sendgrid: SendGrid) -> None:
    sendgrid.account.suppress("unsubscribes", "old@example.com", time.time() - 3 * 86400)
    sendgrid.account.suppress("unsubscribes", "jane@example.com", time.time() - 60)
    assert "1 entry checked: 1 are missing here" in run("--dry-run", "--since", "2d").output
    result = run()
    assert result.exit_code == 0
    assert "2 entries checked: 2 were missing here, and are on their way now" in result.output
    assert "2 entries checked: 0 were missing" in run("--since", "2020-01-01").output
    for span in ("45d", "1500h", "60 D", "180000m"):
        assert "2 entries checked: 0 were missing" in run("--since", span).output
    for wrong in ("lately", "999999999d", "9" * 30 + "d", "30"):
        assert "must be a time like 2026-01-31, or a span like 30d or 48h" in run("--since", wrong).output


def test_entries_that_concern_no_section_are_counted_apart_and_left_alone(run: Run, sendgrid: SendGrid) -> None:
    sendgrid.account.suppress("group_suppressions", "jane@example.com", time.time() - 60, group_id=7)
    sendgrid.account.suppress("group_suppressions", "joe@example.com", time.time() - 60, group_id=8)
    condition = {"SECTION_WHEN": "event.entry.group_id == `7`"}
    left = "1 left alone: they concern no section of Dynamic Yield (SECTION_WHEN, SECTIONS_FILE)."
    dry = run("--dry-run", **condition).output
    assert "2 entries checked: 1 are missing here" in dry
    assert left in dry
    result = run(**condition).output
    assert "2 entries checked: 1 were missing here" in result
    assert left in result
    again = run(**condition).output
    assert "2 entries checked: 0 were missing here" in again
    assert left in again


def test_a_person_in_two_groups_is_compared_for_the_section_of_each(
    run: Run, sendgrid: SendGrid, tmp_path: Path
) -> None:
    """What one section was told proves nothing of the other."""
    file = tmp_path / "sections.toml"
    one = "[{}]\napi_key = '{}'\nwhen = 'event.entry.group_id == `{}`'\n"
    file.write_text(one.format("uk", "UK_DY_KEY", 7) + one.format("de", "DE_DY_KEY", 8))
    two = {"SECTIONS_FILE": str(file), "UK_DY_KEY": "uk-key", "DE_DY_KEY": "de-key"}
    sendgrid.account.suppress("group_suppressions", "jane@example.com", time.time() - 60, group_id=7)
    assert "1 entry checked: 1 were missing here" in run(**two).output
    sendgrid.account.suppress("group_suppressions", "jane@example.com", time.time() - 90, group_id=8)
    assert "2 entries checked: 1 were missing here" in run(**two).output
    assert "2 entries checked: 0 were missing here" in run("--since", "2d", **two).output


def test_a_person_in_two_groups_is_compared_by_the_one_that_concerns_the_section(run: Run, sendgrid: SendGrid) -> None:
    """However late the other was left: the section was not told of it."""
    sendgrid.account.suppress("group_suppressions", "jane@example.com", time.time() - 90, group_id=7)
    sendgrid.account.suppress("group_suppressions", "jane@example.com", time.time() - 60, group_id=8)
    assert "2 entries checked: 1 were missing here" in run(SECTION_WHEN="event.entry.group_id == `7`").output


def test_who_is_known_is_not_set_aside_by_a_condition_that_fails_on_every_entry(
    run: Run, sendgrid: SendGrid, tmp_path: Path
) -> None:
    """It may be one on fields of webhooks, and right for them: a million people would stand in quarantine."""
    file = tmp_path / "sections.toml"
    one = '[{}]\napi_key = "DY_KEY"\nwhen = "{}"\n'
    two = {"SECTIONS_FILE": str(file), "DY_KEY": "key"}
    file.write_text(one.format("uk", "provider == 'sendgrid'") + one.format("de", "provider == 'emarsys'"))
    sendgrid.account.suppress("unsubscribes", "jane@example.com", time.time() - 60)
    assert "1 entry checked: 1 were missing here" in run(**two).output
    file.write_text(one.format("uk", "contains(event.category, 'uk')") + one.format("de", "action == 'opt_in'"))
    again = run(**two).output
    assert "1 entry checked: 0 were missing here" in again
    assert "could not be read" not in again
    sendgrid.account.suppress("unsubscribes", "joe@example.com", time.time() - 60)
    assert "1 could not be read; see the quarantine." in run(**two).output


def test_an_entry_that_a_sections_condition_fails_on_is_set_aside_and_said(run: Run, sendgrid: SendGrid) -> None:
    sendgrid.account.suppress("unsubscribes", "jane@example.com", time.time() - 60)
    for arguments in (["--dry-run"], []):
        result = run(*arguments, SECTION_WHEN="starts_with(event.entry.group, 'x')").output
        assert "1 entry checked: 0 " in result
        assert "1 could not be read; see the quarantine." in result
        assert "no section" not in result


def test_a_subusers_lists_can_be_compared(run: Run, sendgrid: SendGrid) -> None:
    sendgrid.subusers["shop-eu"] = Account()
    sendgrid.subusers["shop-eu"].suppress("unsubscribes", "eu@example.com", 1_760_000_000)
    assert "1 entry checked" in run("--subuser", "shop-eu").output
    assert "1 entry checked" in run(SENDGRID_SUBUSER="shop-eu").output
    assert "0 entries checked" in run().output


@pytest.mark.parametrize(
    ("scopes", "environ", "said"),
    [
        (ALL_SCOPES, {"SENDGRID_API_KEY": ""}, "SENDGRID_API_KEY is not set"),
        (ALL_SCOPES, {"SENDGRID_API_KEY": "SG.wrong"}, "SendGrid does not know SENDGRID_API_KEY"),
        (ALL_SCOPES - {"asm.groups.suppressions.read"}, {}, "it needs: Suppressions > Unsubscribe Groups, read"),
    ],
)
def test_a_key_that_does_not_do_costs_one_clear_line(
    scopes: frozenset[str], environ: dict[str, str], said: str, run: Run, sendgrid: SendGrid
) -> None:
    sendgrid.keys["SG.full"] = scopes
    result = run(**environ)
    assert result.exit_code == 1
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_failure_in_the_middle_is_written_down_and_what_was_found_stays(
    sendgrid: SendGrid, database: Database, reconcile: Callable[..., Reconciled]
) -> None:
    for number in range(600):
        sendgrid.account.suppress("unsubscribes", f"u{number}@example.com", 1_760_000_000)

    def meanwhile(call: Call) -> None:
        if call.query["offset"] == "500":
            sendgrid.keys.clear()

    sendgrid.meanwhile = meanwhile
    with pytest.raises(ApiError):
        reconcile()
    last = last_of(database)
    assert last is not None
    assert (len(stored(database)), last.covered_until) == (500, None)
    assert "does not know SENDGRID_API_KEY" in last.error

    sendgrid.keys["SG.full"] = ALL_SCOPES
    sendgrid.meanwhile = lambda call: None
    assert reconcile().drift == 100


# ---------------------------------------------------------------- by schedule


@pytest.fixture
def make_reconciler(database: Database, make_settings: Callable[..., Settings]) -> Callable[[], Reconciler]:
    def make() -> Reconciler:
        settings = make_settings(RECONCILE_EVERY="6h")
        return reconciler(settings, database)

    return make


def starts(calls: list[Call]) -> set[bool]:
    """Whether the lists that take a time were asked from one on."""
    return {"start_time" in call.query for call in calls if "suppression/" in call.path}


def test_what_was_read_from_a_time_on_covers_nothing_before_it(
    sendgrid: SendGrid,
    database: Database,
    reconcile: Callable[..., Reconciled],
    make_reconciler: Callable[[], Reconciler],
) -> None:
    sendgrid.account.suppress("unsubscribes", "old@example.com", time.time() - 30 * 86400)
    reconcile(since=datetime.now(UTC) - timedelta(hours=2))
    last = last_of(database)
    assert last is not None
    assert (last.covered_until, last.complete_at) == (None, None)
    make_reconciler().compare_if_due(nothing_to_say)
    assert [row.identity_value for row in stored(database)] == ["old@example.com"]


@pytest.mark.parametrize(("hours", "covers"), [(10, True), (2, False)])
def test_a_part_covers_only_where_it_leaves_no_gap(
    hours: int,
    covers: bool,
    sendgrid: SendGrid,
    database: Database,
    reconcile: Callable[..., Reconciled],
    make_reconciler: Callable[[], Reconciler],
) -> None:
    make_reconciler().compare_if_due(nothing_to_say)
    pass_time(database, timedelta(hours=5))
    sendgrid.account.suppress("group_suppressions", "gap@example.com", time.time() - 3 * 3600)
    reconcile(since=datetime.now(UTC) - timedelta(hours=hours), RECONCILE_EVERY="6h")
    last = last_of(database)
    assert last is not None
    assert last.covered_until is not None
    assert (datetime.now(UTC) - last.covered_until < timedelta(minutes=1)) is covers
    assert len(stored(database)) == covers
    # Where a gap is left, the worker does not wait for its turn to close it.
    make_reconciler().compare_if_due(nothing_to_say)
    assert [row.identity_value for row in stored(database)] == ["gap@example.com"]


def test_each_subuser_is_covered_by_its_own_comparison(
    sendgrid: SendGrid, database: Database, make_settings: Callable[..., Settings]
) -> None:
    sendgrid.subusers["shop-eu"] = Account()
    sendgrid.account.suppress("unsubscribes", "parent@example.com", 1_760_000_000)
    sendgrid.subusers["shop-eu"].suppress("unsubscribes", "eu@example.com", 1_760_000_000)
    for subuser, so_far in (("shop-eu", ["eu@example.com"]), ("", ["eu@example.com", "parent@example.com"])):
        settings = make_settings(SENDGRID_SUBUSER=subuser, RECONCILE_EVERY="6h")
        reconciler(settings, database).compare_if_due(nothing_to_say)
        assert [row.identity_value for row in stored(database)] == so_far
    assert [one.name for one in Reconciliations(database).all()] == ["sendgrid", "sendgrid/shop-eu"]


@pytest.mark.parametrize(
    "changed",
    [{"SENDGRID_EVENTS": "unsubscribe,bounce"}, {"SENDGRID_GROUP_IDS": "7"}, {"SENDGRID_API_KEY": "SG.other"}],
)
def test_other_lists_or_another_key_begin_with_everything(
    changed: dict[str, str], sendgrid: SendGrid, database: Database, make_settings: Callable[..., Settings]
) -> None:
    """A list that was not read is not covered, and another key may be another account's."""
    sendgrid.keys["SG.other"] = ALL_SCOPES
    for environ, partial in (({}, False), ({}, True), (changed, False), (changed, True)):
        settings, before = make_settings(RECONCILE_EVERY="6h", **environ), len(sendgrid.calls)
        reconciler(settings, database).compare_if_due(nothing_to_say)
        assert starts(sendgrid.calls[before:]) == {partial}
        pass_time(database, timedelta(hours=7))


def test_what_an_older_version_wrote_down_covers_nothing(
    sendgrid: SendGrid, database: Database, make_reconciler: Callable[[], Reconciler]
) -> None:
    """It may have been about another subuser, or about the last two hours."""
    make_reconciler().compare_if_due(nothing_to_say)
    with database.write() as connection:
        connection.execute(update(reconciliations).values(scope=None, due_at=0))
    before = len(sendgrid.calls)
    make_reconciler().compare_if_due(nothing_to_say)
    assert starts(sendgrid.calls[before:]) == {False}


def nothing_to_say() -> None:
    """The worker goes on."""


def pass_time(database: Database, span: timedelta) -> None:
    """Move everything that is written down about comparisons into the past."""
    columns = ("due_at", "started_at", "finished_at", "covered_until", "complete_at")
    micros = span // timedelta(microseconds=1)
    with database.write() as connection:
        connection.execute(update(reconciliations).values({name: reconciliations.c[name] - micros for name in columns}))


def slugs(database: Database) -> list[str]:
    return [one.slug for one in findings(database, open_esps=["sendgrid"])]


def test_eight_workers_that_look_at_once_compare_once(
    sendgrid: SendGrid, make_reconciler: Callable[[], Reconciler]
) -> None:
    sendgrid.account.suppress("unsubscribes", "jane@example.com", 1_760_000_000)
    start = threading.Barrier(8)

    def look() -> None:
        start.wait()
        make_reconciler().compare_if_due(nothing_to_say)

    workers = [threading.Thread(target=look) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    # Three lists: one with a page and an empty one, two that are empty.
    assert len(sendgrid.calls) == 4, "each further comparison is four calls more"


def test_it_is_due_again_after_the_set_time_and_then_looks_only_at_what_is_new(
    sendgrid: SendGrid, database: Database, make_reconciler: Callable[[], Reconciler]
) -> None:
    make_reconciler().compare_if_due(nothing_to_say)
    before = len(sendgrid.calls)
    pass_time(database, timedelta(hours=5, minutes=59))
    make_reconciler().compare_if_due(nothing_to_say)
    assert len(sendgrid.calls) == before

    pass_time(database, timedelta(minutes=2))
    make_reconciler().compare_if_due(nothing_to_say)
    asked = [call.query.get("start_time") for call in sendgrid.calls[before:] if "suppression/" in call.path]
    covered = time.time() - timedelta(hours=6, minutes=1).total_seconds() - OVERLAP.total_seconds()
    assert [abs(int(start or 0) - covered) < 60 for start in asked] == [True, True]

    pass_time(database, timedelta(days=8))
    before = len(sendgrid.calls)
    make_reconciler().compare_if_due(nothing_to_say)
    assert all("start_time" not in call.query for call in sendgrid.calls[before:]), "now and then it reads everything"


def test_a_worker_that_has_to_end_leaves_the_rest_to_the_next(
    sendgrid: SendGrid, database: Database, make_reconciler: Callable[[], Reconciler]
) -> None:
    for number in range(600):
        sendgrid.account.suppress("unsubscribes", f"u{number}@example.com", 1_760_000_000)

    def end() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        make_reconciler().compare_if_due(end)
    assert len(stored(database)) == 500
    make_reconciler().compare_if_due(nothing_to_say)
    assert len(stored(database)) == 600


def test_a_worker_that_was_killed_is_followed_by_another_when_its_lease_is_over(
    sendgrid: SendGrid, database: Database, make_reconciler: Callable[[], Reconciler]
) -> None:
    records = Reconciliations(database)
    make_reconciler().compare_if_due(nothing_to_say)
    before = len(sendgrid.calls)
    pass_time(database, timedelta(days=1))
    what = Compared(provider="sendgrid", scope="")
    dead = records.begin(what, lease=600, only_if_due=True)
    make_reconciler().compare_if_due(nothing_to_say)
    assert len(sendgrid.calls) == before
    pass_time(database, timedelta(minutes=11))
    make_reconciler().compare_if_due(nothing_to_say)
    assert len(sendgrid.calls) == before + 3
    # The dead one was only slow: what it says now changes nothing.
    records.finish(dead or "", Reconciled(drift=999), scope="", since=None, due_in=0)
    last = last_of(database)
    assert last is not None
    assert last.drift_total == 0


def test_the_worker_compares_beside_its_work_and_ends_at_once(
    sendgrid: SendGrid, database: Database, make_settings: Callable[..., Settings]
) -> None:
    sendgrid.account.suppress("unsubscribes", "jane@example.com", 1_760_000_000)
    with scheduled(make_settings(RECONCILE_EVERY="1h"), database):
        wait_until(lambda: stored(database), "the schedule has compared")
        began = time.monotonic()
    assert time.monotonic() - began < 2
    with scheduled(make_settings(), database):
        time.sleep(0.1)
    assert threading.active_count() == 1 or "reconcile" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("failed", [False, True])
def test_what_was_compared_once_is_told_for_some_days(
    failed: bool, sendgrid: SendGrid, database: Database, reconcile: Callable[..., Reconciled]
) -> None:
    sendgrid.account.suppress("unsubscribes", "jane@example.com", 1_760_000_000)
    if failed:
        sendgrid.keys.clear()
    with suppress(ApiError):
        reconcile()
    slug = "not_compared:sendgrid" if failed else "drift:sendgrid"
    assert slug in slugs(database)
    pass_time(database, timedelta(days=3, hours=12))
    assert slug in slugs(database)
    pass_time(database, timedelta(days=1))
    assert slug not in slugs(database)


def test_a_scheduled_comparison_that_fails_is_told_for_as_long_as_it_does(
    sendgrid: SendGrid, database: Database, make_reconciler: Callable[[], Reconciler]
) -> None:
    sendgrid.keys.clear()
    for _ in range(10):
        make_reconciler().compare_if_due(nothing_to_say)
        assert "not_compared:sendgrid" in slugs(database)
        pass_time(database, timedelta(days=2))


def test_what_a_rare_schedule_has_found_is_told_until_the_next_comparison(
    sendgrid: SendGrid, database: Database, reconcile: Callable[..., Reconciled]
) -> None:
    sendgrid.account.suppress("unsubscribes", "jane@example.com", 1_760_000_000)
    reconcile(RECONCILE_EVERY="30d")
    pass_time(database, timedelta(days=29))
    assert "drift:sendgrid" in slugs(database)


def test_drift_is_counted_over_all_comparisons(
    sendgrid: SendGrid, database: Database, reconcile: Callable[..., Reconciled]
) -> None:
    for number in range(3):
        sendgrid.account.suppress("unsubscribes", f"u{number}@example.com", 1_760_000_000)
        reconcile()
    last = last_of(database)
    assert last is not None
    assert (last.result, last.drift_total, last.error) == (Reconciled(checked=3, drift=1), 3, "")


def test_drift_is_a_metric(make_app: Callable[..., Flask], run: Run, sendgrid: SendGrid) -> None:
    for number in range(3):
        sendgrid.account.suppress("unsubscribes", f"u{number}@example.com", 1_760_000_000)
    run()
    text = make_app().test_client().get("/metrics").text
    assert 'esp_webhooks_drift_total{provider="sendgrid"} 3.0' in text
    (line,) = (line for line in text.splitlines() if line.startswith("esp_webhooks_reconciled_timestamp_seconds{"))
    assert abs(float(line.rpartition(" ")[2]) - time.time()) < 60


def test_the_console_shows_the_last_comparison_and_why_one_failed(
    make_app: Callable[..., Flask], run: Run, sendgrid: SendGrid
) -> None:
    sendgrid.account.suppress("unsubscribes", "u1@example.com", 1_760_000_000)
    run()
    console = make_app(CONSOLE_PASSWORD="a password for the console").test_client()
    page = console.get("/console/", auth=("any", "a password for the console")).text
    page = re.sub("<[^>]*>", "", page)
    assert "Suppression lists of sendgrid: compared just now, 1 entries, 1 were missing here; 1 in all so far" in page

    sendgrid.keys.clear()
    run()
    page = console.get("/console/", auth=("any", "a password for the console")).text
    assert "the last comparison with the suppression lists of sendgrid failed: SendGrid does not know" in page
