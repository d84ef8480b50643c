"""The report: how long it took until unsubscribes were taken, by ESP and month."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from flask import Flask, Response, render_template, request

from webhook_app.console import access, export
from webhook_app.console.answer import duration
from webhook_app.console.page_context import PageContext
from webhook_app.outbox import promptness
from webhook_app.outbox.promptness import Line

#: How far back: its name, and days; None is everything.
RANGES: Mapping[str, tuple[str, int | None]] = {
    "30d": ("30 days", 30),
    "90d": ("90 days", 90),
    "365d": ("A year", 365),
    "all": ("Everything", None),
}
#: The bars of the chart: what took at most so long, and longer than the bar before.
BARS = (
    ("within 2 seconds", timedelta(seconds=2)),
    ("2 to 10 seconds", timedelta(seconds=10)),
    ("10 to 60 seconds", timedelta(seconds=60)),
    ("1 to 15 minutes", timedelta(minutes=15)),
    ("15 to 60 minutes", timedelta(hours=1)),
    ("1 to 24 hours", timedelta(hours=24)),
    ("24 to 48 hours", promptness.DEADLINE),
    ("longer than 48 hours", timedelta.max),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    title: str
    count: int
    #: Of all, from 0 to 1.
    share: float
    is_late: bool


def add(console: Flask, context: PageContext) -> None:
    console.add_template_filter(duration)

    def asked() -> str:
        name = request.args.get("since", "")
        return name if name in RANGES else next(iter(RANGES))

    def lines(name: str) -> list[Line]:
        days = RANGES[name][1]
        since = None if days is None else datetime.now(UTC) - timedelta(days=days)
        return promptness.report(context.database, since=since)

    @console.get("/report")
    def report() -> str:
        name = asked()
        found = lines(name)
        total = sum(line.taken for line in found)
        within = sum(line.within_deadline for line in found)
        return render_template(
            "report.html",
            lines=found,
            since=name,
            ranges=RANGES,
            bars=bars(found),
            total=total,
            share=within / total if total else None,
            worst=max((line.worst for line in found if line.worst is not None), default=None),
        )

    @console.get("/report.csv")
    def export_report() -> Response:
        name = asked()
        rows = [promptness.as_row(line) for line in lines(name)]
        context.journal.record(access.user(), "export", report=name)
        return Response(
            export.table(rows),
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f"attachment; filename=report-{datetime.now(UTC):%Y-%m-%d}.csv"},
        )


def bars(lines: Iterable[Line]) -> list[Bar]:
    counts = dict.fromkeys((title for title, _ in BARS), 0)
    for line in lines:
        for end, count in line.buckets.items():
            counts[next(title for title, longest in BARS if longest is timedelta.max or end <= longest * 1.001)] += (
                count
            )
    total = sum(counts.values()) or 1
    return [
        Bar(title=title, count=counts[title], share=counts[title] / total, is_late=longest is timedelta.max)
        for title, longest in BARS
    ]
