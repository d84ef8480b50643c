"""Consent columns of a file: what they say about who has opted out, and which rows may be taken.

An export of all contacts must never opt out those who are subscribed. So a column that is about consent, by its name
or by what stands in it, has to say of every row that the person has opted out, or a person has to say which rows are
meant.
"""

import csv
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from webhook_app.sync.csv_file import CannotImport
from webhook_app.sync.known_exports import plain

#: More different values than this are no categories.
MOST_VALUES = 50
#: More columns than this that no list of opt-outs needs make it a list of contacts.
MOST_OTHERS = 3
#: No language's yes or no is longer, nor is a sign for one.
LONGEST_YES = 5
#: What stands further behind in a value is not looked at.
LONGEST_SAID = 500

_BLANK = frozenset({"", "-", "[]", "null", "none", "nan", "n/a", "undefined", "never"})
#: What databases write where there is no time.
_NO_TIME = re.compile(r"(?=(\D*0){6})[0\s:./-]+|(1970|1900|0001)-01-01([t ]00:00.*)?", re.IGNORECASE)
_TRUE = frozenset({
    "true", "yes", "y", "ja", "j", "oui", "si", "sí", "sì", "sim", "tak", "on", "t", "x", "wahr", "vrai", "vero",
    "verdadero", "waar", "checked", "✓", "✔", "☑", "1", "1 0",
})  # fmt: skip
_FALSE = frozenset({
    "false", "no", "n", "nein", "nee", "nej", "non", "não", "nao", "nie", "off", "f", "falsch", "faux", "falso",
    "onwaar", "unchecked", "✗", "✘", "✕", "☐", "0", "0 0", "2",
})  # fmt: skip

#: Values by which a person has asked for no more messages.
_OUT = re.compile(
    r"un ?subscri.*|unsub|(user |manually )?opt(ed)? ?out.*|(user|manually) ?suppressed|manual ?suppression"
    r"|(email )?black ?listed|block ?listed|.*(spam|complain|abuse).*|revoked|withdrawn|declined|denied|refused|removed"
    r"|admin ?blocked|one ?click|abgemeldet|widerrufen|désabonné|désinscrit"
)
_IN = re.compile(
    r"(not|never|nicht|non) (un ?subscri.*|opt(ed)? ?out|suppressed|(black|block) ?listed|abgemeldet)"
    r"|(re ?)?subscribed|(single |double )?opt(ed)? ?in.*|active|confirmed|accepted|allowed|granted|given|enabled"
    r"|angemeldet|aktiv|abonné"
)
#: Nobody has asked for these: dead addresses, other channels, people who never said anything.
_NOT_ASKED = re.compile(
    r".*bounce.*|invalid.*|clean(ed)?|undeliver.*|never ?subscribed|non ?subscribed|not ?subscribed"
    r"|pending|unconfirmed|archived|deleted|transactional|inactive"
    r"|role( account| based| address)?|spam ?trap.*|disposable.*|.*quota.*"
    r"|.*(unknown|not exist|not an address|no such|bad domain|mailbox|mail domain).*"
)
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
#: Where both are named, which of them was left is told by what stands next to it: `Unsubscribed from SMS, keeps email`.
_LEFT_EMAIL = re.compile(
    rf"{_LEFT} ((from|of|for) )?((the|all|any|our|your|marketing) )*(all|any|(e ?)?mails?|channels|everything|both)\b"
)
#: Words of a value that names what was left and nothing else: `email and SMS opt-out`.
_NAMES_ONLY = re.compile(
    r"un|sub\w*|unsub\w*|opt|opted|optout|outs?|abgemeldet|abmeld\w*|from|of|for|the|all|any|our|your|marketing|and|or"
    rf"|und|oder|both|e|e?mails?|channels|everything|whats|app|direct|messages?|{_CHANNELS}|{_CHANNELS_PERHAPS}"
)
_SAYS_NOT = re.compile(r"([\w ]+=)?((is )?(not|non) (a )?(spam|abuse|complaint)|no (spam )?(complaints?|abuse))")
_WORD = re.compile(r"\w+")
_I = frozenset({"i", "me", "my", "because"})
#: `5.1.1`, with or without a text behind it; `5.4.2025` is a date.
_BOUNCE_CODE = re.compile(r"[45] \d{1,3} \d{1,3}\b.*")
#: What a mail server or a filter said of a message: `550 5.7.1 rejected as spam` is no complaint of its recipient.
#: A code alone may be the number of a list; codes of three numbers behind it are always a server's.
_SMTP_REPLY = re.compile(
    r"[245]\d\d .*\b(spam|abuse|mailbox|message|user|recipient|address|rejected|blocked|refused|relay|host|server"
    r"|sender)\b.*"
    r"|[245]\d\d [45] \d{1,3} \d{1,3}\b.*|.*\b[45]\d\d [45] \d{1,3} \d{1,3}\b.*|.*\bsmtp\b.*"
)
_FILTER = re.compile(
    r"(?!.*\b(i|my|me)\b).*(spam ?(haus|cop|assassin|trap|filter|score)|surbl|uribl|barracuda|\b(spf|dkim|dmarc)\b)"
)
#: Of a server or a filter where it speaks of spam, too, and not of somebody who complained of it.
_FILTERED = re.compile(
    r"(?!.*\b(i|me|user)\b)(?=.*(reject|block|filter|classified|detect|refused|denied|identified|suspected|looks like"
    r"|considered))(.*\b((message|e?mail was|host|ip|server)\b|content (was )?(reject|block|filter))"
    r"|(rejected|refused|denied) spam content|spam (was )?(detect|reject|filter))"
)
_COMPLAINED = re.compile(r"complain|report|flagged|marked")
_NOT_ASKED_NOTE = "bounces and the like are no opt-outs"

