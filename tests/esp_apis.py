"""Stand-ins for the APIs of ESPs on loopback, written from their published descriptions, and stricter than they are.

Each knows its key, its parameters and its page sizes: a wrong key is 401 (or 403, where the original says so), a
request that the description does not have lands in `complaints`.
"""

import base64
import hashlib
import hmac
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urlsplit

Entry = dict[str, Any]


@dataclass
class Call:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw_query: str
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def form(self) -> list[tuple[str, str]]:
        return parse_qsl(self.raw.decode(), keep_blank_values=True)


class Refusal(Exception):
    def __init__(self, status: int, message: str = "no") -> None:
        super().__init__(message)
        self.status = status


class StandIn:
    """What all of them have. `suppress` puts somebody on the list of a kind, as a click does, or a person by hand."""

    #: The environment with which the product finds it.
    settings: ClassVar[dict[str, str]]
    #: What is added to its URL in the environment: a variable each.
    url_variable: ClassVar[str]
    #: The kinds of entries that are opt-outs here, and those that are none.
    opt_outs: ClassVar[tuple[str, ...]]
    others: ClassVar[tuple[str, ...]] = ("bounce",)
    #: Entries that it gives at once at most.
    page: ClassVar[int]

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[Call] = []
        self.complaints: list[str] = []
        #: Statuses that are answered instead, one a call, with further headers.
        self.faults: deque[tuple[int, dict[str, str]]] = deque()
        #: Called with each body before it goes out: spoils it.
        self.spoil: Callable[[Any], Any] = lambda body: body
        self.entries: list[Entry] = []

    @property
    def environ(self) -> dict[str, str]:
        return {**self.settings, self.url_variable: self.url}

    def suppress(self, kind: str, email: str, at: datetime) -> None:
        self.entries.append({"kind": kind, "email": email, "at": at})

    def answer(self, call: Call) -> tuple[int, Any, dict[str, str]]:
        self.calls.append(call)
        if self.faults:
            status, headers = self.faults.popleft()
            return status, {"message": "out of order"}, headers
        try:
            self.authenticate(call)
            return 200, self.spoil(self.route(call)), {}
        except Refusal as refusal:
            return refusal.status, {"message": str(refusal)}, {}

    def authenticate(self, call: Call) -> None:
        raise NotImplementedError

    def route(self, call: Call) -> Any:
        raise NotImplementedError

    def no_such(self, call: Call) -> Refusal:
        self.complaints.append(f"{call.method} {call.path} is not in the description")
        return Refusal(404)

    def allow(self, call: Call, *names: str) -> None:
        if unknown := call.query.keys() - set(names):
            self.complaints.append(f"{call.path} has no parameter {unknown}")
            raise Refusal(400, f"no parameter {unknown}")

    def number(self, call: Call, name: str, default: int, most: int) -> int:
        given = call.query.get(name, str(default))
        if not given.isdecimal() or int(given) > most:
            self.complaints.append(f"{call.path}: {name} must be a number up to {most}, not {given}")
            raise Refusal(400)
        return int(given)

    def since(self, text: str | None) -> datetime:
        if text is None:
            return datetime.min.replace(tzinfo=UTC)
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|\+00:00)", text):
            self.complaints.append(f"{text} is no time")
            raise Refusal(400)
        return datetime.fromisoformat(text)

    def basic(self, call: Call, user: str | None, password: str) -> None:
        scheme, _, given = call.headers.get("authorization", "").partition(" ")
        try:
            name, _, secret = base64.b64decode(given).decode().partition(":")
        except ValueError:
            raise Refusal(401) from None
        if scheme != "Basic" or secret != password or (user is not None and name != user):
            raise Refusal(401)

    def header(self, call: Call, name: str, value: str) -> None:
        if call.headers.get(name) != value:
            raise Refusal(401)


@dataclass
class _Audience:
    id: str
    webhooks: list[Entry] = field(default_factory=list)


