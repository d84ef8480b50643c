"""The webhook at ESPs whose API makes it: what it has to be, and the way there from what the ESP has now.

The receiver must know the secret before the ESP calls: some of them give up at the first 401. So the secret comes
first, and the webhook when the receiver has it.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from webhook_app.settings import Settings
from webhook_app.sync.api import Api, ApiError
from webhook_app.sync.sendgrid_webhook import CannotConnect
from webhook_app.sync.sources import SOURCES

#: URLs that one event of a domain can have at Mailgun.
MAILGUN_URLS = 3
#: Postmark calls with this header, as the catalogue has it.
POSTMARK_HEADER = "X-Webhook-Token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change at the ESP: as a person reads it, and the request that makes it, which may hold a secret."""

    text: str
    method: str
    path: str
    json: Any = field(default=None, repr=False)
    form: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How one ESP is connected."""

    title: str
    #: The variable of the receiver that holds the secret.
    variable: str
    #: The changes that are needed for a URL and a secret; none where all is well. Raises `ApiError`, `CannotConnect`.
    steps: Callable[[Api, Settings, str, str], Iterator[Step]]
    #: Has the ESP say the secret; None where we make one up.
    ask_secret: Callable[[Api], str] | None = None
    #: What shows that it works: none of these ESPs sends a test when its API is asked to.
    proof: str


def open_api(provider: str, settings: Settings, **more: Any) -> Api:
    """Raises `ApiError` where there is no key."""
    return SOURCES[provider](settings, **more).api


def new_secret(connection: Connection, api: Api) -> str:
    """The secret that the receiver has to know. Raises `ApiError`."""
    return connection.ask_secret(api) if connection.ask_secret else secrets.token_urlsafe(32)


def carry_out(api: Api, steps: Iterable[Step], again: Callable[[], Iterable[Step]]) -> None:
    """Do it, and read back from the ESP that it is so. Raises `ApiError` and `CannotConnect`."""
    for step in steps:
        api.ask(step.method, step.path, json=step.json, form=step.form)
    if left := list(again()):
        raise CannotConnect(f"the ESP took the changes, and shows that it did not make this one: {left[0].text}")


def _objects(answer: Any, key: str, api: Api) -> list[dict[str, Any]]:
    found = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(found, list):
        raise api.unexpected(f"holds no list of {key}")
    return [one for one in found if isinstance(one, dict)]


# ---------------------------------------------------------------- Mailchimp
# https://mailchimp.com/developer/marketing/api/list-webhooks/

_MAILCHIMP_EVENTS = {"subscribe": True, "unsubscribe": True, "cleaned": True}
#: Opt-outs that staff or a program made count as well.
_MAILCHIMP_SOURCES = {"user": True, "admin": True, "api": True}


def _mailchimp(api: Api, settings: Settings, url: str, secret: str) -> Iterator[Step]:
    audiences = settings.mailchimp_audience_ids or [
        str(one["id"]) for one in _objects(api.get("/3.0/lists", count=1000, fields="lists.id"), "lists", api)
    ]
    for audience in audiences:
        path = f"/3.0/lists/{audience}/webhooks"
        # The secret stands behind the URL: one with an older secret is ours, too.
        ours = [
            one for one in _objects(api.get(path), "webhooks", api) if str(one.get("url", "")).startswith(f"{url}/")
        ]
        shall = {"url": f"{url}/{secret}", "events": _MAILCHIMP_EVENTS, "sources": _MAILCHIMP_SOURCES}
        if not ours:
            text = f"in the audience {audience}, create the webhook {url}/… for {', '.join(_MAILCHIMP_EVENTS)}"
            yield Step(text=text, method="POST", path=path, json=shall)
            continue
        found = ours[0]
        # What else is switched on stays on.
        shall["events"] = {**(found.get("events") or {}), **_MAILCHIMP_EVENTS}
        shall["sources"] = {**(found.get("sources") or {}), **_MAILCHIMP_SOURCES}
        if changed := [name for name, value in shall.items() if found.get(name) != value]:
            yield Step(
                text=f"in the audience {audience}, change {', '.join(changed)} of the webhook {url}/…",
                method="PATCH",
                path=f"{path}/{found['id']}",
                json=shall,
            )


# ---------------------------------------------------------------- Mailgun
# https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/domain-webhooks


def _mailgun(api: Api, settings: Settings, url: str, _secret: str) -> Iterator[Step]:
    for domain in settings.mailgun_domains:
        path = f"/v3/domains/{domain}/webhooks"
        answer = api.get(path)
        there = answer.get("webhooks") if isinstance(answer, dict) else None
        if not isinstance(there, dict):
            raise api.unexpected("holds no webhooks")
        for event in ("unsubscribed", "complained"):
            webhook = there.get(event) or {}
            urls = webhook.get("urls") or [one for one in [webhook.get("url")] if one]
            if url in urls:
                continue
            if len(urls) >= MAILGUN_URLS:
                raise CannotConnect(
                    f"{domain} has {MAILGUN_URLS} URLs for {event} already, and Mailgun takes no more: remove one in "
                    "Mailgun, Send > Webhooks"
                )
            text = f"for {domain}, add {url} to the event {event}"
            form = [("url", one) for one in (*urls, url)]
            if urls:
                yield Step(text=text, method="PUT", path=f"{path}/{event}", form=form)
            else:
                yield Step(text=text, method="POST", path=path, form=[("id", event), *form])


def _mailgun_signing_key(api: Api) -> str:
    answer = api.get("/v5/accounts/http_signing_key")
    key = answer.get("http_signing_key") if isinstance(answer, dict) else None
    if not isinstance(key, str) or not key:
        raise api.unexpected("holds no signing key: copy it from Mailgun, Account > API Security")
    return key


# ---------------------------------------------------------------- Postmark
# https://postmarkapp.com/developer/api/webhooks-api

_POSTMARK_TRIGGERS: Mapping[str, dict[str, Any]] = {
    "SubscriptionChange": {"Enabled": True},
    "SpamComplaint": {"Enabled": True, "IncludeContent": False},
}


def _postmark(api: Api, settings: Settings, url: str, secret: str) -> Iterator[Step]:
    header = {"Name": POSTMARK_HEADER, "Value": secret}
    for stream in settings.postmark_streams:
        webhooks = _objects(api.get("/webhooks", MessageStream=stream), "Webhooks", api)
        found = next((one for one in webhooks if str(one.get("Url", "")).rstrip("/") == url), None)
        if found is None:
            shall = {"Url": url, "MessageStream": stream, "HttpHeaders": [header], "Triggers": _POSTMARK_TRIGGERS}
            text = f"for the stream {stream}, create the webhook {url} for {' and '.join(_POSTMARK_TRIGGERS)}"
            yield Step(text=text, method="POST", path="/webhooks", json=shall)
            continue
        triggers, headers = found.get("Triggers") or {}, found.get("HttpHeaders") or []
        off = [name for name in _POSTMARK_TRIGGERS if not (triggers.get(name) or {}).get("Enabled")]
        changes = [*(f"switch on {name}" for name in off), *([] if header in headers else ["set its secret"])]
        if changes:
            shall = {
                "Url": url,
                "HttpHeaders": [*(one for one in headers if one.get("Name") != POSTMARK_HEADER), header],
                "Triggers": {**triggers, **{name: _POSTMARK_TRIGGERS[name] for name in off}},
            }
            yield Step(
                text=f"for the stream {stream}, in the webhook {url}: {', '.join(changes)}",
                method="PUT",
                path=f"/webhooks/{found['ID']}",
                json=shall,
            )


# ---------------------------------------------------------------- Brevo
# https://developers.brevo.com/reference/create-webhook

_BREVO_EVENTS = ("unsubscribed", "spam")


def _brevo(api: Api, _settings: Settings, url: str, secret: str) -> Iterator[Step]:
    auth = {"type": "bearer", "token": secret}
    for kind in ("marketing", "transactional"):
        found = next((one for one in _brevo_webhooks(api, kind) if str(one.get("url", "")).rstrip("/") == url), None)
        shall = {"url": url, "description": "Opt-outs to Dynamic Yield", "events": list(_BREVO_EVENTS), "auth": auth}
        if found is None:
            shall["type"] = kind
            text = f"create the {kind} webhook {url} for {' and '.join(_BREVO_EVENTS)}"
            yield Step(text=text, method="POST", path="/v3/webhooks", json=shall)
            continue
        events = found.get("events") or []
        off = [event for event in _BREVO_EVENTS if event not in events]
        # Where Brevo does not show the secret, nobody can tell whether it is ours.
        is_other = isinstance(found.get("auth"), dict) and not auth.items() <= found["auth"].items()
        changes = [*(f"switch on {event}" for event in off), *(["set its secret"] if is_other else [])]
        if changes:
            shall |= {"events": [*events, *off], "description": found.get("description") or shall["description"]}
            yield Step(
                text=f"in the {kind} webhook {url}: {', '.join(changes)}",
                method="PUT",
                path=f"/v3/webhooks/{found['id']}",
                json=shall,
            )


def _brevo_webhooks(api: Api, kind: str) -> list[dict[str, Any]]:
    try:
        return _objects(api.get("/v3/webhooks", type=kind), "webhooks", api)
    except ApiError as error:
        # An account without any is answered so.
        if error.reason == "not_found":
            return []
        raise


_BUTTON = "its API sends no test: use the button on its webhook page, or unsubscribe an address of your own"

CONNECTIONS: Mapping[str, Connection] = {
    "mailchimp": Connection(
        title="Mailchimp",
        variable="MAILCHIMP_URL_SECRETS",
        steps=_mailchimp,
        proof="Mailchimp has called the URL and was answered; unsubscribe an address of your own, and see it come",
    ),
    "mailgun": Connection(
        title="Mailgun",
        variable="MAILGUN_SIGNING_KEYS",
        steps=_mailgun,
        ask_secret=_mailgun_signing_key,
        proof=_BUTTON,
    ),
    "postmark": Connection(title="Postmark", variable="POSTMARK_TOKENS", steps=_postmark, proof=_BUTTON),
    "brevo": Connection(
        title="Brevo",
        variable="BREVO_TOKENS",
        steps=_brevo,
        # Its button sends what is not marked as a test: a real change of the address in the sample.
        proof="its API sends no test: unsubscribe an address of your own, and see it come",
    ),
}
