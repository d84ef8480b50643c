"""Providers: an ESP's webhook, authenticated and translated into consent changes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from marshmallow import ValidationError

from webhook_app.auth import Scheme, WebhookRequest
from webhook_app.consent import Action, ConsentChange
from webhook_app.providers import kept
from webhook_app.providers.json_body import Damaged
from webhook_app.providers.json_body import Unreadable as Unreadable
from webhook_app.providers.json_body import dump_raw as dump_raw
from webhook_app.providers.json_body import load_json as load_json
from webhook_app.providers.json_body import read_json as read_json
from webhook_app.providers.known import UnknownType


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A typical opt-out, to try the receiver out."""

    content_type: str
    #: The body with `$email`, `$id`, `$unix`, `$unix_ms`, `$iso` and `$datetime` for what differs each time.
    template: str
    #: The filled template → the body on the wire.
    write: Callable[[str], bytes] = str.encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One ESP: who may call, how its body is read, and what one raw event says about consent.

    The receiver asks in this order:

    1. `scheme is None`: 404. The method is in `probed_with`: 200 without a body; any other but POST: 405.
    2. `url_verification(request)`, where there is one: not None is answered 200, and nothing is stored. Nobody is
       authenticated yet, so it changes nothing.
    3. `scheme.verify(request)`.
    4. `subscription_confirmation(request)`, where there is one: not None is answered 200, and nothing is stored. It
       may call the ESP back, and raises `AuthenticationError` or `CannotVerify` like the scheme.
    5. `read(provider, request)`.
    """

    name: str
    #: The ESP's name as people write it.
    title: str
    #: None while the provider is closed.
    scheme: Scheme | None
    #: For the person who wonders why it is closed: the variable to set.
    opened_by: str
    #: The same for a guided set-up: each variable, and by which scheme its secret is checked.
    auth_schemes: Mapping[str, str]
    #: Body → raw events. Raises `Unreadable`.
    events: Callable[[WebhookRequest], Iterable[Any]]
    #: Raw event → what it says, None where it says nothing about consent. Raises `ValidationError`.
    translate: Callable[[Any, WebhookRequest], ConsentChange | None]
    #: Methods by which the ESP probes the URL before it uses it.
    probed_with: frozenset[str] = frozenset()
    #: Both return what was done, or what the person who connects the ESP must do now, for the log; None for any
    #: other request.
    url_verification: Callable[[WebhookRequest], str | None] | None = None
    subscription_confirmation: Callable[[WebhookRequest], str | None] | None = None
    sample: Sample | None = None
    #: Bytes of a body that the ESP may send, where that is more than the receiver takes of others.
    largest_body: int = 0
    #: Where it is declared: a file's name; empty for the two that are written in Python.
    declared_in: str = ""
    #: What may not be meant as it is declared.
    hints: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Reading:
    """What one webhook said. Each change and each event that could not be translated keeps its raw bytes,
    and the query of the URL, which may say what it means."""

    changes: list[tuple[ConsentChange, bytes]] = field(default_factory=list)
    quarantined: list[tuple[str, bytes]] = field(default_factory=list)
    ignored: int = 0
    #: Type → how many of the quarantined events are of it, for types that the provider does not know.
    unknown_types: Counter[str] = field(default_factory=Counter)


#: Where more events than this cannot be read, the body is kept instead of each of them. A hostile one of two megabytes
#: holds a million; as rows they would take six gigabytes of memory and keep the database busy for a minute.
MAX_QUARANTINED = 1000


def read(provider: Provider, request: WebhookRequest, *, forward_opt_ins: bool, damaged_too: bool = False) -> Reading:
    """Translate every event of an authentic webhook. One bad event never costs its neighbours.

    `damaged_too`: a person has looked at events whose bytes were wrong, and wants them read as far as they can be.
    """
    reading = Reading()
    unreadable = 0
    keep = partial(kept.keep, query=request.query)
    try:
        events = provider.events(request)
    except Unreadable as error:
        reading.quarantined.append((error.reason, keep(request.body)))
        return reading
    for event in events:
        try:
            change = change_of(provider, event, request, damaged_too=damaged_too)
        except ValidationError as error:
            unreadable += 1
            if isinstance(error, UnknownType):
                reading.unknown_types[error.name] += 1
            if unreadable <= MAX_QUARANTINED:
                reading.quarantined.append((explain(error), keep(dump_raw(event))))
            continue
        if change is None or (change.action is Action.OPT_IN and not forward_opt_ins):
            reading.ignored += 1
        else:
            reading.changes.append((change, keep(dump_raw(event))))
    if unreadable > MAX_QUARANTINED:
        reason, _ = reading.quarantined[0]
        reading.quarantined = [(f"{unreadable} events cannot be read; the first: {reason}", keep(request.body))]
    return reading


def change_of(
    provider: Provider, event: Any, request: WebhookRequest, *, damaged_too: bool = False
) -> ConsentChange | None:
    """What one raw event says, None where that is nothing. Raises `ValidationError` for what a person must look at."""
    if isinstance(event, Damaged) and not damaged_too:
        place, _, line = event.damage.rpartition(": ")
        raise ValidationError(line, place or "_schema")
    return provider.translate(event, request)


def json_events(request: WebhookRequest) -> list[Any]:
    """The events of a JSON body: a list of them, or a single one. Raises `Unreadable`."""
    loaded = read_json(request)
    return loaded if isinstance(loaded, list) else [loaded]


def explain(error: ValidationError) -> str:
    """Say what is wrong with an event in one line, field by field, for the person who reads the quarantine."""
    messages = error.messages if isinstance(error.messages, dict) else {error.field_name: error.messages}
    return "; ".join(f"{name}: {line}" for name, line in flatten(messages))


def flatten(messages: Any, path: str = "") -> Iterable[tuple[str, str]]:
    """Marshmallow's nested messages as pairs of path and line."""
    if isinstance(messages, dict):
        for name, inner in messages.items():
            step = "" if name == "_schema" else str(name)
            yield from flatten(inner, ".".join(filter(None, (path, step))))
    else:
        for line in messages:
            yield path or "event", str(line)
