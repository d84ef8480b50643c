"""Which rows of a file an import takes: those that a person chose with `--only`, once all of them are opt-outs.

A file in which somebody has not opted out is refused, with the column that says so and what to type.
"""

import csv
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from webhook_app.sync.consent_columns import Column, Role, about_consent
from webhook_app.sync.consent_values import Said, is_blank
from webhook_app.sync.csv_file import CannotImport
from webhook_app.sync.known_exports import plain

#: More columns than this that no list of opt-outs needs make it a list of contacts.
MOST_OTHERS = 3


class NotOptOuts(Exception):
    """Not everybody in the file has opted out. The text goes on after its name, and says what to type."""


@dataclass(frozen=True, slots=True)
class Only:
    """Rows in which a column has one of these values, "" being any blank; without any: in which it is not blank."""

    title: str
    place: int
    values: frozenset[str]

    def holds(self, cells: Sequence[str]) -> bool:
        cell = cells[self.place].strip() if self.place < len(cells) else ""
        if is_blank(cell):
            return "" in self.values or cell.casefold() in self.values
        return not self.values or cell.casefold() in self.values


def places_called(given: str, header: Sequence[str]) -> list[int]:
    """Where the columns of this title stand; `#2` is the second one, for titles that are there twice."""
    found = [place for place, cell in enumerate(header) if plain(cell) == plain(given)]
    number = re.fullmatch(r"#([1-9]\d{0,3})", given.strip())
    if found or not number or int(number[1]) > len(header):
        return found
    return [int(number[1]) - 1]


def parse_only(given: str, header: Sequence[str]) -> Only:
    """`Opt-In=False,2`: a column and its values; `Note=`: the blank ones; or a column alone. Raises `CannotImport`."""
    title, equals, listed = given.partition("=")
    places = places_called(title, header)
    if len(places) > 1:
        choice = " or ".join(f'"#{place + 1}{equals}{listed}"' for place in places)
        raise CannotImport(f"--only: {len(places)} columns are called {title.strip()}: name one by its place, {choice}")
    if not places:
        raise CannotImport(f"--only: there is no column {title.strip()}; there are: {shown_titles(header)}")
    # In nothing, csv reads no value; and a column without values means the opposite: the rows in which it is filled.
    values = frozenset(value.strip().casefold() for value in next(csv.reader([listed])) or [""])
    return Only(header[places[0]], places[0], values if equals else frozenset())


def check_columns(columns: Iterable[Column], only: Sequence[Only], *, used: Iterable[int], is_known: bool) -> None:
    """Make sure that the rows that `only` leaves are opt-outs. Raises `NotOptOuts`, and `CannotImport` for `only`.

    `columns` have counted those rows, but for a column of `only`, which has counted all of them. `used` are the places
    of the address and the time, `is_known` whether the header is one of an ESP's list of opt-outs.
    """
    columns, chosen = list(columns), {one.place: one for one in only}
    for column in columns:
        if column.place in chosen:
            _check_choice(column, chosen[column.place])
    about = [column for column in about_consent(columns) if column.place not in chosen]
    choosing = [column for column in columns if column.place in chosen and _is_telling(column, chosen[column.place])]
    proving = [column for column in about if set(column.said) == {Said.OUT}]
    is_proven = bool(choosing or proving)
    if is_known and is_proven:
        # It is a list of opt-outs, and says when each was: what somebody typed as their reason takes nobody out of it.
        about = [column for column in about if not column.is_free_text]
    is_said = any(one.is_of_everything and not one.is_time for one in (*proving, *choosing))
    doubtful = [column for column in about if _is_doubtful(column, is_proven=is_proven, is_said=is_said)]
    if doubtful:
        best = max(doubtful, key=_tells_how_much)
        # Whom a column about everything says to be still there, no other choice can opt out.
        is_final = bool(only) or any(one.is_of_everything and Said.IN in one.said for one in doubtful)
        further = [column for column in doubtful if column is not best and column.is_negative and not column.is_time]
        raise NotOptOuts(_advice(best, [] if is_final else further, is_filtered=bool(only)))
    if not (about or choosing or is_known):
        others = [column for column in columns if column.place not in set(used) and not column.is_reason]
        _check_others(others, is_filtered=bool(only))


def _tells_how_much(column: Column) -> tuple[bool, bool, bool, int]:
    """Which of several columns is to choose by: one that says who opted out; rather of all than of one list."""
    out = column.said.get(Said.OUT, 0)
    return out > 0, not column.is_time, column.is_of_everything, out


def _is_doubtful(column: Column, *, is_proven: bool, is_said: bool) -> bool:
    """Whether somebody in it has not opted out; or may not have, where no other column proves it.

    A "no" in a column about one list says only that it was not this one, where one about everything says who left.
    """
    said, is_excused = column.said, is_said and column.is_negative and not column.is_of_everything
    if (Said.IN in said and not is_excused) or Said.NOT_ASKED in said:
        return True
    return Said.UNKNOWN in said and not is_proven


