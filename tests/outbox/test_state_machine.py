"""The outbox against a model of it that fits on a page: whatever happens in whatever order, the promises hold."""

from dataclasses import dataclass, field
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete

from tests.outbox.world import Clock, change, ending, rows
from webhook_app.consent import Action
from webhook_app.outbox import Claimed, Database, Intake, Queue, State
from webhook_app.outbox.maintenance import Maintenance
from webhook_app.outbox.queue import LEASE
from webhook_app.outbox.tables import attempts, events

PEOPLE = st.sampled_from(["jane@example.com", "Joe@example.com", "ann@example.com"])
ACTIONS = st.sampled_from(list(Action))
AGES = st.integers(min_value=-5, max_value=5)  # seconds before the start; negative ones have not come yet
KEEP = timedelta(hours=1)


@dataclass
class Held:
    """What a worker holds, and until when."""

    claimed: Claimed
    until: float


@dataclass
class Model:
    #: Person, action, time: what was accepted, each once.
    accepted: set[tuple[str, Action, int]] = field(default_factory=set)
    #: Numbers that were sent, in order.
    sent: list[int] = field(default_factory=list)
    #: Numbers that were replayed since they were last finished.
    replayed: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)


class OutboxMachine(RuleBasedStateMachine):
    """Two workers that may crash, a receiver, a person at the console, and a clock."""

    database: Database  # set by the test

    held = Bundle("held")

    @initialize()
    def begin(self) -> None:
        with self.database.write() as connection:
            connection.execute(delete(attempts))
            connection.execute(delete(events))
        self.clock = Clock()
        self.intake = Intake(self.database, clock=self.clock)
        self.queue = Queue(self.database, clock=self.clock)
        self.maintenance = Maintenance(self.database, self.clock)
        self.model = Model()
        self.leases: dict[int, Held] = {}

    # ------------------------------------------------------------ what may happen

    @rule(person=PEOPLE, action=ACTIONS, ago=AGES)
    def receive(self, person: str, action: Action, ago: int) -> None:
        key = (person, action, ago)
        new = key not in self.model.accepted
        added = self.intake.add("sendgrid", changes=[(change(person, ago=ago, action=action), b"{}")])
        assert (added.accepted, added.duplicates) == (int(new), int(not new))
        self.model.accepted.add(key)

    @rule(target=held, limit=st.integers(min_value=1, max_value=4))
    def claim(self, limit: int) -> object:
        claimed = [Held(one, self.clock.now + LEASE) for one in self.queue.claim(limit)]
        for one in claimed:
            before = self.leases.get(one.claimed.id)
            # If this failed, two workers would be sending the same change.
            assert before is None or before.until <= self.clock.now
            self.leases[one.claimed.id] = one
        people = [one.claimed.pseudonym for one in self.alive()]
        # If this failed, an older change of a person could arrive after a newer one.
        assert len(people) == len(set(people))
        return multiple(*claimed)

    @rule(one=held)
    def renew(self, one: Held) -> None:
        kept = self.queue.renew([one.claimed])
        assert bool(kept) is (one in self.alive())
        if kept:
            one.until = self.clock.now + LEASE

    @rule(one=consumes(held), how=st.sampled_from(["delivered", "dead", "again", "misconfigured", "crash", "release"]))
    def end(self, one: Held, how: str) -> None:
        mine = one in self.alive()
        number = one.claimed.id
        if mine and how in ("delivered", "dead", "again", "misconfigured"):
            self.sends(number)
        if how == "release":
            self.queue.release([one.claimed])
        elif how == "delivered":
            self.queue.settle([ending(one.claimed)])
        elif how == "dead":
            self.queue.settle([ending(one.claimed, State.DEAD)])
        elif how != "crash":
            later = self.clock.now + 3
            counts = how == "again"
            self.queue.settle([ending(one.claimed, State.PENDING, due_at=later, counts=counts)])
        if mine and how != "crash":
            del self.leases[number]
            if how in ("delivered", "dead"):
                self.model.finished.add(number)
                self.model.replayed.discard(number)

    @rule(seconds=st.sampled_from([1.0, 5.0, LEASE, 2 * KEEP.total_seconds()]))
    def time_passes(self, seconds: float) -> None:
        self.clock.go(seconds)

    @rule()
    def replay_all(self) -> None:
        before = {row.id: row.state for row in rows(self.database)}
        self.maintenance.replay(events.c.id > 0)
        for row in rows(self.database):
            if row.state != before[row.id]:
                assert row.state == State.PENDING
                self.model.replayed.add(row.id)
                self.model.finished.discard(row.id)

    @rule()
    def prune(self) -> None:
        self.maintenance.prune(self.clock.moment - KEEP)

    @rule()
    def a_healthy_worker_sends_everything(self) -> None:
        self.clock.go(2 * LEASE)
        for _ in range(1000):
            batch = self.queue.claim(2)
            if not batch:
                break
            for one in batch:
                self.sends(one.id)
                self.model.finished.add(one.id)
            self.queue.settle([ending(one) for one in batch])
        self.leases.clear()
        # If this failed, an accepted change would have been left lying.
        assert not [row for row in rows(self.database) if row.state == State.PENDING]

    # ------------------------------------------------------------ what must hold

    def alive(self) -> list[Held]:
        return [one for one in self.leases.values() if one.until > self.clock.now]

    def sends(self, number: int) -> None:
        """The request to Dynamic Yield leaves."""
        # If this failed, something finished would have been sent again without anybody asking for it.
        assert number not in self.model.finished
        by_number = {row.id: row for row in rows(self.database)}
        mine = by_number[number]
        newer = [
            by_number[one]
            for one in self.model.sent
            if by_number[one].identity_hash == mine.identity_hash
            and (by_number[one].version, one) > (mine.version, number)
            and by_number[one].state in (State.DELIVERED, State.PENDING, State.DEAD)
        ]
        # If this failed, a newer change would be undone on the wire by an older one.
        assert not newer
        self.model.sent.append(number)

    @invariant()
    def nothing_accepted_is_missing(self) -> None:
        if hasattr(self, "model"):
            assert len(rows(self.database)) == len(self.model.accepted)

    @invariant()
    def only_what_is_pending_has_a_time_and_perhaps_a_lease(self) -> None:
        for row in rows(self.database):
            assert (row.due_at is not None) is (row.state == State.PENDING)
            assert (row.settled_at is None) is (row.state == State.PENDING)
            assert row.lease is None or row.state == State.PENDING

    @invariant()
    def only_what_is_finished_is_emptied(self) -> None:
        for row in rows(self.database):
            assert row.identity_value is not None or row.state in (State.DELIVERED, State.SUPERSEDED)
            assert row.identity_hash is not None

    @invariant()
    def what_is_superseded_has_a_newer_change_of_the_same_person(self) -> None:
        found = rows(self.database)
        for row in found:
            if row.state == State.SUPERSEDED:
                same = [one for one in found if one.identity_hash == row.identity_hash]
                assert max(same, key=lambda one: (one.version, one.id)).id != row.id


def test_the_promises_hold_whatever_happens(database: Database) -> None:
    machine: type[OutboxMachine] = type("OutboxMachine", (OutboxMachine,), {"database": database})
    often = settings(max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=often)
