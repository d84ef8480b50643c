"""`POST /webhooks/<provider>`: authenticate, read, record, answer."""

from collections.abc import Mapping
from functools import partial

from flask import Blueprint, Response
from werkzeug.exceptions import ClientDisconnected, MethodNotAllowed, NotFound, RequestEntityTooLarge, RequestTimeout

from webhook_app import web
from webhook_app.auth import AuthenticationError, CannotVerify, WebhookRequest
from webhook_app.consent import ConsentChange
from webhook_app.outbox import Intake, OutboxUnavailable, TokenReused
from webhook_app.providers import Handshake, Provider, read
from webhook_app.settings import Settings

RETRY_AFTER = 30  # seconds
#: A body over the limit is read on for so many times the limit before the answer. A sender whose connection is closed
#: while it is still sending sees a broken pipe instead of the 413.
DRAIN = 4
CHUNK = 64 * 1024  # bytes


class BodyBroken(Exception):
    """The body ended early, or its chunks are malformed."""


def blueprint(providers: Mapping[str, Provider], intake: Intake, settings: Settings) -> Blueprint:
    receiver = Blueprint("webhooks", __name__, url_prefix="/webhooks")
    for name in providers:
        receive = partial(_receive, providers, name, intake, settings)
        for rule in (f"/{name}", f"/{name}/<url_secret>"):
            receiver.add_url_rule(rule, name, receive, methods=["GET", "POST"])

    @receiver.errorhandler(AuthenticationError)
    def _(error: AuthenticationError) -> tuple[Response, int]:
        # 401 without the reason: it would help a forger more than anybody else. The log has it.
        return _refuse(401, "not authenticated", error.reason)

    @receiver.errorhandler(TokenReused)
    def _(error: TokenReused) -> tuple[Response, int]:
        return _refuse(401, "not authenticated", "token_reused")

    @receiver.errorhandler(CannotVerify)
    def _(error: CannotVerify) -> tuple[Response, int, dict[str, str]]:
        # 503, not 401: the sender did nothing wrong, and sends it again when we can check.
        return *_refuse(503, "cannot check the sender now", error.reason), _LATER

    @receiver.errorhandler(OutboxUnavailable)
    def _(error: OutboxUnavailable) -> tuple[Response, int, dict[str, str]]:
        # 503, not 500: the ESP keeps the batch and sends it again; the disk may have room by then.
        return *_refuse(503, "cannot store this now", f"outbox_unavailable: {error}"), _LATER

    @receiver.errorhandler(RequestEntityTooLarge)
    def _(error: RequestEntityTooLarge) -> tuple[Response, int]:
        return _refuse(413, f"larger than {settings.max_body_bytes} bytes", "too_large")

    @receiver.errorhandler(BodyBroken)
    def _(error: BodyBroken) -> tuple[Response, int]:
        return _refuse(400, "the body could not be read", "body_broken")

    @receiver.errorhandler(RequestTimeout)
    def _(error: RequestTimeout) -> tuple[Response, int]:
        return _refuse(408, "the body did not come whole in time", "too_slow")

    return receiver


_LATER = {"Retry-After": str(RETRY_AFTER)}


def _receive(
    providers: Mapping[str, Provider], name: str, intake: Intake, settings: Settings, url_secret: str | None = None
) -> Response:
    request, provider = web.current(), providers[name]
    request.told["provider"] = name
    if provider.scheme is None:
        raise NotFound
    if request.method != "POST":
        return _answer_probe(provider, request.method)
    webhook = _webhook(request, url_secret, settings)

    if provider.greet and (handshake := provider.greet(webhook)):
        return _shake(handshake)
    token = provider.scheme.verify(webhook)
    if provider.confirm and (handshake := provider.confirm(webhook)):
        return _shake(handshake)
    reading = read(provider, webhook, forward_opt_ins=settings.forward_opt_ins)
    added = intake.add(
        provider.name,
        changes=reading.changes,
        quarantined=reading.quarantined,
        one_time_token=token,
        body=webhook.body,
    )
    counts = {
        "accepted": added.accepted,
        "duplicates": added.duplicates,
        "ignored": reading.ignored + _tests_among(reading.changes),
        "quarantined": added.quarantined,
    }
    request.told |= counts
    if reading.unknown_types:
        request.told["unknown_types"] = dict(reading.unknown_types)
    return web.answer(counts)


def _answer_probe(provider: Provider, method: str) -> Response:
    # 200: some ESPs look whether the URL is there before they let anybody save it.
    if method in provider.probed_with:
        return Response()
    raise MethodNotAllowed(valid_methods=["POST", *sorted(provider.probed_with)])


def _shake(handshake: Handshake) -> Response:
    web.current().told["note"] = handshake.note
    return Response()


def _webhook(request: web.Request, url_secret: str | None, settings: Settings) -> WebhookRequest:
    query = request.environ.get("QUERY_STRING", "")
    url = None
    if settings.public_url:
        url = settings.public_url + request.environ.get("RAW_URI", request.full_path if query else request.path)
    return WebhookRequest(
        method=request.method,
        url=url,
        headers=request.headers,
        query=query,
        body=_body(request, settings.max_body_bytes),
        url_secret=url_secret,
    )


def _body(request: web.Request, limit: int) -> bytes:
    """The raw body, read once. Its length is what was read, not what a header claims."""
    chunks: list[bytes] = []
    length, expected = 0, request.content_length
    # gunicorn's own stream ends where the body ends; others are cut off there by Flask's.
    stream = request.environ["wsgi.input"] if "wsgi.input_terminated" in request.environ else request.stream
    try:
        while length != expected and (chunk := stream.read(CHUNK)):
            length += len(chunk)
            if length <= limit:
                chunks.append(chunk)
            elif length > DRAIN * limit:
                break
    except TimeoutError:
        # The slowloris guard has ended it.
        raise RequestTimeout from None
    except ClientDisconnected:
        raise BodyBroken from None
    except Exception as error:
        # gunicorn raises errors of its own for malformed chunks, none of which Flask knows.
        raise BodyBroken from error
    if length > limit:
        raise RequestEntityTooLarge
    if expected is not None and length != expected:
        # Cut off on the way. What has come may be whole to look at, and name somebody else.
        raise BodyBroken
    return b"".join(chunks)


def _tests_among(changes: list[tuple[ConsentChange, bytes]]) -> int:
    return sum(change.is_test for change, _ in changes)


def _refuse(status: int, error: str, reason: str) -> tuple[Response, int]:
    web.current().told["reason"] = reason
    return web.answer({"error": error}), status
