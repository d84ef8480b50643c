"""For probes: `/healthz` (restart me?), `/readyz` (send me webhooks?), `/status` (does the whole service work?)."""

from collections.abc import Collection

from flask import Blueprint, Response

from webhook_app import web
from webhook_app.ops.status import Severity, findings, not_ready
from webhook_app.outbox import Database


def blueprint(database: Database, open_esps: Collection[str], *, sections: Collection[str]) -> Blueprint:
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    def healthz() -> Response:
        return web.answer({"status": "ok"})

    @health.get("/readyz")
    def readyz() -> tuple[Response, int]:
        reasons = not_ready(database)
        said = {"status": "not ready" if reasons else "ready", "reasons": [one.text() for one in reasons]}
        # 503: the load balancer sends webhooks to another instance, and the ESP tries again where there is none.
        return web.answer(said), 503 if reasons else 200

    @health.get("/status")
    def whole_service() -> tuple[Response, int]:
        found = findings(database, open_esps=open_esps, sections=sections)
        reasons = [one for one in found if one.severity is not Severity.WARNING]
        said = {
            "status": "not working" if reasons else "working",
            "reasons": [one.text() for one in reasons],
            "findings": [
                {"slug": one.slug, "severity": one.severity, "sentence": one.sentence, "mend": one.directions}
                for one in found
            ],
        }
        return web.answer(said), 503 if reasons else 200

    return health
