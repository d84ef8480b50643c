"""The functions of expressions: JMESPath's, and what it lacks for webhooks."""

import re
from typing import Any

import jmespath
from jmespath.functions import Functions, signature

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


OPTIONS = jmespath.Options(custom_functions=MoreFunctions())
