"""CSV files as people export them: any delimiter, any usual encoding, with or without a header, with stray quotes.

A file is read line by line, so that a million rows cost no more memory than one.
"""

import codecs
import csv
import hashlib
import itertools
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import charset_normalizer

CHUNK = 1 << 20  # bytes
SAMPLE = 50  # lines that tell the delimiter
DELIMITERS = ",;\t|"
#: A quoted cell may hold line breaks. One that goes on for longer was never closed.
LONGEST_ROW = 1 << 16  # characters
QUOTES = "has quotes that do not match"
BEHIND_QUOTES = "stands behind quotes that do not match"

#: First bytes → what the file is instead.
IMPOSTORS = {
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook, not CSV: in Excel, save it as “CSV UTF-8”",
    b"\x1f\x8b": "is compressed: unpack it first",
    b"BZh": "is compressed: unpack it first",
    b"\xfd7zXZ": "is compressed: unpack it first",
    b"7z\xbc\xaf": "is an archive: unpack it, and import the CSV files in it",
    b"Rar!": "is an archive: unpack it, and import the CSV files in it",
    b"%PDF": "is a PDF, not CSV",
    b"PAR1": "is a Parquet file, not CSV",
    b"SQLite format 3": "is a database, not CSV",
}
#: First letter of a text → what it is instead.
OTHER_TEXTS = {
    "{": "is JSON, not CSV",
    "[": "is JSON, not CSV",
    "<": "is a web page or XML, not CSV",
}
#: Bytes that are looked at to find out the encoding: of lines that are not plain ASCII.
ENCODING_SAMPLE = 1 << 16


class NotCsv(Exception):
    """The file cannot be read as CSV at all. The text goes on after its name."""


class CannotImport(Exception):
    """Nothing can be imported like this. The text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvFile:
    """A file that has been looked through once: its bytes are known, and how to read them."""

    path: Path
    digest: str
    #: About how many there are, for a progress bar.
    lines: int
    encoding: str
    delimiter: str
    #: Lines before the first row that are none: Excel's `sep=;`.
    preamble: int


@dataclass(frozen=True, slots=True)
class Row:
    #: Where it begins, counted from 1.
    line: int
    cells: list[str]
    #: Why it could not be read; then `cells` hold the line as it is.
    problem: str = ""
    #: False for the last one of a file that does not end with a line break: it may have been cut off.
    is_ended: bool = True


def look_through(
    path: Path,
    *,
    encoding: str = "",
    is_header: Callable[[list[str]], bool] = lambda _: False,
    tick: Callable[[int], None] = lambda _: None,
) -> CsvFile:
    """Read a file once to find out how to read it; `tick` hears how many bytes more were read.

    `is_header` tells whether cells are a header that can be used, where more than one delimiter may be meant.

    Raises `NotCsv`, and `OSError` where it cannot be opened.
    """
    hasher, lines, head, sample, is_utf8 = hashlib.sha256(), 0, b"", bytearray(), True
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            head = head or chunk[:4096]
            hasher.update(chunk)
            lines += chunk.count(b"\n")
            if len(chunk) == CHUNK and b"\n" not in chunk and b"\r" not in chunk:
                raise NotCsv("has a line of more than a megabyte")  # it would be held in memory whole
            if is_utf8:
                is_utf8 = _decodes(decoder, chunk)
            if not chunk.isascii() and len(sample) < ENCODING_SAMPLE:
                sample += b"\n".join(line for line in chunk.splitlines() if not line.isascii())[:ENCODING_SAMPLE]
            tick(len(chunk))
    _check_kind(path, head)
    encoding = encoding or _encoding(head, bytes(sample), is_utf8=is_utf8 and _decodes(decoder, b"", final=True))
    delimiter, preamble = _delimiter(path, encoding, is_header)
    return CsvFile(
        path=path, digest=hasher.hexdigest(), lines=lines, encoding=encoding, delimiter=delimiter, preamble=preamble
    )


def rows(file: CsvFile) -> Iterator[Row]:
    """Every row that is not blank. One that cannot be read costs only itself. Raises `NotCsv`."""
    with file.path.open(encoding=file.encoding, newline="") as opened:
        numbered = ((number, line) for number, line in enumerate(opened, start=1) if number > file.preamble)
        try:
            yield from _rows(numbered, file.delimiter)
        except UnicodeError as error:
            reason = f" ({error.reason})" if isinstance(error, UnicodeDecodeError) else ""
            raise NotCsv(f"is not {file.encoding} text{reason}: name its encoding with --encoding") from None


def _decodes(decoder: codecs.IncrementalDecoder, chunk: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError:
        return False
    return True


def _check_kind(path: Path, head: bytes) -> None:
    if not head.strip():
        raise NotCsv("is empty")
    if head.startswith(b"PK\x03\x04"):
        raise NotCsv(_in_archive(path))
    for magic, what in IMPOSTORS.items():
        if head.startswith(magic):
            raise NotCsv(what)
    first = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1].decode("latin-1")
    if first in OTHER_TEXTS:
        raise NotCsv(OTHER_TEXTS[first])


def _in_archive(path: Path) -> str:
    """What a file that begins like a zip is: an Excel workbook is one, too."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "is a workbook or an archive, not CSV, and it is broken off"
    if any(name.startswith("xl/") for name in names):
        return "is an Excel workbook, not CSV: in Excel, save it as “CSV UTF-8”"
    tables = [name for name in names if name.endswith(".csv")][:5]
    return f"is a zip archive: unpack it, and import the right one of: {', '.join(tables) or 'nothing that is CSV'}"


