"""Parsing that the schemes share: headers, timestamps, forms and base64 that anybody may have written."""

import base64
import binascii
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from io import BytesIO
from urllib.parse import parse_qsl

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from webhook_app.auth import AuthenticationError, WebhookRequest

#: More fields than any ESP's form has: beyond this a body is made to cost time.
MAX_FORM_FIELDS = 2000

#: How a multipart body begins: its boundary, then the first part's headers. No url-encoded form does.
_MULTIPART = re.compile(rb"--([^\r\n]{1,70}?)[ \t]*\r?\n(?=content-)", re.IGNORECASE)


class TimeForm(StrEnum):
    """How a signed timestamp is written."""

    UNIX = "unix"
    UNIX_MS = "unix_ms"
    #: `Mon, 05 Jan 2026 10:00:00 GMT`, ISO 8601, or Unix seconds: Klaviyo has been seen to change.
    HTTP_DATE = "http_date"


def header(request: WebhookRequest, name: str) -> bytes:
    """A header's bytes as they came over the wire, trimmed; empty where there is none."""
    return to_bytes(request.headers.get(name) or "").strip()


def to_bytes(text: str) -> bytes:
    """Undo WSGI's reading of header bytes as latin-1. Text that never was a header becomes UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def parse_form(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form. Bytes that are no UTF-8 become lone surrogates in a url-encoded one.

    Whether it is multipart, as Mailgun's old complaints are, is seen by how it begins: an event of the quarantine that
    is read again has no headers.

    Raises `ValueError` for more than `MAX_FORM_FIELDS`.
    """
    if found := _MULTIPART.match(body):
        return _parse_multipart(body, found[1].decode("latin-1"))
    text = body.decode("ascii", "surrogateescape")
    return parse_qsl(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=MAX_FORM_FIELDS)


def _parse_multipart(body: bytes, boundary: str) -> list[tuple[str, str]]:
    """The fields of a multipart form that have a name, without its files. Raises `ValueError`."""
    parser = FormDataParser(stream_factory=_in_memory, max_form_parts=MAX_FORM_FIELDS, silent=False)
    try:
        _, fields, _ = parser.parse(BytesIO(body), "multipart/form-data", len(body), {"boundary": boundary})
    except RequestEntityTooLarge:
        raise ValueError("too many parts") from None
    return [(name, value) for name, value in fields.items(multi=True) if name]


def _in_memory(
    total_content_length: int | None,
    content_type: str | None,
    filename: str | None,
    content_length: int | None = None,
) -> BytesIO:
    """Where a file of the form goes: a body is small, and nothing of it belongs on a disk."""
    return BytesIO()


def decode_base64(text: bytes, reason: str) -> bytes:
    """Decode what has exactly one spelling: stray bits in the last character are refused too.

    Raises `AuthenticationError` with `reason`.
    """
    try:
        decoded = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise AuthenticationError(reason) from None
    if base64.b64encode(decoded) != text:
        raise AuthenticationError(reason)
    return decoded


def seconds(timestamp: bytes, form: TimeForm) -> float:
    """A signed timestamp in Unix seconds. Raises `AuthenticationError`."""
    if form is TimeForm.HTTP_DATE and not timestamp.isdigit():
        try:
            text = timestamp.decode("ascii")
            moment = datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)
            # "-0000" says UTC without naming a zone.
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            raise AuthenticationError("timestamp_malformed") from None
    # The length keeps int() cheap.
    if not timestamp.isdigit() or len(timestamp) > 20:
        raise AuthenticationError("timestamp_malformed")
    return int(timestamp) / (1000 if form is TimeForm.UNIX_MS else 1)


def check_age(moment: float, *, now: float, tolerance: float) -> None:
    """Refuse what was signed more than `tolerance` seconds ago, or as far in the future."""
    if abs(now - moment) > tolerance:
        raise AuthenticationError("timestamp_stale")
