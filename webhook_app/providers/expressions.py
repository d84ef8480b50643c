"""JMESPath as a declaration uses it: checked at boot as far as can be, and harmless at run time.

https://jmespath.org/specification.html
"""

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError, JMESPathTypeError
from jmespath.functions import Functions, signature
from jmespath.lexer import Lexer
from jmespath.visitor import TreeInterpreter
from marshmallow import ValidationError

from webhook_app.providers.cures import cure

#: What ESPs write into a field that is empty, the dates among it that databases have for none.
_NOTHING = re.compile(
    r"|null|nil|none|nan|undefined|n/a|false|0+(?:\.0+)?|-+"
    r"|(?:0000-00-00|0001-01-01|1970-01-01)(?:[T ]00:00(?::00(?:\.0+)?)?)?(?: ?(?:Z|UTC|\+00:?00))?",
    re.IGNORECASE,
)


class MoreFunctions(Functions):
    """JMESPath's functions, and three that it lacks: for words in any case, lists to compare, and what is absent."""

    @signature({"types": []})
    def _func_lower(self, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @signature({"types": ["array", "null"]}, {"types": ["array", "null"]})
    def _func_without(self, values: list[Any] | None, others: list[Any] | None) -> list[Any]:
        """The values that are not among the others."""
        return [value for value in values or [] if value not in (others or [])]

    @signature({"types": []})
    def _func_given(self, value: Any) -> bool:
        """Whether something is there that is not an ESP's way to write nothing."""
        return not (_NOTHING.fullmatch(value.strip()) if isinstance(value, str) else value in (None, False, 0, [], {}))


#: So much of an expression stands in the reason of what is quarantined.
NAMED_BY = 80  # characters

#: So many ways to read an event's values as those of a condition are tried; there are two or three.
MAX_MEANINGS = 50

_OPTIONS = jmespath.Options(custom_functions=MoreFunctions())


@dataclass(frozen=True, slots=True)
class Path:
    """Where something stands. Raises `ValueError` with the mistake for a text that is no expression."""

    text: str
    _compiled: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if mistakes := list(_quoted_twice(self.text)):
            raise ValueError("; ".join(mistakes))
        try:
            compiled: Any = jmespath.compile(self.text)
        except JMESPathError as error:
            # Further lines of the message draw an arrow under the text; the first one may end where they begin.
            said = str(error).splitlines()[0].rpartition("jmespath expression: ")[2].rstrip(":")
            raise ValueError("; ".join(filter(None, (f"is no JMESPath expression: {said}", cure(self.text))))) from None
        if mistakes := [*_wrong_parts(compiled.parsed), *_unquoted_texts(self.text)]:
            raise ValueError("; ".join(mistakes))
        object.__setattr__(self, "_compiled", compiled)

    @property
    def is_constant(self) -> bool:
        """Whether it gives the same of every event, as `'jane'` does in quotes of its own."""
        return bool(self._compiled.parsed["type"] == "literal")

    def find(self, value: Any) -> Any:
        """What stands there, None for nothing. Raises `ValidationError` where the expression does not fit the value."""
        try:
            return self._compiled.search(value, options=_OPTIONS)
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
            and _written(found) == _written(self.literal)
        )

    def differs(self, event: Any) -> bool:
        return _quoted(self._found(event)) != _quoted(self.literal)

    def meant(self, event: dict[str, Any]) -> dict[str, Any]:
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
        right = f"lower({name}) == '{_written(found)}'" if both_texts else f"{name} == {_quoted(found)}"
        return ValidationError(f"is {_told(found)}, compared with {_told(self.literal)}; write {right}", name)

    def _found(self, event: Any) -> Any:
        for step in self.field:
            event = event.get(step) if isinstance(event, dict) else None
        return event


def _written(value: str | float) -> str:
    """The same for what an ESP and a condition write differently and mean alike."""
    text = value.strip().lower() if isinstance(value, str) else json.dumps(value) if abs(value) < 2**64 else ""
    return {"true": "1", "false": "0"}.get(text, text.removesuffix(".0"))


def _told(value: str | float) -> str:
    return f"the text '{value}'" if isinstance(value, str) else json.dumps(value)


def _quoted(value: str | float) -> str:
    return f"'{value}'" if isinstance(value, str) else f"`{json.dumps(value)}`"


