"""`POST /webhooks/<provider>`: authenticate, read, record, answer."""

from collections.abc import Mapping
from functools import partial

from flask import Blueprint, Request
from flask.typing import ResponseReturnValue

from webhook_app import web
from webhook_app.auth import AuthenticationError, CannotVerify, WebhookRequest
from webhook_app.outbox import Intake, OutboxUnavailable, TokenReused
from webhook_app.providers import Provider, read
from webhook_app.providers.registry import Closed, Providers
from webhook_app.settings import Settings
from webhook_app.webhook_result import WebhookResult

RETRY_AFTER = 30  # seconds
#: A body over the limit is read on for so many times the limit before the answer. A sender whose connection is closed
#: while it is still sending sees a broken pipe instead of the 413.
DRAIN = 4
CHUNK = 64 * 1024  # bytes

#: The view answers all of them, so that a closed provider is 404 whatever is asked.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class RequestRefused(Exception):
    """The request cannot be read as one webhook. Holds the answer."""

    def __init__(self, status: int, error: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.error, self.reason, self.headers = status, error, reason, headers or {}


def blueprint(providers: Providers, intake: Intake, settings: Settings) -> Blueprint:
    webhooks = Blueprint("webhooks", __name__, url_prefix="/webhooks")
    for name in providers:
        view = partial(_view, providers.entries, name, intake, settings)
        # The last: a secret in base64 may hold slashes, encoded in the URL or not.
        for rule in (f"/{name}", f"/{name}/<url_secret>", f"/{name}/<path:url_secret>"):
            webhooks.add_url_rule(
                rule, name, view, methods=METHODS, provide_automatic_options=False, strict_slashes=False
            )
    return webhooks


def _view(
    providers: Mapping[str, Provider | Closed],
    name: str,
    intake: Intake,
    settings: Settings,
    url_secret: str | None = None,
) -> ResponseReturnValue:
    request = web.current()
    try:
        result = receive(request, url_secret, providers[name], intake, settings)
    except Exception as error:
        result = _refusal(name, error)
    request.webhook = result
    return web.answer(result.answer(), result.status, result.headers)


def receive(
    request: Request, url_secret: str | None, provider: Provider | Closed, intake: Intake, settings: Settings
) -> WebhookResult:
    """What is to become of one request. Raises what `_refusal` knows how to answer."""
    result = partial(WebhookResult, provider=provider.name)
    if isinstance(provider, Closed) or provider.scheme is None:
        raise RequestRefused(404, "not found", "closed")
    if request.method != "POST":
        return _answer_probe(provider, request.method)
    webhook = _whole_request(request, url_secret, provider, settings)

    if provider.url_verification and (note := provider.url_verification(webhook)):
        return result(note=note)
    token = provider.scheme.verify(webhook)
    if provider.subscription_confirmation and (note := provider.subscription_confirmation(webhook)):
        return result(note=note, body=webhook.body)
    reading, added = intake.read_and_add(
        provider.name,
        partial(read, provider, webhook, forward_opt_ins=settings.forward_opt_ins),
        one_time_token=token,
        body=webhook.body,
    )
    return result(
        body=webhook.body,
        unknown_types=reading.unknown_types,
        counts={
            "accepted": added.accepted,
            "duplicates": added.duplicates,
            "ignored": reading.ignored + added.no_section + added.tests,
            "quarantined": added.quarantined,
        },
    )


def _refusal(provider: str, error: Exception) -> WebhookResult:
    """The answer to a request that was not taken. Its status decides whether the ESP sends it again."""
    refused, later = partial(WebhookResult, provider=provider), {"Retry-After": str(RETRY_AFTER)}
    match error:
        case RequestRefused():
            return refused(status=error.status, error=error.error, reason=error.reason, headers=error.headers)
        case AuthenticationError():
            # 401 without the reason: it would help a forger more than anybody else. The log has it.
            return refused(status=401, error="not authenticated", reason=error.reason)
        case TokenReused():
            return refused(status=401, error="not authenticated", reason="token_reused")
        case CannotVerify():
            # 503, not 401: the sender did nothing wrong, and sends it again when we can check.
            return refused(status=503, error="cannot check the sender now", reason=error.reason, headers=later)
        case OutboxUnavailable():
            # 503, not 500: the ESP keeps the batch and sends it again; the disk may have room by then.
            reason = f"outbox_unavailable: {error}"
            return refused(status=503, error="cannot store this now", reason=reason, headers=later)
    web.log_unexpected_error(error)
    return refused(status=500, error="internal server error")


def _answer_probe(provider: Provider, method: str) -> WebhookResult:
    # 200: some ESPs look whether the URL is there before they let anybody save it.
    allowed = {"POST", *provider.probed_with}
    if "GET" in allowed:
        # As RFC 9110 has it: whatever may be got may be asked for without its body.
        allowed.add("HEAD")
    if method in allowed:
        return WebhookResult(provider=provider.name)
    raise RequestRefused(405, "method not allowed", "method", {"Allow": ", ".join(sorted(allowed))})


def _whole_request(request: Request, url_secret: str | None, provider: Provider, settings: Settings) -> WebhookRequest:
    environ = request.environ
    encoding = environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    coding = environ.get("HTTP_TRANSFER_ENCODING", "chunked").strip().lower()
    if encoding not in ("identity", "") or coding != "chunked":
        # 415: compressed bytes would be signed, stored and quarantined as if they were the events.
        raise RequestRefused(
            415, "send it without Content-Encoding", "content_encoding", {"Accept-Encoding": "identity"}
        )
    query = environ.get("QUERY_STRING", "")
    url = None
    if settings.public_url:
        raw = environ.get("RAW_URI", request.full_path if query else request.path)
        # A proxy may ask in absolute form, `POST http://host/path`; which host it names is nobody's word.
        url = settings.public_url + (raw if raw.startswith("/") else f"/{raw.split('/', 3)[-1]}")
    return WebhookRequest(
        method=request.method,
        url=url,
        headers=request.headers,
        query=query,
        body=_whole_body(request, max(settings.max_body_bytes, provider.largest_body)),
        url_secret=url_secret,
    )


def _whole_body(request: Request, limit: int) -> bytes:
    """The raw body, read once; never a part of it, which may look whole and name somebody else."""
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
        # The slowloris guard has ended it. 408: the ESP sends it again.
        raise RequestRefused(408, "the body did not come whole in time", "too_slow") from None
    except Exception:
        # gunicorn raises errors of its own for malformed chunks, none of which Flask knows.
        raise RequestRefused(400, "the body could not be read", "body_broken") from None
    if length > limit:
        raise RequestRefused(413, f"larger than {limit} bytes", "too_large")
    if expected is not None and length != expected:
        raise RequestRefused(400, "the body could not be read", "body_broken")
    return b"".join(chunks)
