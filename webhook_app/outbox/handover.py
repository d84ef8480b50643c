"""Handover from the version without a register: what it left to do is taken into the register.

That version kept in each event of the log when it was due and who had claimed it. Triggers of the tenth migration put
into the register what its processes still store and settle; this takes over what waited before.
"""

from sqlalchemy import select, update

from webhook_app.outbox.database import Database
from webhook_app.outbox.register import want
from webhook_app.outbox.tables import events
from webhook_app.outbox.times import Time

BATCH = 500  # rows in one commit


def take_over(database: Database, time: Time) -> bool:
    """Whether all is taken over: nothing is left, and no worker of that version sends any more.

    Until then nobody may claim: the newer change of somebody whose older one is under way would overtake it.
    Raises `OutboxUnavailable`.
    """
    waiting = events.c.due_at.is_not(None)
    nobody_sends_it = events.c.lease.is_(None) | (events.c.due_at <= time.now)
    some = select(events.c.id).where(waiting, nobody_sends_it).order_by(events.c.due_at).limit(BATCH)
    while True:
        with database.write() as connection:
            ids = list(connection.execute(some.with_for_update(skip_locked=True)).scalars())
            if not ids:
                return connection.execute(select(events.c.id).where(waiting).limit(1)).first() is None
            connection.execute(update(events).where(events.c.id.in_(ids)).values(due_at=None, lease=None))
            want(connection, ids, due_at="received_at")
