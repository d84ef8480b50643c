"""What reaches a platform, and that every way to start it starts the same."""

import importlib
import pkgutil
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # no types here; it comes with Apprise

import webhook_app
from docs.builders.app_json import app_json
from tests.processes import ROOT
from webhook_app.dev.environment import environment as made_by_make_run
from webhook_app.dev.run import procfile
from webhook_app.platforms import PLATFORMS

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    return document


@pytest.fixture
def copied() -> list[str]:
    """What of this folder is copied into the image."""
    return " ".join(re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE)).split()


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


def test_the_image_is_known_as_a_place_whose_disk_does_not_last() -> None:
    assert [name for name in PLATFORMS if f"ENV {name}=" in DOCKERFILE] == ["ESP_WEBHOOKS_IMAGE"]


def test_memory_is_not_kept_apart_for_every_thread_wherever_it_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """https://www.gnu.org/software/libc/manual/html_node/Memory-Allocation-Tunables.html"""
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    assert "ENV MALLOC_ARENA_MAX=2\n" in DOCKERFILE
    assert app_json()["env"]["MALLOC_ARENA_MAX"]["value"] == "2"
    assert made_by_make_run()["MALLOC_ARENA_MAX"] == "2"
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    assert made_by_make_run()["MALLOC_ARENA_MAX"] == "4", "whoever sets it knows why"


def test_the_image_holds_what_it_is_made_of_and_does_not_run_as_root(copied: list[str]) -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for name in copied:
        assert f"!{name}" in ignored, name
    # docs/hosting.md recommends a file in it; a new volume takes its owner from the image.
    assert "chown app instance /data" in DOCKERFILE
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE) == ["app"]


def test_the_image_holds_every_file_that_the_package_reads_beside_itself(copied: list[str]) -> None:
    """Such a path is a constant of a module: the guides of the console, for one."""
    modules = [
        importlib.import_module(found.name) for found in pkgutil.walk_packages(webhook_app.__path__, "webhook_app.")
    ]
    paths = {value for module in modules for value in vars(module).values() if isinstance(value, Path)}
    inside = {path.relative_to(ROOT).as_posix() for path in paths if path.is_absolute() and path.is_relative_to(ROOT)}
    assert "docs/esps" in inside, "the test finds none"
    assert [path for path in inside if not any(f"{path}/".startswith(f"{name}/") for name in copied)] == []


def test_a_newer_python_is_taken_where_the_file_for_heroku_names_an_older_one() -> None:
    assert re.fullmatch(r"3\.\d+\n", (ROOT / ".python-version").read_text()), "no patch: Heroku takes the newest"
    assert "python3.13 python3.14" in (ROOT / "Makefile").read_text("utf-8")
