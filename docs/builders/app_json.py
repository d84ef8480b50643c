"""`app.json`: what Heroku's button sets up. Made from the settings, so that it cannot fall behind.

https://devcenter.heroku.com/articles/app-json-schema
"""

import json
from typing import Any

from webhook_app.settings import variables

#: All that the button's form asks for; every other setting has a default that serves most, and can be set later.
ASKED = ("EVENTS_API_KEY", "EVENTS_API_REGION", "CONSOLE_PASSWORD", "SECRET_KEY", "WEB_CONCURRENCY")
#: Nobody has to think them up.
GENERATED = frozenset({"CONSOLE_PASSWORD", "SECRET_KEY"})
#: Without these nothing is ever forwarded.
REQUIRED = frozenset({"EVENTS_API_KEY"})
#: Heroku would start two web processes on a basic dyno, and the smallest database allows 20 connections in all.
GIVEN = {"WEB_CONCURRENCY": "1"}
#: No settings of ours.
OF_THE_SYSTEM = {
    "MALLOC_ARENA_MAX": {"description": "glibc's; saves 20 MB of memory under load in each web process", "value": "2"}
}


def app_json() -> dict[str, Any]:
    return {
        "name": "ESP webhook receiver",
        "description": "A person who unsubscribes at the ESP stops getting messages from Dynamic Yield.",
        "keywords": ["webhooks", "unsubscribe", "consent", "dynamic-yield", "sendgrid", "emarsys"],
        "success_url": "/console/",
        "stack": "heroku-24",
        "buildpacks": [{"url": "heroku/python"}],
        "addons": [{"plan": "heroku-postgresql:essential-0"}],
        # Not eco: an eco dyno sleeps, and a worker that sleeps forwards nothing.
        "formation": {name: {"quantity": 1, "size": "basic"} for name in ("web", "worker")},
        "env": {name: _variable(name, variables()[name].metadata) for name in ASKED} | OF_THE_SYSTEM,
    }


def _variable(name: str, metadata: Any) -> dict[str, Any]:
    if name in GENERATED:
        return {"description": _plain(metadata["meaning"]), "generator": "secret"}
    if name in GIVEN:
        return {"description": _plain(metadata["meaning"]), "value": GIVEN[name]}
    return {"description": _plain(metadata["meaning"]), "required": name in REQUIRED}


def _plain(text: str) -> str:
    """Heroku's form shows no Markdown."""
    return text.replace("`", "")


def rendered() -> str:
    return json.dumps(app_json(), indent=2, ensure_ascii=False) + "\n"
