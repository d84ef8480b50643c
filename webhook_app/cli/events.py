"""`flask events …`: what happened to this person, what failed, send it again; the console without a browser."""

import dataclasses
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup

from webhook_app.cli import shared
from webhook_app.cli.shared import (
    PointInTime,
    as_json,
    database,
    not_blank,
    print_json,
    report_database_errors,
    settings,
)
from webhook_app.delivery import Undeliverable
from webhook_app.delivery.sections import Section
from webhook_app.outbox import State
from webhook_app.outbox.queries import Event, EventDetails, Filter, newest_number, search, show
from webhook_app.redelivery import Redelivery, Verb

events = AppGroup("events", help="What came in and what became of it.")


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.option(
                "--person",
                callback=not_blank,
                help="Address, external or push id, #number of a change, or the pseudonym from a log line.",
            ),
            click.option("--state", type=click.Choice([state.value for state in State])),
            click.option("--provider", callback=not_blank, help="Name of the ESP."),
            click.option("--since", type=PointInTime(), help="Received from then on: 2026-01-31 (UTC), 30d, 48h."),
            click.option("--until", type=PointInTime(), help="Received before then."),
        ]
    ):
        command = option(command)
    return command


def _filter(
    *,
    person: str | None,
    state: str | None,
    provider: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Filter:
    """Raises `OutboxUnavailable`."""
    if provider:
        shared.check_name_of_provider(provider)
    return Filter(
        person=person or "",
        state=None if state is None else State(state),
        provider=provider or "",
        since=since,
        until=until,
    )


@events.command("list")
@_filters
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000_000))
@as_json
@report_database_errors
def list_events(limit: int, as_json: bool, **which: Any) -> None:
    """List changes, newest first."""
    chosen, after, left = _filter(**which), "", limit
    while left > 0:
        page = search(database(), chosen, after=after, limit=min(left, 1000))
        for event in page.events:
            print_json(_plain(event)) if as_json else click.echo(_line(event))
        left -= len(page.events)
        if page.next is None:
            return
        after = page.next
    if not as_json:
        click.echo(f"… and more: --limit is {limit}", err=True)


@events.command("show")
@click.argument("number", type=int)
@as_json
@report_database_errors
def show_event(number: int, as_json: bool) -> None:
    """Show one change: received, translated, every attempt, and the exact request, without the key."""
    details = show(database(), number)
    if details is None:
        raise click.ClickException(f"there is no change #{number}")
    if as_json:
        print_json(
            {
                **_plain(details.event),
                "raw": None if details.raw is None else details.raw.decode(errors="replace"),
                "attempts": [shared.plain_attempt(attempt) for attempt in details.attempts],
                "request": _request(details),
                "others": [_plain(other) for other in details.others],
            }
        )
        return
    for name, value in _plain(details.event).items():
        if value not in (None, "", False):
            click.echo(f"{name.replace('_', ' '):<14} {value}")
    for attempt in details.attempts:
        answer = " ".join(filter(None, (attempt.outcome, str(attempt.status or ""), attempt.message)))
        trace = f" · trace {attempt.trace_id}" if attempt.trace_id else ""
        click.echo(f"attempt        {_time(attempt.started_at)} {answer}{trace} ({attempt.duration:.3f} s)")
        for warning in attempt.warnings:
            click.echo(f"warning        {warning}")
    if details.raw is not None:
        click.echo(f"\nas it came:\n{details.raw.decode(errors='replace')}")
    if request := _request(details):
        click.echo(f"\nthe request to Dynamic Yield:\n{request['method']} {request['url']}\n{request['body']}")


@events.command("replay")
@click.argument("numbers", type=int, nargs=-1)
@_filters
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@report_database_errors
def replay(numbers: tuple[int, ...], yes: bool, as_json: bool, **which: Any) -> None:
    """Send changes again, by NUMBERS or by filter. What was not understood is read again."""
    _run(Verb.REPLAY, numbers, _filter(**which), yes=yes, as_json=as_json)


@events.command("discard")
@click.argument("numbers", type=int, nargs=-1)
@_filters
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@report_database_errors
def discard(numbers: tuple[int, ...], yes: bool, as_json: bool, **which: Any) -> None:
    """Decide that changes shall never be sent, by NUMBERS or by filter. They can still be replayed."""
    _run(Verb.DISCARD, numbers, _filter(**which), yes=yes, as_json=as_json)


def _run(verb: Verb, numbers: tuple[int, ...], which: Filter, *, yes: bool, as_json: bool) -> None:
    redelivery = Redelivery(
        database(),
        shared.providers(),
        forward_opt_ins=settings().forward_opt_ins,
        sections=current_app.extensions["conditions"],
    )
    if bool(numbers) is (which != Filter()):
        raise click.UsageError("name the changes either by their numbers or by filters, like --state dead")
    if numbers:
        changes = _find(numbers)
        shared.record(verb, numbers=[change.id for change in changes])
        done = sum(redelivery.one(verb, change) for change in changes)
        total = len(changes)
    else:
        # What comes in while somebody thinks about the question is not meant.
        up_to = newest_number(database())
        total = redelivery.count(verb, which)
        if total and not yes:
            click.confirm(f"{verb} {total:,} changes?", abort=True, err=True)
        shared.record(verb, up_to=up_to, **which.described())
        done = 0
        with click.progressbar(length=total, label=verb, file=sys.stderr) as bar:
            for progress in redelivery.run(verb, which, up_to=up_to):
                done += progress.done
                bar.update(progress.seen)
    past = "replayed" if verb is Verb.REPLAY else "discarded"
    if as_json:
        print_json({past: done, "left_alone": total - done})
    else:
        click.echo(f"{done} {past}" + (f", {total - done} left alone" if total > done else ""))


def _find(numbers: tuple[int, ...]) -> list[Event]:
    """All of them, each once, before the first is changed: an order with a slip in it does nothing by halves."""
    found = {number: show(database(), number) for number in numbers}
    if missing := [f"#{number}" for number, details in found.items() if details is None]:
        raise click.ClickException(f"there is no change {', '.join(missing)}: nothing was changed")
    return [details.event for details in found.values() if details is not None]


def _plain(event: Event) -> dict[str, Any]:
    return dataclasses.asdict(event)


def _line(event: Event) -> str:
    who = event.identity_value or (f"({event.pseudonym})" if event.pseudonym else "—")
    said = f"{event.reason or event.error}"
    return f"#{event.id:<8} {_time(event.received_at)}  {event.state:<11}  {event.provider:<12}  {who}  {said}"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _request(details: EventDetails) -> dict[str, str] | None:
    """The request that was sent last or, before that, would be, without the key; None where there is none."""
    if sent := next((attempt.sent for attempt in reversed(details.attempts) if attempt.sent), None):
        return shared.plain_request(*sent)
    sections: dict[str, Section] = current_app.extensions["sections"]
    first = next(iter(sections.values()))
    if details.change is None:
        return None
    try:
        call = first.form.call(details.change, pseudonym=details.event.pseudonym)
    except Undeliverable:
        return None
    return shared.plain_request(call.method, first.base + call.path, call.body)
