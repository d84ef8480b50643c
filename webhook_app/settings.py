"""Every environment variable: name, type, default, meaning. All mistakes are reported at once, at boot."""

import dataclasses
import difflib
import ipaddress
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from webhook_app.egress import Egress, check_ca_file, check_proxy, is_host

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

MAILGUN_BASES = {"us": "https://api.mailgun.net", "eu": "https://api.eu.mailgun.net"}
EVENTS_API_BASES = {"us": "https://dy-api.com", "eu": "https://dy-api.eu"}

#: Where `make run` leaves the names of the variables that it has made up.
MADE_UP = "MADE_UP_FOR_DEVELOPMENT"

#: What we call a field of an Emarsys webhook → the key it stands under unless `EMARSYS_FIELDS` says otherwise.
EMARSYS_KEYS = (
    ("email", "email"),
    ("external_id", "external_id"),
    ("opt_in", "optin"),
    ("event_time", "event_time"),
    ("event_id", "deduplication_id"),
)


NOT_UTF_8 = "holds bytes that are no UTF-8: write it anew, in UTF-8"


def is_utf_8(text: str) -> bool:
    """Whether what the environment holds is text; of bytes that are none Python makes lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class ConfigurationError(Exception):
    """The settings cannot be used. `problems` holds a line for each mistake: the variable and the cure."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class VerificationKey(fields.Field["EllipticCurvePublicKey"]):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> "EllipticCurvePublicKey":
        # Only now: cryptography takes long to load, and whoever has another ESP needs none.
        from webhook_app.auth.sendgrid import parse_key

        try:
            return parse_key(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None


class CommaSeparated(fields.Field[tuple[Any, ...]]):
    """`a, b,c` as a tuple of what the inner field makes of each part; empty parts are dropped."""

    def __init__(self, inner: fields.Field[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = inner

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[Any, ...]:
        parts = [part.strip() for part in value.split(",") if part.strip()]
        loaded, problems = [], []
        for place, part in enumerate(parts, start=1):
            try:
                loaded.append(self.inner.deserialize(part))
            except ValidationError as error:
                # The place, not the part: the part may be a secret.
                problems += [f"entry {place} of {len(parts)} {_lower(line)}" for line in _lines(error)]
        if problems:
            raise ValidationError(problems)
        if not loaded:
            # Whoever has set it meant something: no event that counts would opt nobody out.
            raise ValidationError("holds nothing but commas; name at least one, or take the variable away")
        return tuple(loaded)


class UserAndPassword(fields.String):
    """`user:password`, as bytes; the user cannot hold a colon, the password can. `of_people`: no ESP has to send it."""

    def __init__(self, *, least: int = 1, of_people: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.least = least
        self.of_people = of_people

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not self.of_people:
            _check_secret(value)
        user, colon, password = value.partition(":")
        if not (user and colon and password):
            raise ValidationError("must be written user:password")
        if len(password) < self.least:
            raise ValidationError(f"has a password of less than {self.least} characters; make a longer one")
        return value.encode()


#: Unicode's general categories of what is not seen.
INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}

#: Characters. A webhook's URL is public, and nothing limits how often somebody guesses.
SHORTEST_SECRET = 16
TOO_SHORT = (
    f"is shorter than {SHORTEST_SECRET} characters and can be guessed; make one with `openssl rand -hex 24`, "
    "and give it to the ESP"
)


def check_secret(text: str) -> None:
    """Raises `ValueError` for what no ESP can send, so that every webhook would be 401; its text does not hold it."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        # Those of a shell, which `docker run --env-file` and many forms hand on.
        raise ValueError("stands in quotation marks, which would be part of it: write it without")
    if not is_utf_8(text):
        raise ValueError(NOT_UTF_8)
    if any(unicodedata.category(character) in INVISIBLE and character not in " \t" for character in text):
        raise ValueError("holds an invisible character, as copying from a page or a mail brings along: type it anew")


def _check_secret(text: str) -> None:
    try:
        check_secret(text)
    except ValueError as error:
        raise ValidationError(str(error)) from None


class Secret(fields.String):
    """A shared secret that people think up, as bytes."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        _check_secret(value)
        if len(value) < SHORTEST_SECRET:
            raise ValidationError(TOO_SHORT)
        return value.encode()


class Choice(fields.String):
    """One of a few words, in whatever letter case; where two differ by nothing else, as it is written."""

    def __init__(self, *words: str) -> None:
        super().__init__(validate=validate.OneOf(words, error="must be one of: {choices}"))
        self.words = words

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        alike = [word for word in self.words if word.lower() == value.lower()]
        return alike[0] if len(alike) == 1 else value


class Pairs(fields.Field[tuple[tuple[str, str], ...]]):
    """`email=E_MAIL,opt_in=status`: what we call a field = the key it stands under. Names not given keep theirs."""

    def __init__(self, defaults: tuple[tuple[str, str], ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.defaults = dict(defaults)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[tuple[str, str], ...]:
        pairs = self.defaults.copy()
        for part in filter(None, (part.strip() for part in value.split(","))):
            name, equals, key = (side.strip() for side in part.partition("="))
            if name not in self.defaults or not equals or not key:
                raise ValidationError(f"must be pairs like email=email; the names are: {', '.join(self.defaults)}")
            pairs[name] = key
        return tuple(pairs.items())


class BaseUrl(fields.Field[str]):
    """`https://host[:port]`; plain http only to this machine, where nobody can listen in."""

    def __init__(self, example: str = "https://dy-api.com", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.example = example

    def _deserialize(self, value: str, attr: str | None, data: Any, **kwargs: Any) -> str:
        try:
            url = urlsplit(value)
            port = url.port
        except ValueError:
            raise ValidationError(f"is not a URL; write it like {self.example}") from None
        if url.scheme not in ("http", "https") or port == 0 or not url.hostname or not is_host(url.hostname):
            raise ValidationError(f"is not a URL; write it like {self.example}")
        if url.scheme == "http" and not is_loopback(url.hostname):
            raise ValidationError(f"must begin with https://, like {self.example} (plain http is for localhost only)")
        if url.path.strip("/") or url.query or url.fragment or url.username:
            raise ValidationError(f"must hold only scheme and host, like {self.example}: no path, query or user")
        return value.rstrip("/")


class Checked(fields.String):
    """A text that a function takes as it is, or refuses with a `ValueError` that says why."""

    def __init__(self, check: Callable[[str], str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check = check

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return self.check(value)
        except ValueError as error:
            raise ValidationError(str(error)) from None


#: Of a span that a person writes: `90s`, `30m`, `6h`, `1d`.
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(fields.Field[float]):
    """`90s`, `30m`, `6h`, `1d`, or seconds; at least a minute."""

    _LEAST, _MOST = 60.0, 31 * 86400.0

    def _deserialize(self, value: str, attr: str | None, data: Any, **kwargs: Any) -> float:
        found = re.fullmatch(r"(\d{1,9})\s*([smhd]?)", value.strip(), re.ASCII | re.IGNORECASE)
        seconds = float(found[1]) * SECONDS[found[2].lower() or "s"] if found else 0.0
        if not self._LEAST <= seconds <= self._MOST:
            raise ValidationError("must be a time from 60s to 31d, like 30m, 6h or 1d")
        return seconds


def _setting(field: fields.Field[Any], default: Any, meaning: str, *, secret: bool = False, shown: str = "") -> Any:
    """Declare one variable; `shown` is how the README writes its default where that is not plain."""
    metadata = {"field": field, "meaning": meaning, "secret": secret, "shown": shown}
    return dataclasses.field(default=default, repr=not secret, metadata=metadata)


def _whole(*, least: int, most: int) -> fields.Integer:
    error = f"must be a whole number from {least} to {most}"
    return fields.Integer(
        validate=validate.Range(least, most, error=error),
        error_messages={"invalid": f"{error}, without quotation marks"},
    )


def _matching(pattern: str, error: str) -> fields.String:
    return fields.String(validate=validate.Regexp(rf"(?:{pattern})\Z", error=error))


def _short_text() -> fields.String:
    return fields.String(validate=validate.Length(max=100, error="must be at most {max} characters"))


def _event_name() -> fields.String:
    not_too_long = validate.Length(max=100, error="must be at most {max} characters")
    channel_alone = validate.Regexp(
        r"([^{}]|\{channel\})*\Z", error="may hold {{channel}}, which becomes Email or Push, and no other braces"
    )
    return fields.String(validate=[not_too_long, channel_alone])


def _path_part() -> fields.String:
    """A text that becomes a part of a URL's path."""
    return _matching(r"[A-Za-z0-9_-]{1,64}", "must be letters, digits, - and _ only")


def _secret_text(*, least: int) -> fields.String:
    return fields.String(validate=validate.Length(min=least, error="must be at least {min} characters long"))


def api_key_field() -> fields.String:
    """A text that becomes a header. Quotation marks are those of a shell, which `docker run --env-file` hands on."""
    return _matching(r"[!#-&(-~]+", "holds characters that no key has, like a space or quotation marks; copy it anew")


def _flag() -> fields.Boolean:
    return fields.Boolean(error_messages={"invalid": "must be true or false"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says. A variable's name is its field's name in capitals."""

    database_url: str = _setting(
        fields.String(),
        "sqlite:///instance/outbox.db",
        "where changes are kept: `postgres://user:password@host/name`, also with several hosts or by way of a pooler, "
        "or `sqlite:///file`",
        secret=True,
        shown="SQLite file under `instance/`",
    )
    events_api_key: str = _setting(
        api_key_field(),
        "",
        "server-side API key of the Dynamic Yield section; the worker needs it",
        secret=True,
    )
    events_api_region: str = _setting(
        Choice(*EVENTS_API_BASES), "us", "data centre of the section: `us` or `eu`; they share no data"
    )
    events_api_url: str = _setting(
        BaseUrl("https://dy-api.com"), "", "another base URL, without path", shown="from the region"
    )
    destination: str = _setting(
        Choice("events", "reconnect"),
        "events",
        "what to call: `events` (Events API) or `reconnect` (dedicated opt-out and opt-in endpoints)",
    )
    section_type: str = _setting(Choice("web", "api"), "web", "`web` (ordinary section) or `api` (API-only section)")
    active_consent_accepted: bool = _setting(
        _flag(),
        False,
        "put `user.active_consent_accepted: true` into every call; needed where the section uses Active Cookie Consent",
    )
    opt_out_event_name: str = _setting(
        _event_name(), "{channel} Opt-Out", "what an event is called; `{channel}` becomes `Email` or `Push`"
    )
    opt_in_event_name: str = _setting(_event_name(), "{channel} Opt-In", "the same for opt-ins")
    reconnect_email_channel: str = _setting(
        _path_part(), "email", "`DESTINATION=reconnect`: the channel of emails, also for external ids"
    )
    reconnect_web_push_channel: str = _setting(
        _path_part(), "web-push", "the channel of web push, also where a webhook does not say which push it means"
    )
    reconnect_app_push_channel: str = _setting(
        _path_part(), "", "the channel of app push, which Dynamic Yield has not published"
    )
    reconnect_external_type: str = _setting(
        _short_text(),
        "external",
        "the type of an external id, which Dynamic Yield has not published: probably the name of the identifier in "
        "your channel integration",
    )
    reconnect_push_type: str = _setting(_short_text(), "pushID", "the type of a push id")
    events_api_push_key: str = _setting(
        Choice("pushID", "pushId"),
        "pushID",
        "`DESTINATION=events`: what the push id is called; Dynamic Yield's pages write `pushID`, its OpenAPI "
        "description `pushId`",
    )
    events_api_context: str = _setting(
        _path_part(),
        "",
        "`DESTINATION=events`: the channel put into `context`, like `EMAIL`, `WEB` or `APP`; Dynamic Yield's API logs "
        "can be filtered by it",
        shown="no `context`",
    )
    address_case: str = _setting(
        Choice("as_is", "lower"),
        "as_is",
        "how an address is written to Dynamic Yield: `as_is` (as the ESP wrote it) or `lower`",
    )
    requests_per_second: int = _setting(
        _whole(least=0, most=100_000),
        0,
        "ceiling on requests to Dynamic Yield a second, for each worker and section; 0 is none",
    )
    section_when: str = _setting(
        fields.String(),
        "",
        "JMESPath over `{provider, action, kind, event}`: which events concern the section, like `event.brand == 'uk'`",
        shown="all",
    )
    sections_file: str = _setting(
        fields.String(),
        "",
        "a TOML file of several sections, instead of the one of `EVENTS_API_KEY`; see docs/sections.md",
        shown="`sections.toml` if present",
    )
    egress_proxy: str = _setting(
        Checked(check_proxy),
        "",
        "an HTTP proxy for every request that leaves, like `http://user:password@proxy.example.com:3128`",
        secret=True,
        shown="—",
    )
    egress_ca_file: str = _setting(
        Checked(check_ca_file),
        "",
        "a PEM file of the certificate authorities that count for every request that leaves",
        shown="the usual ones",
    )
    forward_opt_ins: bool = _setting(_flag(), False, "forward resubscribes too; otherwise they are counted as ignored")
    sendgrid_verification_keys: tuple["EllipticCurvePublicKey", ...] = _setting(
        CommaSeparated(VerificationKey()),
        (),
        "public keys as SendGrid shows them, comma separated (several during a rotation); opens `/webhooks/sendgrid`",
        shown="—",
    )
    sendgrid_events: tuple[str, ...] = _setting(
        CommaSeparated(Choice("unsubscribe", "group_unsubscribe", "spamreport", "bounce", "dropped")),
        ("unsubscribe", "group_unsubscribe", "spamreport"),
        "which events opt a person out; may add `bounce` (hard only) and `dropped`",
    )
    sendgrid_group_ids: tuple[int, ...] = _setting(
        CommaSeparated(_whole(least=0, most=2**53)), (), "the unsubscribe groups that count", shown="all"
    )
    sendgrid_api_key: str = _setting(
        api_key_field(),
        "",
        "API key for `flask connect sendgrid` and `flask reconcile sendgrid`; receiving needs none",
        secret=True,
    )
    sendgrid_api_url: str = _setting(
        BaseUrl("https://api.sendgrid.com"),
        "https://api.sendgrid.com",
        "SendGrid's API; `https://api.eu.sendgrid.com` for subusers of the EU region",
    )
    sendgrid_subuser: str = _setting(
        fields.String(), "", "the subuser whose webhook and suppressions are meant", shown="the account itself"
    )
    reconcile_every: float = _setting(
        Duration(),
        0.0,
        "how often the worker compares the ESPs' own suppression lists with what it knows, like `6h`: those of every "
        "ESP that has an API key here",
        shown="never",
    )
    mailchimp_api_key: str = _setting(
        _matching(r"[!-~]+-[a-z]{2}\d{1,3}", "is not whole: it ends with the data centre, like -us21"),
        "",
        "API key for `flask connect mailchimp` and `flask reconcile mailchimp`",
        secret=True,
    )
    mailchimp_api_url: str = _setting(
        BaseUrl("https://us21.api.mailchimp.com"), "", "Mailchimp's API", shown="by the end of the key"
    )
    mailchimp_audience_ids: tuple[str, ...] = _setting(
        CommaSeparated(_path_part()), (), "the audiences that are meant", shown="all"
    )
    klaviyo_api_key: str = _setting(
        api_key_field(), "", "private API key for `flask reconcile klaviyo`; it needs `profiles:read`", secret=True
    )
    klaviyo_api_url: str = _setting(BaseUrl("https://a.klaviyo.com"), "https://a.klaviyo.com", "Klaviyo's API")
    mailgun_api_key: str = _setting(
        api_key_field(), "", "API key for `flask connect mailgun` and `flask reconcile mailgun`", secret=True
    )
    mailgun_domains: tuple[str, ...] = _setting(
        CommaSeparated(_matching(r"[A-Za-z0-9.-]{1,253}", "must be a domain, like mg.example.com")),
        (),
        "the sending domains whose webhooks and suppressions are meant",
        shown="—",
    )
    mailgun_region: str = _setting(Choice(*MAILGUN_BASES), "us", "where the domains are: `us` or `eu`")
    mailgun_api_url: str = _setting(BaseUrl("https://api.mailgun.net"), "", "Mailgun's API", shown="from the region")
    postmark_server_token: str = _setting(
        api_key_field(), "", "server API token for `flask connect postmark` and `flask reconcile postmark`", secret=True
    )
    postmark_api_url: str = _setting(
        BaseUrl("https://api.postmarkapp.com"), "https://api.postmarkapp.com", "Postmark's API"
    )
    postmark_streams: tuple[str, ...] = _setting(
        CommaSeparated(_path_part()),
        ("outbound", "broadcast"),
        "the message streams whose webhooks and suppressions are meant",
        shown="`outbound,broadcast`",
    )
    brevo_api_key: str = _setting(
        api_key_field(), "", "API key for `flask connect brevo` and `flask reconcile brevo`", secret=True
    )
    brevo_api_url: str = _setting(BaseUrl("https://api.brevo.com"), "https://api.brevo.com", "Brevo's API")
    ses_access_key_id: str = _setting(
        api_key_field(),
        "",
        "access key for `flask reconcile ses`; it needs `ses:ListSuppressedDestinations`, and no more",
        secret=True,
    )
    ses_secret_access_key: str = _setting(api_key_field(), "", "the secret of `SES_ACCESS_KEY_ID`", secret=True)
    ses_region: str = _setting(
        _matching(r"[a-z]{2}(-[a-z]+)+-\d", "must be a region, like eu-central-1"), "", "the region that sends"
    )
    ses_api_url: str = _setting(
        BaseUrl("https://email.eu-central-1.amazonaws.com"), "", "Amazon SES' API", shown="from the region"
    )
    emarsys_tokens: tuple[bytes, ...] = _setting(
        CommaSeparated(Secret()),
        (),
        "tokens that open `/webhooks/emarsys`, in `Authorization: Bearer …` or `X-Api-Key: …`",
        secret=True,
        shown="—",
    )
    emarsys_basic_auth: tuple[bytes, ...] = _setting(
        CommaSeparated(UserAndPassword()),
        (),
        "`user:password` pairs that open it by HTTP Basic",
        secret=True,
        shown="—",
    )
    emarsys_jwt_secrets: tuple[bytes, ...] = _setting(
        CommaSeparated(Secret()),
        (),
        "secrets that open it by a signed token (HS256) in `Authorization: Bearer …`",
        secret=True,
        shown="—",
    )
    emarsys_url_secrets: tuple[bytes, ...] = _setting(
        CommaSeparated(Secret()), (), "secrets that open it as `/webhooks/emarsys/<secret>`", secret=True, shown="—"
    )
    emarsys_fields: tuple[tuple[str, str], ...] = _setting(
        Pairs(EMARSYS_KEYS),
        EMARSYS_KEYS,
        "the key names chosen in the webhook node; also `event_time` and `event_id`; `event_data.mail` is an inner key",
        shown="`email=email,external_id=external_id,opt_in=optin`",
    )
    emarsys_identity: str = _setting(
        Choice("external", "email"), "external", "which identifier Dynamic Yield knows: `external` or `email`"
    )
    emarsys_identity_fallback: bool = _setting(
        _flag(), False, "use the other identifier where the one of `EMARSYS_IDENTITY` is missing"
    )
    emarsys_unknown_opt_in: str = _setting(
        Choice("ignore", "opt_out"),
        "ignore",
        "what an empty opt-in value means: `ignore`, or `opt_out` where the program runs for nobody who is opted in",
    )
    providers_file: str = _setting(
        fields.String(), "", "a TOML file that declares further ESPs", shown="`providers.toml` if present"
    )
    public_url: str = _setting(
        BaseUrl("https://hooks.example.com"),
        "",
        "the address ESPs call, like `https://hooks.example.com`; needed by schemes that sign the URL",
    )
    alert_urls: tuple[str, ...] = _setting(
        CommaSeparated(
            _matching(r"[a-z0-9]+://\S+", "is not written as Apprise wants it, like slack://… or mailto://…")
        ),
        (),
        "where to tell people when something is wrong, comma separated, as "
        "[Apprise](https://github.com/caronc/apprise) writes them: "
        "`slack://`, `msteams://`, `mailto://`, `json://host/path` … (a comma within one is `%2C`)",
        secret=True,
        shown="—",
    )
    console_password: str = _setting(
        _secret_text(least=8), "", "opens the console at `/console/`; without it there is none", secret=True, shown="—"
    )
    console_users: tuple[bytes, ...] = _setting(
        CommaSeparated(UserAndPassword(least=8, of_people=True)),
        (),
        "`name:password` pairs, where it shall be known who did what in the console",
        secret=True,
        shown="—",
    )
    secret_key: str = _setting(
        _secret_text(least=16),
        "",
        "signs the console's sessions; changing it logs everybody out",
        secret=True,
        shown="a key kept in the database",
    )
    retention_days: int = _setting(
        _whole(least=1, most=3650), 30, "after which a finished change loses its address and its raw event"
    )
    max_body_bytes: int = _setting(
        _whole(least=1024, most=64 * 2**20),
        2 * 2**20,
        "larger bodies get 413; ESPs of larger batches have a limit of their own, of 8 MiB",
    )
    signature_tolerance_seconds: int = _setting(
        _whole(least=1, most=10 * 365 * 86400),
        90_000,
        "how old a signed timestamp may be, where a scheme signs one (25 h: an ESP retries for 24 h)",
    )
    worker_concurrency: int = _setting(
        _whole(least=1, most=256),
        16,
        "how many requests to Dynamic Yield a worker has under way at once for each section",
    )
    web_concurrency: int = _setting(_whole(least=1, most=64), 1, "how many web processes gunicorn starts")
    log_format: str = _setting(
        Choice("json", "text"), "json", "how log lines are written: `json` for programs, `text` for people"
    )
    port: int = _setting(_whole(least=1, most=65535), 8000, "where the web process listens")

    @property
    def events_api_base(self) -> str:
        """Dynamic Yield's base URL, without a trailing slash."""
        return self.events_api_url or EVENTS_API_BASES[self.events_api_region]

    @property
    def mailchimp_api_base(self) -> str:
        return self.mailchimp_api_url or f"https://{self.mailchimp_api_key.rpartition('-')[2]}.api.mailchimp.com"

    @property
    def mailgun_api_base(self) -> str:
        return self.mailgun_api_url or MAILGUN_BASES[self.mailgun_region]

    @property
    def ses_api_base(self) -> str:
        return self.ses_api_url or f"https://email.{self.ses_region}.amazonaws.com"

    @property
    def api_keys(self) -> dict[str, str]:
        """Every ESP whose lists can be compared → its key, empty where there is none."""
        return {
            "sendgrid": self.sendgrid_api_key,
            "mailchimp": self.mailchimp_api_key,
            "klaviyo": self.klaviyo_api_key,
            "mailgun": self.mailgun_api_key,
            "postmark": self.postmark_server_token,
            "brevo": self.brevo_api_key,
            "ses": self.ses_access_key_id,
        }

    @property
    def egress(self) -> Egress:
        """How requests leave."""
        return Egress(proxy=self.egress_proxy, ca_file=self.egress_ca_file)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read every variable; an empty one counts as absent.

        Raises `ConfigurationError` with all problems.
        """
        given = {name: value.strip() for name, value in environ.items() if value.strip()}
        problems = [f"{name} {NOT_UTF_8}" for name in variables() if not is_utf_8(given.get(name, ""))]
        if problems:
            raise ConfigurationError(sorted(problems))
        loaded = {}
        try:
            loaded = _schema().load(given)
        except ValidationError as error:
            problems += [f"{name} {_lower(line)}" for name, lines in error.messages_dict.items() for line in lines]
        if problem := _disk_that_is_wiped(given):
            problems.append(problem)
        if loaded.get("reconcile_every") and not any(cls(**loaded).api_keys.values()):
            problems.append(
                "RECONCILE_EVERY needs an API key of an ESP, like SENDGRID_API_KEY: make one in SendGrid, "
                "Settings > API Keys"
            )
        if loaded.get("mailgun_api_key") and not loaded.get("mailgun_domains"):
            problems.append("MAILGUN_API_KEY needs MAILGUN_DOMAINS: name the sending domains, comma separated")
        if loaded.get("ses_access_key_id") and not (loaded.get("ses_secret_access_key") and loaded.get("ses_region")):
            problems.append("SES_ACCESS_KEY_ID needs SES_SECRET_ACCESS_KEY and SES_REGION")
        if problems:
            raise ConfigurationError(sorted(problems))
        return cls(**loaded)


#: A variable that a platform sets whose own disk does not last → its name, and how to get PostgreSQL there.
PLATFORMS = {
    "DYNO": ("Heroku", "run `heroku addons:create heroku-postgresql`"),
    "RENDER": ("Render", "create a PostgreSQL database and set DATABASE_URL to its internal URL"),
    "RAILWAY_ENVIRONMENT_NAME": ("Railway", "add PostgreSQL and set DATABASE_URL to ${{Postgres.DATABASE_URL}}"),
    "FLY_APP_NAME": ("Fly", "run `fly postgres create` and `fly postgres attach`"),
    "K_SERVICE": ("Cloud Run", "create a Cloud SQL instance for PostgreSQL and set DATABASE_URL"),
    "KUBERNETES_SERVICE_HOST": ("Kubernetes", "set DATABASE_URL to a PostgreSQL database"),
    # Our own image names itself so; last, for on a platform its own cure is the better one.
    "ESP_WEBHOOKS_IMAGE": (
        "a container",
        "set DATABASE_URL to PostgreSQL, or to the whole path of a file on a volume like sqlite:////data/outbox.db; "
        "where a volume is at /app/instance already, sqlite:////app/instance/outbox.db",
    ),
}


def platform(environ: Mapping[str, str]) -> str | None:
    """The variable by which a platform with a disk that does not last is known."""
    return next((name for name in PLATFORMS if environ.get(name)), None)


def _disk_that_is_wiped(given: Mapping[str, str]) -> str | None:
    """Web and worker are machines of their own there, or are replaced at each deployment: a SQLite file would be lost.

    Whoever has mounted a disk that lasts, and runs both beside it, names the file by its whole path; on Heroku there is
    none to mount. In Kubernetes also people's workshops stand, so there it is only a warning in the log.
    """
    known, url = platform(given), given.get("DATABASE_URL", "")
    if known in (None, "KUBERNETES_SERVICE_HOST") or url.startswith("postgres"):
        return None
    if known != "DYNO" and url.startswith("sqlite:////"):
        return None
    name, cure = PLATFORMS[str(known)]
    if known == "ESP_WEBHOOKS_IMAGE":
        return None if _is_on_a_volume(url) else f"The container's own disk does not last: {cure}"
    return f"DATABASE_URL must be a PostgreSQL database on {name}, whose own disk does not last: {cure}"


def _is_on_a_volume(url: str) -> bool:
    """Whether the folder of a SQLite file, or the nearest one there is above it, is on another disk than the system."""
    path = (url or Settings().database_url).partition(":///")[2].partition("?")[0]
    # `Path.exists` would raise where we may not look.
    folder = next(folder for folder in Path(path).absolute().parents if os.path.exists(folder))  # noqa: PTH110
    return folder.stat().st_dev != Path("/").stat().st_dev


def variables() -> dict[str, dataclasses.Field[Any]]:
    """Every setting by the name of its environment variable."""
    return {field.name.upper(): field for field in dataclasses.fields(Settings)}


def near_misses(environ: Mapping[str, str], further: Iterable[str] = ()) -> dict[str, str]:
    """Variables that are set, unknown to us, and spelt almost like one of ours: given name → our name.

    `further` are the variables that open the declared providers.
    """
    known = {*variables(), *further}
    # What `make run` has made up stands where the mistyped one was to stand.
    given = environ.keys() - environ.get(MADE_UP, "").split(",")
    misses = {}
    for name in sorted(given - known):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
        if close and close[0] not in given:
            misses[name] = close[0]
    return misses


def is_loopback(host: str) -> bool:
    """Whether a host name or address of a URL is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _schema() -> Schema:
    declared = {}
    for name, field in variables().items():
        declared[field.name] = field.metadata["field"]
        declared[field.name].data_key = name
    return Schema.from_dict(declared)(unknown=EXCLUDE)


def _lines(error: ValidationError) -> list[str]:
    return [str(line) for line in error.messages]


def _lower(line: str) -> str:
    """`Not a valid string.` → `not a valid string`: the line goes on after a name."""
    return line[:1].lower() + line[1:].rstrip(".")
