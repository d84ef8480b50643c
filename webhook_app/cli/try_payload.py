"""`flask try`: what would become of a webhook. For whoever writes a mapping, or wonders about one."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from flask import current_app
from flask.cli import with_appcontext
from marshmallow import ValidationError
from werkzeug.datastructures import Headers

from webhook_app.auth import WebhookRequest
from webhook_app.cli.shared import as_json, find_provider, print_json, settings
from webhook_app.consent import Action, ConsentChange, IdentityKind
from webhook_app.outbox.hashing import Hasher
from webhook_app.outbox.routing import ConditionFailed, RoutingCondition, concerned, dump_sections
from webhook_app.providers import Provider, Unreadable, change_of, dump_raw, explain
from webhook_app.providers.declared import EventReader

#: No installation's key: what is hashed here is compared within one payload and goes nowhere.
_HASHER = Hasher(b"try")

_ACTIONS = {Action.OPT_OUT: "an opt-out", Action.OPT_IN: "an opt-in"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What would become of one event."""

    #: accepted, duplicate, ignored, quarantined or test.
    outcome: str
    #: Why it is no change, or none that would be forwarded.
    why: str = ""
    change: ConsentChange | None = None
    #: Which sections would be told, where there are several or one with a condition.
    sections: tuple[str, ...] = ()


@click.command("try")
@click.argument("provider")
@click.argument("file")
@click.option("--content-type", help="The header as the ESP sends it.  [default: as this ESP does]")
@click.option("--query", default="", help="What stands behind the question mark of the URL, like action=opt_out.")
@as_json
@with_appcontext
def try_payload(provider: str, file: str, content_type: str | None, query: str, as_json: bool) -> None:
    """Say what would become of the webhook of PROVIDER whose body is in FILE (-: standard input), event by event.

    Stores nothing, sends nothing, and needs no secret and no database: signatures are not checked.
    """
    chosen = find_provider(provider)
    request = _request(chosen, _body(chosen, file), content_type, query.removeprefix("?"))
    try:
        found = _verdicts(chosen, request, forward_opt_ins=settings().forward_opt_ins)
        verdicts = list(_of_sections(found, chosen.name, current_app.extensions["conditions"]))
    except Unreadable as error:
        raise click.ClickException(f"the whole body would be quarantined: {error.reason}") from None
    for number, verdict in enumerate(verdicts, start=1):
        if as_json:
            print_json({"event": number, **_plain(verdict)})
        else:
            click.echo(f"#{number}  {_told(verdict)}")
    if not as_json:
        click.echo(_summary(verdicts))


def _body(provider: Provider, file: str) -> bytes:
    try:
        body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}") from None
    limit = max(settings().max_body_bytes, provider.largest_body)
    if len(body) > limit:
        raise click.ClickException(
            f"it would be refused with 413: its {len(body):,} bytes are more than {limit:,} (MAX_BODY_BYTES)"
        )
    return body


def _request(provider: Provider, body: bytes, content_type: str | None, query: str) -> WebhookRequest:
    kind = content_type or (provider.sample.content_type if provider.sample else "application/json")
    return WebhookRequest(headers=Headers({"Content-Type": kind}), query=query, body=body)


def _verdicts(provider: Provider, request: WebhookRequest, *, forward_opt_ins: bool) -> Iterator[tuple[Verdict, Any]]:
    """Each with its event. Raises `Unreadable`."""
    note = provider.url_verification(request) if provider.url_verification else None
    if note:
        yield Verdict(outcome="ignored", why=f"answered 200, and that is all: {note}"), None
        return
    for event in provider.events(request):
        yield _verdict(provider, event, request, forward_opt_ins=forward_opt_ins), event


def _verdict(provider: Provider, event: Any, request: WebhookRequest, *, forward_opt_ins: bool) -> Verdict:
    try:
        change = change_of(provider, event, request)
    except ValidationError as error:
        return Verdict(outcome="quarantined", why=explain(error))
    if change is None:
        return Verdict(outcome="ignored", why=_why_ignored(provider, event))
    if change.is_test:
        return Verdict(outcome="test", why="made up by the ESP's test button: shown, never forwarded", change=change)
    if change.action is Action.OPT_IN and not forward_opt_ins:
        return Verdict(outcome="ignored", why="opt-ins are not forwarded (FORWARD_OPT_INS)", change=change)
    return Verdict(outcome="accepted", change=change)


