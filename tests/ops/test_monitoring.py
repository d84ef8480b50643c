"""The alert rules and the dashboard, checked by Prometheus' own tool and against the metrics there are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests import promtool
from tests.processes import ROOT
from webhook_app.ops.metrics import PREFIX, described

FOLDER = ROOT / "docs" / "monitoring"
RULES = FOLDER / "alerts.yml"


def dashboard() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))["panels"]
    return panels


def test_the_rules_are_valid_and_raise_the_alerts_that_they_should() -> None:
    promtool.check("check", "rules", RULES)
    promtool.check("test", "rules", FOLDER / "alerts.test.yml")


def test_every_alert_has_a_severity_and_stands_in_the_runbook() -> None:
    text = RULES.read_text("utf-8")
    alerts = re.findall(r"- alert: (\w+)", text)
    assert len(re.findall(r"severity: (?:critical|warning)", text)) == len(alerts) == len(set(alerts))
    assert len(re.findall(r"summary:", text)) == len(alerts)
    runbook = (ROOT / "docs" / "operating.md").read_text("utf-8")
    assert [name for name in alerts if f"`{name}`" not in runbook] == []


def test_the_dashboards_expressions_are_valid(tmp_path: Path) -> None:
    expressions = [target["expr"] for panel in dashboard() for target in panel["targets"]]
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions)
    ]
    file = tmp_path / "rules.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool.check("check", "rules", file)


def test_no_panel_lies_upon_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard():
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("name", ["alerts.yml", "dashboard.json", "alerts.test.yml"])
def test_they_ask_for_metrics_that_there_are(name: str) -> None:
    known = {PREFIX + one.name for one in described()}
    known |= {f"{PREFIX}{one.name}_{part}" for one in described() for part in ("bucket", "sum", "count")}
    assert set(re.findall(rf"{PREFIX}\w+", (FOLDER / name).read_text("utf-8"))) - known == set()


def test_counters_of_open_providers_exist_from_the_start(make_app: Any) -> None:
    """One that began at 1 would have no increase, and its first failure would raise no alert."""
    app: Flask = make_app()
    text = app.test_client().get("/metrics").text
    for sample in (
        'esp_webhooks_webhooks_total{provider="sendgrid"} 0.0',
        'esp_webhooks_delivered_total{provider="sendgrid"} 0.0',
        'esp_webhooks_unauthenticated_total{provider="sendgrid",reason="signature_invalid"} 0.0',
        'esp_webhooks_refused_total{provider="sendgrid",reason="outbox_unavailable"} 0.0',
        'esp_webhooks_delivery_attempts_total{outcome="retry",provider="sendgrid"} 0.0',
        'esp_webhooks_failed_attempts_total{provider="sendgrid",reason="http_503"} 0.0',
    ):
        assert sample in text
    assert 'provider="emarsys"' not in text, "closed ones would only make it long"
