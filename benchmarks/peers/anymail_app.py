"""django-anymail's webhook view, storing each event by Django's ORM: the whole project in one file.

Postmark's webhook, because it sends one event a request, and in JSON. Runs in an environment of its own.
"""

import os
import sys
from typing import Any

import django
from django.conf import settings

_URL = os.environ["PEER_DATABASE"]
_DATABASE: dict[str, Any]
if _URL.startswith("sqlite:///"):
    _DATABASE = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _URL.removeprefix("sqlite:///"),
        # What the product has, too: on disk before the answer, and writers that wait for each other.
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
        },
    }
else:
    _DATABASE = {"ENGINE": "django.db.backends.postgresql", "HOST": _URL, "NAME": "postgres", "USER": "postgres"}

settings.configure(
    SECRET_KEY="benchmark",  # noqa: S106 (signs nothing)
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["anymail"],
    # Says how long an answer is, which a kept-alive connection needs.
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    DATABASES={"default": _DATABASE | {"CONN_MAX_AGE": None}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    ANYMAIL={"WEBHOOK_SECRET": "bench:mark"},
)
django.setup()

from anymail.signals import tracking  # noqa: E402 (Django must be set up first)
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.dispatch import receiver  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402


class Event(models.Model):
    key = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=40)
    recipient = models.CharField(max_length=320, db_index=True)
    timestamp = models.DateTimeField(null=True)
    raw = models.JSONField()

    class Meta:
        app_label = "peer"


@receiver(tracking)
def store(sender: Any, event: Any, esp_name: str, **kwargs: Any) -> None:
    key = f"{event.event_type}:{event.recipient}:{event.timestamp}:{event.message_id}"
    row = Event(
        key=key, kind=event.event_type, recipient=event.recipient, timestamp=event.timestamp, raw=event.esp_event
    )
    Event.objects.bulk_create([row], ignore_conflicts=True)


urlpatterns = [
    path("anymail/", include("anymail.urls")),
    path("healthz", lambda request: HttpResponse("ok")),
]
application = get_wsgi_application()

if __name__ == "__main__" and sys.argv[1:] == ["create"]:
    with connection.schema_editor() as editor:
        editor.create_model(Event)
