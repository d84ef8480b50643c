"""A product on each engine, shared by the tests of a module: each has people of its own and leaves no fault behind."""

from collections.abc import Callable, Iterator

import pytest

from tests import postgres
from tests.product import Product, running_product
from tests.signing import SendGridSigner

ENGINES = ["sqlite", "postgresql"]


@pytest.fixture(scope="module")
def new_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The URL of a new database of an engine; PostgreSQL's stands in a server that a test may stop and start."""

    def make(engine: str) -> str:
        if engine == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('database')}/outbox.db"
        server: postgres.Server = request.getfixturevalue("postgres_server")
        return postgres.create_database(server.url)

    return make


@pytest.fixture(scope="module", params=ENGINES)
def shared_product(
    request: pytest.FixtureRequest,
    new_database: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
    sendgrid_signer: SendGridSigner,
) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp(f"product-{request.param}")
    with running_product(folder, new_database(request.param), sendgrid_signer) as product:
        yield product


@pytest.fixture
def product(shared_product: Product) -> Iterator[Product]:
    """The module's product, with one web process, one worker and no fault in sight."""
    shared_product.start_workers(1)
    yield shared_product
    shared_product.heal()
