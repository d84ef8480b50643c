"""The console's pages: overview, events, one event, quarantine, and the orders a person gives there."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain

from flask import Flask, Response, abort, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from webhook_app.console import access, export, filters, overview
from webhook_app.delivery import Call, Undeliverable, WireForm
from webhook_app.outbox import Database, State, queries
from webhook_app.outbox.journal import Journal
from webhook_app.outbox.maintenance import DISCARDABLE, REPLAYABLE
from webhook_app.outbox.queries import Filter, Life
from webhook_app.providers import Provider
from webhook_app.redelivery import Redelivery, Verb
from webhook_app.settings import Settings

QUARANTINE_PAGE = 20  # events
JOURNAL_PAGE = 50  # entries
#: An order for many changes goes on for so long in one request; Heroku's router gives up after 30 s.
PATIENCE = 15.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the pages show and act upon."""

    settings: Settings
    database: Database
    providers: Mapping[str, Provider]
    form: WireForm

    @property
    def redelivery(self) -> Redelivery:
        return Redelivery(self.database, self.providers, forward_opt_ins=self.settings.forward_opt_ins)

    @property
    def journal(self) -> Journal:
        return Journal(self.database)

    def sorted_providers(self) -> list[Provider]:
        return sorted(self.providers.values(), key=lambda provider: provider.title.casefold())

    def call(self, life: Life) -> tuple[Call | None, str]:
        """The request that was or would be sent, or why there is none."""
        if life.change is None:
            empty = life.event.identity_kind is not None
            return None, "Retention has emptied this change." if empty else "Nothing was understood of this event."
        try:
            return self.form.call(life.change, pseudonym=life.event.pseudonym), ""
        except Undeliverable as error:
            return None, f"This change cannot be put into a request: {error.reason}"


def add(console: Flask, shown: Shown) -> None:
    @console.template_filter()
    def title_of(name: str) -> str:
        """The ESP's own name; a provider that is gone keeps the one it had in the URL."""
        return shown.providers[name].title if name in shown.providers else name

    _add_overview(console, shown)
    _add_lists(console, shown)
    _add_orders(console, shown)
    _add_journal(console, shown)


def _add_overview(console: Flask, shown: Shown) -> None:
    @console.get("/")
    def home() -> str:
        range_name = request.args.get("range", "")
        if range_name not in overview.RANGES:
            range_name = next(iter(overview.RANGES))
        providers = shown.sorted_providers()
        return render_template(
            "overview.html",
            seen=overview.look(shown.database, shown.providers, range_name=range_name, now=datetime.now(UTC)),
            range_name=range_name,
            ranges=overview.RANGES,
            open_providers=[provider for provider in providers if provider.scheme],
            closed_providers=[provider for provider in providers if not provider.scheme],
            base=shown.settings.public_url or request.host_url.rstrip("/"),
            destination=shown.settings.events_api_base,
        )


def _add_lists(console: Flask, shown: Shown) -> None:
    def listed(asked: filters.Asked, after: str = "", before: str = "") -> ResponseReturnValue:
        page = None
        if not asked.problems:
            page = queries.search(
                shown.database,
                asked.filter,
                sort=asked.sort,
                ascending=asked.ascending,
                after=after,
                before=before,
            )
        html = render_template("events.html", asked=asked, page=page, providers=shown.sorted_providers())
        return html, 400 if asked.problems else 200

    def pseudonymous(asked: filters.Asked) -> ResponseReturnValue | None:
        """The way to the same list with pseudonyms in its URL; None where no address or id stands in it."""
        person = asked.filter.person
        if not person or (pseudonyms := queries.pseudonyms(shown.database, person)) == person:
            return None
        return redirect(f"{url_for('list_events')}?{asked.address(person=pseudonyms)}", code=303)

    @console.get("/events")
    def list_events() -> ResponseReturnValue:
        asked = filters.read(request.args)
        return pseudonymous(asked) or listed(asked, request.args.get("after", ""), request.args.get("before", ""))

    @console.post("/events")
    def search_events() -> ResponseReturnValue:
        # Posted: what is typed into this form stands in no URL, and so in no router's log.
        asked = filters.read(request.form)
        if asked.problems:
            return listed(asked)
        return pseudonymous(asked) or redirect(f"{url_for('list_events')}?{asked.address()}", code=303)

    @console.get("/events.csv")
    def export_events() -> Response:
        asked = _understood(request.args)
        shown.journal.record(access.user(), "export", **asked.filter.described())
        batches = queries.stream(shown.database, asked.filter)
        # Taken before the answer begins: a database that is down is a 503 and not an empty file.
        first = next(batches, [])
        return Response(
            export.lines(chain([first], batches)),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f"attachment; filename=events-{datetime.now(UTC):%Y-%m-%d-%H%M}.csv"},
        )

    @console.get("/events/<int:number>")
    def show_event(number: int) -> str:
        life = queries.show(shown.database, number) or abort(404)
        call, why_none = shown.call(life)
        return render_template(
            "event.html",
            life=life,
            event=life.event,
            call=call,
            why_none=why_none,
            base=shown.settings.events_api_base,
            can_replay=life.event.state in REPLAYABLE and life.event.identity_value is not None,
            can_discard=life.event.state in DISCARDABLE and not life.event.in_flight,
        )

    @console.get("/quarantine")
    def quarantine() -> str:
        page = queries.search(
            shown.database,
            Filter(state=State.QUARANTINED),
            limit=QUARANTINE_PAGE,
            after=request.args.get("after", ""),
            before=request.args.get("before", ""),
        )
        lives = [life for event in page.events if (life := queries.show(shown.database, event.id))]
        return render_template("quarantine.html", page=page, lives=lives)


