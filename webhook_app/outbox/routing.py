"""Routing: which sections of Dynamic Yield an event concerns, decided once, when it is stored."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Protocol

from webhook_app.consent import Action, ConsentChange, IdentityKind
from webhook_app.outbox.hashing import Hasher
from webhook_app.outbox.rows import NewRow, row_of_change, row_of_quarantined
from webhook_app.outbox.tables import DEFAULT_SECTION


class RoutingCondition(Protocol):
    """What decides which raw events of a provider, with which action and kind of identity, concern a section."""

    def concerns(self, raw: bytes, provider: str, action: Action, kind: IdentityKind) -> bool:
        """May raise whatever it likes."""

    def near_match(self, raw: bytes, provider: str, action: Action, kind: IdentityKind) -> str:
        """Why an event only nearly concerns it, as a text that may be stored; empty where it is far from it."""


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
    asked = raw, provider, change.action, change.identity.kind
    names = []
    for name, condition in sections.items():
        with _named(name):
            if condition.concerns(*asked):
                names.append(name)
    if not names:
        _check_near_matches(sections, asked)
    return tuple(names)


def _check_near_matches(
    sections: Mapping[str, RoutingCondition], asked: tuple[bytes, str, Action, IdentityKind]
) -> None:
    """What concerns nobody is ignored. What only seems to, for the case or the type of a value, must not be."""
    for name, condition in sections.items():
        with _named(name):
            why = condition.near_match(*asked)
        if why:
            raise ConditionFailed(f"concerns no section; section {name}: {why}")


@contextmanager
def _named(section: str) -> Iterator[None]:
    """Whatever is raised names the section, and its own type only: the text may hold the address."""
    try:
        yield
    except Exception as error:
        raise ConditionFailed(f"the condition of section {section} failed: {type(error).__name__}") from None


@cache
def dump_sections(names: tuple[str, ...]) -> str | None:
    """The names of sections as a row has them: a JSON list, None for the default one alone."""
    return None if names == (DEFAULT_SECTION,) else json.dumps(names)
