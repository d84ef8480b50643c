"""The outbox: the log of what ESPs said, the register of what Dynamic Yield must know, and the attempts to tell it.

`Intake` is the receiver's side, `Queue` the worker's. Every change of state is one conditional statement; the keys of
`tables` carry the invariants. What keeps something between two calls (a clock, statements, counts) is a class; what
only asks is a function that takes the database.
"""

from webhook_app.outbox.database import Database, OutboxUnavailable
from webhook_app.outbox.engines import open_database
from webhook_app.outbox.intake import Added, Intake, TokenReused
from webhook_app.outbox.queue import Queue, Settlement
from webhook_app.outbox.rows import Claimed, Sent
from webhook_app.outbox.tables import State

__all__ = [
    "Added",
    "Claimed",
    "Database",
    "Intake",
    "OutboxUnavailable",
    "Queue",
    "Sent",
    "Settlement",
    "State",
    "TokenReused",
    "open_database",
]
