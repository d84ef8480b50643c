"""A stand-in for SendGrid's v3 API on loopback, written from its published description, and strict about it.

https://github.com/twilio/sendgrid-oai (tsg_webhooks_v3.json, tsg_suppressions_v3.json)

It pages, limits the rate, checks keys, scopes and subusers, holds a plan to its number of webhooks, signs the webhooks
it sends, and fails to order. A request that the description does not allow lands in `complaints`.
"""

import base64
import json
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

from tests.signing import SendGridSigner

WEBHOOK = "/v3/user/webhooks/event/settings"
TEST = "/v3/user/webhooks/event/test"
PAGE_LIMIT = 500

#: The switches of an Event Webhook, and the event that each lets through.
SWITCHES = {
    "processed": "processed",
    "deferred": "deferred",
    "delivered": "delivered",
    "open": "open",
    "click": "click",
    "bounce": "bounce",
    "dropped": "dropped",
    "spam_report": "spamreport",
    "unsubscribe": "unsubscribe",
    "group_unsubscribe": "group_unsubscribe",
    "group_resubscribe": "group_resubscribe",
    "account_status_change": "account_status_change",
}
TEXTS = ("url", "friendly_name", "oauth_client_id", "oauth_client_secret", "oauth_token_url")

ALL_SCOPES = frozenset(
    {
        *(f"user.webhooks.event.settings.{verb}" for verb in ("create", "read", "update", "delete")),
        "user.webhooks.event.test.create",
        "suppression.read",
        "asm.groups.read",
        "asm.groups.suppressions.read",
    }
)

#: Path of a list → its key in an account, and the scope it needs.
LISTS = {
    "/v3/suppression/unsubscribes": ("unsubscribes", "suppression.read"),
    "/v3/suppression/spam_reports": ("spam_reports", "suppression.read"),
    "/v3/suppression/bounces": ("bounces", "suppression.read"),
    "/v3/asm/suppressions": ("group_suppressions", "asm.groups.suppressions.read"),
}
VERBS = {"POST": "create", "GET": "read", "PATCH": "update", "DELETE": "delete"}


class Refusal(Exception):
    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"errors": [{"field": None, "message": message, **more}]}


@dataclass
class Account:
    """What one account, or one subuser, has at SendGrid."""

    max_allowed: int = 5
    webhooks: list[dict[str, Any]] = field(default_factory=list)
    signers: dict[str, SendGridSigner] = field(default_factory=dict)
    lists: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {name: [] for name, _ in LISTS.values()}  # each newest first
    )

    def suppress(self, which: str, email: str, created: float, group_id: int = 1, **more: Any) -> None:
        """Put somebody on a list, as a click on a link does, or a person by hand."""
        entry: dict[str, Any] = {"email": email, **more}
        if which == "group_suppressions":
            entry |= {"group_id": group_id, "group_name": f"Group {group_id}", "created_at": int(created)}
        else:
            entry |= {"created": int(created)}
            if which == "spam_reports":
                entry.setdefault("ip", "203.0.113.7")
        self.lists[which].insert(0, entry)

    def public_key(self, webhook_id: str) -> str:
        return self.signers[webhook_id].public_key if webhook_id in self.signers else ""


