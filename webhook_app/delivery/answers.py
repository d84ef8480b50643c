"""Classifying Dynamic Yield's answers: what one means for the change that was sent. Pure: bytes in, `Answer` out."""

import html
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, quote_plus

import orjson

from webhook_app.delivery import Answer, Outcome

#: Seconds. Longer wishes are cut: a mistaken `Retry-After` must not silence the worker for a week.
RETRY_AFTER_LIMIT = 3600.0
MESSAGE_LIMIT = 300  # characters
#: Characters in which addresses of other people are looked for. What was sent is looked for in all of the answer.
CONSIDERED = 2000
TRACE_ID_LIMIT = 100  # characters
WARNINGS_LIMIT = 10

#: Not about this change, and not about the set-up: too slow, too early, too many.
PASSING = frozenset({408, 425, 429})

#: Not about this change: whatever we sent would be answered so. What to look at stands beside it.
MISCONFIGURED = {
    401: "EVENTS_API_KEY is not accepted; is it a server-side key, and of this region?",
    403: "EVENTS_API_KEY is valid but may not do this; look at its permissions",
    404: "there is nothing at this address; look at EVENTS_API_URL and DESTINATION",
    405: "this address takes no such request; look at EVENTS_API_URL and DESTINATION",
    407: "a proxy on the way wants another user and password; look at EGRESS_PROXY",
}

#: A gateway had no answer either. What it has passed on may still take effect.
GATEWAY_LOST_IT = frozenset({502, 504, 524})

#: A 2xx that means no whole yes: a part of the answer, or a result for each part (207).
PARTIAL = frozenset({206, 207, 208, 226})

#: Keys of a body, in lower case without `_` and `-`, whose value says what went wrong, or how often.
_FAILURE_KEYS = frozenset(
    {
        "error",
        "errors",
        "errorcode",
        "errorcount",
        "errormessage",
        "exception",
        "failed",
        "failure",
        "failures",
        "rejected",
    }
)
#: Keys whose value says yes or no.
_SUCCESS_KEYS = frozenset({"accepted", "ok", "success", "succeeded", "successful"})
#: Keys whose value is a word or a number for how it went.
_STATUS_KEYS = frozenset({"code", "outcome", "result", "state", "status", "statuscode"})
_FAILURE_WORDS = frozenset(
    {
        "denied",
        "error",
        "errors",
        "fail",
        "failed",
        "failure",
        "false",
        "invalid",
        "partial",
        "rejected",
        "unauthorized",
    }
)
_NOTHING_WORDS = frozenset({"", "0", "false", "no", "none", "null", "ok", "success"})
#: How deep in a body the results of its parts are looked for.
_DEPTH = 4

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\s]+")
#: Bounded, or a long text without any @ would take quadratic time.
_ADDRESS = re.compile(
    r"[^\s\"'<>()\[\]{},;:=]{1,320}(?:@|%40|&#64;|&commat;)[^\s\"'<>()\[\]{},;]{1,320}", re.IGNORECASE
)
_PLAIN = re.compile(r"[A-Za-z0-9_.:-]*")
_SECONDS = re.compile(r"\d+(\.\d+)?", re.ASCII)
#: Identifiers shorter than this are only hidden where they stand alone: `1` is part of every other word.
_TELLING_LENGTH = 4


def outcome_of(status: int) -> Outcome:
    """What the status alone says. A 2xx must also have a body that Dynamic Yield would write, see `read`."""
    if 200 <= status < 300:
        return Outcome.DELIVERED
    # A redirect is never followed: it would carry the key and the address to another host.
    if status in MISCONFIGURED or 300 <= status < 400:
        return Outcome.MISCONFIGURED
    if 400 <= status < 500 and status not in PASSING:
        return Outcome.REFUSED
    return Outcome.RETRY


def read_answer(
    status: int, headers: Mapping[str, str], body: bytes | None, *, private: Iterable[str], now: datetime
) -> Answer:
    """Read one answer. `headers` are looked up without case; `body` is None where it did not come whole.

    Nothing of `private` gets into the answer.
    """
    private = tuple(private)
    outcome = outcome_of(status)
    document = _parse(body)
    reason, message = f"http_{status}", _said(document)
    if outcome is Outcome.DELIVERED:
        reason = "taken"
        if unproven := _why_unproven(status, body, document):
            outcome = Outcome.RETRY
            reason, message = unproven[0], _join(unproven[1], message)
    elif outcome is Outcome.MISCONFIGURED:
        message = _join(_hint(status, headers), message)
    elif status < 200:
        message = "an interim answer came, and not the last one"
    elif document is _NO_JSON and body and not _is_html(body):
        message = body.decode(errors="replace")
    return Answer(
        outcome=outcome,
        reason=reason,
        status=status,
        message=clean(message, private),
        trace_id=clean(_trace_id(headers, document), private, TRACE_ID_LIMIT),
        warnings=tuple(clean(warning, private) for warning in _warnings(document)),
        retry_after=retry_after(headers.get("Retry-After"), now) if outcome is Outcome.RETRY else None,
        lost=status in GATEWAY_LOST_IT or status < 200,
    )


