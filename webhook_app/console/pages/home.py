"""The first page: is it working?"""

from datetime import UTC, datetime

from flask import Flask, render_template, request

from webhook_app.console import overview
from webhook_app.console.shown import Shown


def add(console: Flask, shown: Shown) -> None:
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
