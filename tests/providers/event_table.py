"""The table of a setup page that says what becomes of each event: made of the payloads that the contract suite runs.

`make docs` writes the tables; a test fails while one is stale.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from tests.providers.cases import Case, Payload, one_case_each, payloads
from webhook_app.consent import Action
from webhook_app.providers import Provider, Unreadable
from webhook_app.providers.declared import EventReader
from webhook_app.providers.expressions import Where

PAGES = Path(__file__).parents[2] / "docs" / "esps"

_BLOCK = re.compile(r"(<!-- payloads:begin -->\n).*?(<!-- payloads:end -->)", re.DOTALL)
_HEADING = "## What becomes of each event"
_SAYS = (
    "Each row is a payload in `tests/payloads/{name}/`, and the contract suite proves it. "
    "What is quarantined waits for a person."
)


def table(case: Case) -> str:
    rows = [f"| {_types(case, one)} | {one.says} | {_becomes(one)} |" for one in payloads(case.provider).values()]
    return (
        "\n".join(["| type | what happens | what becomes of it |", "|---|---|---|", *sorted(rows, key=_by_outcome)])
        + "\n"
    )


def page_with_table(case: Case) -> str:
    """The setup page as it should be. A page without the section gets one, before its last."""
    text = (PAGES / f"{case.provider}.md").read_text()
    if not _BLOCK.search(text):
        block = (
            f"{_HEADING}\n\n{_SAYS.format(name=case.provider)}\n\n<!-- payloads:begin -->\n<!-- payloads:end -->\n\n"
        )
        before, limits, after = text.partition("## Known limits")
        text = before + block + limits + after if limits else f"{text.rstrip()}\n\n{block.rstrip()}\n"
    made = table(case)
    return _BLOCK.sub(lambda found: found[1] + made + found[2], text)


def _by_outcome(row: str) -> tuple[int, str]:
    outcome = row.split(" | ")[-1]
    order = [place for place, word in enumerate(("opt-out", "opt-in", "ignored", "quarantined")) if word in outcome]
    return (order[0] if order else len("none"), row.casefold())


def _becomes(payload: Payload) -> str:
    actions = Counter(action for action, _, _ in payload.changes)
    said = [_times(actions[Action.OPT_OUT], "opt-out"), _times(actions[Action.OPT_IN], "opt-in")]
    if payload.tests:
        said = [f"{' and '.join(filter(None, said))} of the test button: shown, not forwarded"]
    said.append(_times(payload.ignored, "ignored", plural="ignored"))
    said += [f"quarantined: {reason}" for reason in payload.quarantined]
    return ", ".join(filter(None, said)) or "nothing"


def _times(number: int, word: str, plural: str = "") -> str:
    return "" if not number else word if number == 1 else f"{number} {plural or word + 's'}"


def _types(case: Case, payload: Payload) -> str:
    """The types of the payload's events, as the ESP writes them."""
    found = dict.fromkeys(_found_types(case.opened(case.old), payload, case))
    return ", ".join(f"`{type_}`" for type_ in found) or "—"


def _found_types(provider: Provider, payload: Payload, case: Case) -> Iterator[str]:
    where = _where(provider)
    try:
        events = list(provider.events(case.request(payload.body)))
    except Unreadable:
        return
    for event in events:
        if isinstance(event, dict) and (type_ := _find(where, event)):
            yield type_


def _where(provider: Provider) -> Where | None:
    return provider.events.declaration.type if isinstance(provider.events, EventReader) else None


def _find(where: Where | None, event: dict[str, Any]) -> str:
    """SendGrid's types stand in `event`; Emarsys has none."""
    try:
        type_ = where.find(event) if where else event.get("event")
    except ValidationError:
        return ""
    return type_ if isinstance(type_, str) else ""


if __name__ == "__main__":
    for each in one_case_each():
        (PAGES / f"{each.provider}.md").write_text(page_with_table(each))
