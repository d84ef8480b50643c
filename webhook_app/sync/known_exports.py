"""Files as ESPs export them, recognised by their header: which column is what, and whether they are opt-outs at all.

Header names are facts of the ESPs' pages and files; they are compared as `plain` writes them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: The column with the time as of which a rejected row counts, as `plain` writes its title.
AS_OF = "rejected as of"
#: The columns that an import adds to the rows it rejects, and how `plain` writes them.
REJECTED = {
    "rejected line": "rejected_line",
    "rejected because": "rejected_because",
    AS_OF: "rejected_as_of",
}

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BETWEEN = re.compile(r"[\s_:/.-]+")


def plain(name: str) -> str:
    """`UNSUB_TIME`, `Unsub-Time` and `unsubTime` are all `unsub time`."""
    return _BETWEEN.sub(" ", _CAMEL.sub(" ", name.strip())).strip().casefold()


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One kind of file."""

    title: str
    #: Columns that it has; where these are common ones, also all others that it may have.
    has: frozenset[str]
    may: frozenset[str] | None = None
    email: str
    #: The column that says when somebody opted out; empty where none does.
    time: str = ""
    reason: str = ""
    #: Whether those who have not opted out are in it as well.
    has_contacts: bool = False
    #: Why nobody in it has opted out; empty where they may have.
    not_opt_outs: str = ""

    def fits(self, columns: frozenset[str]) -> bool:
        return self.has <= columns and (self.may is None or columns <= self.has | self.may)


def _columns(*names: str) -> frozenset[str]:
    return frozenset(names)


_BOUNCED = "is a list of bounces: nobody on it has asked for anything"

#: The first that fits counts.
EXPORTS = (
    Export(
        title="Mailchimp's unsubscribed contacts",
        has=_columns("email address", "unsub time"),
        email="email address",
        time="unsub time",
        reason="unsub reason",
    ),
    Export(
        title="Mailchimp's cleaned contacts",
        has=_columns("email address", "clean time"),
        email="email address",
        time="clean time",
        not_opt_outs=_BOUNCED,
    ),
    Export(
        title="Mailchimp's subscribed contacts",
        has=_columns("email address", "member rating"),
        email="email address",
        not_opt_outs="is a list of subscribed contacts; Mailchimp exports those who opted out as unsubscribed_….csv",
    ),
    Export(
        title="SendGrid's bounces",
        has=_columns("email", "created", "reason", "status"),
        may=_columns(),
        email="email",
        time="created",
        not_opt_outs=_BOUNCED,
    ),
    Export(
        title="SendGrid's spam reports",
        has=_columns("email", "created", "ip"),
        may=_columns(),
        email="email",
        time="created",
    ),
    Export(
        title="SendGrid's group unsubscribes",
        has=_columns("email", "created at", "group id"),
        may=_columns("group name"),
        email="email",
        time="created at",
    ),
    Export(
        title="SendGrid's unsubscribes",
        has=_columns("email", "created"),
        may=_columns("group id", "group name"),
        email="email",
        time="created",
    ),
    Export(
        title="Mailgun's bounces",
        has=_columns("address", "code", "error"),
        email="address",
        time="created at",
        not_opt_outs=_BOUNCED,
    ),
    Export(
        title="Mailgun's unsubscribes or complaints",
        has=_columns("address", "created at"),
        may=_columns("tags", "tag"),
        email="address",
        time="created at",
    ),
    Export(
        title="Postmark's suppressions",
        has=_columns("email address", "suppression reason"),
        email="email address",
        time="created at",
        reason="suppression reason",
    ),
    Export(
        title="Brevo's blocked contacts",
        has=_columns("email", "reason", "blocked at"),
        email="email",
        time="blocked at",
        reason="reason",
    ),
    Export(
        title="Iterable's unsubscribe events",
        has=_columns("email", "created at", "unsub source"),
        email="email",
        time="created at",
        reason="unsub source",
    ),
    Export(
        title="Braze's users",
        has=_columns("email", "email subscribe"),
        email="email",
        time="email unsubscribed at",
        has_contacts=True,
    ),
    Export(title="Emarsys' contacts", has=_columns("e mail", "opt in"), email="e mail", has_contacts=True),
    Export(title="HubSpot's contacts", has=_columns("email", "record id"), email="email", has_contacts=True),
)


def recognise(header: Sequence[str]) -> Export | None:
    columns = frozenset(plain(cell) for cell in header if cell.strip()) - REJECTED.keys()
    return next((export for export in EXPORTS if export.fits(columns)), None)
