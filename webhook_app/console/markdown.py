"""The setup pages of `docs/esps`, written as HTML: the little of Markdown that they use."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from markupsafe import Markup, escape

PAGES = Path(__file__).parents[2] / "docs" / "esps"

_INLINE = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<b>.+?)\*\*|\*(?P<em>[^*]+)\*|\[(?P<text>[^\]]+)\]\((?P<to>[^)\s]+)\)")
_ITEM = re.compile(r"(?:(?P<number>\d+\.)|-) +(?P<text>.*)")
_ESP_PAGE = re.compile(r"([a-z_]+)\.md(?:#.*)?")


@cache
def sections(name: str) -> dict[str, str]:
    """The page of an ESP by its headings, each without its number; empty where it has none."""
    path = PAGES / f"{name}.md"
    if not path.is_file():
        return {}
    _, *parts = re.split(r"^## (?:\d+\. )?", path.read_text("utf-8"), flags=re.MULTILINE)
    return {heading.strip(): text for heading, _, text in (part.partition("\n") for part in parts)}


def render(text: str) -> Markup:
    return Markup("\n").join(_blocks(re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL).splitlines()))


def _blocks(lines: list[str]) -> Iterator[Markup]:
    while lines:
        first = lines[0]
        if not first.strip():
            lines = lines[1:]
        elif first.startswith("```"):
            end = next((place for place, line in enumerate(lines) if place and line.startswith("```")), len(lines))
            yield Markup('<pre tabindex="0">{}</pre>').format("\n".join(lines[1:end]))
            lines = lines[end + 1 :]
        else:
            end = next((place for place, line in enumerate(lines) if _ends(line)), len(lines))
            yield _block(lines[:end])
            lines = lines[end:]


def _ends(line: str) -> bool:
    return not line.strip() or line.startswith("```")


def _block(lines: list[str]) -> Markup:
    if lines[0].startswith("#"):
        return Markup("<h4>{}</h4>").format(_inline(lines[0].lstrip("# ")))
    if lines[0].startswith("|"):
        return _table(lines)
    if found := _ITEM.match(lines[0]):
        items = re.split(r"\n(?=(?:\d+\.|-) )", "\n".join(lines))
        texts = [_inline(re.sub(r"^(?:\d+\.|-) +", "", item)) for item in items]
        kind = Markup("ol") if found["number"] else Markup("ul")
        return Markup("<{0}>{1}</{0}>").format(
            kind, Markup("").join(Markup("<li>{}</li>").format(one) for one in texts)
        )
    return Markup("<p>{}</p>").format(_inline("\n".join(lines)))


def _table(lines: list[str]) -> Markup:
    rows = [[_inline(cell.strip()) for cell in line.strip().strip("|").split("|")] for line in lines]
    head, _, *body = rows
    columns = Markup("").join(Markup('<th scope="col">{}</th>').format(cell) for cell in head)
    written = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row))
        for row in body
    )
    return Markup('<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        columns, written
    )


def _inline(text: str) -> Markup:
    written, last = Markup(""), 0
    for found in _INLINE.finditer(text):
        written += escape(text[last : found.start()]) + _marked(found)
        last = found.end()
    return written + escape(text[last:])


def _marked(found: re.Match[str]) -> Markup:
    if found["code"]:
        return Markup("<code>{}</code>").format(found["code"])
    if found["b"]:
        return Markup("<b>{}</b>").format(_inline(found["b"]))
    if found["em"]:
        return Markup("<em>{}</em>").format(found["em"])
    page = _ESP_PAGE.fullmatch(found["to"])
    if page:
        return Markup('<a href="{}">{}</a>').format(page[1], _inline(found["text"]))
    if found["to"].startswith("https://"):
        return Markup('<a href="{}" rel="noreferrer">{}</a>').format(found["to"], _inline(found["text"]))
    # A page of the docs that is not shown here.
    return _inline(found["text"])
