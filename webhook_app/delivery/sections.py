"""Sections of Dynamic Yield: each with a key, a host and a form of its own, and a condition on what concerns it.

Without a file there is one, `default`, made of the environment's variables.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marshmallow import ValidationError

from webhook_app.consent import Action, IdentityKind
from webhook_app.delivery import WireForm
from webhook_app.delivery.registry import build_form
from webhook_app.egress import Egress
from webhook_app.outbox.tables import DEFAULT_SECTION
from webhook_app.providers import Unreadable, explain, load_json
from webhook_app.providers.kept import kept
from webhook_app.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    from webhook_app.delivery.client import Client
    from webhook_app.providers.expressions import Condition

DEFAULT_FILE = Path("sections.toml")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Section:
    """One section: where its changes go, in which form, and which events concern it."""

    name: str = DEFAULT_SECTION
    #: Scheme and host.
    base: str = ""
    api_key: str = dataclasses.field(default="", repr=False)
    form: WireForm
    #: Ceiling for each worker; 0 is none.
    requests_per_second: float = 0
    #: None: every event.
    when: "Condition | None" = None

    def concerns(self, raw: bytes, provider: str, action: Action, kind: IdentityKind) -> bool:
        """Whether an event is this section's. `raw` is the event as its ESP sent it and as it is kept.

        Raises `ValidationError` where the condition does not fit the event.
        """
        return self.when is None or self.when.holds(_scope(raw, provider, action, kind))

    def near_match(self, raw: bytes, provider: str, action: Action, kind: IdentityKind) -> str:
        """What to write where the event would be this section's but for the case or the type of a value; else empty."""
        try:
            if self.when:
                self.when.check_near_match(_scope(raw, provider, action, kind))
        except ValidationError as error:
            return explain(error)
        return ""

    def client(self, egress: Egress) -> "Client":
        # Only now: the web process and most commands send nothing, and start sooner without an HTTP client.
        from webhook_app.delivery.client import Client

        return Client(self.base, self.api_key, egress=egress)


def _scope(raw: bytes, provider: str, action: Action, kind: IdentityKind) -> dict[str, Any]:
    """What a condition looks at."""
    try:
        event = load_json(kept(raw)[0])
    except Unreadable:
        # As of an imported row: what is absent is null.
        event = None
    return {"provider": provider, "action": str(action), "kind": str(kind), "event": event}


def build_sections(settings: Settings, environ: Mapping[str, str]) -> dict[str, Section]:
    """Every section by its name. Raises `ConfigurationError` with all problems."""
    path = Path(settings.sections_file) if settings.sections_file else DEFAULT_FILE
    if not settings.sections_file and not path.exists():
        return {DEFAULT_SECTION: _of_environment(settings)}
    # Only now: most installations have one section, and no file.
    from webhook_app.delivery.sections_file import read_sections

    return read_sections(path, settings, environ)


def _of_environment(settings: Settings) -> Section:
    return Section(
        base=settings.events_api_base,
        api_key=settings.events_api_key,
        form=build_form(settings),
        requests_per_second=settings.requests_per_second,
        when=_when(settings.section_when) if settings.section_when else None,
    )


def _when(text: str) -> "Condition":
    # Only now: a section without a condition needs no JMESPath.
    from webhook_app.providers.expressions import Condition

    try:
        return Condition(text)
    except ValueError as error:
        raise ConfigurationError([f"SECTION_WHEN {error}"]) from None
