"""Wrong passwords at the console, counted so that the limit holds for all web processes together."""

import hmac
import time
from collections.abc import Callable

from sqlalchemy import and_, case, delete, or_, select

from webhook_app.outbox.database import Database
from webhook_app.outbox.hashing import load_hasher
from webhook_app.outbox.tables import login_failures
from webhook_app.outbox.times import seconds_to_micros
from webhook_app.outbox.upsert import insert_into

WINDOW = 15 * 60  # seconds
#: Wrong passwords within a window after which no further one is looked at.
FAILURES_PER_CALLER = 10
FAILURES_OF_ALL = 100
_ALL = "all"


class LoginFailures:
    """Callers are known by a keyed hash of their network address.

    Guesses that are under way at the same moment may all be looked at: the limit is exceeded by as many as there are
    threads, once a window. Raises `OutboxUnavailable`. `clock` gives seconds since 1970.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def is_blocked(self, address: str) -> bool:
        known = or_(
            and_(login_failures.c.caller == self._caller(address), login_failures.c.failures >= FAILURES_PER_CALLER),
            and_(login_failures.c.caller == _ALL, login_failures.c.failures >= FAILURES_OF_ALL),
        )
        with self._database.read() as connection:
            query = select(login_failures.c.caller).where(known, login_failures.c.began_at > self._window_began())
            return connection.execute(query).first() is not None

    def count(self, address: str) -> None:
        began = self._window_began()
        over = login_failures.c.began_at <= began
        row = {"began_at": seconds_to_micros(self._clock()), "failures": 1}
        # One statement: two guesses at once count as two.
        count = insert_into(self._database.dialect, login_failures).on_conflict_do_update(
            index_elements=["caller"],
            set_={
                "began_at": case((over, row["began_at"]), else_=login_failures.c.began_at),
                "failures": case((over, 1), else_=login_failures.c.failures + 1),
            },
        )
        with self._database.write() as connection:
            # Always in this order: on PostgreSQL two failures at once would deadlock otherwise.
            for caller in (_ALL, self._caller(address)):
                connection.execute(count, row | {"caller": caller})
            connection.execute(delete(login_failures).where(over, login_failures.c.caller != _ALL))

    def _caller(self, address: str) -> str:
        key = load_hasher(self._database).key
        return hmac.digest(key, b"caller\0" + address.encode("utf-8", "replace"), "sha256").hex()

    def _window_began(self) -> int:
        return seconds_to_micros(self._clock() - WINDOW)
