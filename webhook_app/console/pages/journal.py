"""The journal: who did what."""

from flask import Flask, render_template, request

from webhook_app.console.page_context import PageContext

JOURNAL_PAGE = 50  # entries


def add(console: Flask, context: PageContext) -> None:
    @console.get("/journal")
    def journal() -> str:
        before = request.args.get("before", type=int)
        entries = context.journal.entries(before=before, limit=JOURNAL_PAGE)
        return render_template("journal.html", entries=entries, more=len(entries) == JOURNAL_PAGE)
