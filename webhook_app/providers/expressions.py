"""JMESPath expressions of a declaration, as paths and conditions: compiled at boot, harmless at run time.

https://jmespath.org/specification.html
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError, JMESPathTypeError
from marshmallow import ValidationError

from webhook_app.providers import expression_checks as checks
from webhook_app.providers.cures import cure
from webhook_app.providers.functions import OPTIONS
from webhook_app.providers.near_values import (
    FieldComparison,
    comparisons_of,
    corrected_events,
    literals_without_case,
    without_case,
)
from webhook_app.providers.syntax import fields_of, looked_at

#: So much of an expression stands in the reason of what is quarantined.
NAMED_BY = 80  # characters


@dataclass(frozen=True, slots=True)
class Path:
    """Where something stands. Raises `ValueError` with the mistake for a text that is no expression."""

    text: str
    _compiled: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if mistakes := list(checks.quoted_twice(self.text)):
            raise ValueError("; ".join(mistakes))
        try:
            compiled: Any = jmespath.compile(self.text)
        except JMESPathError as error:
            # Further lines of the message draw an arrow under the text; the first one may end where they begin.
            said = str(error).splitlines()[0].rpartition("jmespath expression: ")[2].rstrip(":")
            raise ValueError("; ".join(filter(None, (f"is no JMESPath expression: {said}", cure(self.text))))) from None
        if mistakes := [*checks.wrong_parts(compiled.parsed), *checks.unquoted_texts(self.text)]:
            raise ValueError("; ".join(mistakes))
        object.__setattr__(self, "_compiled", compiled)

    @property
    def is_constant(self) -> bool:
        """Whether it gives the same of every event, as `'jane'` does in quotes of its own."""
        return bool(self._compiled.parsed["type"] == "literal")

    def find(self, value: Any) -> Any:
        """What stands there, None for nothing. Raises `ValidationError` where the expression does not fit the value."""
        try:
            return self._compiled.search(value, options=OPTIONS)
        except Exception as error:
            # A customer's expression meets whatever an ESP sends: contains(null, 'x'), a sum of texts, a JSON tree of
            # any depth. The event is quarantined with this reason; its neighbours go on.
            raise ValidationError(f"cannot be evaluated here: {_why(error)}", _named(self.text)) from None


@dataclass(frozen=True, slots=True)
class FirstOf:
    """Several places where something may stand; the first that holds it counts."""

    paths: Sequence[Path]

    @property
    def text(self) -> str:
        return " or ".join(path.text for path in self.paths)

    @property
    def is_constant(self) -> bool:
        return any(path.is_constant for path in self.paths)

    def find(self, value: Any) -> Any:
        """Raises `ValidationError` where nothing is found and an expression does not fit the value."""
        misfit: ValidationError | None = None
        for path in self.paths:
            try:
                found = path.find(value)
            except ValidationError as error:
                misfit = misfit or error
                continue
            if found not in (None, [], {}) and not (isinstance(found, str) and not found.strip()):
                return found
        if misfit:
            raise misfit
        return None


#: Where something stands, as a declaration says it.
Where = Path | FirstOf


@dataclass(frozen=True, slots=True)
class Condition(Path):
    """An expression that is true, or else false, null or empty. Anything else is a mistake, not a yes."""

    #: The fields it looks at, step by step. Empty where it also asks whether something is there at all.
    looks_at: tuple[tuple[str, ...], ...] = field(init=False, repr=False, compare=False)
    #: The fields it names anywhere.
    fields: frozenset[tuple[str, ...]] = field(init=False, repr=False, compare=False)
    comparisons: tuple[FieldComparison, ...] = field(init=False, repr=False, compare=False)
    _without_case: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Named: a dataclass with slots is another class than the one that `super()` was written in.
        Path.__post_init__(self)
        if mistakes := [*checks.no_conditions(self._compiled.parsed), *checks.contradictions(self._compiled.parsed)]:
            raise ValueError("; ".join(mistakes))
        found = list(looked_at(self._compiled.parsed))
        object.__setattr__(self, "looks_at", () if None in found else tuple(found))
        object.__setattr__(self, "fields", fields_of(self._compiled.parsed))
        object.__setattr__(self, "comparisons", tuple(comparisons_of(self._compiled.parsed)))
        object.__setattr__(self, "_without_case", literals_without_case(self._compiled.parsed))

    def can_be_asked(self, value: Any) -> bool:
        """Whether any of the fields it looks at is there; where none is, its answer says nothing."""
        return not self.looks_at or any(_stands(steps, value) for steps in self.looks_at)

    def holds_of_unrelated_event(self) -> bool:
        """Whether it is true of an event that has none of its fields, as `type != 'subscribed'` is.

        Not where it says so plainly, by `true`.
        """
        return not self.is_constant and checks.holds_of_empty_event(self._compiled.parsed)

    def holds_by_absence(self) -> Iterator[str]:
        """Parts that hold because something is absent, and may change the consent of whoever's event lacks it."""
        tree = self._compiled.parsed
        yield from dict.fromkeys((*checks.asks_for_null(tree), *checks.held_by_absence(tree, frozenset())))

    def words_of_json(self) -> Iterator[str]:
        """Comparisons with `True`, which is a text that some senders write, and may be meant as JSON's."""
        for word in dict.fromkeys(checks.texts_in_backticks(self.text)):
            if right := checks.JSON_WORDS.get(word.lower()):
                yield f"compares with the text '{word}'; for JSON's {right} write `{right}`"

    def check_near_match(self, event: dict[str, Any]) -> None:
        """Raises `ValidationError` where it would hold but for the case or the type of a value.

        For an event of which it does not hold.
        """
        for changed, variant in corrected_events(self.comparisons, event):
            if self._may_hold(variant):
                raise changed.mistake(event)
        if self._may_hold_without_case(event):
            line = "would hold, were case not looked at; compare lower case, like lower(type) == 'unsubscribed'"
            raise ValidationError(line, _named(self.text))

    def _may_hold(self, value: Any) -> bool:
        try:
            return self.holds(value)
        except ValidationError:
            return False

    def _may_hold_without_case(self, event: Any) -> bool:
        try:
            return checks.holds(self._without_case, without_case(event))
        except RecursionError:
            return False  # nested deeper than the event of any ESP

    def holds(self, value: Any) -> bool:
        result = self.find(value)
        if isinstance(result, bool) or result in (None, "", [], {}):
            return result is True
        # "false" as a text would count as true in JMESPath; nobody is to be opted out by that.
        raise ValidationError("gives neither true nor false here; compare with something", _named(self.text))


def _stands(steps: tuple[str, ...], value: Any) -> bool:
    for step in steps:
        if not isinstance(value, dict) or step not in value:
            return False
        value = value[step]
    return True


def _named(text: str) -> str:
    """An expression's beginning: it names the expression, and a catalogue's may be thirty lines long."""
    return textwrap.shorten(text, NAMED_BY, placeholder=" …")


def _why(error: Exception) -> str:
    """The error without the value that led to it, which may be an address."""
    if isinstance(error, JMESPathTypeError):
        return f"{error.function_name}() does not take this {error.actual_type}"
    return type(error).__name__
