"""Consent columns of a file: which they are, by name and by what stands in them, and what they say of their people.

An export of all contacts must never opt out those who are subscribed. So a column that is about consent has to say of
every row that the person has opted out, or a person has to say which rows are meant (`row_choice`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from webhook_app.sync.consent_values import (
    LONGEST_SAID,
    NO,
    YES,
    Said,
    is_blank,
    is_subscribed,
    is_time_or_numbers,
    said_of,
)
from webhook_app.sync.known_exports import plain

#: More different values than this are no categories.
MOST_VALUES = 50
#: No language's yes or no is longer, nor is a sign for one.
LONGEST_YES = 5


class Role(StrEnum):
    """What a column is about, by its name. One may have several."""

    #: A yes or a no in it says whether somebody gets mail.
    CONSENT = "consent"
    #: A word in it may say so.
    STATUS = "status"
    #: A yes in it is an opt-out.
    OPT_OUT = "opt-out"
    #: So may a word in it, or it is a part of a country.
    STATE = "state"
    #: Somebody came back: whether before or after they left, two times may say, and a file may not.
    CAME_BACK = "came back"
    #: A yes in it is no opt-out for sure, and a no may be anything.
    ACTIVE = "active"
    #: Those who have asked for nothing. Whoever did ask may be in it, too.
    LOST = "lost"
    #: A detail of an unsubscribe, or something else of that name: it says of nobody whether it happened.
    DETAIL = "detail"
    OTHER_CHANNEL = "other channel"
    #: Lists of contacts have it, and lists of opt-outs do not.
    CONTACT = "contact"
    #: Any list may have it.
    HARMLESS = "harmless"


@dataclass(frozen=True, slots=True)
class NameRule:
    """A kind of column names, as `plain` writes them: what is found anywhere in one or, with `whole`, all of it."""

    role: Role
    because: str
    pattern: str
    examples: tuple[str, ...]
    whole: bool = False

    def fits(self, name: str) -> bool:
        return bool(re.fullmatch(self.pattern, name) if self.whole else re.search(self.pattern, name))


NAME_RULES = (
    NameRule(
        Role.CONSENT,
        "English",
        r"\bopt(ed)? ?(in|out)|optin|optout|consent|subscri|\bunsub|accepts|black ?list|block ?list|suppress|permission"
        r"|do not (allow|e ?mail|contact|send)|newsletter",
        ("Opt-In", "Email Marketing Consent", "acceptsEmail", "EMAIL_BLACKLISTED", "Do not email"),
    ),
    NameRule(
        Role.CONSENT,
        "German",
        r"einwilligung|abmeld|abgemeldet|anmeld|angemeldet|widerruf|abonn",
        ("Einwilligung", "Anmeldung"),
    ),
    NameRule(
        Role.CONSENT, "French, Italian and Spanish", r"abonn|inscri|iscri|suscri|\bbaja\b", ("Abonné", "Iscritto")
    ),
    NameRule(
        Role.CONSENT,
        "Dutch, Polish, Danish, Swedish and Norwegian",
        r"uitgeschreven|afgemeld|aangemeld|ingeschreven|toestemming|wypis|zapis|zgod|prenumer|tilmeld",
        ("Ingeschreven", "Zgoda", "Tilmeldt"),
    ),
    NameRule(
        Role.OPT_OUT,
        "English",
        r"unsub|opt(ed)? ?out|optout|black ?list|block ?list|suppress|do not",
        ("Unsubscribed", "HasOptedOutOfEmail", "Suppressed", "Do not email"),
    ),
    NameRule(Role.OPT_OUT, "German", r"abmeld|abgemeldet|widerruf", ("Abmeldung", "Widerruf")),
    NameRule(
        Role.OPT_OUT,
        "French, Italian and Spanish",
        r"d[ée]sabonn|d[ée]sinscri|disiscri|\bbaja\b",
        ("Désabonné", "Disiscritto", "Baja"),
    ),
    NameRule(
        Role.OPT_OUT,
        "Dutch, Polish, Swedish and Norwegian",
        r"uitgeschreven|afgemeld|wypis|avprenumer|frameld",
        ("Uitgeschreven", "Wypisany"),
    ),
    NameRule(
        Role.STATUS,
        "of an address, and of nothing else that has one",
        r"(?<!lead )(?<!order )(?<!contact )(?<!payment )(?<!account )(?<!customer )\bstatus\b",
        ("Status", "Email Status"),
    ),
    NameRule(
        Role.STATE,
        "of a subscriber, as Kit calls it",
        r"((contact|email|subscri\w+) )?(state|zustand)",
        ("state", "Subscriber State"),
        whole=True,
    ),
    NameRule(
        Role.CAME_BACK,
        "English and German",
        r"\bre ?(subscri|opt|activat|join)|wieder ?angemeldet",
        ("resubscribed_at", "Re-opted in", "Wiederangemeldet"),
    ),
    NameRule(
        Role.ACTIVE,
        "English, German, French, Italian, Spanish and Dutch",
        r"(is )?(active|aktiv|enabled|actif|activo|attivo|actief)",
        ("is_active", "Aktiv"),
        whole=True,
    ),
    NameRule(
        Role.LOST,
        "nobody asks to bounce, or not to be confirmed",
        r"\b(deleted|bounced?|bounces|clean(ed)?|unconfirmed|archived|invalid|undeliverable)\b",
        ("Deleted", "Bounced at"),
    ),
    NameRule(
        Role.DETAIL,
        "how, by what or why it happened, where it did",
        r"\b(id|key|number|hash|url|link|source|method|count|ip|type|campaign|reason|title|name|rate)\b",
        ("Unsubscribe link", "UNSUB_CAMPAIGN_TITLE", "unsubSource"),
    ),
    NameRule(
        Role.OTHER_CHANNEL,
        "an opt-out of it is none of email; `sell` is the law of California, `mail merge` Outlook's",
        r"\b(sms|push|whats ?app|phone|mobile|text|voice|postal|viber|line|fax|sell|mail merge)\b"
        r"|\b(do not ?)?calls?\b",
        ("SMS_BLACKLISTED", "push_subscribe", "DoNotCall", "Do not sell"),
    ),
    NameRule(
        Role.CONTACT,
        "when somebody came, and what Mailchimp, Klaviyo, HubSpot, Braze and Shopify keep of their contacts",
        r"member rating|opt(ed)? ?in (time|date|at)|(email )?opted in at|confirm time|subscribed (at|on|date)"
        r"|subscri(be|ption|bed) date|date subscribed|sign ?up.*|date added|added time|profile created on"
        r"|last (open|click|active|opened|clicked)|lifecycle stage|lead status|contact owner"
        r"|(record|contact|klaviyo|braze) id|marketing contact status|(consent|optin) (time|timestamp|date)"
        r"|.*consent timestamp|total (orders|spent)|(first|last) ?name|full name|vorname|nachname|tags|alternate emails"
        r"|leid|euid|web id|updated at|modified (at|time|date)|profile updated at|customer lifetime value",
        ("MEMBER_RATING", "Email Marketing Consent Timestamp", "Lead Status", "First Name", "EUID"),
        whole=True,
    ),
    NameRule(
        Role.HARMLESS,
        "lists of opt-outs have it, too: who, where, and by which list or message",
        r"|name|notes?|comments?|ip|ip address|origin"
        r"|country|land|language|sprache|lang|locale|region|currency|gender"
        r"|group (id|name)|list( id| name)?|campaign.*|(campaign|template|message|channel|message type) ids?"
        r"|rejected .*",
        ("Origin", "group_name", "messageId", "rejected_line", ""),
        whole=True,
    ),
)
#: A column about all email there is, by the words of its name: beside a yes in one, a no in one about a list says
#: nothing.
_OF_EVERYTHING = re.compile(
    r".*\b(all|everything|global(ly)?)\b.*"
    r"|((is|has|was|been|user|contact|customer|from|of|e ?mails?|mails?|send|status|flag|marketing|any|yes|no|y|n"
    rf"|des|du|de|vom|von|({'|'.join(name.pattern for name in NAME_RULES if name.role is Role.OPT_OUT)})\w*)( |$))+"
)
_WORD = re.compile(r"\w+")
#: Words in the names of reasons that people type themselves: Mailchimp's `UNSUB_REASON_OTHER`.
_FREE_TEXT = frozenset({"other", "text", "comment", "comments", "feedback"})


def roles_of(name: str) -> frozenset[Role]:
    """What a column of this name is about; `name` is as `plain` writes it."""
    return frozenset(one.role for one in NAME_RULES if one.fits(name))


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
    name: str = field(init=False)
    roles: frozenset[Role] = field(init=False)

    def __post_init__(self) -> None:
        self.name = plain(self.title)
        self.roles = roles_of(self.name)

    @property
    def is_negative(self) -> bool:
        """Whether a yes in it is an opt-out."""
        return Role.OPT_OUT in self.roles

    @property
    def is_of_everything(self) -> bool:
        """Whether it is about unsubscribes from all email, and not from one list or kind."""
        words = " ".join(_WORD.findall(self.name)).removesuffix(" c")  # Salesforce's `Email_Opt_Out__c`
        return self.is_negative and _OF_EVERYTHING.fullmatch(words) is not None

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
            self.further[self.is_negative and is_time_or_numbers(value)] += 1

    def says(self, value: str) -> Said:
        """What a value means, in this column."""
        if is_blank(value):
            return Said.UNKNOWN
        said = said_of(value, is_time=self.is_time)
        return self._says_by_its_name(value) if said is None else said

    def _says_by_its_name(self, value: str) -> Said:
        """What a value that no rule knows means: a yes or a no, the column's own name, or when it was."""
        text = plain(value[:LONGEST_SAID])
        if self.roles & {Role.CAME_BACK, Role.ACTIVE}:
            return Said.UNKNOWN if text in NO else Said.IN
        if self.is_negative and text == self.name:
            return Said.OUT
        if Role.CONSENT in self.roles and text in YES | NO:
            return Said.OUT if (text in YES) is self.is_negative else Said.IN
        # When it was, or of what: that it is there at all says it. Any other word may be another language's no.
        return Said.OUT if self.is_negative and not self.is_reason and is_time_or_numbers(value) else Said.UNKNOWN

    @property
    def said(self) -> Mapping[Said, int]:
        """How many rows of it say what."""
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
        if Role.CONTACT in self.roles:
            return True
        is_consent = Role.CONSENT in self.roles and not self.roles & {Role.OPT_OUT, Role.OTHER_CHANNEL, Role.DETAIL}
        return is_consent and self.filled > 0 and not self.has_categories

    @property
    def may_be_yes_and_no(self) -> bool:
        """Whether there are two short values and no more, in whatever language: nobody knows which of them left."""
        values = [*self.values, *[""] * (self.blank > 0)]
        return len(values) == 2 and not self.is_time and all(len(value) <= LONGEST_YES for value in values)

    @property
    def is_about_consent(self) -> bool:
        """By its name, or by what stands in it."""
        if not self.filled or Role.OTHER_CHANNEL in self.roles:
            return False
        if self.is_reason:
            # A reason tells who is no opt-out; that it is missing, or another text, says nothing.
            return Said.NOT_ASKED in self.said
        if Role.CAME_BACK in self.roles:
            return True
        if Role.DETAIL in self.roles:
            return False
        if Role.LOST in self.roles:
            return any(plain(value) not in NO for value in self.values)
        if self.roles & {Role.CONSENT, Role.STATUS}:
            return self.is_negative or (self.has_categories and not self.is_about_contacts)
        if Role.HARMLESS in self.roles or not self.has_categories:
            return False
        if any(map(is_subscribed, self.values)):
            # Whatever the column is called, and whatever else stands in it.
            return True
        if Role.STATE in self.roles and any(self.says(value) is not Said.UNKNOWN for value in self.values):
            return True
        # Numbers and single letters may be anything.
        return all(
            self.says(value) is not Said.UNKNOWN or (len(value) > 1 and plain(value) in YES | NO)
            for value in self.values
        )


def about_consent(columns: Iterable[Column]) -> list[Column]:
    return [column for column in columns if column.is_about_consent]