def _encoding(head: bytes, sample: bytes, *, is_utf8: bool) -> str:
    if b"\0" not in head and is_utf8:
        return "utf-8-sig" if head.startswith(codecs.BOM_UTF8) else "utf-8"
    found = charset_normalizer.from_bytes(head if b"\0" in head else sample).best()
    if b"\0" in head and not (found and found.encoding.startswith(("utf_16", "utf_32"))):
        raise NotCsv("is not text")
    if found is None:
        raise NotCsv("is in no encoding that is known: name it with --encoding")
    return found.encoding


def _delimiter(path: Path, encoding: str, is_header: Callable[[list[str]], bool]) -> tuple[str, int]:
    try:
        with path.open(encoding=encoding, newline="") as opened:
            sample = list(itertools.islice(opened, SAMPLE))
    except UnicodeError:  # of utf-16 without its first two bytes, it is not the one about decoding
        raise NotCsv(f"is not {encoding} text: name its encoding with --encoding") from None
    except LookupError:
        raise NotCsv(f"cannot be read: there is no encoding called {encoding}") from None
    first = sample[0].strip().casefold() if sample else ""
    if first.startswith("sep=") and len(first) == 5:
        return sample[0].strip()[4], 1
    votes: Counter[str] = Counter()
    for line in sample:
        bare = "".join(line.split('"')[::2])  # what stands in quotes delimits nothing
        votes.update({delimiter: bare.count(delimiter) > 0 for delimiter in DELIMITERS})
    header = next((line for line in sample if line.strip()), "")
    # `E-Mail;Name, Vorname` has a comma in every line, too.
    best, count = max(
        votes.items(),
        key=lambda vote: (vote[1] > 0 and is_header(_header(header, vote[0])), vote[1]),
        default=(",", 0),
    )
    return (best if count else ","), 0


def _header(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line[:4096]], delimiter=delimiter), [])


class _Lines:
    """Numbered lines, which can be put back to be read again."""

    def __init__(self, lines: Iterable[tuple[int, str]]) -> None:
        self._lines = iter(lines)
        self._again: deque[tuple[int, str]] = deque()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self

    def __next__(self) -> tuple[int, str]:
        return self._again.popleft() if self._again else next(self._lines)

    def put_back(self, lines: list[tuple[int, str]]) -> None:
        self._again.extendleft(reversed(lines))


def _rows(numbered: Iterable[tuple[int, str]], delimiter: str) -> Iterator[Row]:
    lines, width, doubted = _Lines(numbered), 0, 0
    for number, line in lines:
        if '"' not in line:
            if line.strip():
                cells = line.rstrip("\r\n").split(delimiter)
                width = width or len(cells)
                is_doubtful = number <= doubted and not _has_width(cells, width)
                problem = BEHIND_QUOTES if is_doubtful else ""
                yield Row(number, [line.rstrip("\r\n")] if is_doubtful else cells, problem, _is_ended(line))
            continue
        block, read, is_open = _read_quoted((number, line), lines, delimiter)
        is_odd = read is not None and width > 0 and not _has_width(read, width)
        if read is None or (is_odd and (number <= doubted or _swallows(block, width, delimiter))):
            if is_open:
                # Never closed: only its first line is lost. The others are read again, and doubted: they may be its.
                lines.put_back(block[1:])
                doubted = block[-1][0]
                block = block[:1]
            elif len(block) > 1 and _begins_row(block[-1], width, delimiter):
                # The line that could have closed it begins a cell in quotes itself.
                lines.put_back([block.pop()])
            yield from _rejected(block, QUOTES if read is None or len(block) > 1 else BEHIND_QUOTES)
        elif any(cell.strip() for cell in read):
            width = width or len(read)
            yield Row(number, [_unwrap(cell) for cell in read], is_ended=_is_ended(block[-1][1]))


def _rejected(block: list[tuple[int, str]], problem: str) -> Iterator[Row]:
    """Each line for itself: it may be a row, or part of one."""
    for number, line in block:
        if line.strip():
            yield Row(number, [line.rstrip("\r\n")], problem)
        problem = BEHIND_QUOTES


def _read_quoted(
    first: tuple[int, str], lines: _Lines, delimiter: str
) -> tuple[list[tuple[int, str]], list[str] | None, bool]:
    """The lines of one row, its cells if it is one, and whether a quote is still open where the looking ended."""
    block, is_open = [first], False

    def texts() -> Iterator[str]:
        nonlocal is_open
        yield first[1]
        size = len(first[1])
        for further in lines:
            block.append(further)
            size += len(further[1])
            if size > LONGEST_ROW:
                break
            yield further[1]
        is_open = True

    try:
        return block, next(csv.reader(texts(), delimiter=delimiter, strict=True)), False
    except csv.Error:
        return block, None, is_open


def _begins_row(line: tuple[int, str], width: int, delimiter: str) -> bool:
    """Whether it is a row in quotes, or leaves a cell in quotes open.

    One with nothing before its quote and nothing in it closes one.
    """
    if line[1].startswith(f'"{delimiter}') or line[1].strip() == '"':
        return False
    _, read, is_open = _read_quoted(line, _Lines([]), delimiter)
    return is_open or (read is not None and line[1].startswith('"') and len(read) == width)


def _swallows(block: list[tuple[int, str]], width: int, delimiter: str) -> bool:
    """Whether lines within a cell are rows: its quote was closed by that of another row."""
    return any(_has_width(line.rstrip("\r\n").split(delimiter), width) for _, line in block[1:-1])


def _has_width(cells: list[str], width: int) -> bool:
    return len(cells) >= width and not any(cell.strip() for cell in cells[width:])


def _is_ended(line: str) -> bool:
    return line.endswith(("\n", "\r"))


def _unwrap(cell: str) -> str:
    """`="0042"` is how Excel is told to keep a leading zero."""
    return cell[2:-1] if cell.startswith('="') and cell.endswith('"') else cell