def of_proxy(status: int) -> Answer:
    """What it means that a proxy answered our wish to be connected so. Nothing was sent."""
    if 400 <= status < 500 and status not in PASSING:
        hint = (
            MISCONFIGURED[407] if status == 407 else "the proxy does not connect us to this host; look at EGRESS_PROXY"
        )
        return Answer(outcome=Outcome.MISCONFIGURED, reason=f"proxy_{status}", status=status, message=hint)
    message = "the proxy could not connect us to the host"
    return Answer(outcome=Outcome.RETRY, reason=f"proxy_{status}", status=status, message=message)


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds for which to send nothing, from a `Retry-After` of seconds or of an HTTP date; None if unreadable."""
    if value is None:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), RETRY_AFTER_LIMIT)
    try:
        moment = parsedate_to_datetime(value)
        # "-0000" parses as naive; HTTP dates are always UTC.
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(seconds.total_seconds(), 0.0), RETRY_AFTER_LIMIT)


def clean(text: str, private: Iterable[str], limit: int = MESSAGE_LIMIT) -> str:
    """One short line that can be stored, shown and logged: an answer may repeat the address it was sent."""
    if _PLAIN.fullmatch(text) and not any(secret.casefold() in text.casefold() for secret in private):
        # Nearly every trace id. No encoding of anything private fits in here, and compiling patterns is dear.
        return text[:limit]
    for secret in private:
        text = _occurrences(secret).sub("[…]", text)
    text = _ADDRESS.sub("[…]", text[:CONSIDERED])
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


class _NoJson:
    """Stands for a body that is not JSON, or did not come whole."""


_NO_JSON = _NoJson()


def _parse(body: bytes | None) -> Any:
    if body is None:
        return _NO_JSON
    try:
        return orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        return _NO_JSON


def _why_unproven(status: int, body: bytes | None, document: Any) -> tuple[str, str] | None:
    """Why a 2xx does not prove that Dynamic Yield has taken the change: a slug and a sentence, None if it does."""
    if status in PARTIAL:
        return "partial", f"{status} is no whole yes"
    if body is None:
        return "answer_cut", "the answer did not come whole"
    if document is _NO_JSON and body.strip():
        if _is_html(body):
            return "html", "a web page answered, not Dynamic Yield: is there a proxy or a captive portal in between?"
        return "not_json", "the answer is not JSON"
    if _says_no(document):
        return "contradiction", "the status says taken, the body says error"
    return None


def _says_no(document: Any, depth: int = _DEPTH) -> bool:
    """Whether a JSON body speaks of a failure, anywhere in it.

    No such answer is documented. To try again costs a duplicate, to believe the status may cost an opt-out.
    """
    if isinstance(document, list):
        return depth > 0 and any(_says_no(part, depth - 1) for part in document)
    if isinstance(document, dict):
        return any(_entry_says_no(_plain_key(key), value, depth) for key, value in document.items())
    return document is False or (isinstance(document, str) and document.strip().lower() in _FAILURE_WORDS)


def _entry_says_no(key: str, value: Any, depth: int) -> bool:
    if key in _FAILURE_KEYS:
        return bool(value) and not (isinstance(value, str) and value.strip().lower() in _NOTHING_WORDS)
    if key in _SUCCESS_KEYS:
        return value in (False, 0, "false", "0", "no")
    if key in _STATUS_KEYS and isinstance(value, str | int) and not isinstance(value, bool):
        word = str(value).strip().lower()
        return word in _FAILURE_WORDS or bool(re.fullmatch(r"[45]\d\d", word))
    # What is only a warning has been taken.
    return depth > 0 and key != "warnings" and isinstance(value, dict | list) and _says_no(value, depth - 1)


def _plain_key(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")


def _is_html(body: bytes) -> bool:
    return body.lstrip()[:1] == b"<"


def _said(document: Any) -> str:
    """What an answer says, whichever of Dynamic Yield's APIs wrote it."""
    if not isinstance(document, dict):
        return ""
    error = document.get("error") or document.get("errors")
    if isinstance(error, list) and error:
        error = error[0]
    source = error if isinstance(error, dict) else document
    parts = [source.get("type"), source.get("message"), error if source is document else None]
    return ": ".join(str(part) for part in parts if isinstance(part, str | int) and part != "")


def _join(ours: str, theirs: str) -> str:
    return f"{ours} (it said: {theirs})" if theirs else ours


def _hint(status: int, headers: Mapping[str, str]) -> str:
    if status in MISCONFIGURED:
        return MISCONFIGURED[status]
    return f"redirected to {headers.get('Location', 'nowhere')}; look at EVENTS_API_URL"


def _trace_id(headers: Mapping[str, str], document: Any) -> str:
    trace_id = headers.get("DY-Trace-ID") or (document.get("dy_trace_id") if isinstance(document, dict) else "")
    return trace_id if isinstance(trace_id, str) else ""


def _warnings(document: Any) -> list[str]:
    warnings = document.get("warnings") if isinstance(document, dict) else None
    return [_warning(warning) for warning in warnings[:WARNINGS_LIMIT]] if isinstance(warnings, list) else []


def _warning(warning: Any) -> str:
    if not isinstance(warning, dict):
        return str(warning)
    return ": ".join(str(warning[key]) for key in ("code", "message") if warning.get(key))


def _occurrences(secret: str) -> re.Pattern[str]:
    """Every way in which an answer may have written it: plain, in a URL, in HTML, in JSON."""
    in_url = (quote(secret, safe="", errors="replace"), quote_plus(secret, errors="replace"))
    forms = {secret, *in_url, html.escape(secret), json.dumps(secret)[1:-1]}
    pattern = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    if len(secret) < _TELLING_LENGTH:
        pattern = rf"(?<!\w)(?:{pattern})(?!\w)"
    return re.compile(pattern, re.IGNORECASE)
