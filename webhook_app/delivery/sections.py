"""Sections of Dynamic Yield: each with a key, a host and a form of its own."""

from collections.abc import Callable
from dataclasses import dataclass, field

from webhook_app.delivery import Answer, Call, WireForm

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Where one section's changes go."""

    name: str = DEFAULT
    form: WireForm
    send: Callable[[Call], Answer] = field(repr=False)
    #: Ceiling for each worker; 0 is none.
    requests_per_second: float = 0