#: Names of columns in which a yes or a no says it, and of those in which a word may.
_CONSENT = re.compile(
    r"\bopt(ed)? ?(in|out)|optin|optout|consent|subscri|\bunsub|accepts|black ?list|block ?list|suppress|permission"
    r"|do not (allow|e ?mail|contact|send)|newsletter|einwilligung|abmeld|abgemeldet|anmeld|angemeldet|widerruf|abonn"
    r"|inscri|iscri|suscri|\bbaja\b|uitgeschreven|afgemeld|aangemeld|ingeschreven|toestemming|wypis|zapis|zgod|prenumer|tilmeld"
)
_STATUS = re.compile(r"(?<!lead )(?<!order )(?<!contact )(?<!payment )(?<!account )(?<!customer )\bstatus\b")
#: Names of columns in which a yes is an opt-out.
_NEGATIVE = re.compile(
    r"unsub|opt(ed)? ?out|optout|black ?list|block ?list|suppress|do not|abmeld|abgemeldet|widerruf|d[ée]sabonn"
    r"|d[ée]sinscri|disiscri|\bbaja\b|uitgeschreven|afgemeld|wypis|avprenumer|frameld"
)
#: Of these, columns about all email there is: beside a yes in one, a no in one about a list says nothing.
_OF_EVERYTHING = re.compile(
    r".*\b(all|everything|global(ly)?)\b.*"
    r"|((is|has|was|been|user|contact|customer|from|of|e ?mails?|mails?|send|status|flag|marketing|any|yes|no|y|n"
    rf"|des|du|de|vom|von|({_NEGATIVE.pattern})\w*)( |$))+"
)
#: Columns that tell that somebody came back: whether before or after they left, two times may say, and a file may not.
_CAME_BACK = re.compile(r"\bre ?(subscri|opt|activat|join)|wieder ?angemeldet")
#: Columns in which a yes is no opt-out for sure, and a no may be anything.
_ACTIVE = re.compile(r"(is )?(active|aktiv|enabled|actif|activo|attivo|actief)")
#: Columns about those who have asked for nothing. Whoever did ask may be in them, too.
_LOST = re.compile(r"\b(deleted|bounced?|bounces|clean(ed)?|unconfirmed|archived|invalid|undeliverable)\b")
#: A time, or numbers of lists and channels: what tells by being there.
_TELLS_BY_BEING_THERE = re.compile(
    r"(?=.*[1-9])(?!.*(?<!\+)\b(19\d\d|0000|0001|9999)\b)(\d(st|nd|rd|th)?|[\s,+\[\]()]|[tz]|utc|gmt|ce?st|[ap]m"
    r"|\b(mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-z]*\b)+"
)
#: Columns about an unsubscribe, or about something else of that name, that say of nobody whether it happened.
_ABOUT_IT = re.compile(r"\b(id|key|number|hash|url|link|source|method|count|ip|type|campaign|reason|title|name|rate)\b")
_OTHER_CHANNEL = re.compile(
    r"\b(sms|push|whats ?app|phone|mobile|text|voice|postal|viber|line|fax|sell|mail merge)\b|\b(do not ?)?calls?\b"
)

