"""What we promised: the changes that were acknowledged, until Dynamic Yield has taken them.

`Intake` is the receiver's side, `Queue` the worker's. The log holds what ESPs said, the register what Dynamic Yield
must know of each person. Every change of state is one conditional statement; the keys of `tables` carry the invariants.
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
