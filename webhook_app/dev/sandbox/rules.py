"""The sandbox's rules: what Dynamic Yield takes, written from its documentation; each names what is wrong."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

#: A rule looks at a value and names what is wrong, each with the path to it.
Rule = Callable[[Any, str], Iterator[str]]


def text(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, str) or not value or value != value.strip():
        yield f"{path} must be a text that is neither empty nor padded"


def address(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, str) or not re.fullmatch(r"[^\s@]+@[^\s@]+|\"[^\"]+\"@[^\s@]+", value):
        yield f"{path} must be an email address in the clear"


def any_text(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{path} must be a text"


def one_of(*allowed: Any) -> Rule:
    def rule(value: Any, path: str) -> Iterator[str]:
        if not any(value is choice or (isinstance(value, str) and value == choice) for choice in allowed):
            yield f"{path} must be {' or '.join(map(str, allowed))}"

    return rule


def an_object(required: Mapping[str, Rule], optional: Mapping[str, Rule] = {}) -> Rule:
    rules = {**required, **optional}

    def rule(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path or 'the body'} must be an object"
            return
        inside = f"{path}." if path else ""
        for key in required.keys() - value.keys():
            yield f"{inside}{key} is missing"
        for key, inner in value.items():
            if key in rules:
                yield from rules[key](inner, f"{inside}{key}")
            else:
                yield f"{inside}{key} is not a known key"

    return rule


OPT_OUT, OPT_IN = "message-optout-v1", "message-optin-v1"
EITHER_WAY = one_of(OPT_OUT, OPT_IN)

#: The identifier that is present → the properties that belong to it.
PROPERTIES = {
    "plainTextEmail": an_object({"dyType": EITHER_WAY, "cuidType": one_of("email"), "plainTextEmail": address}),
    "externalId": an_object({"dyType": EITHER_WAY, "cuidType": one_of("external"), "externalId": text}),
    "pushID": an_object({"dyType": one_of(OPT_OUT), "pushID": text}),
    # The pages write pushID, the OpenAPI description pushId.
    "pushId": an_object({"dyType": one_of(OPT_OUT), "pushId": text}),
}
PUSH_OPT_IN = {
    key: an_object({"dyType": one_of(OPT_IN), key: text, "channelType": one_of("APP_PUSH", "WEB_PUSH")})
    for key in ("pushID", "pushId")
}
PROPERTY_KEYS = {"dyType", "cuidType", "channelType", *PROPERTIES}


def properties(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path} must be an object"
        return
    identifiers = sorted(PROPERTIES.keys() & value.keys())
    if len(identifiers) != 1:
        yield f"{path} must have exactly one of {', '.join(PROPERTIES)}; it has {', '.join(identifiers) or 'none'}"
        yield from (f"{path}.{key} is not a known key" for key in value.keys() - PROPERTY_KEYS)
    elif identifiers[0] in PUSH_OPT_IN and value.get("dyType") == OPT_IN:
        yield from PUSH_OPT_IN[identifiers[0]](value, path)
    else:
        yield from PROPERTIES[identifiers[0]](value, path)


EVENT = an_object({"name": text, "properties": properties})


def one_event(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, list) or len(value) != 1:
        yield f"{path} must be a list of one event: a request is about one user"
        return
    yield from EVENT(value[0], f"{path}[0]")


CONSENT = {"active_consent_accepted": one_of(True)}
CONTEXT = {"context": an_object({}, {"channel": text})}
WEB = an_object(
    {
        "user": an_object({}, {"dyid": text, "dyid_server": text, **CONSENT}),
        "session": an_object({}, {"dy": text}),
        "events": one_event,
    },
    CONTEXT,
)
API = an_object({"user": an_object({"id": text}, CONSENT), "sessionId": text, "events": one_event}, CONTEXT)
CHANNEL = an_object(
    {
        "identifier": an_object({"type": text, "value": text}),
        "associatedDevice": an_object({"dyid": any_text}),
    }
)

EVENTS_PATH = "/v2/collect/user/event"
CHANNEL_PATH = re.compile(r"/v2/userdata/channels/[a-z][a-z-]*/opt-(out|in)")


def event(body: Any) -> list[str]:
    """What is wrong with a body for the Events API. An API-only section is known by its `sessionId`."""
    rule = API if isinstance(body, dict) and "sessionId" in body else WEB
    return sorted(rule(body, ""))


def channel(body: Any) -> list[str]:
    """What is wrong with a body for the opt-out and opt-in endpoints."""
    return sorted(CHANNEL(body, ""))
