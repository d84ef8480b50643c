"""Known event types: those that say nothing about consent. Any other must not pass unseen."""

import fnmatch
import re
from dataclasses import dataclass, field
from typing import Any

from marshmallow import ValidationError

#: What a type looks like. Six digits in a row are somebody's id, and nothing with an @ is a type.
_NAME = re.compile(r"(?!.*\d{6})[A-Za-z][A-Za-z0-9_.:/ -]{0,59}")
#: Stands for a type that does not look like one.
NO_NAME = "other"
#: How many names of unknown types an entry tells apart: each becomes a label in the metrics.
MAX_NAMES = 50


class UnknownType(ValidationError):
    """An event of a type that its entry does not know. `name` is fit to be logged and counted."""

    def __init__(self, name: str, place: str, *, is_missing: bool = False) -> None:
        self.name = name
        super().__init__(
            "is missing" if is_missing else f"{name} is not known to this entry, or not in this form", f"type ({place})"
        )


@dataclass(frozen=True, slots=True)
class KnownTypeNames:
    """Names of types, compared without case; `*` stands for anything."""

    names: tuple[str, ...]
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _unknown: set[str] = field(init=False, repr=False, compare=False, default_factory=set)

    def __post_init__(self) -> None:
        pattern = "|".join(fnmatch.translate(name.strip()) for name in self.names) or "(?!)"
        object.__setattr__(self, "_pattern", re.compile(pattern, re.IGNORECASE))

    def __contains__(self, found: Any) -> bool:
        return isinstance(found, str | int) and self._pattern.match(str(found).strip()) is not None

    def name_unknown(self, found: Any) -> str:
        """The type's name, where it looks like one and is among the first that were met; else `NO_NAME`."""
        if not isinstance(found, str) or not _NAME.fullmatch(found):
            return NO_NAME
        if len(self._unknown) < MAX_NAMES:
            self._unknown.add(found)
        return found if found in self._unknown else NO_NAME
