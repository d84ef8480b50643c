"""Addresses as they are really written: read as the address itself, or refused, never sent as somebody nobody is."""

import pytest
from marshmallow import ValidationError

from webhook_app.consent import Identity, IdentityKind
from webhook_app.providers.addresses import read_address
from webhook_app.providers.fields import Address

JANE = "jane@example.com"

#: As written → the address.
READ = {
    JANE: JANE,
    "  jane@example.com\r\n": JANE,
    "\u00a0jane@example.com\u3000": JANE,
    "Jane.Doe+news@Example.COM": "Jane.Doe+news@Example.COM",
    "straße@example.com": "straße@example.com",
    "用户@例子.广告": "用户@例子.广告",
    # Invisible characters: zero-width, bidirectional, byte order mark, soft hyphen, variation selector, filler.
    "\u200bjane@example.com": JANE,
    "ja\u200dne@exam\u200cple.com": JANE,
    "\ufeffjane@example.com": JANE,
    "\u202ajane@example.com\u202c": JANE,
    "\u2066jane@example.com\u2069": JANE,
    "jane\u200e@\u200fexample.com": JANE,
    "ja\u00adne@example.com": JANE,
    "jane\ufe0f@example.com": JANE,
    "jane\u2060@example.com\u3164": JANE,
    "jane@example.com\U000e0041": JANE,
    # What stands around it.
    "mailto:jane@example.com": JANE,
    "MailTo: jane@example.com": JANE,
    "mailto:jane%2Bx@example.com?subject=Stop&cc=joe@example.com": "jane+x@example.com",
    "mailto:jane%40example.com": JANE,
    "<jane@example.com>": JANE,
    "Jane Doe <jane@example.com>": JANE,
    '"Doe, Jane" <jane@example.com>': JANE,
    "joe@example.com <jane@example.com>": JANE,
    "Jane <mailto:jane@example.com>": JANE,
    "jane@example.com (Jane Doe)": JANE,
    "'jane@example.com'": JANE,
    '"jane@example.com"': JANE,
    "\u200eJane\u200f <\u200bjane@example.com>": JANE,
    # Odd, and somebody's all the same.
    "o'neil@example.com": "o'neil@example.com",
    '"jane.,doe"@example.com': '"jane.,doe"@example.com',
    "jane..doe@example.com": "jane..doe@example.com",
    "jane@[192.0.2.1]": "jane@[192.0.2.1]",
    "jane@localhost": "jane@localhost",
    "jane@mail_1.example.com": "jane@mail_1.example.com",
    "100%jane@example.com": "100%jane@example.com",
    "o'neil'@example.com": "o'neil'@example.com",
}

REFUSED = [
    "",
    " ",
    "\u200b",
    "jane",
    "@example.com",
    "jane@",
    "jane@@example.com",
    "jane@example.com@example.com",
    "jane@example..com",
    "jane@.example.com",
    "jane@example.com.",
    "jane doe@example.com",
    '"jane doe"@example.com',
    "jane@exam ple.com",
    "jane@example.com, joe@example.com",
    "jane@example.com;joe@example.com",
    "jane@example.com joe@example.com",
    "<jane@example.com>, <joe@example.com>",
    "joe@example.com, Jane <jane@example.com>",
    "joe@example.com;Jane <jane@example.com>",
    "Jane <jane@example.com> Doe",
    "Jane <>",
    "mailto:",
    "mailto:jane",
    "smtp:jane@example.com",
    "jane＠example.com",
    "jane@exam\u2028ple.com",
    "jane\u0085@example.com",
    "jane\0@example.com",
    "jane\x7f@example.com",
    "jan\ufffd@example.com",
    "jan\udce9@example.com",
    "jan\ue000@example.com",
    "mailto:jane%00@example.com",
    "mailto:jan%E9@example.com",
    "j***@example.com",
    "j**e@example.com",
    "j*@e*.com",
    "j•••@example.com",
    # An address within a URL, percent-encoded once too often, or once too little decoded.
    "jane%2Bnews@example.com",
    "jane%2bnews@example.com",
    "j%C3%BCrgen@example.com",
    "jane@example.com%20",
    "jane@example.com?subject=unsubscribe",
    "jane@example.com&list=3",
    "jane@example.com/",
    "jane@example.com#",
    # Half of a quotation, and what spreadsheets write before a text.
    "'jane@example.com",
    "jane@example.com'",
    "jane@example.com`",
    "jane@{domain}",
    "jane@example.com!",
    "jane@example.com*",
    "a" * 320 + "@example.com",
    "jane@" + "a" * 320,
]


@pytest.mark.parametrize("written", READ)
def test_an_address_is_taken_out_of_what_stands_around_it(written: str) -> None:
    assert read_address(written) == READ[written]
    assert Address().deserialize(written) == READ[written]
    # Read again, from the database or an export, it is the same.
    assert read_address(READ[written]) == READ[written]


@pytest.mark.parametrize("written", REFUSED)
def test_what_cannot_be_an_address_is_refused_without_being_repeated(written: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Address().deserialize(written)
    assert refused.value.messages[0] in (
        "is not an email address",
        "is empty",
        "is masked",
        "is percent-encoded",
        "names more than one address",
    )


def key(address: str) -> str:
    return Identity(kind=IdentityKind.EMAIL, value=address).key


def test_two_addresses_are_one_person_in_lower_case_and_not_folded() -> None:
    assert key("Jane@Example.com") == key(JANE)
    assert key("JÜRGEN@example.com") == key("jürgen@example.com")
    assert key("straße@example.com") != key("strasse@example.com")
    assert key("ﬁona@example.com") != key("fiona@example.com")
