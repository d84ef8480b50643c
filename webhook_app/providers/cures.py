"""Suggested cures for expressions that the parser refuses: habits from JSONPath, JavaScript, Python and SQL."""

import re

from webhook_app.providers.syntax import QUOTED

_IS_KEY = re.compile(r"[^\W\d][\w -]*\Z")
_PLAIN_KEY = re.compile(r"[A-Za-z_]\w*", re.ASCII)

#: Found in the expression → the cure, with what was found. The first that fits is told.
_CURES = tuple(
    (re.compile(pattern, re.IGNORECASE), cure)
    for pattern, cure in (
        (r"[‘’‚“”„´]", "a text stands in straight single quotes, like 'x'"),
        (r"^\s*\$\.?", "leave {0} out: a path begins with the first key, like data.email"),
        (r"([^\W\d]\w*)\[\s*['\"]?([^\W\d][^\[\]'\"]*)['\"]?\s*\]", "a key stands behind a dot, like {1}.{2}"),
        (r"([^\W\d]\w*)\.(\d+)", "a list's item stands in brackets, like {1}[{2}]"),
        (r"[=!]==|(?<![=!<>])=(?!=)|<>", "write == where {0} stands (!= for the opposite)"),
        (r"\sand\s", "write && for and"),
        (r"\sor\s", "write || for or"),
        (r"\s(?:not\s+)?in\s", "write contains(['a', 'b'], type) for in"),
        (r"(?:^|[\s(])not\s", "write !(…) for not"),
        (r"(?:[=!]=|[<>]=?)\s*(-?\d+(?:\.\d+)?)", "a number stands in backticks, like `{1}`"),
        (
            r"[^\W\d]\w*(?:[ -]+\w+)+|\w*[^\x00-\x7f]\w*",
            "a key that is more than letters, digits and _ stands in double quotes, like {0} (in TOML: '{0}')",
        ),
    )
)


def cure(text: str) -> str:
    """What to write instead, or an empty text."""
    masked = QUOTED.sub(lambda found: found[0][0] + "_" * (len(found[0]) - 2) + found[0][-1], text)
    for pattern, line in _CURES:
        if found := pattern.search(masked):
            parts = [text[slice(*found.span(number))].strip() for number in range(pattern.groups + 1)]
            return line.format(*(_key(part) if _IS_KEY.match(part) else part for part in parts))
    return ""


def _key(name: str) -> str:
    return name if _PLAIN_KEY.fullmatch(name) else f'"{name}"'
