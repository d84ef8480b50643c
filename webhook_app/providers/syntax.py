"""The syntax tree of a JMESPath expression: walking it, and the fields that it names."""

import re
from collections.abc import Iterator
from typing import Any

#: What stands in quotes, of whatever kind; group 1 is what stands in backticks.
QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`((?:\\.|[^`\\])*)`", re.DOTALL)
#: Nodes that look into what their first child gives.
INTO = ("subexpression", "index_expression", "projection", "value_projection", "filter_projection")
NULL: dict[str, Any] = {"type": "literal", "value": None, "children": []}


def children_of(node: Any) -> list[Any]:
    """The child nodes; a slice has numbers among its children."""
    return [child for child in node["children"] if isinstance(child, dict)]


def steps_of(node: Any) -> tuple[str, ...] | None:
    """`a.b.c` as its names; None for what is no such path."""
    if node["type"] == "field":
        return (node["value"],)
    if node["type"] == "subexpression":
        parts = [steps_of(child) for child in node["children"]]
        if all(part is not None for part in parts):
            return tuple(name for part in parts for name in part or ())
    return None


def fields_of(node: Any) -> frozenset[tuple[str, ...]]:
    """Every field whose value an expression asks for."""
    if (steps := steps_of(node)) is not None:
        return frozenset([steps])
    children = children_of(node)
    if node["type"] in INTO:
        children = children[:1]
    return frozenset().union(*map(fields_of, children))


def looked_at(node: Any) -> Iterator[tuple[str, ...] | None]:
    """The fields whose values a condition looks at; None where it asks whether something is there at all."""
    children = children_of(node)
    asks_by_null = node["type"] == "comparator" and NULL in children
    if asks_by_null or (node["type"] == "function_expression" and node["value"] == "given"):
        yield None
    elif (steps := steps_of(node)) is not None:
        yield steps
    elif node["type"] in INTO:
        # Behind the first step that is no name, it looks into what stands there.
        yield from looked_at(children[0])
    elif node["type"] == "current":
        yield None
    elif node["type"] != "not_expression":
        for child in children:
            yield from looked_at(child)


def is_text(node: Any) -> bool:
    return node["type"] == "literal" and isinstance(node["value"], str)


def is_list_of_texts(node: Any) -> bool:
    return node["type"] == "multi_select_list" and all(map(is_text, node["children"]))
