"""CSV as people export it."""

import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook_app.sync.csv_file import NotCsv, look_through, rows

PEOPLE = [["email", "name"], ["jane@example.com", "Jane"], ["max@example.com", "Max Müller"]]


def cells(path: Path, content: bytes, encoding: str = "") -> list[list[str]]:
    path.write_bytes(content)
    return [row.cells for row in rows(look_through(path, encoding=encoding))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "list.csv"


@pytest.mark.parametrize(
    "content",
    [
        "email,name\njane@example.com,Jane\nmax@example.com,Max Müller\n".encode(),
        "email;name\r\njane@example.com;Jane\r\nmax@example.com;Max Müller".encode(),
        "email\tname\rjane@example.com\tJane\rmax@example.com\tMax Müller\r".encode(),
        "email|name\n\njane@example.com|Jane\n  \nmax@example.com|Max Müller\n\n".encode(),
        "\ufeffemail,name\njane@example.com,Jane\nmax@example.com,Max Müller\n".encode(),
        "email;name\njane@example.com;Jane\nmax@example.com;Max Müller\n".encode("latin-1"),
        "email;name\njane@example.com;Jane\nmax@example.com;Max Müller\n".encode("utf-16"),
        "email,name\njane@example.com,Jane\nmax@example.com,Max Müller\n".encode("utf-16-le"),
        "email,name\njane@example.com,Jane\nmax@example.com,Max Müller\n".encode("utf-16-be"),
        b'sep=;\r\n"email";"name"\r\n"jane@example.com";"Jane"\r\n"max@example.com";"Max M\xfcller"\r\n',
    ],
    ids=["comma", "semicolon", "tab", "bar and blank lines", "mark", "latin-1", "utf-16", "le", "be", "excel"],
)
def test_every_usual_export_is_read_alike(content: bytes, path: Path) -> None:
    assert cells(path, content) == PEOPLE


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'"a ""quoted"" word",x', [['a "quoted" word', "x"]]),
        (b'"one, two",x', [["one, two", "x"]]),
        (b'"two\nlines",x', [["two\nlines", "x"]]),
        (b'5" nails,x', [['5" nails', "x"]]),
        (b'5" nails,x\n6" nails,y', [['5" nails', "x"], ['6" nails', "y"]]),
        (b'="0042",x', [["0042", "x"]]),
        (b'"unclosed,x\nnext,y', [['"unclosed,x'], ["next", "y"]]),
    ],
)
def test_quotes_mean_what_a_spreadsheet_means(line: bytes, expected: list[list[str]], path: Path) -> None:
    assert cells(path, b"a,b\n" + line + b"\n")[1:] == expected


def test_a_quote_that_is_never_closed_costs_one_row_of_a_hundred_thousand(path: Path) -> None:
    content = b"email,name\n" + b'bad@example.com,"Jane\n' + b"jane@example.com,Jane\n" * 100_000
    path.write_bytes(content)
    problems = [(row.line, row.problem) for row in rows(look_through(path)) if row.problem]
    assert problems == [(2, "has quotes that do not match")]


NOTE = "".join(f"line {number}\nmax@example.com\nlee@example.com,Lee\n" for number in range(100))


def read(path: Path, content: str) -> tuple[list[str], list[str]]:
    """The addresses of the rows that can be read, and the problems of the others."""
    path.write_text(content)
    found = list(rows(look_through(path)))[1:]
    return [row.cells[0] for row in found if not row.problem], [row.problem for row in found if row.problem]


def test_a_note_of_many_lines_is_one_cell(path: Path) -> None:
    content = f'email,note\na@b.de,"{NOTE}"\nc@d.de,"two ""quoted""\n\nlines",\n'
    assert read(path, content) == (["a@b.de", "c@d.de"], [])


@pytest.mark.parametrize("note", [f'"{NOTE}the end" and more,x', f'"{NOTE}"x",y'])
def test_no_line_of_a_note_with_broken_quotes_is_a_row(note: str, path: Path) -> None:
    content = f"email,note,x\na@b.de,{note}\nc@d.de,x,y\n"
    found, problems = read(path, content)
    assert found == ["c@d.de"]
    assert problems == ["has quotes that do not match", *["stands behind quotes that do not match"] * 300]


@pytest.mark.parametrize(("rest", "width"), [(",x,y", 4), ("", 2)])
def test_a_note_is_one_cell_whatever_stands_behind_it(rest: str, width: int, path: Path) -> None:
    for note in ("two\nlines", NOTE):
        found = cells(path, f'email,note,x\na@b.de,"{note}"{rest}\nc@d.de,x,y\n'.encode())
        assert [(row[0], len(row)) for row in found[1:]] == [("a@b.de", width), ("c@d.de", 3)]


