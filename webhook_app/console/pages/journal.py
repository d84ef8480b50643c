"""The journal: who did what."""

from flask import Flask, render_template, request

from webhook_app.console.shown import PageContext

JOURNAL_PAGE = 50  # entries


def add(console: Flask, shown: PageContext) -> None:
    @console.get("/journal")
    def journal() -> str:
        before = request.args.get("before", type=int)
        entries = shown.journal.entries(before=before, limit=JOURNAL_PAGE)
        return render_template("journal.html", entries=entries, more=len(entries) == JOURNAL_PAGE)
