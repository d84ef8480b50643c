"""The answer about a person: did their unsubscribe go through? One sentence, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from webhook_app.consent import Action
from webhook_app.console.words import happened
from webhook_app.outbox.people import Consent, Person
from webhook_app.outbox.queries import Event


class Mood(StrEnum):
    """How the sentence is coloured."""

    GOOD = "working"
    UNSURE = "attention"
    BAD = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonAnswer:
    mood: Mood
    #: Of Dynamic Yield; empty for what waits in quarantine.
    section: str = ""
    #: `Yes`, `Not yet`, `No`.
    word: str
    #: What the person did, where, and when; None where that is not known.
    event: Event | None = None
    did: str = ""
    #: What became of it, and when, where there is a time to it.
    rest: str = ""
    at: datetime | None = None
    trace: str = ""
    #: What to do now.
    mend: str = ""


def answers(person: Person | None, quarantined: Iterable[Event]) -> list[PersonAnswer]:
    """One for each section that must know of the person, one for what waits in quarantine; empty: nothing came."""
    by_number = {event.id: event for event in person.events} if person else {}
    of_sections = [
        replace(_of_section(one, by_number.get(one.event)), section=one.section)
        for one in (person.consents if person else ())
    ]
    waiting = [
        PersonAnswer(
            mood=Mood.BAD,
            word="No",
            event=event,
            rest=f"it was not understood: {event.error}",
            mend="Mend the mapping or its settings, then try again from the event's page.",
        )
        for event in quarantined
    ]
    return [*of_sections, *waiting]


def _of_section(consent: Consent, event: Event | None) -> PersonAnswer:
    did = happened(event.reason, event.action) if event else str(consent.wanted).replace("_", "-")
    if consent.given_up_at:
        mend = "Mend the cause, then send it again from the event's page."
        why = f"Dynamic Yield refused it ({consent.error})," if consent.error else "it was given up"
        return PersonAnswer(
            mood=Mood.BAD, word="No", event=event, did=did, rest=f"{why} on", at=consent.given_up_at, mend=mend
        )
    if consent.told is not consent.wanted or consent.told_at is None:
        return _waiting(consent, event, did)
    rest = f"Dynamic Yield took it{_later(event, consent.told_at)}"
    word = "Yes" if consent.wanted is Action.OPT_OUT else "Opted in again"
    return PersonAnswer(
        mood=Mood.GOOD, word=word, event=event, did=did, rest=rest, at=consent.told_at, trace=consent.told_trace
    )


def _waiting(consent: Consent, event: Event | None, did: str) -> PersonAnswer:
    if consent.being_told:
        return PersonAnswer(mood=Mood.UNSURE, word="Just now", event=event, did=did, rest="it is being sent")
    if consent.due_at is None:
        return PersonAnswer(mood=Mood.UNSURE, word="No", event=event, did=did, rest="it was discarded here")
    why = f"it waits: {consent.error}" if consent.error else "it waits for its turn"
    return PersonAnswer(
        mood=Mood.UNSURE, word="Not yet", event=event, did=did, rest=f"{why}. Next try", at=consent.due_at,
        mend="It is tried again by itself.",
    )  # fmt: skip


def _later(event: Event | None, told_at: datetime) -> str:
    """How long after the person's click, in a person's words."""
    if event is None or event.occurred_at is None:
        return ""
    return f" {duration(max(told_at - event.occurred_at, timedelta()))} later"


def duration(length: timedelta) -> str:
    """`40 seconds`, `3 minutes`, `2 days`: whole ones of the unit in which there are at least two."""
    seconds = length.total_seconds()
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return "1 second" if seconds < 1.5 else f"{seconds:.0f} seconds"
