"""`flask docs`: write the tables of the docs, and Heroku's app.json, which are made from the code."""

from pathlib import Path

import click
from flask.cli import with_appcontext

from webhook_app import heroku, reference


@click.command
@with_appcontext
def docs() -> None:
    """Bring the tables in README.md and docs/, and app.json, up to date with the code."""
    for page in reference.pages(Path()):
        _bring_up_to_date(page, reference.filled(page.read_text("utf-8")))
    _bring_up_to_date(Path("app.json"), heroku.rendered())


def _bring_up_to_date(page: Path, new: str) -> None:
    if not page.exists() or page.read_text("utf-8") != new:
        page.write_text(new, "utf-8")
        click.echo(f"{page} is up to date now")
