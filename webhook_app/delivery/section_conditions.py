"""Conditions of sections: which of them the outbox asks, and what in one can hardly be meant as it is written."""

import difflib
from collections.abc import Collection, Iterator, Mapping

from marshmallow import ValidationError

from webhook_app.consent import Action, IdentityKind
from webhook_app.delivery.sections import Section
from webhook_app.outbox.routing import RoutingCondition
from webhook_app.outbox.tables import DEFAULT_SECTION

#: What a condition can look at → the words that stand there; None for what an ESP or the customer names.
SCOPE: dict[str, tuple[str, ...] | None] = {
    "provider": None,
    "action": tuple(Action),
    "kind": tuple(IdentityKind),
    "event": None,
}
#: SendGrid's own unsubscribe, from everything: it names no group.
GROUP = ("event", "asm_group_id")
UNSUBSCRIBE_FROM_ALL = b'{"event":"unsubscribe"}'


def conditions(sections: Mapping[str, Section]) -> dict[str, RoutingCondition]:
    """By which the outbox knows which sections an event concerns; none where everything is for the default one."""
    if list(sections) == [DEFAULT_SECTION] and sections[DEFAULT_SECTION].when is None:
        return {}
    return dict(sections)


def hints(sections: Mapping[str, Section], open_esps: Collection[str], esps: Collection[str]) -> Iterator[str]:
    """Why unsubscribes may concern no section, and so be ignored. Each begins with the condition's place."""
    for section in sections.values():
        place = "SECTION_WHEN" if section.name == DEFAULT_SECTION else f"[{section.name}] when"
        yield from (f"{place} {line}" for line in _hints(section, esps))
    grouped = [section for section in sections.values() if section.when and GROUP in section.when.fields]
    if grouped and "sendgrid" in open_esps and not any(map(_concerns_unsubscribe_from_all, sections.values())):
        yield (
            "no section is concerned by SendGrid's unsubscribe from everything, which has no asm_group_id, so it is "
            "ignored; for the section that is to have it write (event.asm_group_id == `4711` || !(event.asm_group_id))"
        )


def _hints(section: Section, esps: Collection[str]) -> Iterator[str]:
    if section.when is None:
        return
    for steps in sorted(section.when.fields):
        if steps[0] not in SCOPE:
            yield (
                f"looks at {'.'.join(steps)}, and there are only {', '.join(SCOPE)}; what the ESP sent is in event, "
                f"like event.{'.'.join(steps)}"
            )
    for comparison in section.when.comparisons:
        name, *inner = comparison.field
        words = esps if name == "provider" else SCOPE.get(name)
        if words is not None and not inner and comparison.literal not in words:
            close = difflib.get_close_matches(str(comparison.literal), words, n=1)
            right = f"did you mean {close[0]}?" if close else f"there are: {', '.join(words)}"
            yield f"compares {name} with {comparison.literal!r}, which it never is; {right}"


def _concerns_unsubscribe_from_all(section: Section) -> bool:
    try:
        return section.concerns(UNSUBSCRIBE_FROM_ALL, "sendgrid", Action.OPT_OUT, IdentityKind.EMAIL)
    except ValidationError:
        return True  # set aside, and not ignored
