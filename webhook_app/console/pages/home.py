"""The first page: is it working?"""

from datetime import UTC, datetime

from flask import Flask, render_template, request

from webhook_app.console import overview
from webhook_app.console.page_context import PageContext


def add(console: Flask, context: PageContext) -> None:
    @console.get("/")
    def home() -> str:
        range_name = request.args.get("range", "")
        if range_name not in overview.RANGES:
            range_name = next(iter(overview.RANGES))
        return render_template(
            "overview.html",
            seen=overview.look(
                context.database,
                context.providers.entries.values(),
                sections=context.sections,
                range_name=range_name,
                now=datetime.now(UTC),
            ),
            range_name=range_name,
            ranges=overview.RANGES,
            open_providers=[provider for provider in context.sorted_providers() if provider.scheme],
            destination=", ".join(dict.fromkeys(context.destinations)),
        )
