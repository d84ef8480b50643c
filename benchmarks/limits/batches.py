"""Limit of A: the same work in one loop, without HTTP, Flask or SQLAlchemy.

Verify, parse, filter, load the opt-outs by the product's own schema, and insert into the product's own log and
register, with all their indexes, in one commit that waits for the disk. Each engine's fastest insert is used: the
driver's `executemany` on SQLite, arrays in binary form on PostgreSQL.
"""

import hmac
import sqlite3
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psycopg
from werkzeug.datastructures import Headers

from webhook_app.auth import WebhookRequest
from webhook_app.auth.sendgrid import SendGridSignature, parse_verification_key
from webhook_app.providers.sendgrid import MEANING, SendGridEvent

OPT_OUTS = ("unsubscribe", "group_unsubscribe", "spamreport")
COLUMNS = (
    "dedupe_key, provider, state, action, identity_kind, identity_hash, identity_value, reason, esp_event_id,"
    " esp_message_id, occurred_at, version, received_at, raw"
)
ARRAYS = (
    "%b::bytea[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bytea[], %b::text[], %b::text[], %b::text[],"
    " %b::text[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bytea[]"
)
#: From the log into the register. Everybody is new here; the product has to ask.
REGISTER = (
    "INSERT INTO consents (identity_hash, section, version, action, event_id, due_at)"
    " SELECT identity_hash, 'default', version, action, id, received_at FROM {source}"
    " ON CONFLICT (identity_hash, section) DO NOTHING"
)
#: The values of `COLUMNS`.
Row = tuple[Any, ...]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def run(database_url: str, public_key: str, batches: list[tuple[Mapping[str, str], bytes]]) -> tuple[int, float, float]:
    """Store the batches; returns how many events they held, and the CPU and wall seconds it took."""
    scheme = SendGridSignature(keys=(parse_verification_key(public_key),), tolerance=90_000)
    schema, keyed = SendGridEvent(), hmac.new(b"k" * 32, digestmod="sha256")
    insert = inserter(database_url)
    requests = [WebhookRequest(headers=Headers(headers), body=body) for headers, body in batches]
    count = 0
    cpu, wall = time.process_time(), time.perf_counter()
    for request in requests:
        scheme.verify(request)
        events = orjson.loads(request.body)
        now = time.time_ns() // 1000
        insert([_row(event, schema, keyed, now) for event in events if event["event"] in OPT_OUTS])
        count += len(events)
    return count, time.process_time() - cpu, time.perf_counter() - wall


def _row(event: dict[str, Any], schema: SendGridEvent, keyed: hmac.HMAC, now: int) -> Row:
    change = schema.load(event)
    address, occurred_at = change.identity.value, (change.occurred_at - _EPOCH) // timedelta(microseconds=1)
    natural = f"sendgrid\0{change.reason}\0{change.action}\0{address}\0{occurred_at}\0{change.message_id}"
    return (
        (occurred_at // 1_000_000).to_bytes(4) + _hash(keyed, natural),
        "sendgrid",
        "pending",
        "opt_out",
        "email",
        _hash(keyed, change.identity.key),
        address,
        change.reason,
        change.event_id,
        change.message_id,
        occurred_at,
        occurred_at * 2 + (MEANING[change.reason] == "opt_out"),
        now,
        orjson.dumps(event),
    )


def _hash(keyed: hmac.HMAC, text: str) -> bytes:
    copy = keyed.copy()
    copy.update(text.encode())
    return copy.digest()[:16]


def inserter(database_url: str) -> Callable[[list[Row]], None]:
    """The engine's fastest insert into log and register, on disk when it returns."""
    return _into_sqlite(database_url) if database_url.startswith("sqlite") else _into_postgresql(database_url)


def _into_sqlite(url: str) -> Callable[[list[Row]], None]:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA journal_mode=WAL")
    marks = ", ".join("?" * len(COLUMNS.split(",")))
    statement = f"INSERT INTO events ({COLUMNS}) VALUES ({marks}) ON CONFLICT (dedupe_key) DO NOTHING"  # noqa: S608

    def insert(rows: list[Row]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        (before,) = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
        connection.executemany(statement, rows)
        connection.execute(REGISTER.format(source="events WHERE id > ?"), (before,))
        connection.execute("COMMIT")

    return insert


def _into_postgresql(url: str) -> Callable[[list[Row]], None]:
    connection = psycopg.connect(url, autocommit=True)
    log = f"INSERT INTO events ({COLUMNS}) SELECT * FROM unnest({ARRAYS}) ON CONFLICT (dedupe_key) DO NOTHING"  # noqa: S608
    statement = f"WITH stored AS ({log} RETURNING *) {REGISTER.format(source='stored')}"

    def insert(rows: list[Row]) -> None:
        connection.execute(statement, [list(column) for column in zip(*rows, strict=True)])

    return insert
