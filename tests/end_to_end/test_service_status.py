"""`/status` while Dynamic Yield fails and comes back; `/readyz` lets the load balancer send webhooks all the while."""

import pytest
import requests

from tests.processes import wait_until
from tests.product import Product, opt_out, people

pytestmark = pytest.mark.slow


def ask(product: Product, path: str) -> tuple[int, list[str]]:
    answer = requests.get(f"{product.url}{path}", timeout=30)
    said = answer.json()
    return answer.status_code, [one["slug"] for one in said.get("findings", [])]


@pytest.mark.parametrize(("answers", "slug"), [(503, "failing"), (401, "paused")])
def test_a_dynamic_yield_that_fails_is_told_by_status_and_takes_nobody_out_of_the_load_balancer(
    product: Product, answers: int, slug: str
) -> None:
    wait_until(lambda: ask(product, "/status") == (200, []), "it works")
    product.dynamic_yield.fault("status", status=answers, times=None)
    addresses = people(5, f"while-it-answers-{answers}")
    assert product.post([opt_out(address) for address in addresses]).ok
    wait_until(lambda: ask(product, "/status") == (503, [slug]), "it is told")
    assert ask(product, "/readyz")[0] == 200
    product.heal()
    product.await_told(addresses)
    wait_until(lambda: ask(product, "/status") == (200, []), "it works again")
