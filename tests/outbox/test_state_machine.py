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

from tests.outbox.world import Clock, change, concerned_by_word, ending, register, rows, states
from webhook_app.consent import Action
from webhook_app.outbox import Claimed, Database, Intake, Queue, State
from webhook_app.outbox.maintenance import Maintenance
from webhook_app.outbox.queue import LEASE
from webhook_app.outbox.settling import REPEAT_AFTER
from webhook_app.outbox.tables import attempts, consents, events

PEOPLE = st.sampled_from(["jane@example.com", "Joe@example.com", "ann@example.com"])
ACTIONS = st.sampled_from(list(Action))
AGES = st.integers(min_value=-5, max_value=5)  # seconds before the start; negative ones have not come yet
SECTIONS = ("uk", "app")
CONCERNED = st.sampled_from([("uk",), ("app",), SECTIONS])
KEEP = timedelta(hours=1)

#: A person's hash and a section: a row of the register.
Row = tuple[str, str]


def row_of(claimed: Claimed) -> Row:
    return claimed.pseudonym, claimed.section


@dataclass
class Held:
    """Whom a worker holds, and until when."""

    claimed: Claimed
    until: float


@dataclass
class Model:
    #: Person, action, time and sections: what was accepted, each once.
    accepted: set[tuple[str, Action, int, tuple[str, ...]]] = field(default_factory=set)
    #: Version and event that were sent, in order.
    wire: dict[Row, list[tuple[int, int]]] = field(default_factory=dict)
    #: Delivered or dead, and nobody has asked for it again.
    finished: set[tuple[Row, int]] = field(default_factory=set)
    #: Whose requests may take effect late: what was told may have to be told again.
    in_doubt: set[Row] = field(default_factory=set)
    told: dict[Row, int] = field(default_factory=dict)


