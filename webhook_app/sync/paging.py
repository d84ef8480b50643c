"""Pagination of ESPs' lists: four ways, each of which comes to an end whatever the ESP answers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from webhook_app.sync.api import Api

#: No list of an ESP is as long as that.
MOST_PAGES = 50_000

Pages = Iterator[list[Any]]
#: Reads a list: the API, a path, a query, and the key under which the entries of a page stand ("" is the page itself).
Paging = Callable[[Api, str, Mapping[str, Any], str], Pages]


@dataclass(frozen=True, slots=True)
class Offset:
    """By the number of entries that were read so far.

    The end is an empty page: a short one may only be a smaller limit than we asked for. A page that comes twice means
    that the list does not page at all.
    """

    limit: str
    size: int
    offset: str = "offset"

    def __call__(self, api: Api, path: str, query: Mapping[str, Any], entries: str) -> Pages:
        offset, previous = 0, None
        for _ in range(MOST_PAGES):
            page = _entries(api, api.get(path, **query, **{self.limit: self.size, self.offset: offset}), entries, path)
            if not page or page == previous:
                return
            yield page
            offset, previous = offset + len(page), page
        raise api.unexpected(f"to {path} pages for ever")


@dataclass(frozen=True, slots=True)
class NextLink:
    """By a link to the next page, which must lead to where we are. It ends without one, or with an empty page."""

    link: tuple[str, str]
    ends_empty: bool = False

    def __call__(self, api: Api, path: str, query: Mapping[str, Any], entries: str) -> Pages:
        seen: set[str] = set()
        here, asked = path, dict(query)
        for _ in range(MOST_PAGES):
            answer = api.get(here, **asked)
            page = _entries(api, answer, entries, path)
            if page:
                yield page
            outer, inner = self.link
            link = (answer.get(outer) or {}).get(inner) if isinstance(answer, dict) else None
            if not link or (self.ends_empty and not page):
                return
            if link in seen:
                raise api.unexpected(f"to {path} pages in a circle")
            seen.add(link)
            here, asked = _local(api, link, path)
        raise api.unexpected(f"to {path} pages for ever")


@dataclass(frozen=True, slots=True)
class PageToken:
    """By a token in each page that asks for the next one."""

    name: str

    def __call__(self, api: Api, path: str, query: Mapping[str, Any], entries: str) -> Pages:
        seen: set[str] = set()
        asked = dict(query)
        for _ in range(MOST_PAGES):
            answer = api.get(path, **asked)
            page = _entries(api, answer, entries, path)
            if page:
                yield page
            token = answer.get(self.name) if isinstance(answer, dict) else None
            if not token:
                return
            if token in seen:
                raise api.unexpected(f"to {path} pages in a circle")
            seen.add(token)
            asked[self.name] = token
        raise api.unexpected(f"to {path} pages for ever")


def whole(api: Api, path: str, query: Mapping[str, Any], entries: str) -> Pages:
    """All of it at once, handed on in pieces: each becomes one commit."""
    everything = _entries(api, api.get(path, **query), entries, path)
    for start in range(0, len(everything), 500):
        yield everything[start : start + 500]


def _entries(api: Api, answer: Any, key: str, path: str) -> list[Any]:
    found = answer.get(key) if key and isinstance(answer, dict) else answer
    if not isinstance(found, list):
        raise api.unexpected(f"to {path} holds no list")
    return found


def _local(api: Api, link: Any, path: str) -> tuple[str, dict[str, str]]:
    """A link as path and query. The key goes nowhere else than to the API's own host."""
    if not isinstance(link, str) or not link.startswith(f"{api.base}/"):
        raise api.unexpected(f"to {path} leads to another host")
    url = urlsplit(link)
    return url.path, dict(parse_qsl(url.query, keep_blank_values=True))