PERSON = "".join(f"p{number}@b.de,Jane\n" for number in range(500))


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ('"out@b.de","Jane"', ["out@b.de"]),
        ('"out@b.de",Jane', ["out@b.de"]),
        ('out@b.de,"two\nlines"', ["out@b.de"]),
        # These may be the end of a long note.
        ('out@b.de,"Jane"', []),
        ('"out@b.de","Jane",x', []),
    ],
)
def test_a_quote_that_is_never_closed_costs_lines_that_are_counted(last: str, expected: list[str], path: Path) -> None:
    content = f'email,name\na@b.de,"never closed\n{PERSON}\n{last}\nc@d.de,Lee\n'
    found, problems = read(path, content)
    assert found == [*expected, "c@d.de"]
    assert len(problems) == 501 + (not expected), "one for each line"
    numbers = [row.line for row in rows(look_through(path)) if row.problem]
    assert numbers[:501] == list(range(2, 503))


@pytest.mark.parametrize("last", ['"e@f.de,x,5"', 'e@f.de,5"', 'e@f.de,5",x,y,z'])
def test_a_quote_that_another_row_closes_takes_no_rows_along(last: str, path: Path) -> None:
    content = f'email,a,b\na@b.de,"never closed\nx@b.de,Jane,1\ny@b.de,Jane,2\n{last}\nc@d.de,x,y\n'
    found, problems = read(path, content)
    assert (found[-1], len(problems)) == ("c@d.de", 4)


def test_a_note_that_is_cut_off_makes_no_people_of_its_lines(path: Path) -> None:
    found, problems = read(path, f'email,note,x\na@b.de,"{NOTE}')
    assert found == []
    assert problems == ["has quotes that do not match", *["stands behind quotes that do not match"] * 299]


def test_a_cell_that_is_well_quoted_ends_the_search_for_one_that_is_not(path: Path) -> None:
    content = 'email,note\na@b.de,"Jane\nc@d.de,Max\ne@f.de,"two\nlines"\ng@h.de,"x"\n'
    problems = ["has quotes that do not match", "stands behind quotes that do not match"]
    assert read(path, content) == (["e@f.de", "g@h.de"], problems)


@pytest.mark.parametrize(
    "line", ['a@b.de,"Jane\n', 'a@b.de,5" x\n', '"a""b\n', '5"","\n', 'a@b.de,"Jane\nx\n', '"",x"\n']
)
def test_broken_quotes_cost_no_more_than_their_lines(line: str, path: Path) -> None:
    def seconds(count: int) -> float:
        path.write_text("email,name\n" + line * count)
        file = look_through(path)
        began = time.process_time()
        for _ in rows(file):
            pass
        return time.process_time() - began

    seconds(1000)
    assert seconds(80_000) < 8 * 4 * max(seconds(10_000), 0.02), "eight times the lines would take 64 times as long"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04rest", "is a workbook or an archive"),
        (b"\xd0\xcf\x11\xe0rest", "is an old Excel workbook"),
        (b"\x1f\x8brest", "is compressed"),
        (b'[{"email": "jane@example.com"}]', "is JSON, not CSV"),
        (b'\xef\xbb\xbf{"email": "jane@example.com"}', "is JSON, not CSV"),
        (b"<!DOCTYPE html><html></html>", "is a web page or XML"),
        (b"  \n\n", "is empty"),
        (b"a\0b\0c,d\n" + b"x" * 4000, "is not text"),
        (b"x" * (3 << 20), "has a line of more than a megabyte"),
    ],
)
def test_what_is_no_csv_says_what_it_is(content: bytes, said: str, path: Path) -> None:
    with pytest.raises(NotCsv, match=said):
        cells(path, content)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("xl/workbook.xml", "is an Excel workbook, not CSV"),
        ("unsubscribed_email_audience_export.csv", "unpack it, and import the right one of: unsubscribed_email_aud"),
        ("readme.txt", "the right one of: nothing that is CSV"),
    ],
)
def test_an_archive_says_what_is_in_it(member: str, said: str, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "content")
    with pytest.raises(NotCsv, match=said):
        look_through(path)


def test_an_encoding_that_only_the_end_of_the_file_shows_is_found(path: Path) -> None:
    content = b"email,name\n" + b"a@example.com,Jane\n" * 100_000 + "m@example.com,Jürgen Groß\n".encode("cp1252")
    path.write_bytes(content)
    *_, last = rows(look_through(path))
    assert last.cells == ["m@example.com", "Jürgen Groß"]


def test_a_wrong_encoding_is_said(path: Path) -> None:
    with pytest.raises(NotCsv, match="name its encoding"):
        cells(path, b"a,b\n\xff\xfe\n", encoding="utf-8")
    with pytest.raises(NotCsv, match="is not utf-16 text"):
        cells(path, "a,b\n".encode("utf-16-le"), encoding="utf-16")
    with pytest.raises(NotCsv, match=r"is not utf-8 text \(invalid start byte\): name"):
        cells(path, b"a,b\n" * 5000 + b"\xff\n", encoding="utf-8")
    with pytest.raises(NotCsv, match="no encoding called klingon"):
        cells(path, b"a,b\n", encoding="klingon")


@given(content=st.binary(max_size=300))
def test_any_bytes_end_in_rows_or_in_a_reason(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    with suppress(NotCsv):
        assert all(row.line > 0 for row in rows(look_through(path)))
