"""The indexes of the tables. The migrations make them; a test keeps the two alike.

Apart from the tables, for no statement names an index: to describe a partial one SQLAlchemy loads the dialects of both
engines, and a process needs one of them.
"""

from typing import Any

from sqlalchemy import ColumnElement, Index, text

from webhook_app.outbox.tables import attempts, consents, events, journal, metadata, recent_webhooks

#: The tables, and with them their indexes.
described = metadata


def _partial(name: str, *columns: ColumnElement[Any], where: str, unique: bool = False) -> None:
    Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


# Of the version without a register; a later release drops them.
_partial("events_waiting", events.c.due_at, events.c.id, where="due_at IS NOT NULL")
_partial("events_leased", events.c.due_at, where="lease IS NOT NULL")
_partial("events_in_flight", events.c.identity_hash, where="lease IS NOT NULL", unique=True)

# Nothing is stored twice, whoever races: insert-or-ignore leans on this.
Index("events_dedupe_key", events.c.dedupe_key, unique=True)
# What is known of a person.
Index("events_of_person", events.c.identity_hash, events.c.version)
# The quarantine, and what somebody has decided about.
_partial("events_set_aside", events.c.state, events.c.id, where="state IN ('quarantined', 'discarded', 'test')")
# What retention still has to empty.
_partial("events_not_emptied", events.c.id, where="raw IS NOT NULL")

# Claiming costs the same however many people there are.
_partial("consents_due", consents.c.section, consents.c.due_at, where="due_at IS NOT NULL")
# What waits, oldest first.
_partial("consents_waiting", consents.c.event_id, where="due_at IS NOT NULL")
_partial("consents_dead", consents.c.event_id, where="dead_at IS NOT NULL")

Index("attempts_event", attempts.c.event_id)

# A chain and not a tree: of two who add at once, one adds nothing and tries again.
Index("journal_previous", journal.c.previous, unique=True)

Index("recent_webhooks_provider", recent_webhooks.c.provider, recent_webhooks.c.id)