def _of_sections(
    verdicts: Iterable[tuple[Verdict, Any]], provider: str, conditions: Mapping[str, RoutingCondition]
) -> Iterator[Verdict]:
    """What of the accepted ones concerns which section, and what would be taken for a repetition."""
    seen: dict[bytes, int] = {}
    for number, (verdict, event) in enumerate(verdicts, start=1):
        change = verdict.change
        if verdict.outcome != "accepted" or change is None:
            yield verdict
            continue
        try:
            names = concerned(conditions, provider, change, dump_raw(event))
        except ConditionFailed as error:
            yield Verdict(outcome="quarantined", why=str(error), change=change)
            continue
        first = seen.setdefault(_HASHER.change(provider, change, sections=dump_sections(names)), number)
        if not names:
            yield Verdict(outcome="ignored", why="it concerns no section of Dynamic Yield", change=change)
        elif first != number:
            yield Verdict(outcome="duplicate", why=f"the same as #{first}", change=change)
        else:
            yield replace(verdict, sections=names if conditions else ())


def _why_ignored(provider: Provider, event: Any) -> str:
    if not isinstance(provider.events, EventReader):
        return "it says nothing about consent, or nothing that the settings let through"
    declared = provider.events.declaration
    if not isinstance(event, dict):
        return "skip holds of the body"
    if declared.ignore and declared.ignore.holds(event):
        return "ignore holds of it"
    if declared.type:
        return f"its type, {declared.type.find(event)}, is known to say nothing about consent"
    return "neither opt_out nor opt_in holds of it"


def _plain(verdict: Verdict) -> dict[str, Any]:
    plain: dict[str, Any] = {"outcome": verdict.outcome, "why": verdict.why or None}
    change = verdict.change
    if change is None:
        return plain
    return plain | {
        "action": change.action,
        "channel": _channel(change),
        "identity_kind": change.identity.kind,
        "identity_value": change.identity.value,
        "reason": change.reason,
        "occurred_at": change.occurred_at,
        "esp_event_id": change.event_id,
        "esp_message_id": change.message_id,
        "known_again_by": _known_again_by(change),
        **({"sections": verdict.sections} if verdict.sections else {}),
    }


def _told(verdict: Verdict) -> str:
    why = f": {verdict.why}" if verdict.why else ""
    change = verdict.change
    if change is None:
        return f"{verdict.outcome}{why}"
    rows = {
        "who": f"{change.identity.kind}  {change.identity.value}",
        "channel": _channel(change),
        "reason": change.reason,
        "when": _when(change.occurred_at),
        "event": change.event_id,
        "message": change.message_id,
        "known again by": _known_again_by(change),
        "sections": ", ".join(verdict.sections),
    }
    lines = [f"      {name:<16}{value}" for name, value in rows.items() if value]
    return "\n".join([f"{verdict.outcome}, {_ACTIONS[change.action]}{why}", *lines])


def _channel(change: ConsentChange) -> str:
    if change.identity.kind is not IdentityKind.PUSH:
        return "email"
    return change.push_channel.value if change.push_channel else "push"


def _when(moment: datetime | None) -> str:
    if moment is None:
        return "the time of receipt: it says none"
    written = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    # A time that has not come yet would win over every later change.
    return f"the time of receipt: {written} is yet to come" if moment > datetime.now(UTC) else written


def _known_again_by(change: ConsentChange) -> str:
    """What makes a repetition of it a duplicate, in words."""
    if change.occurred_at is not None:
        return "person, reason, time" + (" and message" if change.message_id else "")
    if change.event_id:
        return "person, reason and event"
    return "nothing: without a time and an event's id each counts as a new one"


def _summary(verdicts: list[Verdict]) -> str:
    outcomes = [verdict.outcome for verdict in verdicts]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in Counter(outcomes).most_common()) or "nothing"
    return f"{len(verdicts)} event{'s' * (len(verdicts) != 1)}: {counts}. Nothing was stored."
