"""What is known already of the people on a list: of each person, or for each of several sections."""

from collections.abc import Iterable, Mapping

from webhook_app.consent import ConsentChange, Identity
from webhook_app.outbox import Database
from webhook_app.outbox.hashing import Hasher
from webhook_app.outbox.lookup import NewestChange, newest_changes
from webhook_app.outbox.routing import ConditionFailed, RoutingCondition, concerned


def sections_of(
    sections: Mapping[str, RoutingCondition], provider: str, change: ConsentChange, raw: bytes
) -> tuple[str, ...]:
    """The sections that an entry concerns; none where no section has a condition, or one fails on it."""
    try:
        return concerned(sections, provider, change, raw) if sections else ()
    except ConditionFailed:
        return ()


def known_changes(
    database: Database, hasher: Hasher, people: Iterable[tuple[Identity, tuple[str, ...]]]
) -> list[list[NewestChange | None]]:
    """The newest change of each person, for each of the sections that are named: that one was told proves nothing of
    another.

    Where none is named, it is that of any: a condition that fails on every entry would set a whole list aside. Raises
    `OutboxUnavailable`.
    """
    asked = [(identity, names or (None,)) for identity, names in people]
    of_section: dict[str | None, list[Identity]] = {}
    for identity, names in asked:
        for name in names:
            of_section.setdefault(name, []).append(identity)
    known = {name: newest_changes(database, hasher, theirs, section=name) for name, theirs in of_section.items()}
    return [[known[name].get(identity.key) for name in names] for identity, names in asked]
