"""Egress: the whole product behind a proxy that wants a password, towards a host of an own certificate authority."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import authority, proxy
from tests.processes import PATIENCE, find, wait_until
from tests.product import API_KEY, Product, installed_product, opt_out, people
from tests.signing import SendGridSigner
from webhook_app.dev import sandbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WRONG = "wr0ng-proxy-password"


def flask(product: Product, *words: str) -> subprocess.CompletedProcess[str]:
    command = [find("flask"), *words]
    return subprocess.run(
        command, cwd=product.folder, env=product.env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_opt_outs_go_through_a_proxy_and_a_wrong_password_of_it_is_said_without_being_shown(
    tmp_path: Path, new_database: Callable[[str], str], sendgrid_signer: SendGridSigner
) -> None:
    ca = authority.create(tmp_path)
    folder = tmp_path / "product"
    folder.mkdir()
    addresses = people(20, "through-a-proxy")
    with (
        sandbox.running(API_KEY, tls=ca.tls()) as dynamic_yield,
        proxy.running() as way_out,
        installed_product(folder, new_database("sqlite"), sendgrid_signer) as product,
    ):
        product.settings |= {
            "EVENTS_API_URL": dynamic_yield.url,
            "EGRESS_CA_FILE": str(ca.ca_file),
            "EGRESS_PROXY": way_out.url(WRONG),
        }
        product.migrate()
        product.start_web()
        product.start_workers(1)
        assert product.post([opt_out(address) for address in addresses]).ok
        wait_until(lambda: "destination_paused" in product.workers[0].output(), "it says that the set-up is wrong")
        checked = flask(product, "check", "--live")
        assert checked.returncode == 1
        for said in (product.workers[0].output(), checked.stdout):
            assert "another user and password; look at EGRESS_PROXY" in said
            assert WRONG not in said
        assert dynamic_yield.received == []
        assert product.states(addresses) == {"pending": len(addresses)}

        product.settings["EGRESS_PROXY"] = way_out.url()
        assert product.workers[0].stop() == 0
        product.start_workers(1)
        wait_until(lambda: len(dynamic_yield.taken) == len(addresses), "everything arrives")
        assert "host: answers" in flask(product, "check", "--live").stdout
        # All of it: nothing took another way.
        assert {answer for _, answer in way_out.log if answer != 407} == {200}
        for log in product.logs().values():
            assert WRONG not in log
            assert proxy.PASSWORD not in log


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("EGRESS_CA_FILE", "/nowhere/ca.pem", "EGRESS_CA_FILE cannot be read: /nowhere/ca.pem: No such file"),
        ("EGRESS_PROXY", f"proxy:{WRONG}@host", "EGRESS_PROXY is not the URL of an HTTP proxy; write it like http://"),
    ],
)
def test_a_mistake_in_the_way_out_is_told_at_boot_of_every_process(
    variable: str, value: str, said: str, tmp_path: Path, sendgrid_signer: SendGridSigner
) -> None:
    with installed_product(tmp_path, f"sqlite:///{tmp_path}/outbox.db", sendgrid_signer) as product:
        product.settings[variable] = value
        worker = flask(product, "forward")
        web = subprocess.run(
            [find("gunicorn")],
            cwd=product.folder,
            env=product.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    for process in (worker, web):
        assert process.returncode != 0
        output = process.stdout + process.stderr
        assert said in output
        assert WRONG not in output
