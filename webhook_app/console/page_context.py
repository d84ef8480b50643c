"""The context of the console's pages: what they show and act upon."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from flask import request

from webhook_app.delivery import Call, Undeliverable, WireForm
from webhook_app.outbox import Database
from webhook_app.outbox.journal import Journal
from webhook_app.outbox.queries import EventDetails
from webhook_app.outbox.routing import RoutingCondition
from webhook_app.providers import Provider
from webhook_app.providers.registry import Closed, Providers
from webhook_app.redelivery import Redelivery
from webhook_app.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContext:
    settings: Settings
    database: Database
    providers: Providers
    form: WireForm
    #: The base URLs of all sections of Dynamic Yield.
    destinations: tuple[str, ...]
    #: The names of all sections of Dynamic Yield, and the conditions of those that have one.
    sections: tuple[str, ...]
    conditions: Mapping[str, RoutingCondition]

    @property
    def redelivery(self) -> Redelivery:
        return Redelivery(
            self.database,
            self.providers,
            forward_opt_ins=self.settings.forward_opt_ins,
            sections=self.conditions,
        )

    @property
    def journal(self) -> Journal:
        return Journal(self.database)

    @property
    def base(self) -> str:
        """Scheme and host under which ESPs reach this receiver."""
        return self.settings.public_url or request.host_url.rstrip("/")

    @property
    def sandbox(self) -> str:
        """Where changes go while they go to this machine instead of Dynamic Yield; else empty."""
        return next((base for base in self.destinations if urlsplit(base).hostname in LOOPBACK), "")

    def sorted_providers(self) -> list[Provider | Closed]:
        return sorted(self.providers.entries.values(), key=lambda provider: provider.title.casefold())

    def call(self, details: EventDetails) -> tuple[Call | None, str]:
        """The request that was or would be sent, or why there is none."""
        if details.change is None:
            empty = details.event.identity_kind is not None
            return None, "Retention has emptied this change." if empty else "Nothing was understood of this event."
        try:
            return self.form.call(details.change, pseudonym=details.event.pseudonym), ""
        except Undeliverable as error:
            return None, f"This change cannot be put into a request: {error.reason}"
