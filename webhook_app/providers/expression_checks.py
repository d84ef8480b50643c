"""Checks of expressions at boot: what is wrong in one, or may not be meant as it is written."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from jmespath.lexer import Lexer
from jmespath.visitor import TreeInterpreter

from webhook_app.providers.functions import OPTIONS, MoreFunctions
from webhook_app.providers.syntax import NULL, QUOTED, children_of, fields_of, is_list_of_texts, is_text, steps_of


def wrong_parts(node: Any) -> Iterator[str]:
    """What JMESPath itself would only notice at run time, or not at all."""
    children = children_of(node)
    if node["type"] == "function_expression":
        yield from _wrong_call(node["value"], len(children))
        yield from _wrong_search(node["value"], children)
    if node["type"] == "comparator":
        yield from _wrong_comparison(node["value"], *children)
        yield from _wrong_comparison(node["value"], *reversed(children))
    if node["type"] == "pipe" and _is_truth(children[0]) and fields_of(children[1]) and not _asks_for_all(children[1]):
        yield "hands true or false on by |, which looks for a field in it; write || for or"
    if node["type"] == "subexpression" and children[0]["type"] == "not_expression":
        # It binds tighter than the dot: the path of a truth value, which is null.
        yield "negates only the first step of a path; write !(a.b) for !a.b"
    for child in children:
        yield from wrong_parts(child)


def _wrong_call(name: str, given: int) -> Iterator[str]:
    known: Any = MoreFunctions.FUNCTION_TABLE
    if name not in known:
        yield f"calls {name}(), which JMESPath does not have; it has {', '.join(sorted(known))}"
        return
    signature = known[name]["signature"]
    variadic = bool(signature) and signature[-1].get("variadic", False)
    if given < len(signature) or (given > len(signature) and not variadic):
        yield f"calls {name}() with {given} arguments instead of {len(signature)}"


def _wrong_search(name: str, given: Sequence[Any]) -> Iterator[str]:
    """What is looked for stands first, or is a list: `contains('unsubscribed', type)` holds of `subscribed`, too."""
    if name not in ("contains", "starts_with", "ends_with") or len(given) != 2:
        return
    within, looked_for = given
    if is_text(within) and not is_text(looked_for):
        text = within["value"]
        right = f"{name}(…, '{text}')" + (
            ", or contains(['a', 'b'], …) for one of several texts" * (name == "contains")
        )
        yield f"calls {name}() the wrong way round: a part of '{text}', or nothing at all, is enough; write {right}"
    elif is_list_of_texts(looked_for):
        yield f"looks for a whole list by {name}(); for one of several texts write contains(['a', 'b'], …)"


_BY_SIZE = ("lt", "lte", "gt", "gte")
_TRUTH_FUNCTIONS = ("contains", "starts_with", "ends_with")


def _wrong_comparison(comparator: str, side: Any, other: Any) -> Iterator[str]:
    """A comparison with a constant that always, or never, holds."""
    called = other["value"] if other["type"] == "function_expression" else ""
    if is_list_of_texts(side):
        yield "compares with a list; for one of several texts write contains(['a', 'b'], …)"
    elif not is_text(side):
        return
    elif comparator in _BY_SIZE:
        yield f"asks whether something is more or less than the text '{side['value']}'; a number stands in backticks"
    elif called == "lower" and side["value"] != side["value"].strip().lower():
        yield f"compares lower() with '{side['value']}', which it never gives; write '{side['value'].strip().lower()}'"
    elif called in _TRUTH_FUNCTIONS:
        yield f"compares {called}(), which gives true or false, with a text; leave '{side['value']}' out"


def _asks_for_all(node: Any) -> bool:
    """Whether `@` stands in it."""
    return node["type"] == "current" or any(map(_asks_for_all, children_of(node)))


def _is_truth(node: Any) -> bool:
    """Whether it gives true or false, and never a value to look into."""
    if node["type"] == "or_expression":
        return all(map(_is_truth, node["children"]))
    if node["type"] == "and_expression":
        return _is_truth(node["children"][-1])
    called = node["value"] if node["type"] == "function_expression" else ""
    return node["type"] in ("comparator", "not_expression") or called in _TRUTH_FUNCTIONS


def no_conditions(node: Any) -> Iterator[str]:
    """Texts and numbers where a condition should stand: `type == 'a' || 'b'`."""
    if node["type"] in ("and_expression", "or_expression", "not_expression"):
        for child in node["children"]:
            yield from no_conditions(child)
    elif node["type"] == "literal" and not isinstance(node["value"], bool):
        yield f"asks for {node['value']!r} alone, which is neither true nor false; compare it with something"


def contradictions(node: Any) -> Iterator[str]:
    """`type == 'a' && type == 'b'`."""
    if node["type"] in ("or_expression", "not_expression"):
        for child in node["children"]:
            yield from contradictions(child)
    if node["type"] != "and_expression":
        return
    values: list[tuple[Any, Any]] = []
    for part in _conjuncts(node):
        yield from contradictions(part)
        if part["type"] == "comparator" and part["value"] == "eq":
            left, right = part["children"]
            if is_text(left) != is_text(right):
                what, text = (right, left) if is_text(left) else (left, right)
                values.append((what, text["value"]))
    for number, (what, text) in enumerate(values):
        if any(same == what and text != earlier for same, earlier in values[:number]):
            yield f"can never hold: the same cannot be '{text}' and another text; write || for or"
            return


def _conjuncts(node: Any) -> Iterator[Any]:
    """The parts of `a && b && c`."""
    for child in node["children"]:
        if child["type"] == "and_expression":
            yield from _conjuncts(child)
        else:
            yield child


def holds(node: Any, event: Any) -> bool:
    """Whether the expression is true of an event. False where it does not fit, as contains(null, 'x') does not."""
    try:
        return TreeInterpreter(OPTIONS).visit(node, event) is True
    except Exception:
        return False


def holds_of_empty_event(node: Any) -> bool:
    """Whether the expression is true of an event that has none of its fields."""
    return holds(node, {"": None})


def _asked(node: Any) -> frozenset[tuple[str, ...]]:
    """The fields that must be there wherever it holds."""
    parts = map(_asked, node["children"])
    if node["type"] == "and_expression":
        return frozenset().union(*parts)
    if node["type"] == "or_expression":
        return frozenset.intersection(*parts)
    return frozenset() if holds_of_empty_event(node) else fields_of(node)


def held_by_absence(node: Any, asked: frozenset[tuple[str, ...]]) -> Iterator[str]:
    """`event == 'updated' && consent != 'yes'`: whoever's event lacks `consent` would be opted out."""
    if node["type"] in ("and_expression", "or_expression"):
        if node["type"] == "and_expression":
            asked |= _asked(node)
        for child in node["children"]:
            yield from held_by_absence(child, asked)
    elif holds_of_empty_event(node) and (fields := sorted(fields_of(node) - asked)):
        name = ".".join(fields[0])
        yield (
            f"holds in part wherever {name} is absent; where that is not meant, say what must stand there, or "
            f"{name} && … before it"
        )