class Mailchimp(StandIn):
    settings: ClassVar = {"MAILCHIMP_API_KEY": "0123456789abcdef-us21"}
    url_variable = "MAILCHIMP_API_URL"
    opt_outs = ("unsubscribed",)
    others = ("cleaned", "subscribed", "archived")
    page = 1000

    def __init__(self) -> None:
        super().__init__()
        self.audiences = [_Audience("a6b5da1054"), _Audience("b7c6eb2165")]

    def authenticate(self, call: Call) -> None:
        self.basic(call, None, "0123456789abcdef-us21")

    def route(self, call: Call) -> Any:
        parts = call.path.strip("/").split("/")
        if call.path == "/3.0/lists" and call.method == "GET":
            self.allow(call, "count", "offset", "fields")
            return {"lists": [{"id": one.id} for one in self._cut(call, self.audiences)]}
        audience = next((one for one in self.audiences if parts[:3] == ["3.0", "lists", one.id]), None)
        if audience is None:
            raise Refusal(404)
        match call.method, parts[3:]:
            case "GET", ["members"]:
                self.allow(call, "count", "offset", "fields", "status", "since_last_changed")
                since = self.since(call.query.get("since_last_changed"))
                # Everybody of the stand-in is in its first audience.
                members = self.entries if audience is self.audiences[0] else []
                found = [one for one in members if one["kind"] == call.query["status"] and one["at"] >= since]
                return {"members": [self._member(one) for one in self._cut(call, found)]}
            case "GET", ["webhooks"]:
                return {"webhooks": audience.webhooks}
            case "POST", ["webhooks"]:
                webhook = self._checked(call.json) | {"id": f"w{len(audience.webhooks)}", "list_id": audience.id}
                audience.webhooks.append(webhook)
                return webhook
            case "PATCH", ["webhooks", webhook_id]:
                webhook = next(one for one in audience.webhooks if one["id"] == webhook_id)
                webhook |= self._checked(call.json)
                return webhook
        raise self.no_such(call)

    def _cut(self, call: Call, found: list[Any]) -> list[Any]:
        count, offset = self.number(call, "count", 10, 1000), self.number(call, "offset", 0, 2**31)
        return found[offset : offset + count]

    def _member(self, entry: Entry) -> Entry:
        return {
            "email_address": entry["email"],
            "status": entry["kind"],
            "last_changed": entry["at"].isoformat(timespec="seconds"),
            "unsubscribe_reason": "N/A (Unsubscribed by admin)" if "hand" in entry["email"] else "",
        }

    def _checked(self, body: Any) -> Entry:
        events = {"subscribe", "unsubscribe", "profile", "cleaned", "upemail", "campaign"}
        if body.keys() - {"url", "events", "sources"} or body.get("events", {}).keys() - events:
            self.complaints.append(f"a webhook cannot be {body}")
        if body.get("sources", {}).keys() - {"user", "admin", "api"}:
            self.complaints.append(f"a webhook cannot be {body}")
        return dict(body)


class Klaviyo(StandIn):
    settings: ClassVar = {"KLAVIYO_API_KEY": "pk_0123456789abcdef"}
    url_variable = "KLAVIYO_API_URL"
    opt_outs = ("UNSUBSCRIBE", "SPAM_COMPLAINT", "USER_SUPPRESSED")
    others = ("HARD_BOUNCE", "INVALID_EMAIL")
    page = 100

    def authenticate(self, call: Call) -> None:
        self.header(call, "authorization", "Klaviyo-API-Key pk_0123456789abcdef")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", call.headers.get("revision", "")):
            self.complaints.append("the revision is missing")
            raise Refusal(400)

    def route(self, call: Call) -> Any:
        if call.path != "/api/profiles" or call.method != "GET":
            raise self.no_such(call)
        self.allow(call, "additional-fields[profile]", "fields[profile]", "filter", "page[size]", "page[cursor]")
        size = self.number(call, "page[size]", 20, 100)
        found = re.fullmatch(
            r"greater-or-equal\(subscriptions\.email\.marketing\.suppression\.timestamp,([^,)]+)\)",
            call.query.get("filter", ""),
        )
        if not found or call.query.get("additional-fields[profile]") != "subscriptions":
            self.complaints.append(f"that is no filter: {call.query}")
            raise Refusal(400)
        since, start = self.since(found[1]), int(call.query.get("page[cursor]", "0"))
        profiles = [one for one in self.entries if one["at"] >= since]
        more = {name: value for name, value in call.query.items() if name != "page[cursor]"}
        more["page[cursor]"] = str(start + size)
        query = "&".join(f"{quote(name)}={quote(value)}" for name, value in more.items())
        is_last = start + size >= len(profiles)
        return {
            "data": [self._profile(one) for one in profiles[start : start + size]],
            "links": {"self": self.url, "next": None if is_last else f"{self.url}/api/profiles?{query}"},
        }

    def _profile(self, entry: Entry) -> Entry:
        # Whoever opted out may have bounced since.
        suppressions = [{"reason": entry["kind"], "timestamp": entry["at"].isoformat(timespec="seconds")}]
        if entry["kind"] in self.opt_outs:
            suppressions.append({"reason": "HARD_BOUNCE", "timestamp": "2026-11-01T00:00:00+00:00"})
        marketing = {"consent": "UNSUBSCRIBED", "suppression": suppressions, "list_suppressions": []}
        attributes = {"email": entry["email"], "subscriptions": {"email": {"marketing": marketing}, "sms": None}}
        return {"type": "profile", "id": "01H", "attributes": attributes}