@dataclass(frozen=True, slots=True)
class Condition(Path):
    """An expression that is true, or else false, null or empty. Anything else is a mistake, not a yes."""

    #: The fields it looks at, step by step. Empty where it also asks whether something is there at all.
    looks_at: tuple[tuple[str, ...], ...] = field(init=False, repr=False, compare=False)
    comparisons: tuple[FieldComparison, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Named: a dataclass with slots is another class than the one that `super()` was written in.
        Path.__post_init__(self)
        if mistakes := [*_no_conditions(self._compiled.parsed), *_contradictions(self._compiled.parsed)]:
            raise ValueError("; ".join(mistakes))
        found = list(_looked_at(self._compiled.parsed))
        object.__setattr__(self, "looks_at", () if None in found else tuple(found))
        object.__setattr__(self, "comparisons", tuple(_comparisons(self._compiled.parsed)))

    def can_be_asked(self, value: Any) -> bool:
        """Whether any of the fields it looks at is there; where none is, its answer says nothing."""
        return not self.looks_at or any(_stands(steps, value) for steps in self.looks_at)

    def holds_of_anything(self) -> bool:
        """Whether it is true of an event that has nothing to do with it, as `type != 'subscribed'` is.

        Not where it says so plainly, by `true`.
        """
        return not self.is_constant and self._may_hold({"": None})

    def holds_by_absence(self) -> Iterator[str]:
        """Parts that hold because something is absent, and may change the consent of whoever's event lacks it."""
        tree = self._compiled.parsed
        yield from dict.fromkeys((*_asks_for_null(tree), *_held_by_absence(tree, frozenset())))

    def words_of_json(self) -> Iterator[str]:
        """Comparisons with `True`, which is a text that some senders write, and may be meant as JSON's."""
        for word in dict.fromkeys(_texts_in_backticks(self.text)):
            if right := _JSON_WORDS.get(word.lower()):
                yield f"compares with the text '{word}'; for JSON's {right} write `{right}`"

    def check_is_not_meant(self, event: dict[str, Any]) -> None:
        """Raises `ValidationError` where it only does not hold because of a value in another case or of another type.

        For an event of which it does not hold.
        """
        near: dict[tuple[str, ...], dict[str, FieldComparison]] = {}
        # What stands there as it is asked for comes first: it is changed only where nothing else helps.
        for one in sorted(filter(lambda one: one.is_near(event), self.comparisons), key=lambda one: one.differs(event)):
            near.setdefault(one.field, {})[_quoted(one.literal)] = one
        for chosen in islice(product(*(choices.values() for choices in near.values())), MAX_MEANINGS):
            changed = [one for one in chosen if one.differs(event)]
            meant = event
            for one in changed:
                meant = one.meant(meant)
            if changed and self._may_hold(meant):
                raise changed[0].mistake(event)

    def _may_hold(self, value: Any) -> bool:
        try:
            return self.holds(value)
        except ValidationError:
            return False

    def holds(self, value: Any) -> bool:
        result = self.find(value)
        if isinstance(result, bool) or result in (None, "", [], {}):
            return result is True
        # "false" as a text would count as true in JMESPath; nobody is to be opted out by that.
        raise ValidationError("gives neither true nor false here; compare with something", _named(self.text))


def _looked_at(node: Any) -> Iterator[tuple[str, ...] | None]:
    """The fields whose values a condition looks at; None where it asks whether something is there at all."""
    children = [child for child in node["children"] if isinstance(child, dict)]
    asks_by_null = node["type"] == "comparator" and _NULL in children
    if asks_by_null or (node["type"] == "function_expression" and node["value"] == "given"):
        yield None
    elif (steps := _steps(node)) is not None:
        yield steps
    elif node["type"] in _INTO:
        # Behind the first step that is no name, it looks into what stands there.
        yield from _looked_at(children[0])
    elif node["type"] == "current":
        yield None
    elif node["type"] != "not_expression":
        for child in children:
            yield from _looked_at(child)


def _comparisons(node: Any) -> Iterator[FieldComparison]:
    """Those of a field with a value; `contains(['a', 'b'], type)` is two."""
    children = [child for child in node["children"] if isinstance(child, dict)]
    if node["type"] in ("and_expression", "or_expression", "not_expression"):
        for child in children:
            yield from _comparisons(child)
    elif node["type"] == "comparator":
        for one, other in (children, children[::-1]):
            if (steps := _steps(one)) and other["type"] == "literal" and isinstance(other["value"], str | int | float):
                yield FieldComparison(steps, node["value"], other["value"])
    elif node["type"] == "function_expression" and node["value"] == "contains" and (steps := _steps(children[1])):
        for literal in children[0]["children"] if _is_list_of_texts(children[0]) else ():
            yield FieldComparison(steps, "eq", literal["value"])


def _fields(node: Any) -> frozenset[tuple[str, ...]]:
    """Every field whose value an expression asks for."""
    if (steps := _steps(node)) is not None:
        return frozenset([steps])
    children = [child for child in node["children"] if isinstance(child, dict)]
    if node["type"] in _INTO:
        children = children[:1]
    return frozenset().union(*map(_fields, children))


def _holds_of_nothing(node: Any) -> bool:
    try:
        return TreeInterpreter(_OPTIONS).visit(node, {"": None}) is True
    except Exception:
        return False  # as contains(null, 'x'): an event without the field is quarantined


def _asked(node: Any) -> frozenset[tuple[str, ...]]:
    """The fields that must be there wherever it holds."""
    parts = map(_asked, node["children"])
    if node["type"] == "and_expression":
        return frozenset().union(*parts)
    if node["type"] == "or_expression":
        return frozenset.intersection(*parts)
    return frozenset() if _holds_of_nothing(node) else _fields(node)


def _held_by_absence(node: Any, asked: frozenset[tuple[str, ...]]) -> Iterator[str]:
    """`event == 'updated' && consent != 'yes'`: whoever's event lacks `consent` would be opted out."""
    if node["type"] in ("and_expression", "or_expression"):
        if node["type"] == "and_expression":
            asked |= _asked(node)
        for child in node["children"]:
            yield from _held_by_absence(child, asked)
    elif _holds_of_nothing(node) and (fields := sorted(_fields(node) - asked)):
        name = ".".join(fields[0])
        yield (
            f"holds in part wherever {name} is absent; where that is not meant, say what must stand there, or "
            f"{name} && … before it"
        )


def _asks_for_null(node: Any) -> Iterator[str]:
    """`unsubscribed_at != null` holds of an empty text, too."""
    children = [child for child in node["children"] if isinstance(child, dict)]
    inner = children[0] if node["type"] == "not_expression" else node
    wanted = "eq" if inner is not node else "ne"
    if inner["type"] == "comparator" and inner["value"] == wanted and _NULL in inner["children"]:
        (other,) = [child for child in inner["children"] if child != _NULL] or [_NULL]
        name = ".".join(_steps(other) or ("…",))
        yield f"holds of '', 0, 'null' and 0000-00-00, too, which are not null; write given({name})"
    for child in children:
        yield from _asks_for_null(child)


_INTO = ("subexpression", "index_expression", "projection", "value_projection", "filter_projection")
_NULL: dict[str, Any] = {"type": "literal", "value": None, "children": []}


def _steps(node: Any) -> tuple[str, ...] | None:
    """`a.b.c` as its names; None for what is no such path."""
    if node["type"] == "field":
        return (node["value"],)
    if node["type"] == "subexpression":
        parts = [_steps(child) for child in node["children"]]
        if all(part is not None for part in parts):
            return tuple(name for part in parts for name in part or ())
    return None


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


def _wrong_parts(node: Any) -> Iterator[str]:
    """What JMESPath itself would only notice at run time, or not at all."""
    children = [child for child in node["children"] if isinstance(child, dict)]
    if node["type"] == "function_expression":
        yield from _wrong_call(node["value"], len(children))
        yield from _wrong_search(node["value"], children)
    if node["type"] == "comparator":
        yield from _wrong_comparison(node["value"], *children)
        yield from _wrong_comparison(node["value"], *reversed(children))
    if node["type"] == "pipe" and _is_truth(children[0]) and _fields(children[1]) and not _asks_for_all(children[1]):
        yield "hands true or false on by |, which looks for a field in it; write || for or"
    if node["type"] == "subexpression" and children[0]["type"] == "not_expression":
        # It binds tighter than the dot: the path of a truth value, which is null.
        yield "negates only the first step of a path; write !(a.b) for !a.b"
    for child in children:
        yield from _wrong_parts(child)


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
    if _is_text(within) and not _is_text(looked_for):
        text = within["value"]
        right = f"{name}(…, '{text}')" + (
            ", or contains(['a', 'b'], …) for one of several texts" * (name == "contains")
        )
        yield f"calls {name}() the wrong way round: a part of '{text}', or nothing at all, is enough; write {right}"
    elif _is_list_of_texts(looked_for):
        yield f"looks for a whole list by {name}(); for one of several texts write contains(['a', 'b'], …)"


_BY_SIZE = ("lt", "lte", "gt", "gte")
_TRUTH_FUNCTIONS = ("contains", "starts_with", "ends_with")


def _wrong_comparison(comparator: str, side: Any, other: Any) -> Iterator[str]:
    """A comparison with a constant that always, or never, holds."""
    called = other["value"] if other["type"] == "function_expression" else ""
    if _is_list_of_texts(side):
        yield "compares with a list; for one of several texts write contains(['a', 'b'], …)"
    elif not _is_text(side):
        return
    elif comparator in _BY_SIZE:
        yield f"asks whether something is more or less than the text '{side['value']}'; a number stands in backticks"
    elif called == "lower" and side["value"] != side["value"].strip().lower():
        yield f"compares lower() with '{side['value']}', which it never gives; write '{side['value'].strip().lower()}'"
    elif called in _TRUTH_FUNCTIONS:
        yield f"compares {called}(), which gives true or false, with a text; leave '{side['value']}' out"


def _asks_for_all(node: Any) -> bool:
    """Whether `@` stands in it."""
    return node["type"] == "current" or any(
        _asks_for_all(child) for child in node["children"] if isinstance(child, dict)
    )


def _is_truth(node: Any) -> bool:
    """Whether it gives true or false, and never a value to look into."""
    if node["type"] == "or_expression":
        return all(map(_is_truth, node["children"]))
    if node["type"] == "and_expression":
        return _is_truth(node["children"][-1])
    called = node["value"] if node["type"] == "function_expression" else ""
    return node["type"] in ("comparator", "not_expression") or called in _TRUTH_FUNCTIONS


def _no_conditions(node: Any) -> Iterator[str]:
    """Texts and numbers where a condition should stand: `type == 'a' || 'b'`."""
    if node["type"] in ("and_expression", "or_expression", "not_expression"):
        for child in node["children"]:
            yield from _no_conditions(child)
    elif node["type"] == "literal" and not isinstance(node["value"], bool):
        yield f"asks for {node['value']!r} alone, which is neither true nor false; compare it with something"


def _contradictions(node: Any) -> Iterator[str]:
    """`type == 'a' && type == 'b'`."""
    if node["type"] in ("or_expression", "not_expression"):
        for child in node["children"]:
            yield from _contradictions(child)
    if node["type"] != "and_expression":
        return
    values: list[tuple[Any, Any]] = []
    for part in _conjuncts(node):
        yield from _contradictions(part)
        if part["type"] == "comparator" and part["value"] == "eq":
            left, right = part["children"]
            if _is_text(left) != _is_text(right):
                what, text = (right, left) if _is_text(left) else (left, right)
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


def _is_text(node: Any) -> bool:
    return node["type"] == "literal" and isinstance(node["value"], str)


def _is_list_of_texts(node: Any) -> bool:
    return node["type"] == "multi_select_list" and all(map(_is_text, node["children"]))


def _unquoted_texts(text: str) -> Iterator[str]:
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


#: What stands in quotes; of the backticks, what stands in them.
_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`((?:\\.|[^`\\])*)`", re.DOTALL)


def _texts_in_backticks(text: str) -> Iterator[str]:
    """What is no JSON there, which JMESPath takes for a text."""
    for found in _QUOTED.finditer(text):
        if found[1] is not None:
            try:
                json.loads(found[1].replace("\\`", "`"))
            except ValueError:
                yield found[1].strip()


def _quoted_twice(text: str) -> Iterator[str]:
    for word in _texts_in_backticks(text):
        if len(word) > 1 and word[0] == word[-1] == "'":
            inner = word.strip("'")
            cure = f"`{_JSON_WORDS[inner.lower()]}`" if inner.lower() in _JSON_WORDS else f"'{inner}'"
            yield f"holds `{word}`, a text with its quotes; write {cure}"


#: A word that may be meant as JSON → how JSON writes it.
_JSON_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null", "nil": "null"}
