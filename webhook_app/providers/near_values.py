"""Near values: the right value in another case, of another type or in a list, passed over by a condition."""

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
        """Whether the field holds the value, if need be in another case, of another type or in a list."""
        return self.comparator in ("eq", "ne") and self._nearest(event) is not None

    def differs(self, event: Any) -> bool:
        found = self._found(event)
        return isinstance(found, list) or _as_literal(found) != _as_literal(self.literal)

    def corrected(self, event: dict[str, Any]) -> dict[str, Any]:
        """The event with the value as it stands in the condition."""
        *parents, last = self.field
        inner = copy = dict(event)
        for step in parents:
            inner[step] = inner = dict(inner[step])
        inner[last] = self.literal
        return copy

    def mistake(self, event: Any) -> ValidationError:
        found, name = self._nearest(event), ".".join(self.field)
        assert found is not None  # noqa: S101 - it is near; for mypy
        if isinstance(self._found(event), list):
            right = f"contains({name}, {_as_literal(found)})"
            return ValidationError(f"is a list, compared with {_described(self.literal)}; write {right}", name)
        both_texts = isinstance(found, str) and isinstance(self.literal, str)
        differs_by_case = both_texts and _lowered(found) == _lowered(self.literal)
        right = f"lower({name}) == '{_lowered(found)}'" if differs_by_case else f"{name} == {_as_literal(found)}"
        return ValidationError(f"is {_described(found)}, compared with {_described(self.literal)}; write {right}", name)

    def _nearest(self, event: Any) -> str | float | None:
        """What the field holds, or one of the list that it holds, where it is near."""
        found = self._found(event)
        wanted = _normalized(self.literal)
        for value in found if isinstance(found, list) else (found,):
            if isinstance(value, str | int | float) and _normalized(value) == wanted:
                return value
        return None

    def _found(self, event: Any) -> Any:
        for step in self.field:
            event = event.get(step) if isinstance(event, dict) else None
        return event


#: How programs write a yes and a no.
_YES_AND_NO = {
    **dict.fromkeys(("true", "yes", "y", "on"), "1"),
    **dict.fromkeys(("false", "no", "n", "off"), "0"),
}


def _normalized(value: str | float) -> str:
    """The same for what an ESP and a condition write differently and mean alike."""
    text = _lowered(value)
    return _YES_AND_NO.get(text, text.removesuffix(".0"))


def _lowered(value: str | float) -> str:
    if isinstance(value, str):
        return value.strip().lower()
    return json.dumps(value) if abs(value) < 2**64 else ""


def without_case(value: Any) -> Any:
    """An event, or a literal of a condition, with its texts in lower case; `true` and `false` as a text are JSON's.

    Names of fields stay as they are.
    """
    if isinstance(value, str):
        text = value.strip().lower()
        return text == "true" if text in ("true", "false") else text
    if isinstance(value, list):
        return [without_case(inner) for inner in value]
    return {name: without_case(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def literals_without_case(node: Any) -> Any:
    """The same for every value that stands in a condition."""
    if node["type"] == "literal":
        return {**node, "value": without_case(node["value"])}
    children = [literals_without_case(child) if isinstance(child, dict) else child for child in node["children"]]
    return {**node, "children": children}


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
