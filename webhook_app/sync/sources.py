"""Suppression lists of the ESPs: which say who has opted out; a description for each, from its published API.

What differs between ESPs stands here as data; how a list is read, compared and written down is the same for all.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from requests.auth import HTTPBasicAuth

from webhook_app.providers.expressions import Condition, Path
from webhook_app.settings import Settings
from webhook_app.sync.api import Api, ApiError, Headers
from webhook_app.sync.aws_signature import AwsSignature
from webhook_app.sync.paging import NextLink, Offset, PageToken, Paging, whole
from webhook_app.sync.sendgrid_api import SendGridApi

Since = Callable[[datetime], Mapping[str, Any]]


def _everything(_since: datetime) -> Mapping[str, Any]:
    """The ESP cannot pick a time; we do."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionList:
    """One of an ESP's lists: where its entries are, and where in an entry address, time and reason stand."""

    title: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    #: The query that picks entries from a time on.
    since: Since = _everything
    paging: Paging
    #: The key under which the entries of a page stand; empty where the page is the list.
    entries: str = ""
    email: Path = field(default_factory=lambda: Path("email"))
    time: Path
    #: Which entries are opt-outs; None: all of them. Bounces are none, nor is who never said anything.
    where: Condition | None = None
    #: Which entries are of a known kind: another one may be an opt-out or none, and is quarantined. None: all of them.
    known: Condition | None = None
    #: Why a change says it happened.
    reason: str
    #: Where the entry itself says so.
    reason_at: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The lists of one account, and the way to them."""

    provider: str
    account: str = ""
    api: Api
    #: The key, and which lists: with another key it may be another account.
    scope: tuple[Any, ...] = field(repr=False)
    #: May ask the ESP which there are.
    lists: Callable[[], Iterator[SuppressionList]]

    def pages(self, one: SuppressionList, since: datetime | None) -> Iterator[list[Any]]:
        """Raises `ApiError`."""
        query = {**one.query, **(one.since(since) if since else {})}
        return one.paging(self.api, one.path, query, one.entries)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _api(settings: Settings, title: str, variable: str, make: str, more: Mapping[str, Any], **how: Any) -> Api:
    """Raises `ApiError` where there is no key."""
    if not getattr(settings, variable.lower()):
        raise ApiError("key_missing", f"{variable} is not set: make a key in {title}, {make}")
    return Api(**{"title": title, "variable": variable, "session": settings.egress.session(), **how, **more})


# ---------------------------------------------------------------- SendGrid
# https://www.twilio.com/docs/sendgrid/api-reference/suppressions-global-suppressions

_SENDGRID_PAGES = Offset(limit="limit", size=500)


def _from_start_time(since: datetime) -> Mapping[str, Any]:
    return {"start_time": int(since.timestamp())}


def sendgrid(settings: Settings, *, account: str = "", **more: Any) -> Source:
    """`account` is a subuser. `dropped` is about people who stand on the other lists."""
    api = SendGridApi.from_settings(settings, **({"subuser": account} if account else {}), **more)
    groups = settings.sendgrid_group_ids
    lists = {
        "unsubscribe": SuppressionList(
            title="Global Unsubscribes",
            path="/v3/suppression/unsubscribes",
            since=_from_start_time,
            paging=_SENDGRID_PAGES,
            time=Path("created"),
            reason="global_unsubscribes",
        ),
        "group_unsubscribe": SuppressionList(
            title="Group Unsubscribes",
            path="/v3/asm/suppressions",
            paging=_SENDGRID_PAGES,
            time=Path("created_at"),
            where=Condition(f"group_id == `null` || contains(`{list(groups)}`, group_id)") if groups else None,
            reason="group_unsubscribes",
        ),
        "spamreport": SuppressionList(
            title="Spam Reports",
            path="/v3/suppression/spam_reports",
            since=_from_start_time,
            paging=_SENDGRID_PAGES,
            time=Path("created"),
            reason="spam_reports",
        ),
        "bounce": SuppressionList(
            title="Bounces",
            path="/v3/suppression/bounces",
            since=_from_start_time,
            paging=_SENDGRID_PAGES,
            time=Path("created"),
            reason="bounces",
        ),
    }
    chosen = [lists[event] for event in settings.sendgrid_events if event in lists]
    return Source(
        provider="sendgrid",
        account=api.subuser,
        api=api,
        scope=(api.key, *settings.sendgrid_events, *groups),
        lists=lambda: iter(chosen),
    )


# ---------------------------------------------------------------- Mailchimp
# https://mailchimp.com/developer/marketing/api/list-members/list-members-info/


def mailchimp(settings: Settings, **more: Any) -> Source:
    """Who is unsubscribed in an audience; `cleaned` and `archived` have not asked for it.

    There is no time of the unsubscribe: `last_changed` is a time at which the person was unsubscribed for sure.
    """
    api = _api(
        settings,
        "Mailchimp",
        "MAILCHIMP_API_KEY",
        "Account > Extras > API keys",
        more,
        base=settings.mailchimp_api_base,
        auth=HTTPBasicAuth("any", settings.mailchimp_api_key),
    )
    pages = Offset(limit="count", size=1000)

    def audiences() -> Iterator[str]:
        if settings.mailchimp_audience_ids:
            yield from settings.mailchimp_audience_ids
            return
        for page in pages(api, "/3.0/lists", {"fields": "lists.id"}, "lists"):
            yield from (str(audience["id"]) for audience in page if isinstance(audience, dict) and "id" in audience)

    def lists() -> Iterator[SuppressionList]:
        for audience in audiences():
            yield SuppressionList(
                title=f"Unsubscribed of {audience}",
                path=f"/3.0/lists/{audience}/members",
                query={
                    "status": "unsubscribed",
                    "fields": "members.email_address,members.status,members.last_changed,members.unsubscribe_reason",
                },
                since=lambda since: {"since_last_changed": _iso(since)},
                paging=pages,
                entries="members",
                email=Path("email_address"),
                time=Path("last_changed"),
                where=Condition("status == 'unsubscribed'"),
                reason="unsubscribed",
                reason_at=Path("unsubscribe_reason"),
            )

    return Source(
        provider="mailchimp", api=api, scope=(settings.mailchimp_api_key, *settings.mailchimp_audience_ids), lists=lists
    )


# ---------------------------------------------------------------- Klaviyo
# https://developers.klaviyo.com/en/reference/get_profiles

KLAVIYO_REVISION = "2026-04-15"
_SUPPRESSION = "subscriptions.email.marketing.suppression"
#: Those of a profile that are opt-outs: an address that is dead has asked for nothing.
_KLAVIYO_ASKED = (
    f"attributes.{_SUPPRESSION}[?lower(reason) == 'unsubscribe' || lower(reason) == 'unsubscribed' "
    "|| lower(reason) == 'user_suppressed' || lower(reason) == 'spam_complaint']"
)


def klaviyo(settings: Settings, **more: Any) -> Source:
    api = _api(
        settings,
        "Klaviyo",
        "KLAVIYO_API_KEY",
        "Settings > API keys",
        more,
        base=settings.klaviyo_api_url,
        auth=Headers(Authorization=f"Klaviyo-API-Key {settings.klaviyo_api_key}"),
        headers={"revision": KLAVIYO_REVISION},
        permissions={"/api/profiles": "profiles:read"},
    )

    def from_then(since: datetime) -> Mapping[str, Any]:
        return {"filter": f"greater-or-equal({_SUPPRESSION}.timestamp,{_iso(since)})"}

    suppressed = SuppressionList(
        title="Suppressed profiles",
        path="/api/profiles",
        # Who was never suppressed has no such time: a time before Klaviyo picks all others.
        query={
            "additional-fields[profile]": "subscriptions",
            "fields[profile]": "email,subscriptions.email.marketing.suppression",
            "page[size]": 100,
            **from_then(datetime(2012, 1, 1, tzinfo=UTC)),
        },
        since=from_then,
        paging=NextLink(link=("links", "next")),
        entries="data",
        email=Path("attributes.email"),
        time=Path(f"max_by({_KLAVIYO_ASKED}, &timestamp).timestamp"),
        where=Condition(f"attributes.{_SUPPRESSION} != `null` && length({_KLAVIYO_ASKED}) > `0`"),
        reason="suppressed",
        reason_at=Path(f"max_by({_KLAVIYO_ASKED}, &timestamp).reason"),
    )
    return Source(provider="klaviyo", api=api, scope=(settings.klaviyo_api_key,), lists=lambda: iter([suppressed]))


# ---------------------------------------------------------------- Mailgun
# https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/unsubscribe


def mailgun(settings: Settings, **more: Any) -> Source:
    api = _api(
        settings,
        "Mailgun",
        "MAILGUN_API_KEY",
        "Account > API Security",
        more,
        base=settings.mailgun_api_base,
        auth=HTTPBasicAuth("api", settings.mailgun_api_key),
    )
    if not settings.mailgun_domains:
        raise ApiError("domain_missing", "MAILGUN_DOMAINS is not set: name the sending domains, comma separated")

    def lists() -> Iterator[SuppressionList]:
        for domain in settings.mailgun_domains:
            for kind, reason in (("unsubscribes", "unsubscribed"), ("complaints", "complained")):
                yield SuppressionList(
                    title=f"{kind.capitalize()} of {domain}",
                    path=f"/v3/{domain}/{kind}",
                    query={"limit": 1000},
                    # The link to the next page is there on the last one, too, and leads to an empty one.
                    paging=NextLink(link=("paging", "next"), ends_empty=True),
                    entries="items",
                    email=Path("address"),
                    time=Path("created_at"),
                    reason=reason,
                )

    return Source(provider="mailgun", api=api, scope=(settings.mailgun_api_key, *settings.mailgun_domains), lists=lists)


# ---------------------------------------------------------------- Postmark
# https://postmarkapp.com/developer/api/suppressions-api


def postmark(settings: Settings, **more: Any) -> Source:
    api = _api(
        settings,
        "Postmark",
        "POSTMARK_SERVER_TOKEN",
        "the server's API Tokens",
        more,
        base=settings.postmark_api_url,
        auth=Headers(X_Postmark_Server_Token=settings.postmark_server_token),
    )

    def lists() -> Iterator[SuppressionList]:
        for stream in settings.postmark_streams:
            for reason in ("ManualSuppression", "SpamComplaint"):
                yield SuppressionList(
                    title=f"{reason} of the stream {stream}",
                    path=f"/message-streams/{stream}/suppressions/dump",
                    query={"SuppressionReason": reason},
                    # By the day, of a zone that is not said.
                    since=lambda since: {"fromdate": (since - timedelta(days=1)).date().isoformat()},
                    paging=whole,
                    entries="Suppressions",
                    email=Path("EmailAddress"),
                    time=Path("CreatedAt"),
                    where=Condition(f"SuppressionReason == '{reason}'"),
                    reason=reason,
                )

    return Source(
        provider="postmark", api=api, scope=(settings.postmark_server_token, *settings.postmark_streams), lists=lists
    )


# ---------------------------------------------------------------- Brevo
# https://developers.brevo.com/reference/get-transac-blocked-contacts


#: Why a contact is blocked. All but the last have asked for it, or Brevo's users for them.
_BREVO_CODES = [
    *("unsubscribedViaEmail", "unsubscribedViaMA", "unsubscribedViaApi", "contactFlaggedAsSpam", "adminBlocked"),
    "hardBounce",
]


def brevo(settings: Settings, **more: Any) -> Source:
    """Its list of blocked contacts.

    The contacts' own flag `emailBlacklisted` does not do: it is set for dead addresses as well, and says no time.
    """
    api = _api(
        settings,
        "Brevo",
        "BREVO_API_KEY",
        "Settings > SMTP & API > API keys",
        more,
        base=settings.brevo_api_url,
        auth=Headers(api_key=settings.brevo_api_key),
    )

    def from_then(since: datetime) -> Mapping[str, Any]:
        # Both or none, by the day, and none of them may lie in the future.
        return {
            "startDate": since.astimezone(UTC).date().isoformat(),
            "endDate": datetime.now(UTC).date().isoformat(),
        }

    blocked = SuppressionList(
        title="Blocked contacts",
        path="/v3/smtp/blockedContacts",
        query={"sort": "asc"},
        since=from_then,
        paging=Offset(limit="limit", size=100),
        entries="contacts",
        time=Path("blockedAt"),
        where=Condition("reason.code != 'hardBounce'"),
        known=Condition(f"contains(`{json.dumps(_BREVO_CODES)}`, reason.code)"),
        reason="blocked",
        reason_at=Path("reason.code"),
    )
    return Source(provider="brevo", api=api, scope=(settings.brevo_api_key,), lists=lambda: iter([blocked]))


# ---------------------------------------------------------------- Amazon SES
# https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_ListSuppressedDestinations.html


def ses(settings: Settings, **more: Any) -> Source:
    """The suppression list of the account, which knows complaints and bounces; who unsubscribes is on no such list."""
    if not settings.ses_secret_access_key or not settings.ses_region:
        raise ApiError("key_missing", "SES_ACCESS_KEY_ID, SES_SECRET_ACCESS_KEY and SES_REGION have to be set")
    api = _api(
        settings,
        "Amazon SES",
        "SES_ACCESS_KEY_ID",
        "IAM > Users > Security credentials",
        more,
        base=settings.ses_api_base,
        auth=AwsSignature(
            key_id=settings.ses_access_key_id,
            secret_key=settings.ses_secret_access_key,
            region=settings.ses_region,
            service="ses",
        ),
        permissions={"/v2/email/suppression": "ses:ListSuppressedDestinations"},
        pause=1.0,  # the API takes one request a second
    )
    complaints = SuppressionList(
        title="Account suppression list",
        path="/v2/email/suppression/addresses",
        query={"Reason": "COMPLAINT", "PageSize": 1000},
        since=lambda since: {"StartDate": _iso(since)},
        paging=PageToken(name="NextToken"),
        entries="SuppressedDestinationSummaries",
        email=Path("EmailAddress"),
        time=Path("LastUpdateTime"),
        where=Condition("Reason == 'COMPLAINT'"),
        reason="Complaint",
    )
    return Source(provider="ses", api=api, scope=(settings.ses_access_key_id,), lists=lambda: iter([complaints]))


#: Provider → its lists. Each raises `ApiError` where its key is missing.
SOURCES: Mapping[str, Callable[..., Source]] = {
    "sendgrid": sendgrid,
    "mailchimp": mailchimp,
    "klaviyo": klaviyo,
    "mailgun": mailgun,
    "postmark": postmark,
    "brevo": brevo,
    "ses": ses,
}


def configured(settings: Settings) -> list[str]:
    """The ESPs that have a key."""
    return [provider for provider, key in settings.api_keys.items() if key]