class OutboxMachine(RuleBasedStateMachine):
    """Workers of two sections that may crash, a receiver, a person at the console, and a clock."""

    database: Database  # set by the test

    held = Bundle("held")

    @initialize()
    def begin(self) -> None:
        with self.database.write() as connection:
            for table in (attempts, consents, events):
                connection.execute(delete(table))
        self.clock = Clock()
        conditions = concerned_by_word(uk="uk", app="app")
        self.intake = Intake(self.database, sections=conditions, clock=self.clock)
        self.queue = Queue(self.database, clock=self.clock)
        self.maintenance = Maintenance(self.database, self.clock)
        self.model = Model()
        self.leases: dict[Row, Held] = {}

    # ------------------------------------------------------------ what may happen

    @rule(person=PEOPLE, action=ACTIONS, ago=AGES, concerned=CONCERNED)
    def receive(self, person: str, action: Action, ago: int, concerned: tuple[str, ...]) -> None:
        key = (person, action, ago, concerned)
        new = key not in self.model.accepted
        raw = " ".join(concerned).encode()
        being_told = self.versions_under_a_lease()
        added = self.intake.add("sendgrid", changes=[(change(person, ago=ago, action=action), raw)])
        assert (added.accepted, added.duplicates) == (int(new), int(not new))
        self.model.accepted.add(key)
        # Whoever is telling them may be killed, and nobody would learn whether the request has left.
        versions = {(row.identity_hash.hex(), row.section): row.version for row in register(self.database)}
        self.model.in_doubt |= {row for row, version in being_told.items() if versions[row] != version}

    @rule(target=held, section=st.sampled_from(SECTIONS), limit=st.integers(min_value=1, max_value=4))
    def claim(self, section: str, limit: int) -> object:
        claimed = [Held(one, self.clock.now + LEASE) for one in self.queue.claim(limit, section=section)]
        for one in claimed:
            assert one.claimed.section == section
            before = self.leases.get(row_of(one.claimed))
            # If this failed, two workers would be telling one person's section at a time.
            assert before is None or before.until <= self.clock.now
            self.leases[row_of(one.claimed)] = one
        return multiple(*claimed)

    @rule(one=held)
    def renew(self, one: Held) -> None:
        kept = self.queue.renew([one.claimed])
        assert bool(kept) is self.is_live(one)
        if kept:
            one.until = self.clock.now + LEASE

    @rule(
        one=consumes(held),
        how=st.sampled_from(["delivered", "dead", "lost", "busy", "misconfigured", "crash", "release"]),
    )
    def end(self, one: Held, how: str) -> None:
        mine = self.leases.get(row_of(one.claimed)) is one
        # Its request left while the lease was live, though the answer may come when it is not.
        if mine and how in ("delivered", "dead", "lost", "busy", "misconfigured"):
            self.sends(one.claimed)
        if how == "lost" or (how == "delivered" and not mine):
            self.model.in_doubt.add(row_of(one.claimed))
        later = self.clock.now + 3
        if how == "release":
            self.queue.release([one.claimed])
        elif how == "delivered":
            self.queue.settle([ending(one.claimed)])
        elif how == "dead":
            self.queue.settle([ending(one.claimed, State.DEAD, status=422)])
        elif how != "crash":
            more = {"counts": how != "misconfigured", "lost": how == "lost"}
            self.queue.settle([ending(one.claimed, State.PENDING, due_at=later, **more)])
        if mine and how != "crash":
            del self.leases[row_of(one.claimed)]
            if how in ("delivered", "dead"):
                self.model.finished.add((row_of(one.claimed), one.claimed.version))

    @rule(seconds=st.sampled_from([1.0, 5.0, LEASE, REPEAT_AFTER, 2 * KEEP.total_seconds()]))
    def time_passes(self, seconds: float) -> None:
        self.clock.go(seconds)

    @rule()
    def replay_all(self) -> None:
        self.maintenance.replay([row.id for row in rows(self.database)])
        self.model.finished.clear()
        self.forget_leases_that_ran_out()

    @rule(which=st.integers(min_value=0, max_value=5))
    def discard_one(self, which: int) -> None:
        found = rows(self.database)
        if which < len(found) and self.maintenance.discard([found[which].id]):
            # The one before counts again, and is told again where what was discarded may have been taken.
            person = found[which].identity_hash.hex()
            self.model.finished = {one for one in self.model.finished if one[0][0] != person}
            self.forget_leases_that_ran_out()

    @rule()
    def prune(self) -> None:
        self.maintenance.prune(self.clock.moment - KEEP)

    @rule()
    def a_healthy_worker_sends_everything(self) -> None:
        self.clock.go(2 * LEASE)
        for _ in range(1000):
            batch = [one for section in SECTIONS for one in self.queue.claim(2, section=section)]
            for one in batch:
                self.sends(one)
                self.model.finished.add((row_of(one), one.version))
            self.queue.settle([ending(one) for one in batch])
            self.clock.go(REPEAT_AFTER)
            if not batch and not [row for row in register(self.database) if row.due_at is not None]:
                break
        self.leases.clear()
        # If this failed, an accepted change would have been left lying.
        assert State.PENDING not in states(self.database)
        self.what_was_told_never_goes_back()
        for row in register(self.database):
            key = row.identity_hash.hex(), row.section
            assert row.version == self.newest(*key)
            if row.dead_at is None:
                # If this failed, the last that Dynamic Yield has heard of somebody would not be what they want.
                assert row.told_version == row.version == self.on_the_wire(key)[-1]

    # ------------------------------------------------------------ what must hold

    def versions_under_a_lease(self) -> dict[Row, int]:
        return {
            (row.identity_hash.hex(), row.section): row.version
            for row in register(self.database)
            if row.lease is not None
        }

    def is_live(self, one: Held) -> bool:
        return self.leases.get(row_of(one.claimed)) is one and one.until > self.clock.now

    def forget_leases_that_ran_out(self) -> None:
        """A person's order may have taken rows whose lease had run out; never one whose lease is live."""
        tokens = {(row.identity_hash.hex(), row.section): row.lease for row in register(self.database)}
        kept = {row: held for row, held in self.leases.items() if tokens.get(row) == held.claimed.lease}
        assert [held for row, held in self.leases.items() if row not in kept and held.until > self.clock.now] == []
        self.leases = kept

    def newest(self, person: str, section: str) -> int:
        """The version of the newest change that counts, or was told."""
        counting = [
            int(row.version)
            for row in rows(self.database)
            if row.identity_hash.hex() == person and section in row.sections and row.state == State.PENDING
        ]
        return max(self.model.told.get((person, section), 0), *counting)

    def on_the_wire(self, row: Row) -> list[int]:
        """The versions that were sent, but for those that somebody has discarded before it was known to be taken."""
        gone = {one.id for one in rows(self.database) if one.state == State.DISCARDED}
        told = self.model.told.get(row)
        return [version for version, number in self.model.wire.get(row, []) if number not in gone or version == told]

    def sends(self, claimed: Claimed) -> None:
        """The request to Dynamic Yield leaves."""
        row = row_of(claimed)
        # If this failed, somebody would be told the opposite of what is wanted of them, or nothing at all.
        assert claimed.change is not None
        assert (claimed.change.action is Action.OPT_OUT) == bool(claimed.version % 2)
        # If this failed, something finished would have been sent again without anybody asking for it.
        assert (row, claimed.version) not in self.model.finished or row in self.model.in_doubt
        # If this failed, a newer change would be undone on the wire by an older one.
        assert all(version <= claimed.version for version in self.on_the_wire(row))
        self.model.wire.setdefault(row, []).append((claimed.version, claimed.id))

    @invariant()
    def nothing_accepted_is_missing(self) -> None:
        if hasattr(self, "model"):
            assert len(rows(self.database)) == len(self.model.accepted)

    @invariant()
    def each_person_has_one_row_in_each_section_and_what_it_wants_was_accepted(self) -> None:
        found = [(row.identity_hash, row.section) for row in register(self.database)]
        assert len(found) == len(set(found))
        wanted = {(row.identity_hash, row.version) for row in rows(self.database)}
        for row in register(self.database):
            assert (row.identity_hash, row.version) in wanted
            # A delivered version is one that was wanted.
            assert row.told_version is None or (row.identity_hash, row.told_version) in wanted

    @invariant()
    def what_was_told_never_goes_back(self) -> None:
        for row in register(self.database):
            key = row.identity_hash.hex(), row.section
            if row.told_version is not None:
                assert row.told_version >= self.model.told.get(key, row.told_version)
                assert row.told_version <= row.version
                self.model.told[key] = row.told_version

    @invariant()
    def only_what_is_due_has_a_lease_and_only_what_is_not_is_dead(self) -> None:
        for row in register(self.database):
            assert row.lease is None or row.due_at is not None
            assert row.dead_at is None or row.due_at is None

    @invariant()
    def only_what_is_finished_is_emptied(self) -> None:
        for row, state in zip(rows(self.database), states(self.database), strict=True):
            finished = state in (State.DELIVERED, State.SUPERSEDED, State.DISCARDED)
            assert row.identity_value is not None or finished
            assert row.identity_hash is not None


def test_the_promises_hold_whatever_happens(database: Database) -> None:
    machine: type[OutboxMachine] = type("OutboxMachine", (OutboxMachine,), {"database": database})
    often = settings(max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=often)