#: Columns that lists of contacts have, and lists of opt-outs do not.
_CONTACTS = re.compile(
    r"member rating|opt(ed)? ?in (time|date|at)|(email )?opted in at|confirm time|subscribed (at|on|date)"
    r"|subscri(be|ption|bed) date|date subscribed|sign ?up.*|date added|added time|profile created on"
    r"|last (open|click|active|opened|clicked)|lifecycle stage|lead status|contact owner"
    r"|(record|contact|klaviyo|braze) id|marketing contact status|(consent|optin) (time|timestamp|date)"
    r"|.*consent timestamp|total (orders|spent)|(first|last) ?name|full name|vorname|nachname|tags|alternate emails"
    r"|leid|euid|web id|updated at|modified (at|time|date)|profile updated at|customer lifetime value"
)
_HARMLESS = re.compile(
    r"|name|notes?|comments?|ip|ip address|origin"
    r"|country|land|language|sprache|lang|locale|region|currency|gender"
    r"|group (id|name)|list( id| name)?|campaign.*|(campaign|template|message|channel|message type) ids?|rejected .*"
)

#: Words in the names of reasons that people type themselves: Mailchimp's `UNSUB_REASON_OTHER`.
_FREE_TEXT = frozenset({"other", "text", "comment", "comments", "feedback"})


class Said(StrEnum):
    """What a value says of its person."""

    OUT = "opted out"
    IN = "subscribed"
    #: A bounce, or somebody who has never said anything.
    NOT_ASKED = "did not ask"
    UNKNOWN = "unknown"


class NotOptOuts(Exception):
    """Not everybody in the file has opted out. The text goes on after its name, and says what to type."""


def _tells_by_being_there(value: str) -> bool:
    return _TELLS_BY_BEING_THERE.fullmatch(plain(value)) is not None


def _is_of_a_server(text: str) -> bool:
    """Whether a mail server or a filter says it, of a message and not of a person."""
    if _SMTP_REPLY.fullmatch(text) or _FILTER.match(text):
        return True
    is_spam = "spam" in text or "abus" in text
    return is_spam and bool(_FILTERED.match(text)) and not _COMPLAINED.search(text)


def _names_only_what_was_left(text: str) -> bool:
    return all(map(_NAMES_ONLY.fullmatch, _WORD.findall(text)))


def _is_about_something_else(text: str) -> bool:
    """Whether it speaks of an opt-out that there was not, or of one from something else than all email."""
    words = _WORD.findall(text)
    # `Unsubscribed: no`, `opted out: 0`; but `unsubscribed from campaign 2`, `complaints: 2`, and a sentence are not.
    is_sentence = len(words) > 3 and (words[-1].isdecimal() or not _I.isdisjoint(words))
    is_no = words and words[-1] in _FALSE - {"2"} and not is_sentence
    if is_no and _OUT.fullmatch(text):
        return True
    if _SAYS_NOT.fullmatch(text):
        return True
    return bool(_NAMES_CHANNEL.search(text) or _NAMES_LIST.search(text)) and not _NAMES_EMAIL.search(text)


def is_blank(value: str) -> bool:
    """Whether it says nothing, in whatever way."""
    return value.casefold() in _BLANK or (value[:1] in "01" and _NO_TIME.fullmatch(value) is not None)


