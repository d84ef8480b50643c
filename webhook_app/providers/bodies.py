"""The forms a webhook's body comes in. The content type is not asked: an opt-out is not lost over a header."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson

from webhook_app.auth import WebhookRequest
from webhook_app.auth.reading import MAX_FORM_FIELDS, parse_form
from webhook_app.providers import Unreadable, read_json

#: `data[merges][EMAIL]`; deeper or otherwise odd names stay as they are.
_NESTED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){1,4})")
_BRACKET = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\s\0]*[{\[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyForm:
    content_type: str
    #: Body → JSON-like values. Raises `Unreadable`.
    read: Callable[[WebhookRequest], Any]
    #: JSON text → body: the way back, to simulate a webhook.
    write: Callable[[str], bytes]


def read_form(request: WebhookRequest) -> dict[str, Any]:
    """A form, url-encoded or multipart, with `data[email]=…` as `{"data": {"email": …}}`.

    A repeated field's values become a list. Raises `Unreadable`.
    """
    try:
        fields = request.parsed(parse_form)
    except ValueError:
        raise Unreadable(f"the body is a form of more than {MAX_FORM_FIELDS} fields, or a broken one") from None
    form: dict[str, Any] = {}
    for name, value in fields:
        _put(form, _steps(name), name, value)
    return form


def _steps(name: str) -> list[str]:
    nested = _NESTED.fullmatch(name)
    return [nested[1], *nested[2][1:-1].split("][")] if nested else [name]


def _put(form: dict[str, Any], steps: list[str], name: str, value: str) -> None:
    inner: Any = form
    for step in steps[:-1]:
        inner = inner.setdefault(step, {})
        if not isinstance(inner, dict):
            # `a=1&a[b]=2`: the odd one keeps its flat name.
            inner, steps = form, [name]
            break
    last = steps[-1]
    if last not in inner:
        inner[last] = value
    elif isinstance(inner[last], list):
        inner[last].append(value)
    elif isinstance(inner[last], str):
        inner[last] = [inner[last], value]


def _write_form(text: str) -> bytes:
    return urlencode(orjson.loads(text)).encode()


def read_json_or_form(request: WebhookRequest) -> Any:
    """A body of either form, told apart by its first character: no form begins with a bracket.

    JSON in UTF-16, or behind a byte order mark, begins with it all the same. Raises `Unreadable`.
    """
    return read_json(request) if _BRACKET.match(request.body) else read_form(request)


FORMS = {
    "json": BodyForm(content_type="application/json", read=read_json, write=str.encode),
    "form": BodyForm(content_type="application/x-www-form-urlencoded", read=read_json_or_form, write=_write_form),
    "any": BodyForm(content_type="application/json", read=read_json_or_form, write=str.encode),
}
