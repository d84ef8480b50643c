"""A person at the console: logs in and clicks, over the test client."""

import re
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

PASSWORD = "correct horse battery staple"


class Person:
    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def get(self, path: str, **more: Any) -> TestResponse:
        return self.client.get(path, **more)

    def log_in(self, password: str = PASSWORD, **fields: str) -> TestResponse:
        token = self.token("/console/login")
        return self.client.post("/console/login", data={"password": password, "csrf": token} | fields)

    def post(self, path: str, *, form_on: str, **fields: str) -> TestResponse:
        """Send a form as the page `form_on` has it."""
        return self.client.post(path, data={"csrf": self.token(form_on)} | fields)

    def token(self, page: str) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.get(page).text)
        assert found, f"no form on {page}"
        return found[1]
