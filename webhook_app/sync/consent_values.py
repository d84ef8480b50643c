"""What one value of a consent column says of its person: a table of rules, the first that fits counts.

An opt-out that is guessed cannot be taken back by those whom it concerns. So a value means "opted out" only by a rule
that says so; what no rule knows is `Said.UNKNOWN`, and a person is asked.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from webhook_app.sync.known_exports import plain

#: What stands further behind in a value is not looked at.
LONGEST_SAID = 500


class Said(StrEnum):
    """What a value says of its person."""

    OUT = "opted out"
    IN = "subscribed"
    #: A bounce, or somebody who has never said anything.
    NOT_ASKED = "did not ask"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ValueRule:
    """`fits` is given the value as `plain` writes it. Each of `examples` is decided by this rule and no other."""

    says: Said
    because: str
    fits: Callable[[str], object]
    examples: tuple[str, ...]
    #: Whether it also holds in a column of times: `4/15/24` may be a date, or the code of a bounce.
    holds_of_times: bool = True


_BLANK = frozenset({"", "-", "[]", "null", "none", "nan", "n/a", "undefined", "never"})
#: What databases write where there is no time.
_NO_TIME = re.compile(r"(?=(\D*0){6})[0\s:./-]+|(1970|1900|0001)-01-01([t ]00:00.*)?", re.IGNORECASE)
#: A yes and a no, in whatever language or sign. What they are a yes to, the column's name tells.
YES = frozenset({
    "true", "yes", "y", "ja", "j", "oui", "si", "sí", "sì", "sim", "tak", "on", "t", "x", "wahr", "vrai", "vero",
    "verdadero", "waar", "checked", "✓", "✔", "☑", "1", "1 0",
})  # fmt: skip
#: Emarsys' `Opt-In` is 1, or 2 for a no.
NO = frozenset({
    "false", "no", "n", "nein", "nee", "nej", "non", "não", "nao", "nie", "off", "f", "falsch", "faux", "falso",
    "onwaar", "unchecked", "✗", "✘", "✕", "☐", "0", "0 0", "2",
})  # fmt: skip
#: A time, or numbers of lists and channels: what tells by being there.
_TIME_OR_NUMBERS = re.compile(
    r"(?=.*[1-9])(?!.*(?<!\+)\b(19\d\d|0000|0001|9999)\b)(\d(st|nd|rd|th)?|[\s,+\[\]()]|[tz]|utc|gmt|ce?st|[ap]m"
    r"|\b(mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-z]*\b)+"
)


def is_blank(value: str) -> bool:
    """Whether it says nothing, in whatever way."""
    return value.casefold() in _BLANK or (value[:1] in "01" and _NO_TIME.fullmatch(value) is not None)


def is_time_or_numbers(value: str) -> bool:
    return _TIME_OR_NUMBERS.fullmatch(plain(value)) is not None


def said_of(value: str, *, is_time: bool) -> Said | None:
    """What a value says in whatever column it stands; None where no rule knows it.

    `is_time` tells whether the other values of its column are times.
    """
    text = plain(value[:LONGEST_SAID])
    return next((rule.says for rule in VALUE_RULES if (rule.holds_of_times or not is_time) and rule.fits(text)), None)


def is_subscribed(value: str) -> bool:
    """Whether it says that somebody gets mail, and can mean nothing else."""
    return bool(_IS_SUBSCRIBED.fits(plain(value)))


# ---------------------------------------------------------------- parts of the rules

_WORD = re.compile(r"\w+")

#: Other channels than email, by a word that means nothing else; and by one that does so only as what somebody has left:
#: `Opted out of calls`, `Opt-out: phone`. `Unsubscribed by phone call` says how.
_CHANNELS = (
    r"(sms\w*|mms|push(?! (too|so|me|us|it|your|many|more)\b)|whats ?app|viber|fax|(direct|postal) mail|text messag\w*)"
)
_CHANNELS_PERHAPS = r"(phone|telephone|telefon|mobile|text|voice|calls?|postal|post|line)"
_LEFT = r"\b(un ?sub\w*|opt(ed)? ?outs?|abgemeldet|abmeld\w*)"
_NAMES_CHANNEL = re.compile(
    rf"\b{_CHANNELS}\b"
    rf"|{_LEFT} (from|of|for|von|für|all|any)( (the|all|any|our|your|marketing|sales|phone|mobile|voice))*"
    rf" {_CHANNELS_PERHAPS}\b(?! (app|link|page|site))"
    rf"|{_LEFT} {_CHANNELS_PERHAPS}(?=$|,| (and|or|und|&|\+) )|^{_CHANNELS_PERHAPS} {_LEFT}$"
)
#: Of several lists there are, one was left. In a sentence it may be all of them: `Opt out of this list, you bore me`.
_NAMES_LIST = re.compile(
    rf"{_LEFT} (from|of) ((the|this|that|a|one) )?(single )?list\b(?!.*\b(i|you|your|me|my|we|it|is|was|because"
    r"|since|as|too|please|never|not|no|so|but|due|thanks?|boring|spam)\b)[^,;!?]{0,60}$"
)
#: `all sms`, and `all phone calls`, are not all channels.
_NAMES_EMAIL = re.compile(
    r"(?<!not )(?<!direct )(?<!postal )\b((e ?)?mails?|channels|everything|both"
    rf"|(all|any|alle[nrs]?)(?! (\w+ ){{0,2}}({_CHANNELS}|{_CHANNELS_PERHAPS})))\b"
)
_LEFT_EMAIL = re.compile(
    rf"{_LEFT} ((from|of|for) )?((the|all|any|our|your|marketing) )*(all|any|(e ?)?mails?|channels|everything|both)\b"
)
#: Words of a value that names what was left and nothing else.
_NAMES_ONLY = re.compile(
    r"un|sub\w*|unsub\w*|opt|opted|optout|outs?|abgemeldet|abmeld\w*|from|of|for|the|all|any|our|your|marketing|and|or"
    rf"|und|oder|both|e|e?mails?|channels|everything|whats|app|direct|messages?|{_CHANNELS}|{_CHANNELS_PERHAPS}"
)
_FILTERED = re.compile(
    r"(?!.*\b(i|me|user)\b)(?=.*(reject|block|filter|classified|detect|refused|denied|identified|suspected|looks like"
    r"|considered))(.*\b((message|e?mail was|host|ip|server)\b|content (was )?(reject|block|filter))"
    r"|(rejected|refused|denied) spam content|spam (was )?(detect|reject|filter))"
)
_COMPLAINED = re.compile(r"complain|report|flagged|marked")
_OPT_OUT_OR_COMPLAINT = r"(spam|complain|abus|un ?subscri|opt(ed)? ?out)\w*"
_DENIAL = re.compile(
    rf".*\b(not|never|no|none|without|nicht|nie|kein\w*)( \w+){{0,2}} {_OPT_OUT_OR_COMPLAINT}"
    rf"|.*\b{_OPT_OUT_OR_COMPLAINT} \(?(never|none|not (yet|set)|pending|cancell?ed|reverted|undone|expired)\)?$"
)
_FIRST_PERSON = frozenset({"i", "me", "my", "because"})


def _whole(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern).fullmatch


def _is_about_spam_and_of_a_filter(text: str) -> bool:
    is_about_spam = "spam" in text or "abus" in text
    return is_about_spam and bool(_FILTERED.match(text)) and not _COMPLAINED.search(text)


def _is_opt_out_and_a_no(text: str) -> bool:
    """`opted out: 0`; but `unsubscribed from campaign 2`, `complaints: 2` and a sentence say who left, and why."""
    words = _WORD.findall(text)
    is_sentence = len(words) > 3 and (words[-1].isdecimal() or not _FIRST_PERSON.isdisjoint(words))
    is_no = bool(words) and words[-1] in NO - {"2"} and not is_sentence
    return is_no and _has_words_of_opt_out(text)


def _is_opt_out_and_denied(text: str) -> bool:
    return bool(_DENIAL.match(text)) and _has_words_of_opt_out(text)


def _has_words_of_opt_out(text: str) -> bool:
    return any(rule.fits(text) for rule in _OPTED_OUT)


def _is_of_something_else_than_email(text: str) -> bool:
    return bool(_NAMES_CHANNEL.search(text) or _NAMES_LIST.search(text)) and not _NAMES_EMAIL.search(text)


def _is_of_email_and_a_channel_in_doubt(text: str) -> bool:
    """Where both are named, what stands next to "unsubscribed" tells which of them was left."""
    names_only_what_was_left = all(map(_NAMES_ONLY.fullmatch, _WORD.findall(text)))
    return bool(_NAMES_CHANNEL.search(text)) and not (_LEFT_EMAIL.search(text) or names_only_what_was_left)


# ---------------------------------------------------------------- the rules

#: What has the words of an opt-out and is none: said of a message and not by a person, or not of all email.
_NO_OPT_OUT = (
    ValueRule(
        Said.NOT_ASKED,
        "the status code of a bounce (RFC 3463), with or without a text behind it",
        _whole(r"[45] \d{1,3} \d{1,3}\b.*"),
        ("5.1.1", "4.4.25 over quota", "5.7.26"),
        holds_of_times=False,
    ),
    ValueRule(
        Said.NOT_ASKED,
        "a mail server's reply (RFC 5321). A code alone may be the number of a list; codes of three numbers never are",
        _whole(
            r"[245]\d\d .*\b(spam|abuse|mailbox|message|user|recipient|address|rejected|blocked|refused|relay|host"
            r"|server|sender)\b.*"
            r"|[245]\d\d [45] \d{1,3} \d{1,3}\b.*|.*\b[45]\d\d [45] \d{1,3} \d{1,3}\b.*|.*\bsmtp\b.*"
        ),
        ("550 5.7.1 Message rejected as spam", "421 abuse", "smtp; 550 user unsubscribed"),
        holds_of_times=False,
    ),
    ValueRule(
        Said.NOT_ASKED,
        "a spam filter or a block list, by its name",
        re.compile(
            r"(?!.*\b(i|my|me)\b).*(spam ?(haus|cop|assassin|trap|filter|score)|surbl|uribl|barracuda"
            r"|\b(spf|dkim|dmarc)\b)"
        ).match,
        ("Blocked by SpamCop", "hit a spam trap"),
    ),
    ValueRule(
        Said.NOT_ASKED,
        "a filter, by what it did to a message that it took for spam; nobody complained of it",
        _is_about_spam_and_of_a_filter,
        ("Message classified as spam", "Spam detected"),
    ),
    ValueRule(
        Said.NOT_ASKED,
        "an opt-out that there was not: its last word is a no",
        _is_opt_out_and_a_no,
        ("Unsubscribed: no", "opted out: 0", "Opt-out (nein)"),
    ),
    ValueRule(
        Said.NOT_ASKED,
        "a complaint that there was not",
        _whole(r"([\w ]+=)?((is )?(not|non) (a )?(spam|abuse|complaint)|no (spam )?(complaints?|abuse))"),
        ("not-spam", "feedback_type=not-spam", "no complaints"),
    ),
    ValueRule(
        Said.NOT_ASKED,
        "another channel than email, or one list of several, was left",
        _is_of_something_else_than_email,
        ("Unsubscribed from SMS", "Opted out of calls", "SMS, not email", "Unsubscribed from List"),
    ),
    ValueRule(
        Said.UNKNOWN,
        "email and another channel are named, and nothing tells which of them was left",
        _is_of_email_and_a_channel_in_doubt,
        ("Unsubscribed from SMS, keeps email",),
    ),
)
#: Nobody has asked for these: dead addresses, and people who never said anything.
_DID_NOT_ASK = (
    ValueRule(
        Said.NOT_ASKED,
        "the address is dead, or the mail was returned",
        _whole(
            r".*bounce.*|invalid.*|clean(ed)?|undeliver.*|.*quota.*"
            r"|.*(unknown|not exist|not an address|no such|bad domain|mailbox|mail domain).*"
        ),
        ("HARD_BOUNCE", "Invalid", "cleaned", "Mail domain is unknown"),
    ),
    ValueRule(
        Said.NOT_ASKED,
        "they were never subscribed, or have not confirmed it: Klaviyo's NEVER_SUBSCRIBED, Mailchimp's pending",
        _whole(r"never ?subscribed|non ?subscribed|not ?subscribed|pending|unconfirmed|transactional"),
        ("NEVER_SUBSCRIBED", "Non-Subscribed", "pending"),
    ),
    ValueRule(
        Said.NOT_ASKED,
        "somebody else took the contact away",
        _whole(r"archived|deleted|inactive"),
        ("archived", "Inactive"),
    ),
    ValueRule(
        Said.NOT_ASKED,
        "an address that an ESP sends nothing to, because it is nobody's own",
        _whole(r"role( account| based| address)?|spam ?trap.*|disposable.*"),
        ("Role account", "disposable"),
    ),
)
_DENIED = (
    ValueRule(
        Said.UNKNOWN,
        "an opt-out or a complaint that was denied, called off or is yet to come, in words that no other rule reads",
        _is_opt_out_and_denied,
        ("Not marked as spam", "never complained", "Opt-out: never", "Unsubscribe (cancelled)"),
    ),
)
_OPTED_OUT = (
    ValueRule(
        Said.OUT,
        "unsubscribed: the word of all ESPs",
        _whole(r"un ?subscri.*|unsub"),
        ("Unsubscribed", "UNSUBSCRIBE", "unsubscribedViaEmail", "Unsubscribed from e-mail and SMS"),
    ),
    ValueRule(
        Said.OUT,
        "opted out, of all email",
        _whole(r"(user |manually )?opt(ed)? ?out.*"),
        ("opted_out", "opt-out", "Opted out of all email"),
    ),
    ValueRule(
        Said.OUT,
        "a suppression that somebody asked for: Klaviyo's USER_SUPPRESSED, Postmark's ManualSuppression",
        _whole(r"(user|manually) ?suppressed|manual ?suppression"),
        ("USER_SUPPRESSED", "ManualSuppression"),
    ),
    ValueRule(
        Said.OUT,
        "Brevo's words for it, older and newer",
        _whole(r"(email )?black ?listed|block ?listed|admin ?blocked"),
        ("email_blacklisted", "blocklisted", "adminBlocked"),
    ),
    ValueRule(
        Said.OUT,
        "a complaint: to go on mailing whoever made it would be worse than to lose a reader",
        _whole(r".*(spam|complain|abuse).*"),
        ("SpamComplaint", "contactFlaggedAsSpam", "abuse"),
    ),
    ValueRule(
        Said.OUT,
        "a consent that is no more",
        _whole(r"revoked|withdrawn|declined|denied|refused|removed"),
        ("revoked", "withdrawn"),
    ),
    ValueRule(Said.OUT, "RFC 8058, the button of mail programs", _whole(r"one ?click"), ("one-click",)),
    ValueRule(
        Said.OUT,
        "German and French",
        _whole(r"abgemeldet|widerrufen|désabonné|désinscrit"),
        ("abgemeldet", "Désabonné"),
    ),
)
_IS_SUBSCRIBED = ValueRule(
    Said.IN,
    "subscribed, in whatever way",
    _whole(r"(re ?)?subscribed|(single |double )?opt(ed)? ?in.*"),
    ("subscribed", "Re-subscribed", "double opt-in"),
)
_SUBSCRIBED = (
    ValueRule(
        Said.IN,
        "the contrary of an opt-out",
        _whole(r"(not|never|nicht|non) (un ?subscri.*|opt(ed)? ?out|suppressed|(black|block) ?listed|abgemeldet)"),
        ("not unsubscribed", "Never opted out", "nicht abgemeldet"),
    ),
    _IS_SUBSCRIBED,
    ValueRule(
        Said.IN,
        "a consent, or a contact that gets mail",
        _whole(r"active|confirmed|accepted|allowed|granted|given|enabled"),
        ("Active", "granted"),
    ),
    ValueRule(Said.IN, "German and French", _whole(r"angemeldet|aktiv|abonné"), ("angemeldet", "Abonné")),
)

#: The first that fits counts.
VALUE_RULES = (*_NO_OPT_OUT, *_DID_NOT_ASK, *_DENIED, *_OPTED_OUT, *_SUBSCRIBED)
