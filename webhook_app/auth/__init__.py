"""Authentication: who is calling. One scheme a file, one error for every way to fail."""

import contextlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from werkzeug.datastructures import Headers

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """What an ESP sent, as it came over the wire."""

    method: str = "POST"
    #: The public URL the ESP called, with its query; None while `PUBLIC_URL` is not set. Never guessed
    #: from the request: behind a proxy the guess is wrong, and a forger could choose it.
    url: str | None = None
    headers: Headers = field(default_factory=Headers, repr=False)
    #: The query string as it came, without the question mark.
    query: str = field(default="", repr=False)
    body: bytes = field(default=b"", repr=False)
    #: What stands behind the provider's name in the path.
    url_secret: str | None = field(default=None, repr=False)
    _parsed: dict[Callable[[bytes], Any], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def parsed(self, parse: Callable[[bytes], Parsed]) -> Parsed:
        """What `parse` makes of the body. It is asked once, however many look into the body on its way.

        Raises what `parse` raises.
        """
        if parse not in self._parsed:
            self._parsed[parse] = parse(self.body)
        found: Parsed = self._parsed[parse]
        return found


class AuthenticationError(Exception):
    """The caller did not prove who it is.

    `reason` is a short slug for the log and the metrics; the caller never sees it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CannotVerify(Exception):
    """We could not check who is calling, through no fault of theirs: they should send it again."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Scheme(Protocol):
    """One way to prove who is calling."""

    def verify(self, request: WebhookRequest) -> bytes | None:
        """Return for an authentic request, raise `AuthenticationError` for any other.

        Where the scheme signs a one-time token but not the body (Mailgun), the token is returned: it must
        never be accepted again with a different body. Raises `CannotVerify` where the check itself failed.
        """


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Several schemes, one of which must take the request.

    The reason reported is that of a scheme the caller has tried: the last one that is more than missing or malformed.
    """

    schemes: tuple[Scheme, ...]

    def verify(self, request: WebhookRequest) -> bytes | None:
        failures: list[AuthenticationError] = []
        for scheme in self.schemes:
            try:
                return scheme.verify(request)
            except AuthenticationError as error:
                failures.append(error)
        tried = [one for one in failures if not one.reason.endswith(("_missing", "_malformed"))]
        raise (tried or failures)[-1]


def any_of(schemes: Sequence[Scheme]) -> Scheme | None:
    """Several schemes as one; None where there is none."""
    if len(schemes) > 1:
        return AnyOf(tuple(schemes))
    return schemes[0] if schemes else None


def matches_any(given: bytes, secrets: Iterable[bytes]) -> bool:
    """Compare in constant time with each live secret.

    The only place where a secret is compared. `compare_digest` takes as long for a wrong first byte as for
    a wrong last one, so timing tells a guesser nothing; it may tell the length, which is no secret. Every
    secret is tried even after a match, so timing does not tell which one matched either.
    """
    matched = False
    for secret in secrets:
        matched |= hmac.compare_digest(given, secret)
    return matched


def as_senders_encode(secrets: Iterable[bytes]) -> Iterator[bytes]:
    """Secrets in UTF-8, and in ISO 8859-1 as older HTTP clients have it: no header says which (RFC 7617, 2.1)."""
    for secret in secrets:
        yield secret
        if not secret.isascii():
            with contextlib.suppress(UnicodeError):
                yield secret.decode().encode("latin-1")
