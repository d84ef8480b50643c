"""What became of one webhook: the one value of which its answer, its log line and its metrics are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookResult:
    """What the receiver's view decides on. Nothing but its body holds an address."""

    provider: str
    status: int = 200
    #: What became of the events: `accepted`, `duplicates`, `ignored`, `quarantined`. None where none were read.
    counts: Mapping[str, int] | None = None
    #: Type → how many of the quarantined events are of it, for types that the provider does not know.
    unknown_types: Mapping[str, int] = field(default_factory=dict)
    #: What the caller is told of a refusal.
    error: str = ""
    #: Why it was refused, for the log and the metrics: a slug, and what else there is to say behind a colon.
    reason: str = ""
    #: What was done to verify the URL or to confirm a subscription.
    note: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    #: As it came, where the caller was authentic.
    body: bytes | None = field(default=None, repr=False)

    def log_fields(self) -> dict[str, Any]:
        optional = {"unknown_types": self.unknown_types, "reason": self.reason, "note": self.note}
        said = {name: value for name, value in optional.items() if value}
        return {"provider": self.provider, **(self.counts or {}), **said}

    def answer(self) -> Mapping[str, Any] | None:
        """What the caller is told, if anything."""
        return {"error": self.error} if self.error else self.counts
