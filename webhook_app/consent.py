"""The domain: a person's change of mind about messages. Frozen values that know nobody else of ours."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Action(StrEnum):
    #: The person no longer wants messages.
    OPT_OUT = "opt_out"
    #: The person wants messages again.
    OPT_IN = "opt_in"


class IdentityKind(StrEnum):
    #: An email address, compared without case.
    EMAIL = "email"
    #: The customer's own id of the person, compared exactly.
    EXTERNAL = "external"
    #: A push subscription's id, compared exactly.
    PUSH = "push"


class PushChannel(StrEnum):
    APP = "APP_PUSH"
    WEB = "WEB_PUSH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who changed their mind: exactly one identifier, trimmed, otherwise as the ESP wrote it.

    Raises `ValueError` for an identifier that is empty.
    """

    kind: IdentityKind
    value: str = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", self.value.strip())
        if not self.value:
            raise ValueError(f"the {self.kind} identifier is empty")

    @property
    def key(self) -> str:
        """What makes two identities the same person: `Jane@Example.com` is `jane@example.com`.

        In lower case, not case-folded: that would make one person of `straße@` and `strasse@`.
        """
        value = self.value.lower() if self.kind is IdentityKind.EMAIL else self.value
        return f"{self.kind}:{value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """The ids by which Dynamic Yield may already know the person, where the webhook carries them.

    `dyid`, `dyid_server` and `session` belong to an ordinary section, `user_id` and `session_id` to an
    API-only one. An id that is not known stays empty: an invented one would create a junk user.
    """

    dyid: str = field(default="", repr=False)
    dyid_server: str = field(default="", repr=False)
    session: str = field(default="", repr=False)
    user_id: str = field(default="", repr=False)
    session_id: str = field(default="", repr=False)


#: As nearly always.
NO_VISITOR = Visitor()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentChange:
    """One person's opt-out or opt-in, as an ESP reported it.

    Raises `ValueError` for a time without a zone.
    """

    action: Action
    identity: Identity
    #: The ESP's word for what happened: `group_unsubscribe`, `spamreport` …
    reason: str
    #: When it happened, aware. None where the ESP does not say: then the time of receipt counts.
    occurred_at: datetime | None = None
    #: The ESP's ids of the event and of the message that led to it, empty where it has none.
    event_id: str = ""
    message_id: str = ""
    visitor: Visitor = NO_VISITOR
    #: Which kind of push an opt-in is for; None where the ESP does not say.
    push_channel: PushChannel | None = None
    #: Made up by the ESP's own test button: shown, never forwarded.
    is_test: bool = False

    def __post_init__(self) -> None:
        if self.occurred_at is not None and self.occurred_at.tzinfo is None:
            raise ValueError("occurred_at needs a time zone")
