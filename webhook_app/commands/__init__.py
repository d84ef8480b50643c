"""`flask …`: running the worker, trying things out, looking after the outbox."""

from flask import Flask

from webhook_app.commands.connect import connect
from webhook_app.commands.database import db
from webhook_app.commands.docs import docs
from webhook_app.commands.events import events
from webhook_app.commands.forward import forward
from webhook_app.commands.importing import import_file
from webhook_app.commands.overview import check, providers, prune
from webhook_app.commands.reconcile import reconcile
from webhook_app.commands.trying import sandbox, simulate_webhook

_COMMANDS = (
    forward,
    sandbox,
    simulate_webhook,
    db,
    events,
    providers,
    check,
    prune,
    docs,
    connect,
    import_file,
    reconcile,
)


def register(app: Flask) -> None:
    for command in _COMMANDS:
        app.cli.add_command(command)
