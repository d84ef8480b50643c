"""Dropping a section that is no longer configured: its rows of the register are deleted."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import delete, func, select

from webhook_app.outbox.database import Database
from webhook_app.outbox.tables import consents

BATCH = 500  # rows in one commit


@dataclass(frozen=True, slots=True)
class SectionSize:
    """How many people the register holds of a section, and how many of them wait to be told."""

    people: int
    waiting: int


def size_of_section(database: Database, section: str) -> SectionSize:
    """Count a section's people. Raises `OutboxUnavailable`."""
    with database.read() as connection:
        both = select(func.count(), func.count(consents.c.due_at)).where(consents.c.section == section)
        people, waiting = connection.execute(both).one()
    return SectionSize(people, waiting)


def drop(database: Database, section: str) -> Iterator[int]:
    """Forget what a section wants and was told, and say after each batch how many people it was.

    Events and attempts stay. Raises `OutboxUnavailable`.
    """
    last = b""
    mine = consents.c.section == section
    while True:
        # By the key from where the last batch ended: each row is looked at once.
        some = select(consents.c.identity_hash).where(mine, consents.c.identity_hash > last)
        with database.write() as connection:
            people = connection.execute(some.order_by(consents.c.identity_hash).limit(BATCH)).scalars().all()
            if not people:
                return
            connection.execute(delete(consents).where(mine, consents.c.identity_hash.in_(people)))
        last = bytes(people[-1])
        yield len(people)
