"""Events: the list, its search and its export, and one event with all that is known of it."""

from datetime import UTC, datetime
from itertools import chain

from flask import Flask, Response, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from webhook_app.console import access, export, filters
from webhook_app.console.page_context import PageContext
from webhook_app.outbox import queries
from webhook_app.outbox.maintenance import DISCARDABLE, REPLAYABLE
from webhook_app.outbox.quarantine import can_read_again


def add(console: Flask, context: PageContext) -> None:
    @console.get("/events")
    def list_events() -> ResponseReturnValue:
        asked = filters.read_filter(request.args)
        return _pseudonymous(context, asked) or _listed(
            context, asked, request.args.get("after", ""), request.args.get("before", "")
        )

    @console.post("/events")
    def search_events() -> ResponseReturnValue:
        # Posted: what is typed into this form stands in no URL, and so in no router's log.
        asked = filters.read_filter(request.form)
        if asked.problems:
            return _listed(context, asked)
        return _pseudonymous(context, asked) or redirect(f"{url_for('list_events')}?{asked.address()}", code=303)

    @console.get("/events.csv")
    def export_events() -> Response:
        asked = filters.understood(request.args)
        context.journal.record(access.user(), "export", **asked.filter.described())
        batches = queries.stream(context.database, asked.filter)
        # Taken before the answer begins: a database that is down is a 503 and not an empty file.
        first = next(batches, [])
        return Response(
            export.lines(chain([first], batches)),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f"attachment; filename=events-{datetime.now(UTC):%Y-%m-%d-%H%M}.csv"},
        )

    @console.get("/events/<int:number>")
    def show_event(number: int) -> str:
        life = queries.show(context.database, number) or abort(404)
        event, (call, why_none) = life.event, context.call(life)
        return render_template(
            "event.html",
            life=life,
            event=event,
            call=call,
            why_none=why_none,
            base=context.destinations[0],
            can_replay=event.state in REPLAYABLE and event.identity_value is not None,
            can_read_again=can_read_again(context.database, number),
            can_discard=event.state in DISCARDABLE and not event.in_flight,
        )


def _listed(
    context: PageContext, asked: filters.EventListQuery, after: str = "", before: str = ""
) -> ResponseReturnValue:
    page = None
    if not asked.problems:
        page = queries.search(
            context.database,
            asked.filter,
            sort=asked.sort,
            ascending=asked.ascending,
            after=after,
            before=before,
        )
    html = render_template("events.html", asked=asked, page=page, providers=context.sorted_providers())
    return html, 400 if asked.problems else 200


def _pseudonymous(context: PageContext, asked: filters.EventListQuery) -> ResponseReturnValue | None:
    """The way to the same list with pseudonyms in its URL; None where no address or id stands in it."""
    person = asked.filter.person
    if not person or (pseudonyms := queries.pseudonyms(context.database, person)) == person:
        return None
    return redirect(f"{url_for('list_events')}?{asked.address(person=pseudonyms)}", code=303)
