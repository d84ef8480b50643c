"""`flask people …`: what is known of one person, who is opted out, and how to forget somebody."""

import csv
import dataclasses
import hashlib
import sys
from typing import Any

import click
from flask.cli import AppGroup

from webhook_app.cli.shared import (
    as_json,
    database,
    not_blank,
    plain_attempt,
    print_json,
    record,
    report_database_errors,
)
from webhook_app.consent import IdentityKind
from webhook_app.console.export import cell
from webhook_app.outbox.people import (
    OptedOut,
    Person,
    erase_person,
    is_unfinished,
    opted_out,
    set_aside_mentions,
    show_person,
)
from webhook_app.outbox.queries import Event, pseudonyms

people = AppGroup("people", help="What each person wants, what Dynamic Yield was told, and how to forget somebody.")


@people.command("show")
@click.argument("person", callback=not_blank)
@as_json
@report_database_errors
def show(person: str, as_json: bool) -> None:
    """Show what is known of PERSON: an address, an id, or the pseudonym of a log line."""
    found, mentioning = _find(person)
    if as_json:
        print_json(_plain(found, mentioning))
        return
    for one in found.consents:
        click.echo(f"section {one.section}: wants {one.wanted} since {_time(one.since)} (event #{one.event})")
        told = f"{one.told} on {_time(one.told_at)}" if one.told_at else "nothing yet"
        click.echo(f"  told       {told}" + (f" · trace {one.told_trace}" if one.told_trace else ""))
        if one.given_up_at:
            click.echo(f"  given up   {_time(one.given_up_at)}: {one.error}")
        elif one.due_at:
            click.echo("  being told" if one.being_told else f"  due        {_time(one.due_at)} {one.error}")
    for event in (*found.events, *mentioning[::-1]):
        said = f"{event.provider} {event.reason or event.error}"
        click.echo(f"event #{event.id} {_time(event.received_at)} {said}: {event.state}")
    for number, attempt in found.attempts:
        answer = " ".join(filter(None, (attempt.outcome, str(attempt.status or ""), attempt.message)))
        click.echo(f"attempt {_time(attempt.started_at)} of event #{number}, section {attempt.section}: {answer}")
        if attempt.sent:
            method, url, body = attempt.sent
            click.echo(f"  sent {method} {url}\n  {body.decode(errors='replace')}")


@people.command("export")
@click.option("--hash", "hashed", type=click.Choice(["sha256"]), help="The hash of each identity instead of it.")
@report_database_errors
def export(hashed: str | None) -> None:
    """Write the suppression list as CSV: everybody whose newest wish is to get no messages."""
    record("people export", hashed=hashed or "no")
    lines, emptied = csv.writer(sys.stdout), 0
    lines.writerow(["section", "kind", hashed or "identity", "since", "told_at"])
    for batch in opted_out(database()):
        emptied += sum(one.identity is None for one in batch)
        lines.writerows(
            [one.section, one.kind, _written(one, hashed), one.since.isoformat(), one.told_at or ""]
            for one in batch
            if one.identity is not None
        )
    if emptied:
        click.echo(f"{emptied} people are left out: retention has emptied their addresses.", err=True)


@people.command("erase")
@click.argument("person", callback=not_blank)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--even-if-unfinished", is_flag=True, help="Also where Dynamic Yield was not told of an opt-out yet.")
@as_json
@report_database_errors
def erase(person: str, yes: bool, even_if_unfinished: bool, as_json: bool) -> None:
    """Forget PERSON: the register, the log and what was sent. Their opt-out is then known only to Dynamic Yield."""
    found, mentioning = _find(person)
    if is_unfinished(found) and not even_if_unfinished:
        raise click.ClickException("Dynamic Yield does not know yet what this person wants: it would never be told")
    if not yes:
        click.confirm(f"forget this person with {len(found.events) + len(mentioning)} events?", abort=True, err=True)
    record("people erase", person=pseudonyms(database(), person))
    erased = erase_person(database(), person)
    print_json({"erased": erased}) if as_json else click.echo(f"{erased} events of this person were erased")


def _find(person: str) -> tuple[Person, list[Event]]:
    """What was understood of them, and what was not and mentions them."""
    found, mentioning = show_person(database(), person), set_aside_mentions(database(), person)
    if found is None and not mentioning:
        raise click.ClickException("nothing is known of this person")
    return found or Person(consents=[], events=[], attempts=[]), mentioning


def _plain(person: Person, mentioning: list[Event]) -> dict[str, Any]:
    return {
        "register": [dataclasses.asdict(one) for one in person.consents],
        "events": [dataclasses.asdict(one) for one in person.events],
        "set_aside": [dataclasses.asdict(one) for one in mentioning],
        "attempts": [{"event": number, **plain_attempt(attempt)} for number, attempt in person.attempts],
    }


def _written(one: OptedOut, hashed: str | None) -> str:
    if one.identity is None or not hashed:
        return cell(one.identity)
    # As Dynamic Yield compares them: ids exactly.
    said = one.identity.lower() if one.kind is IdentityKind.EMAIL else one.identity
    return hashlib.sha256(said.encode()).hexdigest()


def _time(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