def asks_for_null(node: Any) -> Iterator[str]:
    """`unsubscribed_at != null` holds of an empty text, too."""
    children = children_of(node)
    inner = children[0] if node["type"] == "not_expression" else node
    wanted = "eq" if inner is not node else "ne"
    if inner["type"] == "comparator" and inner["value"] == wanted and NULL in inner["children"]:
        (other,) = [child for child in inner["children"] if child != NULL] or [NULL]
        name = ".".join(steps_of(other) or ("…",))
        yield f"holds of '', 0, 'null' and 0000-00-00, too, which are not null; write given({name})"
    for child in children:
        yield from asks_for_null(child)


def unquoted_texts(text: str) -> Iterator[str]:
    """`type == "unsubscribed"` compares two fields, one of which does not exist: JMESPath's commonest trap."""
    tokens = list(Lexer().tokenize(text))
    for first, before, token, after in zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False):
        if before["type"] not in ("eq", "ne") or after["type"] in ("dot", "lparen", "lbracket"):
            continue
        if first["type"] == "literal":
            continue  # 'unsubscribed' == type
        if token["type"] == "quoted_identifier" or token["type"] == "unquoted_identifier":
            value = token["value"]
            literal = f"`{value}`" if value in ("true", "false", "null") else f"'{value}'"
            yield f"compares with a field named {value}; for the value write {literal}"


def texts_in_backticks(text: str) -> Iterator[str]:
    """What is no JSON there, which JMESPath takes for a text."""
    for found in QUOTED.finditer(text):
        if found[1] is not None:
            try:
                json.loads(found[1].replace("\\`", "`"))
            except ValueError:
                yield found[1].strip()


def quoted_twice(text: str) -> Iterator[str]:
    for word in texts_in_backticks(text):
        if len(word) > 1 and word[0] == word[-1] == "'":
            inner = word.strip("'")
            cure = f"`{JSON_WORDS[inner.lower()]}`" if inner.lower() in JSON_WORDS else f"'{inner}'"
            yield f"holds `{word}`, a text with its quotes; write {cure}"


#: A word that may be meant as JSON → how JSON writes it.
JSON_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null", "nil": "null"}