class Mailgun(StandIn):
    settings: ClassVar = {"MAILGUN_API_KEY": "key-0123456789abcdef", "MAILGUN_DOMAINS": "mg.example.com"}
    url_variable = "MAILGUN_API_URL"
    opt_outs = ("unsubscribes", "complaints")
    others = ("bounces",)
    page = 1000
    signing_key = "a-signing-key-of-the-account"

    def __init__(self) -> None:
        super().__init__()
        self.webhooks: dict[str, list[str]] = {}

    def authenticate(self, call: Call) -> None:
        self.basic(call, "api", "key-0123456789abcdef")

    def route(self, call: Call) -> Any:
        if call.path == "/v5/accounts/http_signing_key" and call.method == "GET":
            return {"message": "success", "http_signing_key": self.signing_key}
        if call.path.startswith("/v3/domains/mg.example.com/webhooks"):
            return self._webhook(call)
        kind = call.path.removeprefix("/v3/mg.example.com/")
        if kind == call.path:
            raise Refusal(404, "Domain not found")
        if call.method != "GET" or kind not in ("unsubscribes", "complaints", "bounces"):
            raise self.no_such(call)
        self.allow(call, "limit", "page", "address")
        limit = self.number(call, "limit", 100, 1000)
        found = sorted((one for one in self.entries if one["kind"] == kind), key=lambda one: one["email"])
        if call.query.get("page") == "next":
            found = [one for one in found if one["email"] > call.query["address"]]
        items = [self._item(one) for one in found[:limit]]
        last = items[-1]["address"] if items else call.query.get("address", "")
        here = f"{self.url}{call.path}?limit={limit}"
        return {
            "items": items,
            "paging": {
                "first": here,
                "next": f"{here}&page=next&address={quote(last)}",
                "previous": f"{here}&page=previous&address=",
                "last": f"{here}&page=last",
            },
        }

    def _item(self, entry: Entry) -> Entry:
        item = {"address": entry["email"], "created_at": format_datetime(entry["at"], usegmt=True)}
        return item | ({"tags": ["*"]} if entry["kind"] == "unsubscribes" else {})

    def _webhook(self, call: Call) -> Any:
        name = call.path.removeprefix("/v3/domains/mg.example.com/webhooks").strip("/")
        if call.method == "GET" and not name:
            return {"webhooks": {event: {"urls": urls} for event, urls in self.webhooks.items()}}
        given = call.form
        urls = [value for key, value in given if key == "url"]
        if not urls or len(urls) > 3:
            raise Refusal(400, "between one and three")
        if call.method == "POST" and not name:
            (event,) = [value for key, value in given if key == "id"]
            if event in self.webhooks:
                raise Refusal(400, "Webhook already exists")
            self.webhooks[event] = urls
        elif call.method == "PUT" and name in self.webhooks:
            self.webhooks[name] = urls
        else:
            raise self.no_such(call)
        return {"message": "Webhook has been created", "webhook": {"urls": urls}}


