"""Delivery to Dynamic Yield: what a request is, and what an answer to it means."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

import orjson

from webhook_app.consent import ConsentChange, Identity, IdentityKind


class Outcome(StrEnum):
    """What an answer means for the change that was sent."""

    #: Dynamic Yield has taken it.
    DELIVERED = "delivered"
    #: A passing fault: try again later.
    RETRY = "retry"
    #: This change is refused for good, others are not.
    REFUSED = "refused"
    #: Key, host or path are wrong: every change would fail alike, so none may be burnt on it.
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Dynamic Yield's answer to one change, or what went wrong instead of one."""

    outcome: Outcome
    #: A short slug for logs and metrics: `taken`, `http_503`, `timeout`, `dns` …
    reason: str = ""
    #: HTTP status; None where no answer came.
    status: int | None = None
    #: What the answer said, or what went wrong, for a person. Never holds the identifier.
    message: str = ""
    #: The id that Dynamic Yield's support asks for.
    trace_id: str = ""
    #: `warnings` of a 2xx: taken, but not proven to have had effect.
    warnings: tuple[str, ...] = ()
    #: Seconds for which Dynamic Yield asked to be left alone.
    retry_after: float | None = None
    #: The request may have been taken, or may yet be: nobody knows, for no answer to it came.
    lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to Dynamic Yield, without the key."""

    method: str
    path: str
    body: bytes = field(repr=False)
    #: What the body says about the person: must not come back in a message or a log, should an answer repeat it.
    private: tuple[str, ...] = field(default=(), repr=False)


class Undeliverable(Exception):
    """This change has no form that Dynamic Yield knows. `reason` is a sentence for a person."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class WireForm(Protocol):
    """How a change is put into words that one of Dynamic Yield's APIs knows."""

    def call(self, change: ConsentChange, *, pseudonym: str) -> Call:
        """The request for this change; `pseudonym` is a stable keyed hash of its identity.

        Raises `Undeliverable`.
        """

    def probe(self) -> Call:
        """A request that names nobody: refused for what it lacks, if host and key are right."""


def dump_json(body: Any) -> bytes:
    """The bytes that go on the wire.

    Raises `Undeliverable` for text that is no Unicode: an old row may hold a lone surrogate.
    """
    try:
        return orjson.dumps(body)
    except TypeError:
        raise Undeliverable("holds characters that cannot be sent as JSON") from None


def lower_cased(change: ConsentChange) -> ConsentChange:
    """The change with its address in lower case. Other identifiers mean something else in another case."""
    if change.identity.kind is not IdentityKind.EMAIL:
        return change
    return replace(change, identity=Identity(kind=IdentityKind.EMAIL, value=change.identity.value.lower()))


def private_texts(change: ConsentChange) -> tuple[str, ...]:
    """The identifiers of a change that may not appear in anything we keep or log, the longest first."""
    visitor = change.visitor
    carried = (visitor.dyid, visitor.dyid_server, visitor.session, visitor.user_id, visitor.session_id)
    return tuple(sorted({change.identity.value, *filter(None, carried)}, key=len, reverse=True))
