"""Did somebody's unsubscribe go through? One sentence, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from webhook_app.consent import Action
from webhook_app.console.words import in_words
from webhook_app.outbox.people import Consent, Person
from webhook_app.outbox.queries import Attempt, Event


class AnswerStatus(StrEnum):
    """How the sentence is coloured."""

    GOOD = "working"
    UNSURE = "attention"
    BAD = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonAnswer:
    status: AnswerStatus
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
    of_sections = (
        [
            replace(_of_section(one, by_number.get(one.event), person.attempts), section=one.section)
            for one in person.consents
        ]
        if person
        else []
    )
    waiting = [
        PersonAnswer(
            status=AnswerStatus.BAD,
            word="No",
            event=event,
            rest=f"it was not understood: {event.error}",
            mend="Mend the mapping or its settings, then try again from the event's page.",
        )
        for event in quarantined
    ]
    return [*of_sections, *waiting]


def _of_section(consent: Consent, event: Event | None, attempts: Iterable[tuple[int, Attempt]]) -> PersonAnswer:
    did = in_words(event.reason, event.action) if event else str(consent.wanted).replace("_", "-")
    # First: who has been told the same before knows it, whatever became of a repetition.
    if consent.told is consent.wanted and consent.told_at is not None:
        return _taken(consent, event, did, attempts)
    if consent.given_up_at:
        mend = "Mend the cause, then send it again from the event's page."
        why = f"Dynamic Yield refused it ({consent.error})," if consent.error else "it was given up"
        rest = f"{why} on"
        return PersonAnswer(
            status=AnswerStatus.BAD, word="No", event=event, did=did, rest=rest, at=consent.given_up_at, mend=mend
        )
    return _waiting(consent, event, did)


def _taken(consent: Consent, event: Event | None, did: str, attempts: Iterable[tuple[int, Attempt]]) -> PersonAnswer:
    word = "Yes" if consent.wanted is Action.OPT_OUT else "Opted in again"
    answer = PersonAnswer(status=AnswerStatus.GOOD, word=word, event=event, did=did, trace=consent.told_trace)
    # The first time counts: it may have been sent again since.
    first = next((one for number, one in attempts if number == consent.event and _took(one, consent.section)), None)
    taken_at = first.started_at + timedelta(seconds=first.duration) if first else consent.told_at
    if event is None or event.occurred_at is None or taken_at is None:
        return replace(answer, rest="Dynamic Yield took it on", at=taken_at)
    if taken_at < event.occurred_at:
        return replace(answer, rest="Dynamic Yield had taken the same before, on", at=taken_at)
    later = duration(taken_at - event.occurred_at)
    return replace(answer, rest=f"Dynamic Yield took it {later} later", trace=first.trace_id if first else answer.trace)


def _took(attempt: Attempt, section: str) -> bool:
    return attempt.section == section and attempt.outcome == "delivered"


def _waiting(consent: Consent, event: Event | None, did: str) -> PersonAnswer:
    if consent.being_told:
        return PersonAnswer(status=AnswerStatus.UNSURE, word="Just now", event=event, did=did, rest="it is being sent")
    if consent.due_at is None:
        return PersonAnswer(status=AnswerStatus.UNSURE, word="No", event=event, did=did, rest="it was discarded here")
    why = f"it waits: {consent.error}" if consent.error else "it waits for its turn"
    rest, mend = f"{why}. Next try", "It is tried again by itself."
    return PersonAnswer(
        status=AnswerStatus.UNSURE, word="Not yet", event=event, did=did, rest=rest, at=consent.due_at, mend=mend
    )


def duration(length: timedelta) -> str:
    """`40 seconds`, `3 minutes`, `2 days`: whole ones of the unit in which there are at least two."""
    seconds = length.total_seconds()
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return "1 second" if seconds < 1.5 else f"{seconds:.0f} seconds"