def _add_journal(console: Flask, shown: Shown) -> None:
    @console.get("/journal")
    def journal() -> str:
        before = request.args.get("before", type=int)
        entries = shown.journal.entries(before=before, limit=JOURNAL_PAGE)
        return render_template("journal.html", entries=entries, more=len(entries) == JOURNAL_PAGE)


def _add_orders(console: Flask, shown: Shown) -> None:
    @console.get("/<any(replay, discard):verb>")
    def confirm(verb: str) -> str:
        asked = _narrowed(request.args)
        return render_template(
            "confirm.html",
            verb=verb,
            asked=asked,
            number=shown.redelivery.count(Verb(verb), asked.filter),
            up_to=queries.newest_number(shown.database),
        )

    @console.post("/<any(replay, discard):verb>")
    def order(verb: str) -> str:
        asked = _narrowed(request.form)
        after, up_to = _number("after"), _number("up_to")
        if not after:
            shown.journal.record(access.user(), verb, up_to=up_to, **asked.filter.described())
        deadline = time.monotonic() + PATIENCE
        done, finished = _number("done"), True
        for progress in shown.redelivery.run(Verb(verb), asked.filter, after=after, up_to=up_to):
            done, after = done + progress.done, progress.last
            if time.monotonic() > deadline:
                finished = False
                break
        return render_template(
            "done.html", verb=verb, asked=asked, done=done, after=after, up_to=up_to, finished=finished
        )

    @console.post("/events/<int:number>/<any(replay, discard):verb>")
    def order_one(number: int, verb: str) -> ResponseReturnValue:
        life = queries.show(shown.database, number) or abort(404)
        shown.journal.record(access.user(), verb, number=number)
        session["told"] = _told(Verb(verb), life, done=shown.redelivery.one(Verb(verb), life.event))
        back = request.form.get("back", "")
        return redirect(back if access.is_local(back) else url_for("show_event", number=number), code=303)


def _understood(arguments: Mapping[str, str]) -> filters.Asked:
    asked = filters.read(arguments)
    if asked.problems:
        abort(400, "; ".join(f"“{name}” {problem}" for name, problem in asked.problems.items()))
    return asked


def _narrowed(arguments: Mapping[str, str]) -> filters.Asked:
    """An order is never for everything there is: a filter that got lost on the way must not widen it."""
    asked = _understood(arguments)
    if not asked.narrowing:
        abort(400, "Say which changes are meant: choose a filter first.")
    return asked


def _number(name: str) -> int:
    """A number that a form of ours carries on; whatever else stands there counts as 0."""
    text = request.form.get(name, "")[:18]
    return int(text) if text.isascii() and text.isdecimal() else 0


def _told(verb: Verb, life: Life, *, done: bool) -> str:
    number = life.event.id
    if verb is Verb.DISCARD:
        return f"#{number} was discarded." if done else f"#{number} was left alone: it is being sent, or is finished."
    if life.event.state is State.QUARANTINED:
        return f"#{number} was understood this time." if done else f"#{number} is still not understood."
    return f"#{number} will be sent again." if done else f"#{number} was left alone: it waits anyway, or is emptied."
