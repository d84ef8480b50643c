"""A release: the tables of a busy outbox change while events come in."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ENGINES
from tests.outbox.bulk import fill
from tests.processes import wait_until
from tests.product import installed_product
from tests.signing import SendGridSigner
from webhook_app.outbox import open_database, schema

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

#: A soak has the time to fill the tables in earnest.
ROWS = 1_000_000 if os.environ.get("SOAK") else 100_000


@pytest.mark.parametrize("engine", ENGINES)
def test_migration_of_a_database_with_many_rows_while_events_come_in_no_loss(
    engine: str, new_database: Callable[[str], str], tmp_path: Path, sendgrid_signer: SendGridSigner
) -> None:
    url = new_database(engine)
    database = open_database(url)
    schema.upgrade(database, "0001")
    fill(database, ROWS, people=ROWS // 5, register=False)
    database.close()
    with installed_product(tmp_path, url, sendgrid_signer) as product:
        if engine == "postgresql":
            product.start_web()
        with product.under_load("migration") as load:
            # On PostgreSQL the new version is up before its tables are: it answers 503, and the ESP comes again.
            product.migrate()
            if engine == "sqlite":
                # gunicorn migrates a file itself; until then nobody answers, and the ESP comes again.
                product.start_web()
            product.start_workers(1)
            taken = len(load.taken)
            wait_until(lambda: len(load.taken) > taken + 100, "webhooks are taken on the new tables")
        assert set(map(len, product.await_told(load.taken).values())) == {1}
        # Fewer: the migration cost rows that were there. More: an event that was sent again was stored again.
        assert product.sql("SELECT count(*) FROM events") == [(ROWS + len(load.taken),)]
