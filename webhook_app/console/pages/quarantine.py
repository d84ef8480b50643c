"""The quarantine: events that were authentic and could not be read."""

from flask import Flask, render_template, request

from webhook_app.console.page_context import PageContext
from webhook_app.outbox import State, queries
from webhook_app.outbox.queries import Filter

QUARANTINE_PAGE = 20  # events


def add(console: Flask, context: PageContext) -> None:
    @console.get("/quarantine")
    def quarantine() -> str:
        page = queries.search(
            context.database,
            Filter(state=State.QUARANTINED),
            limit=QUARANTINE_PAGE,
            after=request.args.get("after", ""),
            before=request.args.get("before", ""),
        )
        lives = [life for event in page.events if (life := queries.show(context.database, event.id))]
        return render_template("quarantine.html", page=page, lives=lives)
