"""`flask …`: running the worker, trying things out, looking after the outbox."""

from flask import Flask

from webhook_app.cli.check import check, providers, prune
from webhook_app.cli.connect import connect
from webhook_app.cli.db import db
from webhook_app.cli.events import events
from webhook_app.cli.forward import forward
from webhook_app.cli.importing import import_file
from webhook_app.cli.people import people
from webhook_app.cli.reconcile import reconcile
from webhook_app.cli.report import report
from webhook_app.cli.sections import sections
from webhook_app.cli.simulate import sandbox, simulate_webhook
from webhook_app.cli.try_payload import try_payload
from webhook_app.cli.webhooks import webhooks

_COMMANDS = (
    forward,
    sandbox,
    simulate_webhook,
    try_payload,
    db,
    events,
    people,
    sections,
    providers,
    check,
    prune,
    connect,
    import_file,
    reconcile,
    report,
    webhooks,
)


def register(app: Flask) -> None:
    for command in _COMMANDS:
        app.cli.add_command(command)
