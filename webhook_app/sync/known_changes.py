"""What is known already of the people on a list: of each person, or for each of several sections."""

from collections.abc import Mapping, Sequence

from webhook_app.consent import ConsentChange
from webhook_app.outbox import Database
from webhook_app.outbox.hashing import Hasher
from webhook_app.outbox.lookup import NewestChange, newest_changes
from webhook_app.outbox.routing import ConditionFailed, RoutingCondition, concerned

#: Changes with the rows or entries they are from.
Entries = Sequence[tuple[ConsentChange, bytes]]


def sections_of(
    sections: Mapping[str, RoutingCondition], provider: str, change: ConsentChange, raw: bytes
) -> tuple[str, ...]:
    """Of several sections those that an entry concerns; none where there are not several, or nobody can say."""
    if len(sections) < 2:
        return ()
    try:
        return concerned(sections, provider, change, raw)
    except ConditionFailed:
        return ()


def known_changes(
    database: Database,
    hasher: Hasher,
    provider: str,
    entries: Entries,
    sections: Mapping[str, RoutingCondition],
) -> list[list[NewestChange | None]]:
    """For each entry the newest change of its person, for each section that it concerns where there are several.

    That one section was told proves nothing of another. Raises `OutboxUnavailable`.
    """
    identities = [change.identity for change, _ in entries]
    if len(sections) < 2:
        known = newest_changes(database, hasher, identities)
        return [[known.get(identity.key)] for identity in identities]
    each = {name: newest_changes(database, hasher, identities, section=name) for name in sections}
    return [
        [each[name].get(change.identity.key) for name in sections_of(sections, provider, change, raw)] or [None]
        for change, raw in entries
    ]
