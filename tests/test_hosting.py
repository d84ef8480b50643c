"""What reaches a platform, and that every way to start it starts the same."""

import re
import runpy
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # no types here; it comes with Apprise

from tests.processes import ROOT
from webhook_app.dev.run import procfile


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    return document


@pytest.mark.parametrize("name", ["providers.toml", "sections.toml"])
def test_an_esp_of_ones_own_reaches_the_platform(name: str) -> None:
    assert name not in (ROOT / ".gitignore").read_text("utf-8")
    assert "!*.toml" in (ROOT / ".dockerignore").read_text("utf-8").splitlines()


def test_idle_connections_live_longer_than_at_herokus_router() -> None:
    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["keepalive"] > 90


def test_the_containers_run_what_the_procfile_has(compose: dict[str, Any]) -> None:
    services = {name: one["command"] for name, one in compose["services"].items() if name != "database"}
    assert services == procfile(ROOT / "Procfile")


def test_every_container_has_the_database_and_starts_after_the_migration(compose: dict[str, Any]) -> None:
    for name in ("release", "web", "worker"):
        assert compose["services"][name]["environment"]["DATABASE_URL"].startswith("postgresql://receiver:")
    for name in ("web", "worker"):
        assert compose["services"][name]["depends_on"] == {"release": {"condition": "service_completed_successfully"}}


def test_the_image_holds_what_it_is_made_of_and_does_not_run_as_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for copied in re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.MULTILINE):
        for name in copied.split():
            assert f"!{name}" in ignored, name
    assert re.findall(r"^USER (\S+)$", dockerfile, re.MULTILINE) == ["app"]


def test_a_newer_python_is_taken_where_the_file_for_heroku_names_an_older_one() -> None:
    assert re.fullmatch(r"3\.\d+\n", (ROOT / ".python-version").read_text()), "no patch: Heroku takes the newest"
    assert "python3.13 python3.14" in (ROOT / "Makefile").read_text("utf-8")
