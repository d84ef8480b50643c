"""Platforms whose own disk does not last, and how a database that does is had there."""

import os
from collections.abc import Mapping
from pathlib import Path

#: A variable that a platform sets whose own disk does not last → its name, and how to get PostgreSQL there.
PLATFORMS = {
    "DYNO": ("Heroku", "run `heroku addons:create heroku-postgresql`"),
    "RENDER": ("Render", "create a PostgreSQL database and set DATABASE_URL to its internal URL"),
    "RAILWAY_ENVIRONMENT_NAME": ("Railway", "add PostgreSQL and set DATABASE_URL to ${{Postgres.DATABASE_URL}}"),
    "FLY_APP_NAME": ("Fly", "run `fly postgres create` and `fly postgres attach`"),
    "K_SERVICE": ("Cloud Run", "create a Cloud SQL instance for PostgreSQL and set DATABASE_URL"),
    "KUBERNETES_SERVICE_HOST": ("Kubernetes", "set DATABASE_URL to a PostgreSQL database"),
    # Our own image names itself so; last, for on a platform its own cure is the better one.
    "ESP_WEBHOOKS_IMAGE": (
        "a container",
        "set DATABASE_URL to PostgreSQL, or to the whole path of a file on a volume like sqlite:////data/outbox.db; "
        "where a volume is at /app/instance already, sqlite:////app/instance/outbox.db",
    ),
}


def platform(environ: Mapping[str, str]) -> str | None:
    """The variable by which a platform with a disk that does not last is known."""
    return next((name for name in PLATFORMS if environ.get(name)), None)


def disk_that_is_wiped(given: Mapping[str, str], default: str) -> str | None:
    """Why a SQLite file would be lost here, and the cure; None where it would not. `default` is the URL if none is set.

    Web and worker are machines of their own there, or are replaced at each deployment. Whoever has mounted a disk that
    lasts, and runs both beside it, names the file by its whole path; on Heroku there is none to mount. In Kubernetes
    also people's workshops stand, so there it is only a warning in the log.
    """
    known, url = platform(given), given.get("DATABASE_URL", "")
    if known in (None, "KUBERNETES_SERVICE_HOST") or url.startswith("postgres"):
        return None
    if known != "DYNO" and url.startswith("sqlite:////"):
        return None
    name, cure = PLATFORMS[str(known)]
    if known == "ESP_WEBHOOKS_IMAGE":
        return None if _is_on_a_volume(url or default) else f"The container's own disk does not last: {cure}"
    return f"DATABASE_URL must be a PostgreSQL database on {name}, whose own disk does not last: {cure}"


def _is_on_a_volume(url: str) -> bool:
    """Whether the folder of a SQLite file, or the nearest one there is above it, is on another disk than the system."""
    path = url.partition(":///")[2].partition("?")[0]
    # `Path.exists` would raise where we may not look.
    folder = next(folder for folder in Path(path).absolute().parents if os.path.exists(folder))  # noqa: PTH110
    return folder.stat().st_dev != Path("/").stat().st_dev
