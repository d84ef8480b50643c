"""The page for a customer's own preference page can never differ from what we send."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "preference-page.md"


@pytest.mark.parametrize(
    ("type_", "keys"),
    [
        ("message-optout-v1", ["dyType", "cuidType", "plainTextEmail"]),
        ("message-optout-v1", ["dyType", "cuidType", "externalId"]),
        ("message-optin-v1", ["dyType", "cuidType", "plainTextEmail"]),
        ("message-optin-v1", ["dyType", "cuidType", "externalId"]),
    ],
)
def test_opt_out_and_opt_in_are_shown_for_email_and_external_id(type_: str, keys: list[str]) -> None:
    blocks = re.findall(r"```js\n(.*?)```", PAGE.read_text(), re.DOTALL)
    shown = [re.findall(r"^    (\w+):", block, re.MULTILINE) for block in blocks if type_ in block]
    assert keys in shown
