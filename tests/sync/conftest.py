"""SendGrid's API, stood in for."""

from collections.abc import Iterator

import pytest

from tests import sendgrid_api


@pytest.fixture
def sendgrid() -> Iterator[sendgrid_api.SendGrid]:
    with sendgrid_api.running() as sendgrid:
        yield sendgrid
    assert sendgrid.complaints == []
