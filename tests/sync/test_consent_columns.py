"""What a column of an export says of its people: every rule is shown by examples, and every verdict is written down."""

import csv
from pathlib import Path

import pytest

from webhook_app.sync.consent_columns import NAME_RULES, Column, NameRule, roles_of
from webhook_app.sync.consent_values import VALUE_RULES, Said, ValueRule
from webhook_app.sync.known_exports import plain

#: Values, and what each says in a column of each name.
VERDICTS = list(
    csv.DictReader(Path(__file__).with_name("consent_verdicts.csv").read_text(encoding="utf-8").splitlines())
)
SAID = {"out": Said.OUT, "in": Said.IN, "not asked": Said.NOT_ASKED, "?": Said.UNKNOWN}


@pytest.mark.parametrize("verdicts", VERDICTS, ids=lambda verdicts: verdicts["value"])
def test_a_value_says_the_same_in_every_column_of_a_name_from_release_to_release(verdicts: dict[str, str]) -> None:
    value, *_ = verdicts.values()
    for title, said in list(verdicts.items())[1:]:
        column = Column(title=title, place=0, is_time=title.endswith("date"), is_reason=title.endswith("reason"))
        assert column.says(value) is SAID[said], title


@pytest.mark.parametrize("rule", VALUE_RULES, ids=lambda rule: rule.because)
def test_a_rule_decides_its_examples_and_no_rule_before_it_does(rule: ValueRule) -> None:
    for example in rule.examples:
        text = plain(example)
        assert next(one for one in VALUE_RULES if one.fits(text)) is rule, example


@pytest.mark.parametrize("name", NAME_RULES, ids=lambda name: f"{name.role}: {name.because}")
def test_a_kind_of_names_knows_its_examples(name: NameRule) -> None:
    for example in name.examples:
        assert name.fits(plain(example)), example


def test_a_name_that_nothing_is_known_of_has_no_role() -> None:
    assert roles_of("plan") == frozenset()
    assert Column(title="Plan", place=0).says("yes") is Said.UNKNOWN
