"""Every environment variable: name, type, default, meaning. All mistakes are reported at once, at boot."""

import dataclasses
import difflib
import functools
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields

from webhook_app.egress import Egress, check_ca_file, check_proxy
from webhook_app.platforms import disk_that_is_wiped
from webhook_app.setting_fields import (
    NOT_UTF_8,
    BaseUrl,
    Checked,
    Choice,
    CommaSeparated,
    Duration,
    Pairs,
    Secret,
    UserAndPassword,
    VerificationKey,
    api_key_field,
    event_name,
    flag,
    is_utf_8,
    lower_first,
    matching,
    path_part,
    secret_text,
    short_text,
    whole_number,
)

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


class ConfigurationError(Exception):
    """The settings cannot be used. `problems` holds a line for each mistake: the variable and the cure."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _setting(field: fields.Field[Any], default: Any, meaning: str, *, secret: bool = False, shown: str = "") -> Any:
    """Declare one variable; `shown` is how the README writes its default where that is not plain."""
    metadata = {"field": field, "meaning": meaning, "secret": secret, "shown": shown}
    return dataclasses.field(default=default, repr=not secret, metadata=metadata)


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
        flag(),
        False,
        "put `user.active_consent_accepted: true` into every call; needed where the section uses Active Cookie Consent",
    )
    opt_out_event_name: str = _setting(
        event_name(), "{channel} Opt-Out", "what an event is called; `{channel}` becomes `Email` or `Push`"
    )
    opt_in_event_name: str = _setting(event_name(), "{channel} Opt-In", "the same for opt-ins")
    reconnect_email_channel: str = _setting(
        path_part(), "email", "`DESTINATION=reconnect`: the channel of emails, also for external ids"
    )
    reconnect_web_push_channel: str = _setting(
        path_part(), "web-push", "the channel of web push, also where a webhook does not say which push it means"
    )
    reconnect_app_push_channel: str = _setting(
        path_part(), "", "the channel of app push, which Dynamic Yield has not published"
    )
    reconnect_external_type: str = _setting(
        short_text(),
        "external",
        "the type of an external id, which Dynamic Yield has not published: probably the name of the identifier in "
        "your channel integration",
    )
    reconnect_push_type: str = _setting(short_text(), "pushID", "the type of a push id")
    events_api_push_key: str = _setting(
        Choice("pushID", "pushId"),
        "pushID",
        "`DESTINATION=events`: what the push id is called; Dynamic Yield's pages write `pushID`, its OpenAPI "
        "description `pushId`",
    )
    events_api_context: str = _setting(
        path_part(),
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
        whole_number(least=0, most=100_000),
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
    forward_opt_ins: bool = _setting(flag(), False, "forward resubscribes too; otherwise they are counted as ignored")
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
        CommaSeparated(whole_number(least=0, most=2**53)), (), "the unsubscribe groups that count", shown="all"
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
        matching(r"[!-~]+-[a-z]{2}\d{1,3}", "is not whole: it ends with the data centre, like -us21"),
        "",
        "API key for `flask connect mailchimp` and `flask reconcile mailchimp`",
        secret=True,
    )
    mailchimp_api_url: str = _setting(
        BaseUrl("https://us21.api.mailchimp.com"), "", "Mailchimp's API", shown="by the end of the key"
    )
    mailchimp_audience_ids: tuple[str, ...] = _setting(
        CommaSeparated(path_part()), (), "the audiences that are meant", shown="all"
    )
    klaviyo_api_key: str = _setting(
        api_key_field(), "", "private API key for `flask reconcile klaviyo`; it needs `profiles:read`", secret=True
    )
    klaviyo_api_url: str = _setting(BaseUrl("https://a.klaviyo.com"), "https://a.klaviyo.com", "Klaviyo's API")
    mailgun_api_key: str = _setting(
        api_key_field(), "", "API key for `flask connect mailgun` and `flask reconcile mailgun`", secret=True
    )
    mailgun_domains: tuple[str, ...] = _setting(
        CommaSeparated(matching(r"[A-Za-z0-9.-]{1,253}", "must be a domain, like mg.example.com")),
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
        CommaSeparated(path_part()),
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
        matching(r"[a-z]{2}(-[a-z]+)+-\d", "must be a region, like eu-central-1"), "", "the region that sends"
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
        flag(), False, "use the other identifier where the one of `EMARSYS_IDENTITY` is missing"
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
            matching(r"[a-z0-9]+://\S+", "is not written as Apprise wants it, like slack://… or mailto://…")
        ),
        (),
        "where to tell people when something is wrong, comma separated, as "
        "[Apprise](https://github.com/caronc/apprise) writes them: "
        "`slack://`, `msteams://`, `mailto://`, `json://host/path` … (a comma within one is `%2C`)",
        secret=True,
        shown="—",
    )
    console_password: str = _setting(
        secret_text(least=8), "", "opens the console at `/console/`; without it there is none", secret=True, shown="—"
    )
    console_users: tuple[bytes, ...] = _setting(
        CommaSeparated(UserAndPassword(least=8, of_people=True)),
        (),
        "`name:password` pairs, where it shall be known who did what in the console",
        secret=True,
        shown="—",
    )
    secret_key: str = _setting(
        secret_text(least=16),
        "",
        "signs the console's sessions; changing it logs everybody out",
        secret=True,
        shown="a key kept in the database",
    )
    retention_days: int = _setting(
        whole_number(least=1, most=3650), 30, "after which a finished change loses its address and its raw event"
    )
    max_body_bytes: int = _setting(
        whole_number(least=1024, most=64 * 2**20),
        2 * 2**20,
        "larger bodies get 413; ESPs of larger batches have a limit of their own, of 8 MiB",
    )
    signature_tolerance_seconds: int = _setting(
        whole_number(least=1, most=10 * 365 * 86400),
        90_000,
        "how old a signed timestamp may be, where a scheme signs one (25 h: an ESP retries for 24 h)",
    )
    worker_concurrency: int = _setting(
        whole_number(least=1, most=256),
        16,
        "how many requests to Dynamic Yield a worker has under way at once for each section",
    )
    web_concurrency: int = _setting(whole_number(least=1, most=64), 1, "how many web processes gunicorn starts")
    log_format: str = _setting(
        Choice("json", "text"), "json", "how log lines are written: `json` for programs, `text` for people"
    )
    port: int = _setting(whole_number(least=1, most=65535), 8000, "where the web process listens")

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
            problems += [f"{name} {lower_first(line)}" for name, lines in error.messages_dict.items() for line in lines]
        if problem := disk_that_is_wiped(given, cls().database_url):
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


@functools.cache
def settings_of_process() -> Settings:
    """What the environment says, read once. Raises `ConfigurationError`.

    gunicorn reads its configuration anew at SIGHUP. The environment is the same then; a file that it names may be
    broken, and a receiver that serves must not end at that.
    """
    return Settings.from_environment()


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


def _schema() -> Schema:
    declared = {}
    for name, field in variables().items():
        declared[field.name] = field.metadata["field"]
        declared[field.name].data_key = name
    return Schema.from_dict(declared)(unknown=EXCLUDE)
