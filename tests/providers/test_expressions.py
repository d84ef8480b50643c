"""An expression that cannot work is refused at boot; one that meets odd data never does harm."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError

from webhook_app.providers.expressions import Condition, Path

#: Texts in backticks: JMESPath takes them, and would rather have them in quotes.
texts_in_backticks = pytest.mark.filterwarnings("ignore:deprecated string literal syntax")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("type ==", "is no JMESPath expression"),
        ("a b", "is no JMESPath expression"),
        ("'unclosed", "is no JMESPath expression"),
        ('type == "unsubscribed"', "for the value write 'unsubscribed'"),
        ("type == unsubscribed", "for the value write 'unsubscribed'"),
        ("flag == true", "for the value write `true`"),
        ("x != null", "for the value write `null`"),
        ("!a.b", "write !(a.b)"),
        ("startswith(a, 'b')", "calls startswith(), which JMESPath does not have"),
        ("a[?nope(@)]", "calls nope(), which JMESPath does not have"),
        ("contains(a)", "calls contains() with 1 arguments instead of 2"),
        ("length(a, b)", "calls length() with 2 arguments instead of 1"),
        ("contains('unsubscribed', type)", "calls contains() the wrong way round: a part of 'unsubscribed'"),
        ("starts_with('unsub', type)", "write starts_with(…, 'unsub')"),
        ("contains(type, ['a', 'b'])", "for one of several texts write contains(['a', 'b'], …)"),
        ("type == ['a', 'b']", "for one of several texts write contains(['a', 'b'], …)"),
        ("count > '5'", "a number stands in backticks"),
        ("lower(type) == 'Unsubscribed'", "which it never gives; write 'unsubscribed'"),
        ("'Unsubscribed' == lower(type)", "which it never gives; write 'unsubscribed'"),
        ("type == 'a' | type == 'u'", "write || for or"),
        ("contains(type, 'a') | b", "write || for or"),
        ("a && type == 'a' | !(b)", "write || for or"),
        ("x == `'true'`", "write `true`"),
        ("type == `'u'`", "holds `'u'`, a text with its quotes; write 'u'"),
        ("contains(type, 'unsub') == 'true'", "gives true or false, with a text; leave 'true' out"),
    ],
)
def test_a_mistake_is_found_at_boot(text: str, mistake: str) -> None:
    with pytest.raises(ValueError) as refused:
        Path(text)
    assert mistake in str(refused.value)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("user-email", """like "user-email" (in TOML: '"user-email"')"""),
        ("data.e-mail", 'like "e-mail"'),
        ("campaign name", 'like "campaign name"'),
        ("first name == 'x'", 'like "first name"'),
        ("prénom", 'like "prénom"'),
        ("$.data.email", "leave $. out: a path begins with the first key"),
        ("data['email']", "a key stands behind a dot, like data.email"),
        ('data["e-mail"]', 'a key stands behind a dot, like data."e-mail"'),
        ("contact[email]", "a key stands behind a dot, like contact.email"),
        ("data.0.email", "a list's item stands in brackets, like data[0]"),
        ("type = 'x'", "write == where = stands"),
        ("type === 'x'", "write == where === stands"),
        ("type !== 'x'", "write == where !== stands (!= for the opposite)"),
        ("type <> 'x'", "write == where <> stands (!= for the opposite)"),
        ("a and b", "write && for and"),
        ("type == 'a' OR type == 'b'", "write || for or"),
        ("type in ['a', 'b']", "write contains(['a', 'b'], type) for in"),
        ("not subscribed", "write !(…) for not"),
        ("a && not b", "write !(…) for not"),
        ("status == 2", "a number stands in backticks, like `2`"),
        ("status > -1.5", "a number stands in backticks, like `-1.5`"),
        ("type == ‘x’", "a text stands in straight single quotes, like 'x'"),
        ("type == “x”", "a text stands in straight single quotes, like 'x'"),
    ],
)
def test_what_the_parser_refuses_is_told_with_its_cure(text: str, right: str) -> None:
    with pytest.raises(ValueError) as refused:
        Path(text)
    said, _, cure = str(refused.value).partition("; ")
    assert said.startswith("is no JMESPath expression: ")
    assert right in cure


@pytest.mark.parametrize("text", ["type == 'a and b' &&", "a == 'x = 2 or ‘not in’' ||", "type =="])
def test_no_cure_is_made_up_out_of_a_quoted_text(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        Path(text)
    assert "; " not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("'unsubscribed'", "asks for 'unsubscribed' alone"),
        ("`1`", "asks for 1 alone"),
        ("type == 'a' || 'b'", "asks for 'b' alone"),
        ("type == 'a' && type == 'b'", "can never hold: the same cannot be 'b' and another text"),
        ("x || (type == 'a' && y && 'b' == type)", "can never hold"),
    ],
)
def test_what_can_be_no_condition_or_can_never_hold_is_found_at_boot(text: str, mistake: str) -> None:
    Path(text)
    with pytest.raises(ValueError) as refused:
        Condition(text)
    assert mistake in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "`true`",
        "lower(a || 'x') == 'x'",
        "a == 'x' && (b == 'y' || b == 'z')",
        "a == 'x' && b == 'y'",
        "a == 'x' && a == 'x'",
        "contains(['a', 'b'], type) && contains(type, 'a')",
        "(a == 'x') == `false`",
    ],
)
def test_what_only_looks_like_a_condition_that_never_holds(text: str) -> None:
    Condition(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("type != 'subscribed'", True),
        ("!(subscribed)", True),
        ("subscribed != `true`", True),
        ("type == 'unsubscribed'", False),
        ("type && type != 'subscribed'", False),
        ("starts_with(type, 'x')", False),
        ("@ == `{}`", False),
        ("`true`", False),
    ],
)
def test_a_condition_that_holds_of_anything_is_known(text: str, holds: bool) -> None:
    assert Condition(text).holds_of_unrelated_event() is holds


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("event == 'updated' && consent != 'yes'", "consent"),
        ("type == 'updated' && !(subscribed)", "subscribed"),
        ("type == 'updated' && !subscribed", "subscribed"),
        ("type == 'a' || (type == 'b' && c.d != 'x')", "c.d"),
        ("type && (type != 'a' || b != 'c')", "b"),
        ("data && data.channel != 'email'", "data.channel"),
        ("(a == 'x' || b == 'y') && b != 'z'", "b"),
        ("type == 'x' && a == b.c", "a"),
        ("type == 'x' && length(tags || `[]`) == `0`", "tags"),
        ("type == 'x' && not_null(consent, 'no') == 'no'", "consent"),
        ("type == 'x' && (consent == `true`) == `false`", "consent"),
    ],
)
def test_a_part_that_holds_because_something_is_absent_is_named(text: str, absent: str) -> None:
    assert not Condition(text).holds_of_unrelated_event()
    (line,) = Condition(text).holds_by_absence()
    assert line.startswith(f"holds in part wherever {absent} is absent")


@pytest.mark.parametrize(
    "text",
    [
        "`true`",
        "type && type != 'x'",
        "type != 'x' && type",
        "given(a.b) && a.b != 'x' && a.b != 'y'",
        "a && (a != 'x' || b == 'y')",
        "(a == 'x' || a == 'y') && a != 'z'",
        "starts_with(type, 'a') && !(ends_with(type, 'b'))",
        "type == 'x' && consent == `false`",
        "contains(tags, 'unsub')",
    ],
)
def test_a_part_that_asks_first_whether_it_is_there_holds_by_no_absence(text: str) -> None:
    assert list(Condition(text).holds_by_absence()) == []


@pytest.mark.parametrize(
    "text", ["a.b != `null`", "`null` != a.b", "type == 'x' && a.b != `null`", "!(a.b == `null`)", "c || a.b != `null`"]
)
def test_whether_something_is_there_is_not_asked_by_null(text: str) -> None:
    (line,) = Condition(text).holds_by_absence()
    assert line.endswith("write given(a.b)")


@texts_in_backticks
@pytest.mark.parametrize(
    "text",
    [
        "'x' == a",
        "a == b.c",
        "a == length(b)",
        "not_null(a, b, c)",
        "a || b | [0]",
        "a == 'x' && b | [0]",
        "b == '`x`'",
        "b == `True`",
        "b == `x`",
        "b == ` x`",
        "b == `it's`",
        "b == `'`",
        "type == 'a' | @ == `true`",
        "type == 'a' | [@, b] | [0]",
        "type == 'a' | `true`",
        'b == `"a\\`b"`',
        '"a b".c == `true`',
        "!(a.b)",
    ],
)
def test_what_only_looks_like_a_mistake(text: str) -> None:
    Path(text)


@texts_in_backticks
@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a == `True`", "compares with the text 'True'; for JSON's true write `true`"),
        ("a == ` FALSE`", "compares with the text 'FALSE'; for JSON's false write `false`"),
        ("a == `None`", "compares with the text 'None'; for JSON's null write `null`"),
        ("a == `true` || a == ` gone` || a == 'True' || a == '`True`'", None),
    ],
)
def test_a_text_that_may_be_meant_as_a_word_of_json_is_hinted_at(text: str, hint: str | None) -> None:
    assert list(Condition(text).words_of_json()) == ([hint] if hint else [])


@texts_in_backticks
@pytest.mark.parametrize(("text", "value"), [("a == `True`", "True"), ("a == ` gone`", "gone"), ("a == `out`", "out")])
def test_what_is_no_json_in_backticks_is_a_text(text: str, value: str) -> None:
    assert Condition(text).holds({"a": value})


@pytest.mark.parametrize(
    ("value", "holds"), [({"a": True}, True), ({"a": False}, False), ({"a": None}, False), ({}, False), (None, False)]
)
def test_a_condition_is_true_or_else_false_or_null(value: Any, holds: bool) -> None:
    assert Condition("a").holds(value) is holds


@pytest.mark.parametrize("value", ["", [], {}])
def test_what_is_empty_makes_an_and_false(value: Any) -> None:
    assert not Condition("a && a != 'b'").holds({"a": value})


@pytest.mark.parametrize("value", ["false", 0, 1, ["x"], {"b": 1}])
def test_nobody_is_opted_out_by_what_is_no_truth_value(value: Any) -> None:
    with pytest.raises(ValidationError, match="neither true nor false"):
        Condition("a").holds({"a": value})


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "text",
    [
        "contains(a, 'b')",
        "sum(a)",
        "sort(a)",
        "ceil(a)",
        "join('', a)",
        "max_by(a, &b)",
        "a.*.b[]",
        "to_number(a)",
        "avg(a)",
    ],
)
@settings(deadline=None)  # a busy machine is no failure
@given(value=json_values)
def test_odd_data_gives_a_value_or_a_validation_error(text: str, value: Any) -> None:
    try:
        Path(text).find({"a": value})
    except ValidationError as error:
        assert "cannot be evaluated here" in str(error.messages)


def test_deep_data_gives_a_validation_error() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValidationError):
        Path("to_string(@)").find(deep)


def test_the_reason_does_not_show_the_value_which_may_be_an_address() -> None:
    with pytest.raises(ValidationError) as refused:
        Path("length(@) > sum(@)").find(["jane@example.com"])
    assert refused.value.messages == ["cannot be evaluated here: sum() does not take this str"]


@pytest.mark.parametrize("misfit", ["contains(b, 'x')", "b"])
def test_the_reason_names_a_long_condition_by_its_beginning(misfit: str) -> None:
    """A person reads it in a list."""
    with pytest.raises(ValidationError) as refused:
        Condition(" || ".join(["a == 'unsubscribed'"] * 20 + [f"\n{misfit}"])).holds({"b": 7})
    assert isinstance(refused.value.messages, list)
    assert len(refused.value.field_name) <= 80
    assert refused.value.field_name.startswith("a == 'unsubscribed' || ")
    assert "\n" not in refused.value.field_name


class TestOwnFunctions:
    @pytest.mark.parametrize(("value", "lowered"), [(" Unsub ", "unsub"), (7, 7), (None, None), (["A"], ["A"])])
    def test_lower_leaves_what_is_no_text(self, value: Any, lowered: Any) -> None:
        assert Path("lower(a)").find({"a": value}) == lowered

    def test_without_takes_absent_lists_as_empty(self) -> None:
        assert Path("without(a, b)").find({"a": ["x", "y"], "b": ["y"]}) == ["x"]
        assert Path("without(a, b)").find({"a": ["x"]}) == ["x"]
        assert Path("without(a, b)").find({}) == []

    @pytest.mark.parametrize(
        "nothing",
        [
            None,
            "",
            "  ",
            False,
            "False",
            0,
            0.0,
            "0",
            "null",
            "NULL",
            "None",
            "undefined",
            "n/a",
            [],
            {},
            "0000-00-00 00:00:00",
            "0000-00-00",
            "0001-01-01T00:00:00Z",
            "1970-01-01T00:00:00.000Z",
            "0.0",
            "-",
        ],
    )
    def test_given_knows_how_nothing_is_written(self, nothing: Any) -> None:
        assert Path("given(a)").find({"a": nothing}) is False
        assert Path("given(a)").find({}) is False

    @pytest.mark.parametrize("something", [True, "true", 1, -1, "x", "2026-01-05 00:00:00", [0], {"a": None}, "no"])
    def test_given_takes_anything_else(self, something: Any) -> None:
        assert Path("given(a)").find({"a": something}) is True

    def test_their_arguments_are_counted_at_boot(self) -> None:
        with pytest.raises(ValueError, match=r"calls without\(\) with 1 arguments instead of 2"):
            Path("without(a)")