class Postmark(StandIn):
    settings: ClassVar = {"POSTMARK_SERVER_TOKEN": "server-token-0123", "POSTMARK_STREAMS": "broadcast"}
    url_variable = "POSTMARK_API_URL"
    opt_outs = ("ManualSuppression", "SpamComplaint")
    others = ("HardBounce",)
    page = 10**9

    def __init__(self) -> None:
        super().__init__()
        self.webhooks: list[Entry] = []

    def authenticate(self, call: Call) -> None:
        self.header(call, "x-postmark-server-token", "server-token-0123")
        if call.headers.get("accept") != "application/json":
            raise Refusal(400)

    def route(self, call: Call) -> Any:
        if call.path.startswith("/webhooks"):
            return self._webhook(call)
        if call.method != "GET" or call.path != "/message-streams/broadcast/suppressions/dump":
            raise Refusal(404, "The message stream was not found")
        self.allow(call, "SuppressionReason", "Origin", "fromdate", "todate", "EmailAddress")
        start = call.query.get("fromdate", "0001-01-01")
        reason = call.query.get("SuppressionReason")
        return {
            "Suppressions": [
                {
                    "EmailAddress": one["email"],
                    "SuppressionReason": one["kind"],
                    "Origin": "Customer" if "hand" in one["email"] else "Recipient",
                    "CreatedAt": one["at"].isoformat(timespec="seconds"),
                }
                for one in self.entries
                if reason in (None, one["kind"]) and one["at"].date().isoformat() >= start
            ]
        }

    def _webhook(self, call: Call) -> Any:
        match call.method, call.path.removeprefix("/webhooks").strip("/"):
            case "GET", "":
                self.allow(call, "MessageStream")
                return {
                    "Webhooks": [one for one in self.webhooks if one["MessageStream"] == call.query["MessageStream"]]
                }
            case "POST", "":
                webhook = call.json | {"ID": 1000 + len(self.webhooks)}
                self.webhooks.append(webhook)
                return self._checked(webhook)
            case "PUT", number:
                webhook = next(one for one in self.webhooks if one["ID"] == int(number))
                if "MessageStream" in call.json:
                    self.complaints.append("a webhook cannot move to another stream")
                webhook |= call.json
                return self._checked(webhook)
        raise self.no_such(call)

    def _checked(self, webhook: Entry) -> Entry:
        known = {"ID", "Url", "MessageStream", "HttpAuth", "HttpHeaders", "Triggers"}
        triggers = {"Open", "Click", "Delivery", "Bounce", "SpamComplaint", "SubscriptionChange"}
        if webhook.keys() - known or webhook.get("Triggers", {}).keys() - triggers:
            self.complaints.append(f"a webhook cannot be {webhook}")
        return webhook


class Brevo(StandIn):
    settings: ClassVar = {"BREVO_API_KEY": "xkeysib-0123456789abcdef"}
    url_variable = "BREVO_API_URL"
    opt_outs = (
        "unsubscribedViaEmail",
        "unsubscribedViaMA",
        "unsubscribedViaApi",
        "contactFlaggedAsSpam",
        "adminBlocked",
    )
    others = ("hardBounce",)
    page = 100

    def __init__(self) -> None:
        super().__init__()
        self.webhooks: list[Entry] = []

    def authenticate(self, call: Call) -> None:
        self.header(call, "api-key", "xkeysib-0123456789abcdef")

    def route(self, call: Call) -> Any:
        if call.path.startswith("/v3/webhooks"):
            return self._webhook(call)
        if call.method != "GET" or call.path != "/v3/smtp/blockedContacts":
            raise self.no_such(call)
        self.allow(call, "startDate", "endDate", "limit", "offset", "senders", "sort")
        start, end = call.query.get("startDate"), call.query.get("endDate")
        if bool(start) != bool(end) or (end and end > datetime.now(UTC).date().isoformat()):
            self.complaints.append("both dates or none, and none in the future")
            raise Refusal(400)
        limit, offset = self.number(call, "limit", 50, 100), self.number(call, "offset", 0, 2**31)
        found = [
            one for one in self.entries if not start or start <= one["at"].date().isoformat() <= (end or "9999-01-01")
        ]
        return {
            "count": len(found),
            "contacts": [
                {
                    "email": one["email"],
                    "senderEmail": "shop@example.com",
                    "reason": {"code": one["kind"], "message": ""},
                    "blockedAt": one["at"].strftime("%Y-%m-%dT%H:%M:%SZ"),
                }
                for one in found[offset : offset + limit]
            ],
        }

    def _webhook(self, call: Call) -> Any:
        match call.method, call.path.removeprefix("/v3/webhooks").strip("/"):
            case "GET", "":
                self.allow(call, "type", "sort")
                found = [one for one in self.webhooks if one["type"] == call.query["type"]]
                if not found:
                    # As the original does.
                    raise Refusal(404, "document_not_found")
                return {"webhooks": found}
            case "POST", "":
                webhook = self._checked(call.json) | {"id": 1000 + len(self.webhooks)}
                self.webhooks.append(webhook)
                return {"id": webhook["id"]}
            case "PUT", number:
                webhook = next(one for one in self.webhooks if one["id"] == int(number))
                webhook |= self._checked(call.json)
                return None
        raise self.no_such(call)

    def _checked(self, body: Any) -> Entry:
        events = {
            "transactional": {"sent", "request", "delivered", "hardBounce", "softBounce", "blocked", "spam", "invalid"}
            | {"deferred", "click", "opened", "uniqueOpened", "unsubscribed"},
            "marketing": {"spam", "opened", "click", "hardBounce", "softBounce", "unsubscribed", "listAddition"}
            | {"delivered", "contactUpdated", "contactDeleted"},
        }
        if body.keys() - {"url", "description", "events", "type", "auth", "channel", "headers", "domain", "batched"}:
            self.complaints.append(f"a webhook cannot be {body}")
        if "type" in body and set(body["events"]) - events[body["type"]]:
            self.complaints.append(f"a webhook has no such events: {body['events']}")
        return dict(body)


