"""The console's pages, a file each."""

from flask import Flask

from webhook_app.console.page_context import PageContext
from webhook_app.console.pages import esps, events, home, journal, orders, people, quarantine, report


def add(console: Flask, context: PageContext) -> None:
    @console.template_filter()
    def title_of(name: str) -> str:
        """The ESP's own name; a provider that is gone keeps the one it had in the URL."""
        return context.providers.entries[name].title if name in context.providers else name

    @console.context_processor
    def sandbox() -> dict[str, str]:
        return {"sandbox": context.sandbox}

    for page in (home, people, events, esps, quarantine, orders, report, journal):
        page.add(console, context)
