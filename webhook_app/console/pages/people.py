"""People: the answer about one, their page, the proof, and forgetting them."""

import re
from datetime import UTC, datetime

from flask import Flask, abort, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from webhook_app.console import access, overview
from webhook_app.console.answer import answers
from webhook_app.console.page_context import PageContext
from webhook_app.outbox import queries
from webhook_app.outbox.counters import counted
from webhook_app.outbox.people import Person, erase_person, is_unfinished, quarantined_mentions, show_person
from webhook_app.outbox.queries import Event

#: So many events and attempts stand on a person's page; a shared mailbox may have thousands.
LIMIT = 100
#: A keyed hash, or several of one who is known by several.
PSEUDONYM = re.compile(r"[0-9a-f]{32}(\.[0-9a-f]{32})*")


def add(console: Flask, context: PageContext) -> None:
    @console.post("/people")
    def look_up() -> ResponseReturnValue:
        # Posted, and answered with a page whose URL holds keyed hashes: an address stands in nobody's log.
        person = request.form.get("person", "").strip()
        if not person:
            return redirect(url_for("home"), code=303)
        known = show_person(context.database, person) is not None or quarantined_mentions(context.database, person)
        if known:
            return redirect(url_for("person", pseudonym=queries.pseudonyms(context.database, person)), code=303)
        if person.startswith("#"):
            return redirect(url_for("list_events", person=person), code=303)
        calls = overview.calls(counted(context.database))
        called = {provider.name: calls.get(provider.name) for provider in context.sorted_providers() if provider.scheme}
        return render_template("nobody.html", person=person, called=called)

    def find(pseudonym: str) -> tuple[Person | None, list[Event]]:
        # Not by an address: it would stand in a URL.
        by_hash = PSEUDONYM.fullmatch(pseudonym)
        found = show_person(context.database, pseudonym) if by_hash else None
        quarantined = quarantined_mentions(context.database, pseudonym) if by_hash else []
        if found is None and not quarantined:
            abort(404)
        return found, quarantined

    @console.get("/people/<pseudonym>")
    def person(pseudonym: str) -> str:
        found, quarantined = find(pseudonym)
        return render_template(
            "person.html",
            pseudonym=pseudonym,
            named=_name(found),
            found=found,
            answers=answers(found, quarantined),
            several=len({one.section for one in found.consents}) > 1 if found else False,
            newest=lambda all_of_them: all_of_them[: -LIMIT - 1 : -1],
            limit=LIMIT,
            made_at=datetime.now(UTC),
            base=context.base,
        )

    @console.post("/people/<pseudonym>/erase")
    def erase(pseudonym: str) -> ResponseReturnValue:
        found, _ = find(pseudonym)
        if found and is_unfinished(found) and not request.form.get("even_if_unfinished"):
            abort(400, "Dynamic Yield does not know yet what this person wants: it would never be told.")
        context.journal.record(access.user(), "people erase", person=pseudonym)
        erased = erase_person(context.database, _name(found) or pseudonym)
        session["notice"] = f"{erased} event{' of this person was' if erased == 1 else 's of this person were'} erased."
        return redirect(url_for("home"), code=303)


def _name(person: Person | None) -> str | None:
    """The newest address or id that retention has left of them."""
    values = [event.identity_value for event in person.events if event.identity_value] if person else []
    return values[-1] if values else None
