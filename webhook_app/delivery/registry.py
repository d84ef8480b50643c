"""The wire form that the settings ask for. A new destination is a module and a row here."""

from collections.abc import Callable, Mapping

from webhook_app.consent import Action, IdentityKind, PushChannel
from webhook_app.delivery import WireForm
from webhook_app.delivery.events_api import EventsApi
from webhook_app.delivery.reconnect import Reconnect
from webhook_app.settings import ConfigurationError, Settings


def _events(settings: Settings) -> WireForm:
    return EventsApi(
        section_type=settings.section_type,
        active_consent_accepted=settings.active_consent_accepted,
        names={Action.OPT_OUT: settings.opt_out_event_name, Action.OPT_IN: settings.opt_in_event_name},
        push_key=settings.events_api_push_key,
        context=settings.events_api_context,
        lower_case_addresses=settings.address_case == "lower",
    )


def _reconnect(settings: Settings) -> WireForm:
    if settings.active_consent_accepted:
        raise ConfigurationError(
            [
                "ACTIVE_CONSENT_ACCEPTED must be false with DESTINATION=reconnect: its endpoints have no such key; "
                "use DESTINATION=events if the section needs it"
            ]
        )
    return Reconnect(
        types={
            IdentityKind.EMAIL: "email",
            IdentityKind.EXTERNAL: settings.reconnect_external_type,
            IdentityKind.PUSH: settings.reconnect_push_type,
        },
        email_channel=settings.reconnect_email_channel,
        push_channels={
            PushChannel.WEB: settings.reconnect_web_push_channel,
            PushChannel.APP: settings.reconnect_app_push_channel,
            None: settings.reconnect_web_push_channel,
        },
        section_type=settings.section_type,
        lower_case_addresses=settings.address_case == "lower",
    )


DESTINATIONS: Mapping[str, Callable[[Settings], WireForm]] = {
    "events": _events,
    "reconnect": _reconnect,
}


def build_form(settings: Settings) -> WireForm:
    """The wire form that `DESTINATION` names.

    Raises `ConfigurationError` where the other settings ask for something that it cannot say.
    """
    return DESTINATIONS[settings.destination](settings)
