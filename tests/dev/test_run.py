"""`make run`: it ends whenever and however it is told to, and a second terminal knows what it runs with."""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.processes import ROOT, Program, checkout, environment, find, free_port, kill, running, wait_until

pytestmark = pytest.mark.slow

RUN = [sys.executable, "-m", "webhook_app.dev.run"]
#: As soon as it may take on a busy machine; a deadlock takes for ever.
SOON = 40.0  # seconds


def with_mark(mark: str) -> list[int]:
    """Everybody whose environment holds the mark: whoever was started, and whoever they started."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdecimal() and mark.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


@contextmanager
def nobody_left(folder: Path) -> Iterator[dict[str, str]]:
    """An environment for the block; when it ends, nobody who has it may be left soon."""
    mark = uuid.uuid4().hex
    try:
        yield environment(PORT=str(free_port()), MARK=mark)
        wait_until(lambda: not with_mark(mark), "nobody is left", within=SOON)
    finally:
        for pid in with_mark(mark):
            kill(pid)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_two_signals_at_any_moment_end_everything(first: signal.Signals, seed: int, tmp_path: Path) -> None:
    chance = random.Random(f"{first}{seed}")
    folder = checkout(tmp_path)
    with nobody_left(folder) as env, (folder / "log").open("wb") as log:
        process = subprocess.Popen(RUN, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
        # Loading, the release command, starting, serving.
        time.sleep(chance.uniform(0, 6))
        # To everybody of a terminal, or to this one process.
        send = chance.choice([os.kill, os.killpg])
        for number in (first, chance.choice([signal.SIGINT, signal.SIGTERM])):
            with suppress(ProcessLookupError):
                send(process.pid, number)
            time.sleep(chance.choice([0, 0, 0.01, 0.3, 1.5]))
        process.wait(timeout=SOON)


@pytest.mark.parametrize("delay", [1.0, 2.0, 6.0])
def test_nobody_is_left_where_it_is_killed(delay: float, tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    with nobody_left(folder) as env, (folder / "log").open("wb") as log:
        process = subprocess.Popen(RUN, cwd=folder, env=env, stdout=log, stderr=log)
        time.sleep(delay)
        process.kill()
        process.wait(timeout=SOON)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_it_ends_with_the_make_that_started_it(how: signal.Signals, tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    (folder / "Makefile").write_text(f"run:\n\t@{' '.join(RUN)}\n")
    with nobody_left(folder) as env, (folder / "log").open("wb") as log:
        process = subprocess.Popen(["make", "run"], cwd=folder, env=env, stdout=log, stderr=log)
        wait_until(lambda: "try it" in (folder / "log").read_text(), "it runs")
        process.send_signal(how)
        process.wait(timeout=SOON)


def test_when_one_program_ends_so_do_the_others_and_it_is_said_which(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    with nobody_left(folder) as env, running(RUN, cwd=folder, env=env) as program:
        program.wait_for("try it")
        (worker,) = program.descendants("flask forward")
        kill(worker)
        assert program.process.wait(timeout=SOON) == 1
        assert "worker has ended (status -9), and so do the others" in program.output()


def test_a_dotenv_of_a_folder_above_is_read_by_none_of_its_programs(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"DATABASE_URL=sqlite:///{tmp_path}/other.db\n")
    (tmp_path / "receiver").mkdir()
    folder = checkout(tmp_path / "receiver")
    with nobody_left(folder) as env, running(RUN, cwd=folder, env=env) as program:
        program.wait_for("try it")
    assert (folder / "instance" / "outbox.db").exists()
    assert not (tmp_path / "other.db").exists()


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[Program]:
    folder = checkout(tmp_path)
    with running(RUN, cwd=folder, env=environment(PORT=str(free_port()))) as program:
        program.wait_for("try it")
        yield program


def flask(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [find("flask"), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(**environ), capture_output=True, text=True, timeout=60, check=False
    )


def test_a_second_terminal_knows_its_port_sandbox_and_secrets_while_it_lives(make_run: Program) -> None:
    folder = make_run.log.parent
    marker = folder / "instance" / "run.json"
    assert marker.stat().st_mode & 0o777 == 0o600
    port = next(word for word in make_run.output().split() if word.endswith("/webhooks/sendgrid")).split(":")[2][:5]

    simulated = flask(folder, "simulate", "sendgrid", "--count", "2")
    assert (simulated.returncode, '"accepted":2' in simulated.stdout) == (0, True), simulated.stderr
    (said,) = simulated.stderr.splitlines()
    assert said.startswith(f"With the `make run` of this folder: port {port.strip('/')}, the sandbox http://127.0.0.1:")
    assert said.endswith("the secrets of instance/dev.env")
    assert f":{port.strip('/')}/webhooks/sendgrid" in flask(folder, "providers").stdout
    wait_until(
        lambda: flask(folder, "check", "--live").returncode == 0, "all is well, the sandbox and its key included"
    )
    listed = flask(folder, "events", "list", "--json")
    assert len(listed.stdout.splitlines()) == 2
    assert "With the" not in listed.stdout, "a script reads standard output"

    elsewhere = flask(folder, "providers", EMARSYS_TOKENS="a-token-of-this-terminal")
    assert "open    Emarsys" in elsewhere.stdout

    assert make_run.stop() == 0
    assert marker.exists()
    after = flask(folder, "providers")
    assert (after.stderr, "open " in after.stdout) == ("", False), "what was made up is for `make run` alone"


def test_its_logs_are_for_people_and_its_address_comes_last(make_run: Program) -> None:
    before, _, _ = make_run.output().partition("try it")
    assert "Booting worker" in before, "the port answers by then"
    assert '{"' not in make_run.output()
    assert "[info     ]" in make_run.output()


@pytest.mark.parametrize(
    ("env_file", "said"),
    [
        ("", "forwards to  http://127.0.0.1:80"),
        ("EVENTS_API_KEY=a-real-key-of-a-section\n", "forwards to  https://dy-api.com (the real Dynamic Yield"),
        ("EVENTS_API_KEY=a-real-key-of-a-section\nEVENTS_API_REGION=eu\n", "forwards to  https://dy-api.eu (the real"),
    ],
)
def test_a_real_key_goes_to_the_real_dynamic_yield_and_is_said(env_file: str, said: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(env_file)
    with running(RUN, cwd=checkout(tmp_path), env=environment(PORT=str(free_port()))) as program:
        program.wait_for("try it")
        assert said in program.output()
        assert bool(program.descendants("flask sandbox")) is not bool(env_file)


def test_sections_of_a_file_are_told_and_need_no_sandbox(tmp_path: Path) -> None:
    (tmp_path / "sections.toml").write_text('[uk]\napi_key = "UK_KEY"\nregion = "eu"\n[us]\napi_key = "US_KEY"\n')
    env = environment(PORT=str(free_port()), UK_KEY="a-key", US_KEY="another")
    with running(RUN, cwd=checkout(tmp_path), env=env) as program:
        program.wait_for("try it")
        assert "forwards to  https://dy-api.eu (the real Dynamic Yield" in program.output()
        assert "forwards to  https://dy-api.com (the real Dynamic Yield" in program.output()
        assert program.descendants("flask sandbox") == []


def test_a_blank_setting_in_dotenv_counts_as_absent_in_both_terminals(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('WEB_CONCURRENCY=" "\nMAX_BODY_BYTES=\n')
    folder = checkout(tmp_path)
    with running(RUN, cwd=folder, env=environment(PORT=str(free_port()))) as program:
        program.wait_for("try it")
        second = flask(folder, "providers")
        assert second.returncode == 0, second.stderr


def test_a_variable_that_is_almost_ours_is_told_although_the_right_one_was_made_up(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SENDGRID_VERIFICATION_KEY=MFkw\n")
    folder = checkout(tmp_path)
    with running(RUN, cwd=folder, env=environment(PORT=str(free_port()))) as program:
        program.wait_for("try it")
        told = "SENDGRID_VERIFICATION_KEY: did you mean SENDGRID_VERIFICATION_KEYS?"
        assert told in program.output()
        checked = flask(folder, "check").stdout
        assert "SENDGRID_VERIFICATION_KEY is unknown: did you mean SENDGRID_VERIFICATION_KEYS?" in checked


def test_the_makefile_starts_it() -> None:
    assert "python -m webhook_app.dev.run" in (ROOT / "Makefile").read_text()
