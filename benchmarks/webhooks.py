"""The webhooks that are sent: each is about people whom no other one is about, so each is stored."""

import itertools
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import orjson

from benchmarks.load import request
from tests.signing import SendGridSigner

BATCH = 1000  # events in a SendGrid batch, about 340 KB
EMARSYS_TOKEN = "benchmark-emarsys-token"  # noqa: S105 (opens nothing but a benchmark)

_OTHERS = ("delivered", "open", "click", "processed")
_OPT_OUTS = ("unsubscribe", "group_unsubscribe", "spamreport")


def batch(opt_outs: float) -> bytes:
    """A SendGrid batch of which so large a part opts somebody out."""
    run, now = uuid.uuid4().hex[:12], int(time.time())
    every = round(1 / opt_outs)
    events = []
    for number in range(BATCH):
        says = number % every == 0
        events.append(
            {
                "email": f"person.{run}.{number}@example.com",
                "timestamp": now - number % 60,
                "event": (_OPT_OUTS if says else _OTHERS)[number % 3],
                "sg_event_id": f"{run}{number:06}Z2VvcG9kLXNnLWV2ZW50LWlk",
                "sg_message_id": f"Kw3vEo2FQxO.{run}.recvdp3las1-84d9565f8c-qmjtp-18-6357D0E5-{number}.0",
                "smtp-id": f"<Kw3vEo2FQxO.{run}.{number}@ismtpd-555>",
                "category": "newsletter",
                "ip": "192.0.2.17",
            }
        )
    # SendGrid ends each event with CRLF, and signs it so.
    return b"[" + b",\r\n".join(map(orjson.dumps, events)) + b"]\r\n"


def signed_batches(signer: SendGridSigner, count: int, opt_outs: float) -> list[bytes]:
    made = []
    for _ in range(count):
        body = batch(opt_outs)
        made.append(request("POST", "/webhooks/sendgrid", signer.headers(body), body))
    return made


def emarsys_bodies() -> Iterator[bytes]:
    # All at about the same time, as a program's contacts are.
    run, now = uuid.uuid4().hex[:12], datetime.now(UTC).isoformat(timespec="seconds")
    for number in itertools.count():
        yield orjson.dumps(
            {
                "external_id": f"C-{run}-{number}",
                "email": f"person.{run}.{number}@example.com",
                "optin": 2,
                "event_time": now,
            }
        )


def singles(count: int, path: str = "/webhooks/emarsys") -> list[bytes]:
    """Emarsys webhooks, one person each."""
    headers = {"Content-Type": "application/json", "X-Api-Key": EMARSYS_TOKEN, "User-Agent": "Emarsys"}
    return [request("POST", path, headers, body) for body in itertools.islice(emarsys_bodies(), count)]
