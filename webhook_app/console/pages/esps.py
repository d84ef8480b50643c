"""ESPs: what each has called with, and how one more is connected."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from flask import Flask, abort, render_template, request
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from webhook_app.console import guides, overview, setup
from webhook_app.console.page_context import PageContext
from webhook_app.outbox import queries
from webhook_app.outbox.counters import counted
from webhook_app.outbox.queries import Filter
from webhook_app.outbox.recent import recent
from webhook_app.providers import Provider

#: The host in the setup pages.
EXAMPLE = "https://hooks.example.com"
#: Up to here a page's first section says what the secret is; what follows is on this page already.
AFTER_THE_SECRET = re.compile(r"^(Start the receiver|Your webhook URL)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """What the setup page of an ESP says to each step."""

    secret: Markup
    choose: Markup
    more: Mapping[str, Markup]


def read_guide(name: str, base: str) -> Guide:
    parts = {heading: text.replace(EXAMPLE, base) for heading, text in guides.sections(name).items()}
    secret = AFTER_THE_SECRET.split(parts.pop("Set the secret", ""))[0]
    parts.pop("Try it", None)
    choose = [parts.pop(heading) for heading in list(parts) if heading.startswith("In ")]
    return Guide(
        secret=guides.render(secret),
        choose=guides.render("\n\n".join(choose)),
        more={heading: guides.render(text) for heading, text in parts.items()},
    )


def add(console: Flask, context: PageContext) -> None:
    def page(provider: Provider, made: setup.NewSecret | None = None) -> str:
        events = queries.search(context.database, Filter(provider=provider.name), limit=1).events
        return render_template(
            "esp.html",
            provider=provider,
            auth_options=setup.auth_options(provider),
            made=made,
            url=setup.url_of(provider, context.base),
            guide=read_guide(provider.name, context.base),
            webhooks=recent(context.database, provider.name),
            last=events[0] if events else None,
        )

    def find(name: str) -> Provider:
        return context.providers.get(name) or abort(404)

    @console.get("/esps")
    def esps() -> str:
        providers = context.sorted_providers()
        return render_template(
            "esps.html",
            calls=overview.calls(counted(context.database)),
            open_providers=[provider for provider in providers if provider.scheme],
            closed_providers=[provider for provider in providers if not provider.scheme],
        )

    @console.get("/esps/<name>")
    def esp(name: str) -> str:
        return page(find(name))

    @console.post("/esps/<name>")
    def make_secret(name: str) -> ResponseReturnValue:
        # Shown in this answer, and stored nowhere: who loses it makes another.
        provider = find(name)
        made = setup.make(provider, request.form.get("variable", ""), context.base) or abort(400)
        return page(provider, made)