class AmazonSes(StandIn):
    settings: ClassVar = {
        "SES_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "SES_SECRET_ACCESS_KEY": "secret/of+the+key",
        "SES_REGION": "eu-central-1",
    }
    url_variable = "SES_API_URL"
    opt_outs = ("COMPLAINT",)
    others = ("BOUNCE",)
    page = 1000

    def authenticate(self, call: Call) -> None:
        """Signature Version 4, computed anew from what came over the wire."""
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/(\d{8})/eu-central-1/ses/aws4_request, "
            r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
            call.headers.get("authorization", ""),
        )
        moment = call.headers.get("x-amz-date", "")
        if not found or not moment.startswith(found[1]):
            raise Refusal(403, "IncompleteSignature")
        sent = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs((datetime.now(UTC) - sent).total_seconds()) > 300:
            raise Refusal(403, "SignatureDoesNotMatch: expired")
        query = "&".join(sorted(call.raw_query.replace("+", "%20").split("&"))) if call.raw_query else ""
        canonical = f"{call.method}\n{call.path}\n{query}\n"
        canonical += "".join(f"{name}:{call.headers[name]}\n" for name in found[2].split(";"))
        canonical += f"\n{found[2]}\n{hashlib.sha256(call.raw).hexdigest()}"
        scope = f"{found[1]}/eu-central-1/ses/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = b"AWS4secret/of+the+key"
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        if hmac.digest(key, text.encode(), "sha256").hex() != found[3]:
            raise Refusal(403, "SignatureDoesNotMatch")

    def route(self, call: Call) -> Any:
        if call.path != "/v2/email/suppression/addresses" or call.method != "GET":
            raise self.no_such(call)
        self.allow(call, "EndDate", "NextToken", "PageSize", "Reason", "StartDate")
        size, start = self.number(call, "PageSize", 100, 1000), int(call.query.get("NextToken", "t0")[1:])
        since = self.since(call.query.get("StartDate"))
        reason = call.query.get("Reason")
        found = [one for one in self.entries if reason in (None, one["kind"]) and one["at"] >= since]
        answer: Entry = {
            "SuppressedDestinationSummaries": [
                {"EmailAddress": one["email"], "LastUpdateTime": one["at"].timestamp(), "Reason": one["kind"]}
                for one in found[start : start + size]
            ]
        }
        if start + size < len(found):
            answer["NextToken"] = f"t{start + size}"
        return answer


#: Provider → its stand-in.
STAND_INS: dict[str, type[StandIn]] = {
    "mailchimp": Mailchimp,
    "klaviyo": Klaviyo,
    "mailgun": Mailgun,
    "postmark": Postmark,
    "brevo": Brevo,
    "ses": AmazonSes,
}


def _handler(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes

        def _answer(self) -> None:
            url = urlsplit(self.path)
            call = Call(
                method=self.command,
                path=url.path,
                query=dict(parse_qsl(url.query, keep_blank_values=True)),
                headers={name.lower(): value for name, value in self.headers.items()},
                raw_query=url.query,
                raw=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
            )
            status, body, headers = stand_in.answer(call)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 (the names that http.server calls)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def running(provider: str) -> Iterator[StandIn]:
    """The stand-in of an ESP on a loopback port for as long as the block lasts."""
    stand_in = STAND_INS[provider]()
    server = _Server(("127.0.0.1", 0), _handler(stand_in))
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