def _is_telling(column: Column, only: Only) -> bool:
    """Whether a choice is one by consent: rows of one country are not."""
    return column.is_about_consent or any(column.says(value) is Said.OUT for value in _chosen(column, only))


def _check_choice(column: Column, only: Only) -> None:
    if Role.OTHER_CHANNEL in column.roles:
        raise CannotImport(f"--only: {column.title} is about another channel than email")
    if Role.CAME_BACK in column.roles:
        raise CannotImport(f"--only: {column.title} is about people who came back")
    if any(map(is_blank, only.values)) and column.blank and column.is_about_consent and not column.is_reason:
        raise CannotImport(
            f"--only: an empty cell in {column.title} says of nobody that they opted out. If they shall be opted out "
            "all the same, say --all-rows, too"
        )
    wrong = [value for value in _chosen(column, only) if column.says(value) in (Said.IN, Said.NOT_ASKED)]
    if wrong and (column.has_categories or not only.values):
        raise CannotImport(
            f"--only: {column.title}={wrong[0]} are people who did not opt out. If they shall be opted out all the "
            "same, say --all-rows, too"
        )


def _chosen(column: Column, only: Only) -> list[str]:
    return [value for value in column.values if not only.values or value.casefold() in only.values]


def _check_others(columns: Sequence[Column], *, is_filtered: bool) -> None:
    others = [column for column in columns if Role.HARMLESS not in column.roles]
    telling = [column for column in others if column.is_about_contacts or column.may_be_yes_and_no]
    if telling or sum(not column.is_time for column in others) > MOST_OTHERS:
        shown = ", ".join(column.title for column in (telling or others)[:3])
        raise NotOptOuts(
            f"looks like a list of contacts ({shown}), and no column says who of them has opted out: export the list "
            f"of those who did; or say --all-rows if everybody {'whom --only chose' if is_filtered else 'in it'} has"
        )


def _advice(column: Column, further: Sequence[Column], *, is_filtered: bool) -> str:
    all_rows = f"--all-rows takes {'every row that --only chose' if is_filtered else 'everybody'}"
    if Role.CAME_BACK in column.roles:
        return (
            f"has people who came back, says the column {column.title} (filled {column.filled:,}): take these rows out "
            f"of the file; {all_rows}"
        )
    return (
        f"has people who did not opt out. The column {column.title} says: {', '.join(_counts(column))}. "
        f"{_what_to_type(column)}; {all_rows}{''.join(map(_advice_for_others, further))}"
    )


def _advice_for_others(column: Column) -> str:
    """Several choices have to hold at once: who stands in another column alone takes another import."""
    if not column.said.get(Said.OUT):
        return ""
    return f". {column.title} may say it of others: import the file again for these. {_what_to_type(column)}"


def values_of(column: Column) -> str:
    """How often each value stands in a column, the most frequent first."""
    return f"{column.title}: {', '.join(_counts(column))}"


def _counts(column: Column) -> Iterator[str]:
    if column.has_categories:
        for value, count in column.values.most_common(8):
            # What a terminal would obey is not shown.
            yield f"{''.join(letter if letter.isprintable() else '?' for letter in value[:40])} {count:,}"
        if len(column.values) > 8:
            yield "…"
    else:
        yield f"filled {column.filled:,}"
    if column.blank:
        yield f"empty {column.blank:,}"


def _what_to_type(column: Column) -> str:
    if not column.has_categories and column.is_reason:
        return "These are too many to name: take the rows of people who did not opt out out of the file"
    if not column.has_categories:
        return f"To take the rows in which it is filled, say --only {quoted(column.to_type)}"
    # A reason of which nothing is known is one to opt out for: only bounces and the like are none.
    meant = (Said.OUT, Said.UNKNOWN) if column.is_reason else (Said.OUT,)
    wanted = [value for value in column.values if value.isprintable() and column.says(value) in meant]
    out = [f'"{value}"' if "," in value else value for value in wanted]
    if column.is_reason and column.blank:
        out.insert(0, "")
    if not out:
        return f"If one of them means opted out, say --only {quoted(column.to_type + '=VALUE')}"
    note = " (bounces and the like are no opt-outs)" if Said.NOT_ASKED in column.said else ""
    return f"To take those who did, say --only {quoted(column.to_type + '=' + ','.join(out))}{note}"


def shown_titles(header: Sequence[str]) -> str:
    """The titles of columns; what may be somebody's address, in a file without a header, is left out."""
    return ", ".join(title if _can_be_shown(title) else "…" for title in header)


def _can_be_shown(text: str) -> bool:
    return "@" not in text and text.isprintable()


def quoted(text: str) -> str:
    """As a shell takes it."""
    return shlex.quote(text) if any(letter in text for letter in '"$`\\!') else f'"{text}"'
