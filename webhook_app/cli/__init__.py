"""`flask …`: running the worker, trying things out, looking after the outbox."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import click
from click.exceptions import NoArgsIsHelpError
from flask import Flask
from flask.cli import AppGroup

#: What a person types → the module here, and the command in it.
_COMMANDS = {
    "forward": ("forward", "forward"),
    "sandbox": ("simulate", "sandbox"),
    "simulate": ("simulate", "simulate_webhook"),
    "try": ("try_payload", "try_payload"),
    "db": ("db", "db"),
    "events": ("events", "events"),
    "people": ("people", "people"),
    "sections": ("sections", "sections"),
    "providers": ("check", "providers"),
    "check": ("check", "check"),
    "prune": ("check", "prune"),
    "connect": ("connect", "connect"),
    "import": ("importing", "import_file"),
    "reconcile": ("reconcile", "reconcile"),
    "report": ("report", "report"),
    "webhooks": ("webhooks", "webhooks"),
}


class Commands(AppGroup):
    """Imports a command when it is called: neither the web process nor another command waits for what it needs.

    https://click.palletsprojects.com/en/stable/complex/#lazily-loading-subcommands
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        ctx.with_resource(_usage_errors_in_a_line())
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, attribute = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), attribute)
        return command


@contextmanager
def _usage_errors_in_a_line() -> Iterator[None]:
    """A wrong option or argument ends a command as every other error does: a line and status 1, not three and 2."""
    try:
        yield
    except NoArgsIsHelpError as error:
        # Of a group that was named alone: its commands.
        error.show()
        raise click.exceptions.Exit(1) from None
    except click.UsageError as error:
        raise click.ClickException(" ".join(error.format_message().split())) from None


def register(app: Flask) -> None:
    app.cli = Commands(app.name)
