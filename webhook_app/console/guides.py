"""The setup pages of `docs/esps`, as HTML for the console."""

import re
from functools import cache
from pathlib import Path
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.treeprocessors import Treeprocessor
from markupsafe import Markup

PAGES = Path(__file__).parents[2] / "docs" / "esps"

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
    """Text of our own pages as HTML. HTML in it is shown as it is written: a request's `Host` has been put into it."""
    markdown = Markdown(extensions=["tables", "fenced_code"])
    markdown.preprocessors.deregister("html_block")
    markdown.inlinePatterns.deregister("html")
    # After the inline patterns (20), which make the links.
    markdown.treeprocessors.register(_ForConsole(markdown), "console", 15)
    html = markdown.convert(re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL))
    # Can be scrolled by keyboard. Code has been written already when the tree is worked on.
    return Markup(html.replace("<pre>", '<pre tabindex="0">'))  # noqa: S704 # see above


class _ForConsole(Treeprocessor):  # type: ignore[misc] # the library has no types
    """Links lead to the console's pages, tables can be scrolled, headings stand below those of the page."""

    def run(self, root: Element) -> None:
        for element in list(root.iter()):
            match element.tag:
                case "a":
                    _lead(element)
                case "th":
                    element.set("scope", "col")
                case "h3":
                    element.tag = "h4"
        for place, table in enumerate(root):
            if table.tag == "table":
                root[place] = box = Element("div", {"class": "scroll"})
                box.append(table)


def _lead(link: Element) -> None:
    to = link.get("href", "")
    if page := _ESP_PAGE.fullmatch(to):
        link.set("href", page[1])
    elif to.startswith("https://"):
        link.set("rel", "noreferrer")
    else:
        # A page of the docs that is not shown here.
        link.tag = "span"
        link.attrib.clear()
