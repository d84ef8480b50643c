"""What a person orders: send again, read again, give up; for one change or for all that a filter finds."""

import time
from collections.abc import Mapping

from flask import Flask, abort, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from webhook_app.console import access, filters
from webhook_app.console.page_context import PageContext
from webhook_app.outbox import queries
from webhook_app.outbox.queries import EventDetails
from webhook_app.redelivery import Verb

#: An order for many changes goes on for so long in one request; Heroku's router gives up after 30 s.
PATIENCE = 15.0  # seconds


def add(console: Flask, context: PageContext) -> None:
    @console.get("/<any(replay, discard):verb>")
    def confirm(verb: str) -> str:
        asked = _narrowed(request.args)
        return render_template(
            "confirm.html",
            verb=verb,
            asked=asked,
            number=context.redelivery.count(Verb(verb), asked.filter),
            up_to=queries.newest_number(context.database),
        )

    @console.post("/<any(replay, discard):verb>")
    def order(verb: str) -> str:
        asked = _narrowed(request.form)
        after, up_to = _number("after"), _number("up_to")
        if not after:
            context.journal.record(access.user(), verb, up_to=up_to, **asked.filter.described())
        deadline = time.monotonic() + PATIENCE
        done, finished = _number("done"), True
        for progress in context.redelivery.run(Verb(verb), asked.filter, after=after, up_to=up_to):
            done, after = done + progress.done, progress.last
            if time.monotonic() > deadline:
                finished = False
                break
        return render_template(
            "done.html", verb=verb, asked=asked, done=done, after=after, up_to=up_to, finished=finished
        )

    @console.post("/events/<int:number>/<any(replay, discard):verb>")
    def order_one(number: int, verb: str) -> ResponseReturnValue:
        details = queries.show(context.database, number) or abort(404)
        context.journal.record(access.user(), verb, number=number)
        session["notice"] = _notice(Verb(verb), details, done=context.redelivery.one(Verb(verb), details.event))
        back = request.form.get("back", "")
        return redirect(back if access.is_local(back) else url_for("show_event", number=number), code=303)


def _narrowed(arguments: Mapping[str, str]) -> filters.EventListQuery:
    """An order is never for everything there is: a filter that got lost on the way must not widen it."""
    asked = filters.understood(arguments)
    if not asked.narrowing:
        abort(400, "Say which changes are meant: choose a filter first.")
    return asked


def _number(name: str) -> int:
    """A number that a form of ours carries on; whatever else stands there counts as 0."""
    text = request.form.get(name, "")[:18]
    return int(text) if text.isascii() and text.isdecimal() else 0


def _notice(verb: Verb, details: EventDetails, *, done: bool) -> str:
    number = details.event.id
    if verb is Verb.DISCARD:
        return f"#{number} was discarded." if done else f"#{number} was left alone: it is being sent, or is finished."
    if details.event.action is None:
        return f"#{number} was understood this time." if done else f"#{number} is still not understood."
    return (
        f"#{number} will be sent again."
        if done
        else f"#{number} was left alone: a newer change counts, or it is being sent or emptied."
    )
