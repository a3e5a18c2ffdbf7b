"""CSV as shops export it: any encoding, torn lines kept with their number, no line swallowed in silence."""

from __future__ import annotations

import codecs
import csv
import os
import tempfile
from pathlib import Path
from typing import Any

import duckdb

from hitfinder.errors import DataError
from hitfinder.warehouse.engine import literal, literal_file

__all__ = ["as_utf8", "csv_header", "csv_reader", "decode_line", "drop_reader_tables", "keep_torn_lines"]

# One field may hold 10 MB; what is longer is set aside by the reader with its line number.
MAX_LINE_BYTES = 32 * 2**20
# How much of a torn line DuckDB keeps.
TORN_CHARACTERS = 10_000


def csv_header(readable: str, name: str, *, skip: int = 0) -> tuple[str, list[str]]:
    """Return the delimiter and the column names of a CSV in UTF-8, each name once."""
    with open(readable, encoding="utf-8-sig", errors="replace", newline="") as file:  # noqa: PTH123
        for _ in range(skip):
            file.readline(MAX_LINE_BYTES)
        first = file.readline(MAX_LINE_BYTES)
        while first and not first.strip():
            first = file.readline(MAX_LINE_BYTES)
    if not first.strip("\ufeff \r\n\t\0"):
        raise DataError(f"{name}: expected a header line, got an empty file")
    delimiter = max(",\t;|", key=first.count)
    try:
        cells = next(csv.reader([first], delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{name}: expected a header line, got one that can't be read ({error})") from None
    names: list[str] = []
    for place, cell in enumerate(cells):
        name_now = cell.strip() or f"column_{place + 1}"
        while name_now.lower() in {n.lower() for n in names}:
            name_now += "_again"
        names.append(name_now)
    return delimiter, names


def csv_reader(readable: str, name: str, *, skip: int = 0, strict: bool = True) -> str:
    """Return the SQL that reads a CSV in UTF-8, all columns as text.

    The names are given rather than sniffed: one unclosed quote would make DuckDB's sniffer refuse the whole file.
    `strict=False` is for a file that mixes the line ends of two systems.
    """
    delimiter, names = csv_header(readable, name, skip=skip)
    columns = ", ".join(f"{literal(n)}: 'varchar'" for n in names)
    return (
        f"read_csv({literal_file(readable)}, auto_detect = false, header = true, skip = {skip}, "
        f"columns = {{{columns}}}, delim = {literal(delimiter)}, quote = '\"', escape = '\"', "
        f"max_line_size = {MAX_LINE_BYTES}, "
        # DuckDB's own choice is sixteen such lines: half a gigabyte that a small memory has not.
        f"buffer_size = {MAX_LINE_BYTES + 2**20}, strict_mode = {'true' if strict else 'false'}, store_rejects = true)"
    )


def as_utf8(path: str) -> str:
    """Return `path`, or a temporary copy in UTF-8 where it is GB18030, UTF-16, or a mixture by line.

    The caller deletes the copy.
    """
    if _is_utf8(path):
        return path
    handle, name = tempfile.mkstemp(prefix="hitfinder-", suffix=".csv")
    os.close(handle)
    copy = Path(name)
    with open(path, "rb") as raw, copy.open("w", encoding="utf-8", newline="") as out:  # noqa: PTH123
        if raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raw.seek(0)
            out.writelines(codecs.getreader("utf-16")(raw, "replace"))
            return str(copy)
        raw.seek(0)
        for line in raw:
            # No byte of a GB18030 character is a line break, a comma, a tab or a quote: lines can be read one by one.
            out.write(decode_line(line))
    return str(copy)


def decode_line(line: bytes) -> str:
    """Decode a line of a file that is not UTF-8 throughout.

    Two bytes of GB18030 often are a valid Latin or Greek letter of UTF-8; a valid sequence of three hardly ever comes
    about by chance, and Chinese in UTF-8 always has some.

    >>> decode_line("裙".encode("gb18030")), decode_line("裙".encode())
    ('裙', '裙')
    """
    if line.isascii() or max(line) >= 0xE0:
        try:
            return line.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
    return line.decode("gb18030", errors="replace")


def _is_utf8(path: str) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    utf8, lines, length = True, 1, 0
    try:
        with open(path, "rb") as raw:  # noqa: PTH123
            while block := raw.read(2**20):
                ends = [end for end in (block.rfind(b"\n"), block.rfind(b"\r")) if end >= 0]
                length = len(block) - max(ends) - 1 if ends else length + len(block)
                lines += block.count(b"\n")
                if length > MAX_LINE_BYTES:  # DuckDB passes over a line longer than its buffer without a word
                    raise DataError(
                        f"{path}: expected lines of up to {MAX_LINE_BYTES // 2**20} MB, got a longer one at line "
                        f"{lines}; mend or drop it"
                    )
                if utf8:
                    utf8 = _decodes(decoder, block, final=False)
        return utf8 and _decodes(decoder, b"", final=True)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from None


def _decodes(decoder: codecs.IncrementalDecoder, block: bytes, *, final: bool) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


def keep_torn_lines(con: Any, names: dict[str, str]) -> None:
    """Move what the CSV reader could not read to `torn_lines`, once per line; `names` maps the files read to names."""
    try:
        found = con.execute(
            "select file_path, line, any_value(csv_line), any_value(lower(error_type::varchar)) "
            "from reject_errors join (select distinct scan_id, file_id, file_path from reject_scans) "
            "using (scan_id, file_id) group by file_path, line order by all"
        ).fetchall()
    except duckdb.CatalogException:
        return  # nothing was read from a CSV: the reader made no such table
    for file, line, content, why in found:
        if why == "unquoted value":
            _refuse_swallowed_lines(file, names.get(file, file), line, content)
    rows = [[names.get(file, file), *rest] for file, *rest in found]
    if rows:
        con.executemany("insert into torn_lines values (?, ?, ?, ?)", rows)
    drop_reader_tables(con)


def _refuse_swallowed_lines(readable: str, name: str, line: int, content: str) -> None:
    """Refuse a file in which a quote is opened and never closed, where what it swallowed is not in `content`.

    DuckDB takes all that follows for one value and keeps its first 10,000 characters.

    Raises
    ------
    DataError
        Whole lines would be lost.
    """
    if content.count('"') % 2 == 0:  # a text after a closed quote: the line is all there is
        return
    whole = len(content) < TORN_CHARACTERS
    if whole and '"' in content.rstrip("\r\n").rpartition("\n")[2] and "\n" in content:
        return  # another quote ended it
    with open(readable, "rb") as file:  # noqa: PTH123
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
    if not whole or line + content.rstrip("\r\n").count("\n") < lines:
        raise DataError(
            f"{name}: expected every quote to be closed, got one at line {line} that is not, and takes the lines after "
            "it along; mend or drop that line"
        )


def drop_reader_tables(con: Any) -> None:
    """Forget what the CSV reader set aside so far."""
    con.execute("drop table if exists reject_errors; drop table if exists reject_scans")