@dataclass(slots=True, kw_only=True)
class Column:
    """What stands in one column. `values` stop being counted where they are too many to be categories."""

    title: str
    place: int
    is_time: bool = False
    is_reason: bool = False
    blank: int = 0
    filled: int = 0
    values: Counter[str] = field(default_factory=Counter)
    overflown: bool = False
    #: How many of those that are counted no more tell something by being there.
    further: Counter[bool] = field(default_factory=Counter)
    #: Whether its title tells it from the other columns.
    has_own_title: bool = True
    #: Whether a yes in it is an opt-out.
    is_negative: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_negative = bool(_NEGATIVE.search(self.name))

    @property
    def name(self) -> str:
        return plain(self.title)

    @property
    def is_of_everything(self) -> bool:
        """Whether it is about unsubscribes from all email, and not from one list or kind."""
        return (
            self.is_negative
            and _OF_EVERYTHING.fullmatch(" ".join(_WORD.findall(self.name)).removesuffix(" c")) is not None
        )

    @property
    def to_type(self) -> str:
        """What an option calls it."""
        return self.title if self.has_own_title and self.name else f"#{self.place + 1}"

    def count(self, cell: str) -> None:
        value = cell.strip()
        if is_blank(value):
            self.blank += 1
            return
        self.filled += 1
        if value in self.values or len(self.values) < MOST_VALUES:
            self.values[value] += 1
        else:
            self.overflown = True
            self.further[self.is_negative and _tells_by_being_there(value)] += 1

    def says(self, value: str) -> Said:
        if is_blank(value):
            return Said.UNKNOWN
        text = plain(value[:LONGEST_SAID])
        # `4/15/24` may be either: there, the other values of the column tell.
        if not self.is_time and _BOUNCE_CODE.fullmatch(text):
            return Said.NOT_ASKED
        if (not self.is_time and _is_of_a_server(text)) or _is_about_something_else(text):
            return Said.NOT_ASKED
        if _NAMES_CHANNEL.search(text) and not (_LEFT_EMAIL.search(text) or _names_only_what_was_left(text)):
            return Said.UNKNOWN
        for pattern, said in ((_NOT_ASKED, Said.NOT_ASKED), (_OUT, Said.OUT), (_IN, Said.IN)):
            if pattern.fullmatch(text):
                return said
        if _CAME_BACK.search(self.name) or _ACTIVE.fullmatch(self.name):
            return Said.UNKNOWN if text in _FALSE else Said.IN
        if self.is_negative and text == self.name:
            return Said.OUT
        if _CONSENT.search(self.name) and (text in _TRUE or text in _FALSE):
            return Said.OUT if (text in _TRUE) is self.is_negative else Said.IN
        # When it was, or of what: that it is there at all says it. Any other word may be another language's no.
        return Said.OUT if self.is_negative and not self.is_reason and _tells_by_being_there(value) else Said.UNKNOWN

    @property
    def said(self) -> Mapping[Said, int]:
        found: Counter[Said] = Counter()
        for value, count in self.values.items():
            found[self.says(value)] += count
        if self.blank:
            found[Said.UNKNOWN] += self.blank
        for is_telling, count in self.further.items():
            found[Said.OUT if is_telling and not self.is_reason else Said.UNKNOWN] += count
        return found

    @property
    def is_free_text(self) -> bool:
        """Whether people may write into it what they like."""
        return self.is_reason and not _FREE_TEXT.isdisjoint(self.name.split())

    @property
    def has_categories(self) -> bool:
        """Whether its values are few, and no addresses."""
        return not (self.overflown or self.is_time or any("@" in value for value in self.values))

    @property
    def is_about_contacts(self) -> bool:
        """By its name; or it is about consent, and says neither yes nor no: when, and how, somebody gave it."""
        if _CONTACTS.fullmatch(self.name):
            return True
        is_consent = _CONSENT.search(self.name) and not (self.is_negative or _OTHER_CHANNEL.search(self.name))
        return bool(is_consent and self.filled and not self.has_categories and not _ABOUT_IT.search(self.name))

    @property
    def may_be_yes_and_no(self) -> bool:
        """Whether there are two short values and no more, in whatever language: nobody knows which of them left."""
        values = [*self.values, *[""] * (self.blank > 0)]
        return len(values) == 2 and not self.is_time and all(len(value) <= LONGEST_YES for value in values)

    @property
    def is_about_consent(self) -> bool:
        """By its name, or by what stands in it."""
        if not self.filled or _OTHER_CHANNEL.search(self.name):
            return False
        if self.is_reason:
            # A reason tells who is no opt-out; that it is missing, or another text, says nothing.
            return Said.NOT_ASKED in self.said
        if _CAME_BACK.search(self.name):
            return True
        if _ABOUT_IT.search(self.name):
            return False
        if _LOST.search(self.name):
            return any(plain(value) not in _FALSE for value in self.values)
        if _CONSENT.search(self.name) or _STATUS.search(self.name):
            return self.is_negative or (self.has_categories and not self.is_about_contacts)
        if _HARMLESS.fullmatch(self.name) or not self.has_categories:
            return False
        # Numbers and single letters may be anything.
        return all(
            self.says(value) is not Said.UNKNOWN or (len(value) > 1 and plain(value) in _TRUE | _FALSE)
            for value in self.values
        )


@dataclass(frozen=True, slots=True)
class Only:
    """Rows in which a column has one of these values, "" being any blank; without any: in which it is not blank."""

    title: str
    place: int
    values: frozenset[str]

    def holds(self, cells: Sequence[str]) -> bool:
        cell = cells[self.place].strip() if self.place < len(cells) else ""
        if is_blank(cell):
            return "" in self.values or cell.casefold() in self.values
        return not self.values or cell.casefold() in self.values