@dataclass
class Call:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class SendGrid:
    """The state of the stand-in. `account` is the parent, `subusers` have accounts of their own."""

    def __init__(self) -> None:
        self.url = ""
        self.account = Account()
        self.subusers: dict[str, Account] = {}
        #: Key → what it may do.
        self.keys: dict[str, frozenset[str]] = {"SG.full": ALL_SCOPES}
        self.calls: list[Call] = []
        #: What no client may do.
        self.complaints: list[str] = []
        #: Statuses that are answered instead, one a call; None cuts the connection.
        self.faults: deque[int | None] = deque()
        #: Requests in a window of so many seconds; None: no limit.
        self.rate_limit: tuple[int, float] | None = None
        #: Called with each call before it is answered: changes lists between two pages.
        self.meanwhile: Callable[[Call], None] = lambda call: None
        self.deliveries: list[requests.Response | requests.RequestException] = []
        #: False: the test is taken, and nothing is ever sent.
        self.delivers_tests = True
        self._window = [0.0, 0]
        self._lock = threading.Lock()

    def fault(self, status: int | None, times: int = 1) -> None:
        self.faults.extend([status] * times)

    def answer(self, call: Call) -> tuple[int, Any, dict[str, str]]:
        with self._lock:
            self.calls.append(call)
            self.meanwhile(call)
            headers: dict[str, str] = {}
            try:
                self._count(headers)
                status, body = self._route(call)
            except Refusal as refusal:
                status, body = refusal.status, refusal.body
            return status, body, headers

    def _count(self, headers: dict[str, str]) -> None:
        if self.rate_limit is None:
            return
        limit, seconds = self.rate_limit
        now = time.time()
        if now >= self._window[0]:
            self._window = [now + seconds, 0]
        self._window[1] += 1
        headers |= {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(max(0, limit - int(self._window[1]))),
            # Whole seconds, as SendGrid writes it: the window is over for sure when this second is.
            "X-RateLimit-Reset": str(int(self._window[0]) + 1),
        }
        if self._window[1] > limit:
            raise Refusal(429, "too many requests")

    def _route(self, call: Call) -> tuple[int, Any]:
        account = self._account(call)
        if call.path in LISTS and call.method == "GET":
            name, scope = LISTS[call.path]
            self._may(call, scope)
            return 200, self._page(call, account.lists[name])
        if call.path == TEST and call.method == "POST":
            self._may(call, "user.webhooks.event.test.create")
            return self._test(account, call.body)
        if call.path.startswith(WEBHOOK):
            self._may(call, f"user.webhooks.event.settings.{VERBS[call.method]}")
            return self._webhooks(account, call)
        self._complain(f"{call.method} {call.path} is not in the description")
        raise Refusal(404, "not found")

    def _account(self, call: Call) -> Account:
        scheme, _, key = call.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or key not in self.keys:
            raise Refusal(401, "The provided authorization grant is invalid, expired, or revoked", help=None)
        subuser = call.headers.get("on-behalf-of")
        if subuser is None:
            return self.account
        if subuser not in self.subusers:
            raise Refusal(403, "access forbidden")
        return self.subusers[subuser]

    def _may(self, call: Call, scope: str) -> None:
        key = call.headers["authorization"].partition(" ")[2]
        if scope not in self.keys[key]:
            raise Refusal(403, "access forbidden")

    def _page(self, call: Call, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        allowed = {"limit", "offset"}
        if not call.path.startswith("/v3/asm/"):
            allowed |= {"start_time", "end_time", "email"}
        if unknown := call.query.keys() - allowed:
            self._complain(f"{call.path} has no parameter {unknown}")
        asked = {name: int(value) for name, value in call.query.items()}
        limit, offset = asked.get("limit", PAGE_LIMIT), asked.get("offset", 0)
        if not 1 <= limit <= PAGE_LIMIT or offset < 0:
            raise Refusal(400, f"limit must be between 1 and {PAGE_LIMIT}")
        start, end = asked.get("start_time", 0), asked.get("end_time", 2**63)
        if "start_time" in asked or "end_time" in asked:
            entries = [entry for entry in entries if start <= entry["created"] <= end]
        return entries[offset : offset + limit]

    def _webhooks(self, account: Account, call: Call) -> tuple[int, Any]:
        path = call.path.removeprefix(WEBHOOK).strip("/")
        if path == "all" and call.method == "GET":
            shown = [self._shown(account, webhook) for webhook in account.webhooks]
            # An account without any is shown so in the description.
            return 200, {"max_allowed": account.max_allowed, "webhooks": shown or [{}]}
        if path == "" and call.method == "POST":
            webhook = {**dict.fromkeys(SWITCHES, False), "enabled": False, **self._checked(account, call.body)}
            if webhook["enabled"] and self._enabled(account) >= account.max_allowed:
                raise Refusal(400, "You have reached the maximum number of webhooks per your current billing plan.")
            webhook |= {"id": str(uuid.uuid4()), "created_date": "2026-01-05T10:15:30Z"}
            account.webhooks.append(webhook)
            return 201, self._shown(account, webhook)
        is_about_signing = path.startswith("signed/")
        webhook = self._find(account, path.removeprefix("signed/"))
        match call.method:
            case "GET" if is_about_signing:
                return 200, {"id": webhook["id"], "public_key": account.public_key(webhook["id"])}
            case "PATCH" if is_about_signing:
                return 200, self._toggle_signing(account, webhook["id"], call.body)
            case "GET":
                return 200, self._shown(account, webhook)
            case "PATCH":
                changed = webhook | self._checked(account, call.body, webhook)
                if changed["enabled"] and not webhook["enabled"] and self._enabled(account) >= account.max_allowed:
                    raise Refusal(400, "This webhook cannot be modified based on your current billing plan.")
                webhook |= changed
                return 200, self._shown(account, webhook)
            case "DELETE":
                account.webhooks.remove(webhook)
                return 204, None
        self._complain(f"{call.method} {call.path} is not in the description")
        raise Refusal(404, "not found")

    def _checked(self, account: Account, body: Any, itself: dict[str, Any] | None = None) -> dict[str, Any]:
        if not isinstance(body, dict):
            raise Refusal(400, "the body must be a JSON object")
        for name, value in body.items():
            if name in SWITCHES or name == "enabled":
                right = isinstance(value, bool)
            else:
                right = name in TEXTS and isinstance(value, str | None)
            if not right:
                self._complain(f"an Event Webhook cannot have {name}: {value!r}")
        url = body.get("url")
        if not url:
            raise Refusal(400, "'' is not a valid url")
        for other in account.webhooks:
            if other is not itself and other["url"] == url:
                raise Refusal(400, f"Webhook at '{url}' already exists. Please provide a unique URL.", id=other["id"])
        return body

    def _toggle_signing(self, account: Account, webhook_id: str, body: Any) -> dict[str, Any]:
        if not isinstance(body, dict) or not isinstance(body.get("enabled"), bool):
            raise Refusal(400, "enabled is required")
        if body["enabled"]:
            account.signers.setdefault(webhook_id, SendGridSigner())
        else:
            account.signers.pop(webhook_id, None)
        return {"id": webhook_id, "public_key": account.public_key(webhook_id)}

    def _shown(self, account: Account, webhook: dict[str, Any]) -> dict[str, Any]:
        shown = {name: value for name, value in webhook.items() if name != "oauth_client_secret"}
        if key := account.public_key(webhook["id"]):
            shown["public_key"] = key
        return shown

    def _find(self, account: Account, webhook_id: str) -> dict[str, Any]:
        for webhook in account.webhooks:
            if webhook["id"] == webhook_id:
                return webhook
        raise Refusal(404, "Invalid id provided.")

    def _enabled(self, account: Account) -> int:
        return sum(webhook["enabled"] for webhook in account.webhooks)

    def _test(self, account: Account, body: Any) -> tuple[int, Any]:
        if not isinstance(body, dict) or not body.get("url"):
            raise Refusal(400, "url is required")
        webhook = self._find(account, body["id"])
        if self.delivers_tests:
            signer = account.signers.get(webhook["id"])
            threading.Thread(target=self._deliver_test, args=(webhook, body["url"], signer), daemon=True).start()
        return 204, None

    def _deliver_test(self, webhook: dict[str, Any], url: str, signer: SendGridSigner | None) -> None:
        common = {
            "email": "example@test.com",
            "timestamp": int(time.time()),
            "smtp-id": "<14c5d75ce93.dfd.64b469@ismtpd-555>",
            "category": ["cat facts"],
            "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0",
        }
        events = [
            {**common, "event": event, "sg_event_id": base64.urlsafe_b64encode(os.urandom(15)).decode()}
            for switch, event in SWITCHES.items()
            if webhook[switch]
        ]
        body = ("[" + ",\r\n".join(json.dumps(event) for event in events) + "]\r\n").encode()
        headers = signer.headers(body) if signer else {"Content-Type": "application/json;charset=utf-8"}
        try:
            self.deliveries.append(requests.post(url, data=body, headers=headers, timeout=10, allow_redirects=False))
        except requests.RequestException as error:
            self.deliveries.append(error)

    def _complain(self, about: str) -> None:
        self.complaints.append(about)


def _handler(sendgrid: SendGrid) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes; each page would cost a delayed acknowledgement

        def _answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            call = Call(
                method=self.command,
                path=url.path,
                query={name: values[-1] for name, values in parse_qs(url.query).items()},
                headers={name.lower(): value for name, value in self.headers.items()},
                body=json.loads(raw) if raw else None,
            )
            if sendgrid.faults:
                sendgrid.calls.append(call)
                status = sendgrid.faults.popleft()
                if status is None:
                    self.close_connection = True
                    return
                self._send(status, {"errors": [{"field": None, "message": "out of order"}]}, {})
            else:
                self._send(*sendgrid.answer(call))

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 (the names that http.server calls)

        def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
            content = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if body is not None:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Idle kept-alive connections must not hold up the end of a test.
    block_on_close = False


@contextmanager
def running() -> Iterator[SendGrid]:
    """A stand-in on a loopback port for as long as the block lasts."""
    sendgrid = SendGrid()
    server = _Server(("127.0.0.1", 0), _handler(sendgrid))
    sendgrid.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield sendgrid
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
