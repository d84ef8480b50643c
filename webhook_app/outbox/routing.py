"""Routing: which sections of Dynamic Yield an event concerns, decided once, when it is stored."""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from webhook_app.consent import Action, ConsentChange, IdentityKind
from webhook_app.outbox.hashing import Hasher
from webhook_app.outbox.rows import NewRow, row_of_change, row_of_quarantined
from webhook_app.outbox.tables import DEFAULT_SECTION

#: Whether a raw event of a provider, an action and a kind of identity concerns a section. May raise whatever it likes.
RoutingCondition = Callable[[bytes, str, Action, IdentityKind], bool]


class NearlyConcerned(Exception):
    """An event concerns no section, and would one but for the form of a value. The text may be stored."""


class ConditionFailed(Exception):
    """The condition of a section makes no sense of an event."""


def rows_of(
    provider: str,
    changes: Iterable[tuple[ConsentChange, bytes]],
    quarantined: Iterable[tuple[str, bytes]],
    *,
    sections: Mapping[str, RoutingCondition],
    hasher: Hasher,
    now: int,
) -> tuple[list[NewRow], int]:
    """The rows of the log for what a webhook said, and how many changes concern no section and have none."""
    rows, unconcerned = [], 0
    for change, raw in changes:
        try:
            names = concerned(sections, provider, change, raw)
        except ConditionFailed as error:
            rows.append(row_of_quarantined(provider, str(error), raw, hasher, now))
            continue
        if names:
            rows.append(row_of_change(provider, change, raw, hasher, now, sections=dump_sections(names)))
        else:
            unconcerned += 1
    rows += [row_of_quarantined(provider, reason, raw, hasher, now) for reason, raw in quarantined]
    return rows, unconcerned


def concerned(
    sections: Mapping[str, RoutingCondition], provider: str, change: ConsentChange, raw: bytes
) -> tuple[str, ...]:
    """The names of the sections that a change concerns. Raises `ConditionFailed`."""
    # What a test button made up is sent nowhere, and shown all the same.
    if not sections or change.is_test:
        return (DEFAULT_SECTION,)
    names = []
    for name, condition in sections.items():
        try:
            if condition(raw, provider, change.action, change.identity.kind):
                names.append(name)
        except NearlyConcerned as error:
            raise ConditionFailed(f"concerns no section; {error}") from None
        except Exception as error:
            # Its type only: the text may hold the address.
            raise ConditionFailed(f"the condition of section {name} failed: {type(error).__name__}") from None
    return tuple(names)


@cache
def dump_sections(names: tuple[str, ...]) -> str | None:
    """The names of sections as a row has them: a JSON list, None for the default one alone."""
    return None if names == (DEFAULT_SECTION,) else json.dumps(names)
