"""Near values: the right value in another case or of another type, which a condition would pass over in silence."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from marshmallow import ValidationError

from webhook_app.providers.syntax import children_of, is_list_of_texts, steps_of

#: So many combinations of near values are tried; there are two or three.
MAX_COMBINATIONS = 50


@dataclass(frozen=True, slots=True)
class FieldComparison:
    """A field of an event beside a value that stands in a condition: `subscribed == false`."""

    field: tuple[str, ...]
    comparator: str
    literal: str | float

    def is_near(self, event: Any) -> bool:
        """Whether the field holds the value, if need be in another case or of another type."""
        found = self._found(event)
        return (
            self.comparator in ("eq", "ne")
            and isinstance(found, str | int | float)
            and _normalized(found) == _normalized(self.literal)
        )

    def differs(self, event: Any) -> bool:
        return _as_literal(self._found(event)) != _as_literal(self.literal)

    def corrected(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event with the value as it stands in the condition."""
        *parents, last = self.field
        inner = copy = dict(event)
        for step in parents:
            inner[step] = inner = dict(inner[step])
        inner[last] = self.literal
        return copy

    def mistake(self, event: Any) -> ValidationError:
        found, name = self._found(event), ".".join(self.field)
        both_texts = isinstance(found, str) and isinstance(self.literal, str)
        right = f"lower({name}) == '{_normalized(found)}'" if both_texts else f"{name} == {_as_literal(found)}"
        return ValidationError(f"is {_described(found)}, compared with {_described(self.literal)}; write {right}", name)

    def _found(self, event: Any) -> Any:
        for step in self.field:
            event = event.get(step) if isinstance(event, dict) else None
        return event


def _normalized(value: str | float) -> str:
    """The same for what an ESP and a condition write differently and mean alike."""
    text = value.strip().lower() if isinstance(value, str) else json.dumps(value) if abs(value) < 2**64 else ""
    return {"true": "1", "false": "0"}.get(text, text.removesuffix(".0"))


def _described(value: str | float) -> str:
    return f"the text '{value}'" if isinstance(value, str) else json.dumps(value)


def _as_literal(value: str | float) -> str:
    return f"'{value}'" if isinstance(value, str) else f"`{json.dumps(value)}`"


def comparisons_of(node: Any) -> Iterator[FieldComparison]:
    """The comparisons of a field with a value in a condition; `contains(['a', 'b'], type)` is two."""
    children = children_of(node)
    if node["type"] in ("and_expression", "or_expression", "not_expression"):
        for child in children:
            yield from comparisons_of(child)
    elif node["type"] == "comparator":
        for one, other in (children, children[::-1]):
            if (
                (steps := steps_of(one))
                and other["type"] == "literal"
                and isinstance(other["value"], str | int | float)
            ):
                yield FieldComparison(steps, node["value"], other["value"])
    elif node["type"] == "function_expression" and node["value"] == "contains" and (steps := steps_of(children[1])):
        for literal in children[0]["children"] if is_list_of_texts(children[0]) else ():
            yield FieldComparison(steps, "eq", literal["value"])


def corrected_events(
    comparisons: Sequence[FieldComparison], event: dict[str, Any]
) -> Iterator[tuple[FieldComparison, Any]]:
    """Variants of the event with near values replaced by the condition's own, each with the first that was changed."""
    near: dict[tuple[str, ...], dict[str, FieldComparison]] = {}
    # What stands there as it is asked for comes first: it is changed only where nothing else helps.
    for one in sorted(filter(lambda one: one.is_near(event), comparisons), key=lambda one: one.differs(event)):
        near.setdefault(one.field, {})[_as_literal(one.literal)] = one
    for chosen in islice(product(*(choices.values() for choices in near.values())), MAX_COMBINATIONS):
        changed = [one for one in chosen if one.differs(event)]
        variant = event
        for one in changed:
            variant = one.corrected(variant)
        if changed:
            yield changed[0], variant