def places_called(given: str, header: Sequence[str]) -> list[int]:
    """Where the columns of this title stand; `#2` is the second one, for titles that are there twice."""
    found = [place for place, cell in enumerate(header) if plain(cell) == plain(given)]
    number = re.fullmatch(r"#([1-9]\d{0,3})", given.strip())
    if found or not number or int(number[1]) > len(header):
        return found
    return [int(number[1]) - 1]


def parse_only(given: str, header: Sequence[str]) -> Only:
    """`Opt-In=False,2`: a column and its values; `Note=`: the blank ones; or a column alone. Raises `CannotImport`."""
    title, equals, listed = given.partition("=")
    places = places_called(title, header)
    if len(places) > 1:
        choice = " or ".join(f'"#{place + 1}{equals}{listed}"' for place in places)
        raise CannotImport(f"--only: {len(places)} columns are called {title.strip()}: name one by its place, {choice}")
    if not places:
        raise CannotImport(f"--only: there is no column {title.strip()}; there are: {shown(header)}")
    # In nothing, csv reads no value; and a column without values means the opposite: the rows in which it is filled.
    values = frozenset(value.strip().casefold() for value in next(csv.reader([listed])) or [""])
    return Only(header[places[0]], places[0], values if equals else frozenset())


def check_columns(columns: Iterable[Column], only: Sequence[Only], *, used: Iterable[int], is_known: bool) -> None:
    """Make sure that the rows that `only` leaves are opt-outs. Raises `NotOptOuts`, and `CannotImport` for `only`.

    `columns` have counted those rows, but for a column of `only`, which has counted all of them. `used` are the places
    of the address and the time, `is_known` whether the header is one of an ESP's list of opt-outs.
    """
    columns, chosen = list(columns), {one.place: one for one in only}
    for column in columns:
        if column.place in chosen:
            _check_choice(column, chosen[column.place])
    about = [column for column in about_consent(columns) if column.place not in chosen]
    choosing = [column for column in columns if column.place in chosen and _is_telling(column, chosen[column.place])]
    proving = [column for column in about if set(column.said) == {Said.OUT}]
    is_proven = bool(choosing or proving)
    if is_known and is_proven:
        # It is a list of opt-outs, and says when each was: what somebody typed as their reason takes nobody out of it.
        about = [column for column in about if not column.is_free_text]
    is_said = any(one.is_of_everything and not one.is_time for one in (*proving, *choosing))
    doubtful = [column for column in about if _is_doubtful(column, is_proven=is_proven, is_said=is_said)]
    if doubtful:
        best = max(doubtful, key=_tells_how_much)
        # Whom a column about everything says to be still there, no other choice can opt out.
        is_final = bool(only) or any(one.is_of_everything and Said.IN in one.said for one in doubtful)
        further = [column for column in doubtful if column is not best and column.is_negative and not column.is_time]
        raise NotOptOuts(_advice(best, [] if is_final else further, is_filtered=bool(only)))
    if not (about or choosing or is_known):
        others = [column for column in columns if column.place not in set(used) and not column.is_reason]
        _check_others(others, is_filtered=bool(only))


def _tells_how_much(column: Column) -> tuple[bool, bool, bool, int]:
    """Which of several columns is to choose by: one that says who opted out; rather of all than of one list."""
    out = column.said.get(Said.OUT, 0)
    return out > 0, not column.is_time, column.is_of_everything, out


def _is_doubtful(column: Column, *, is_proven: bool, is_said: bool) -> bool:
    """Whether somebody in it has not opted out; or may not have, where no other column proves it.

    A "no" in a column about one list says only that it was not this one, where one about everything says who left.
    """
    said, is_excused = column.said, is_said and column.is_negative and not column.is_of_everything
    if (Said.IN in said and not is_excused) or Said.NOT_ASKED in said:
        return True
    return Said.UNKNOWN in said and not is_proven


def _is_telling(column: Column, only: Only) -> bool:
    """Whether a choice is one by consent: rows of one country are not."""
    return column.is_about_consent or any(column.says(value) is Said.OUT for value in _chosen(column, only))


