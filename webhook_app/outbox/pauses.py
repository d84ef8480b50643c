"""Pauses as workers report them to everybody else: where nothing is sent for now, and why."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class PauseCause(StrEnum):
    #: Dynamic Yield wants no requests for a while (`Retry-After`). It ends by itself.
    ASKED_TO_WAIT = "asked_to_wait"
    #: A refusal that blames the set-up. Somebody has to mend it.
    MISCONFIGURED = "misconfigured"


#: How a reason begins, of a worker that wrote no cause. A later release drops it.
_EARLIER_ASKED_TO_WAIT = "Dynamic Yield asked to be left alone"


@dataclass(frozen=True, slots=True, order=True)
class ReportedPause:
    section: str
    #: For people; Dynamic Yield's words may stand in it.
    reason: str
    cause: PauseCause = PauseCause.MISCONFIGURED


def dump_pauses(pauses: Iterable[ReportedPause]) -> str | None:
    """As it stands in the table `workers`; None where there are none."""
    found = {pause.section: (pause.reason, pause.cause) for pause in pauses}
    return json.dumps(found) if found else None


def parse_pauses(text: str | None) -> list[ReportedPause]:
    """What a worker has written. One of an earlier version wrote a time where the cause stands now."""
    stored: dict[str, tuple[str, str | int]] = json.loads(text or "{}")
    return [ReportedPause(section, reason, _cause(reason, cause)) for section, (reason, cause) in stored.items()]


def _cause(reason: str, stored: str | int) -> PauseCause:
    if stored == PauseCause.ASKED_TO_WAIT or (isinstance(stored, int) and reason.startswith(_EARLIER_ASKED_TO_WAIT)):
        return PauseCause.ASKED_TO_WAIT
    # Also a cause that only a later version knows: better that somebody looks.
    return PauseCause.MISCONFIGURED
