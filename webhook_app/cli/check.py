"""`flask providers`, `check`, `prune`: how is it set up, does it work, forget what is old."""

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby

import click
from flask import current_app
from flask.cli import with_appcontext

from webhook_app.cli import shared
from webhook_app.cli.shared import (
    as_json,
    database,
    maintenance,
    open_esps,
    print_json,
    report_database_errors,
    secret_variables,
    settings,
)
from webhook_app.delivery.live import LiveCheck, check_live
from webhook_app.delivery.sections import Section
from webhook_app.ops import alerts
from webhook_app.ops.status import Finding, Severity, findings
from webhook_app.outbox import OutboxUnavailable
from webhook_app.outbox.counters import Count, Counted, counted
from webhook_app.outbox.journal import Journal


@click.command
@as_json
@with_appcontext
def providers(as_json: bool) -> None:
    """List every ESP with its URL, open or closed and why."""
    base = settings().public_url or f"http://localhost:{settings().port}"
    known = sorted(shared.providers().entries.values(), key=lambda provider: (provider.scheme is None, provider.name))
    unknown_types = _unknown_types()
    for provider in known:
        unknown = unknown_types.get(provider.name, [])
        url = f"{base}/webhooks/{provider.name}"
        why = "" if provider.scheme else f"set {provider.opened_by}"
        if as_json:
            print_json(
                {
                    "name": provider.name,
                    "title": provider.title,
                    "url": url,
                    "open": provider.scheme is not None,
                    "why": why or None,
                    "opened_by": provider.opened_by,
                    "declared_in": provider.declared_in or None,
                    "unknown_types": {one.label: one.value for one in unknown},
                }
            )
        else:
            mark = click.style("open  ", fg="green") if provider.scheme else click.style("closed", fg="yellow")
            click.echo(f"{mark}  {provider.title:<24}  {url}{f'   ({why})' if why else ''}")
            for one in unknown:
                click.echo(f"        {one.value:,} of an unknown type in quarantine so far: {one.label}")


def _unknown_types() -> dict[str, list[Counted]]:
    """What came of types that no entry knows, by provider; nothing where the database cannot say."""
    try:
        found = [one for one in counted(database()) if one.name == Count.UNKNOWN_TYPES]
    except OutboxUnavailable:
        return {}
    return {provider: list(group) for provider, group in groupby(found, key=lambda one: one.provider)}


@click.command
@click.option("--live", is_flag=True, help="Also ask Dynamic Yield, with a request that names nobody.")
@click.option("--alerts", "alert", is_flag=True, help="Also send a test to ALERT_URLS.")
@with_appcontext
@report_database_errors
def check(live: bool, alert: bool) -> None:
    """Say whether settings, database and destination are fit for work; status 1 if not."""
    results = [LiveCheck(subject="settings", works=True, said="read without a mistake"), *_near_misses(), _providers()]
    results += [*_provider_hints(), *_section_hints()]
    sections: dict[str, Section] = current_app.extensions["sections"]
    found = findings(database(), open_esps=open_esps(), sections=sections)
    results += [_checked(finding) for finding in found] or [
        LiveCheck(subject="service", works=True, said="the database is in order, a worker is alive")
    ]
    results += _journal()
    for section in sections.values():
        checks = _of_section(section, live=live)
        # One section needs no name.
        named = [replace(one, subject=f"{section.name}: {one.subject}") for one in checks]
        results += named if len(sections) > 1 else checks
    if alert:
        results.append(_test_alert())
    _tell(results)


def _of_section(section: Section, *, live: bool) -> list[LiveCheck]:
    if not section.api_key:
        said = "EVENTS_API_KEY is not set: copy a server-side API key from Dynamic Yield"
        return [LiveCheck(subject="key", works=False, said=said)]
    if not live:
        return []
    client = section.client(settings().egress)
    found = check_live(client, section.form)
    client.close()
    return found


def _test_alert() -> LiveCheck:
    urls = settings().alert_urls
    if not urls:
        return LiveCheck(subject="alerts", works=False, said="ALERT_URLS is not set: nobody would be told")
    name = alerts.name_of(settings().public_url)
    test = alerts.Message(title=f"{name}: a test", body="Somebody ran `flask check --alerts`. Nothing is wrong.")
    try:
        failed = alerts.send(urls, settings().egress, test, withheld=secret_variables())
    except alerts.CannotSend as error:
        return LiveCheck(subject="alerts", works=False, said=f"nothing was sent: {error}")
    if failed:
        places = " and ".join(map(str, failed))
        said = f"entry {places} of the {len(urls)} in ALERT_URLS did not take a test: is it right, and reachable?"
        return LiveCheck(subject="alerts", works=False, said=said)
    return LiveCheck(subject="alerts", works=True, said=f"a test was sent to {len(urls)} of ALERT_URLS; did it arrive?")


def _near_misses() -> list[LiveCheck]:
    return [
        LiveCheck(subject="settings", works=None, said=f"{given} is unknown: did you mean {ours}?")
        for given, ours in current_app.extensions["near_misses"]().items()
    ]


def _provider_hints() -> list[LiveCheck]:
    return [
        LiveCheck(subject=provider.name, works=None, said=hint)
        for provider in shared.providers().values()
        for hint in provider.hints
    ]


def _section_hints() -> list[LiveCheck]:
    return [LiveCheck(subject="sections", works=None, said=hint) for hint in current_app.extensions["section_hints"]()]


def _providers() -> LiveCheck:
    open_ones = open_esps()
    said = f"open: {', '.join(open_ones)}" if open_ones else "none is open"
    return LiveCheck(subject="providers", works=None if not open_ones else True, said=said)


def _journal() -> list[LiveCheck]:
    try:
        broken = Journal(database()).broken_at()
    except OutboxUnavailable:
        return []  # said already
    if broken is None:
        return [LiveCheck(subject="journal", works=True, said="each entry holds on to the one before")]
    said = f"entry {broken} does not hold on to the one before it: somebody changed or removed entries"
    return [LiveCheck(subject="journal", works=False, said=said)]


def _checked(finding: Finding) -> LiveCheck:
    works = None if finding.severity is Severity.WARNING else False
    # A terminal is the operator's: what the driver or Dynamic Yield said may stand here.
    return LiveCheck(subject="service", works=works, said=finding.text(with_detail=True))


def _tell(results: list[LiveCheck]) -> None:
    marks = {
        True: click.style("ok    ", fg="green"),
        False: click.style("wrong ", fg="red"),
        None: click.style("?     ", fg="yellow"),
    }
    for result in results:
        click.echo(f"{marks[result.works]}  {result.subject}: {result.said}")
    wrong = sum(result.works is False for result in results)
    if wrong:
        raise click.ClickException(f"{wrong} of {len(results)} things are wrong, see above")


@click.command
@click.option("--days", type=click.IntRange(0, 3650), help="Instead of RETENTION_DAYS; 0 asks.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_appcontext
@report_database_errors
def prune(days: int | None, yes: bool) -> None:
    """Take the address and the raw event from what was finished long ago; the keyed hash stays as proof."""
    age = settings().retention_days if days is None else days
    if age == 0 and not yes:
        click.confirm(
            "Take address and raw event from everything that is finished, what came in just now too?", abort=True
        )
    before = datetime.now(UTC) - timedelta(days=age)
    total = maintenance().prune(before, progress=_say_emptied if sys.stderr.isatty() else lambda _total: None)
    click.echo(f"{total} finished changes older than {age} days were emptied.")


def _say_emptied(total: int) -> None:
    click.echo(f"\r{total:,} emptied", nl=False, err=True)