def _check_choice(column: Column, only: Only) -> None:
    if _OTHER_CHANNEL.search(column.name):
        raise CannotImport(f"--only: {column.title} is about another channel than email")
    if _CAME_BACK.search(column.name):
        raise CannotImport(f"--only: {column.title} is about people who came back")
    if any(map(is_blank, only.values)) and column.blank and column.is_about_consent and not column.is_reason:
        raise CannotImport(
            f"--only: an empty cell in {column.title} says of nobody that they opted out. If they shall be opted out "
            "all the same, say --all-rows, too"
        )
    wrong = [value for value in _chosen(column, only) if column.says(value) in (Said.IN, Said.NOT_ASKED)]
    if wrong and (column.has_categories or not only.values):
        raise CannotImport(
            f"--only: {column.title}={wrong[0]} are people who did not opt out. If they shall be opted out all the "
            "same, say --all-rows, too"
        )


def _chosen(column: Column, only: Only) -> list[str]:
    return [value for value in column.values if not only.values or value.casefold() in only.values]


def _check_others(columns: Sequence[Column], *, is_filtered: bool) -> None:
    others = [column for column in columns if not _HARMLESS.fullmatch(column.name)]
    telling = [column for column in others if column.is_about_contacts or column.may_be_yes_and_no]
    if telling or sum(not column.is_time for column in others) > MOST_OTHERS:
        shown = ", ".join(column.title for column in (telling or others)[:3])
        raise NotOptOuts(
            f"looks like a list of contacts ({shown}), and no column says who of them has opted out: export the list "
            f"of those who did; or say --all-rows if everybody {'whom --only chose' if is_filtered else 'in it'} has"
        )


def _advice(column: Column, further: Sequence[Column], *, is_filtered: bool) -> str:
    all_rows = f"--all-rows takes {'every row that --only chose' if is_filtered else 'everybody'}"
    if _CAME_BACK.search(column.name):
        return (
            f"has people who came back, says the column {column.title} (filled {column.filled:,}): take these rows out "
            f"of the file; {all_rows}"
        )
    return (
        f"has people who did not opt out. The column {column.title} says: {', '.join(_counts(column))}. "
        f"{_what_to_type(column)}; {all_rows}{''.join(map(_again, further))}"
    )


def _again(column: Column) -> str:
    """Several choices have to hold at once: who stands in another column alone takes another import."""
    if not column.said.get(Said.OUT):
        return ""
    return f". {column.title} may say it of others: import the file again for these. {_what_to_type(column)}"


def about_consent(columns: Iterable[Column]) -> list[Column]:
    return [column for column in columns if column.is_about_consent]


def values_of(column: Column) -> str:
    """How often each value stands in a column, the most frequent first."""
    return f"{column.title}: {', '.join(_counts(column))}"


def _counts(column: Column) -> Iterator[str]:
    if column.has_categories:
        for value, count in column.values.most_common(8):
            # What a terminal would obey is not shown.
            yield f"{''.join(letter if letter.isprintable() else '?' for letter in value[:40])} {count:,}"
        if len(column.values) > 8:
            yield "…"
    else:
        yield f"filled {column.filled:,}"
    if column.blank:
        yield f"empty {column.blank:,}"


def _what_to_type(column: Column) -> str:
    if not column.has_categories and column.is_reason:
        return "These are too many to name: take the rows of people who did not opt out out of the file"
    if not column.has_categories:
        return f"To take the rows in which it is filled, say --only {typed(column.to_type)}"
    # A reason of which nothing is known is one to opt out for: only bounces and the like are none.
    meant = (Said.OUT, Said.UNKNOWN) if column.is_reason else (Said.OUT,)
    wanted = [value for value in column.values if value.isprintable() and column.says(value) in meant]
    out = [f'"{value}"' if "," in value else value for value in wanted]
    if column.is_reason and column.blank:
        out.insert(0, "")
    if not out:
        return f"If one of them means opted out, say --only {typed(column.to_type + '=VALUE')}"
    note = f" ({_NOT_ASKED_NOTE})" if Said.NOT_ASKED in column.said else ""
    return f"To take those who did, say --only {typed(column.to_type + '=' + ','.join(out))}{note}"


def shown(header: Sequence[str]) -> str:
    """The titles of columns; what may be somebody's address, in a file without a header, is left out."""
    return ", ".join(title if _can_be_shown(title) else "…" for title in header)


def _can_be_shown(text: str) -> bool:
    return "@" not in text and text.isprintable()


def typed(text: str) -> str:
    """As a shell takes it."""
    return shlex.quote(text) if any(letter in text for letter in '"$`\\!') else f'"{text}"'
