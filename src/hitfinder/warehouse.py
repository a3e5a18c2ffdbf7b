"""The only place that knows an engine: DuckDB, the SQL files, and how any table gets in."""

from __future__ import annotations

import codecs
import csv
import glob
import os
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from hitfinder.errors import DataError

__all__ = [
    "TableLike",
    "as_utf8",
    "build",
    "build_text",
    "csv_header",
    "csv_reader",
    "decode_line",
    "drop_reader_tables",
    "execute",
    "frame",
    "is_parquet",
    "keep_torn_lines",
    "literal",
    "literal_file",
    "load_file",
    "load_sql",
    "open_warehouse",
    "quoted",
    "scan",
]

# pandas or polars DataFrame, pyarrow Table, DuckDB relation, or the path of a Parquet or CSV file (a glob for many).
TableLike = Any

# One field may hold 10 MB; what is longer is set aside by the reader with its line number.
MAX_LINE_BYTES = 32 * 2**20
# How much of a torn line DuckDB keeps.
TORN_CHARACTERS = 10_000
# How many parsed statements a process keeps.
MAX_PARSED = 512


def open_warehouse(path: str | Path | None = None, *, threads: int = 0, memory: str | None = None) -> Any:
    """Open a DuckDB connection with hitfinder's conventions.

    Parameters
    ----------
    path
        A database file; None for one in memory.
    threads
        0 for as many as the machine has. Answers do not depend on it.
    memory
        A ceiling such as `4GB`; what does not fit spills to disk. None for DuckDB's own default.

    Notes
    -----
    Timestamps are UTC, extensions are never fetched, and files are spilled beside the system's temporary files.
    """
    config = _config(threads)
    if memory:
        config["memory_limit"] = memory
    try:
        if path is None and memory is None:
            con = _in_memory(os.getpid(), threads).cursor()
        else:
            con = duckdb.connect(str(path) if path else ":memory:", config=config)
    except duckdb.IOException as error:
        raise DataError(f"{path}: can't be opened as a database ({_first_line(error)})") from None
    execute(con, "set TimeZone = 'UTC'")
    # In a notebook without its widgets DuckDB refuses even to switch the bar off: only where it is on.
    if execute(con, "select current_setting('enable_progress_bar')").fetchall()[0][0]:
        con.execute("set enable_progress_bar = false")
    return con


def _config(threads: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "autoinstall_known_extensions": "false",
        "temp_directory": str(Path(tempfile.gettempdir()) / f"hitfinder-spill-{os.getpid()}"),
    }
    return {**config, "threads": threads} if threads else config


@cache
def _in_memory(pid: int, threads: int) -> Any:
    """Return this process's one database in memory: to start one takes longer than a small plan.

    Callers get connections of their own to it; all tables are temporary, so none sees another's, and they end with it.
    """
    del pid
    return duckdb.connect(":memory:", config=_config(threads))


@cache
def load_sql(name: str) -> str:
    """Return the text of `sql/<name>.sql`."""
    return (resources.files("hitfinder") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


_parsed: dict[str, Any] = {}


def execute(con: Any, statement: str, parameters: Any = None) -> Any:
    """Execute one statement that will come again: its text is parsed once per process.

    To parse a long select takes as long as to compute it of a few hundred rows. What changes from call to call belongs
    in `parameters`, not in the text.

    >>> execute(open_warehouse(), "select $n + 1", {"n": 1}).fetchall()
    [(2,)]
    """
    return con.execute(_parse(con, statement), parameters)


def _parse(con: Any, statement: str) -> Any:
    ready = _parsed.get(statement)
    if ready is None:
        [ready] = con.extract_statements(statement)
        if len(_parsed) >= MAX_PARSED:
            _parsed.clear()
        _parsed[statement] = ready
    return ready


def build(con: Any, name: str) -> None:
    """Make the temporary table `name` from the select in `sql/<name>.sql`; what it reads must exist already."""
    build_text(con, name, load_sql(name))


def build_text(con: Any, name: str, select: str) -> None:
    """Make the temporary table `name` from a select."""
    execute(con, f"create or replace temp table {quoted(name)} as\n{select}")


def quoted(name: str) -> str:
    """Quote an identifier for SQL.

    >>> quoted('my "own" column')
    '"my ""own"" column"'
    """
    return '"' + name.replace('"', '""') + '"'


def frame(con: Any, query: str, parameters: list[Any] | None = None) -> pd.DataFrame:
    """Run a query and return a pandas DataFrame; money comes as float."""
    table = con.sql(_parse(con, query), params=parameters).to_arrow_table()
    fields = [field.with_type(pa.float64()) if pa.types.is_decimal(field.type) else field for field in table.schema]
    rows: pd.DataFrame = table.cast(pa.schema(fields)).to_pandas()
    return rows


def scan(con: Any, source: TableLike, view: str) -> None:
    """Register `source` as the view `view`, its values as they came; CSV columns are all text.

    Lines of a CSV that have too few or too many fields go to the table `torn_lines(source, line, content, why)`, which
    the caller makes.

    Raises
    ------
    DataError
        `source` is no table, no file is there, or a file can't be read at all.
    """
    if isinstance(source, str | Path):
        _scan_files(con, str(source), view)
        return
    con.register(view, _arrow(source))


def _arrow(source: Any) -> Any:
    """Bring an in-memory table to Arrow, which DuckDB reads in place."""
    if len(getattr(source, "columns", ("one",))) == 0:
        raise DataError("expected a table, got one without any column")
    if isinstance(source, pa.Table | pa.RecordBatchReader):
        return source if isinstance(source, pa.Table) else source.read_all()
    if isinstance(source, pd.DataFrame):
        return _from_pandas(source)
    if isinstance(source, duckdb.DuckDBPyRelation):  # perhaps of another connection
        try:
            return source.to_arrow_table()
        except duckdb.Error as error:
            raise DataError(
                f"the DuckDB relation can't be read ({_first_line(error)}); "
                "finish what its connection was doing, or give the table as Arrow, polars or pandas"
            ) from error
    if hasattr(source, "__arrow_c_stream__"):  # polars and every other library that speaks Arrow
        return pa.table(source)
    raise DataError(
        "expected a pandas or polars DataFrame, a pyarrow Table, a DuckDB relation or a path, "
        f"got {type(source).__name__}"
    )


def _from_pandas(table: pd.DataFrame) -> pa.Table:
    table = table.reset_index(drop=True)
    columns, names = [], []
    for place, name in enumerate(table.columns):
        values = table.iloc[:, place]
        try:
            columns.append(pa.array(values, from_pandas=True))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            # A column that mixes numbers and text (an id that is 7 in one row and "A7" in another) is text.
            columns.append(pa.array([None if v is None or v != v else str(v) for v in values], type=pa.string()))
        names.append(str(name))
    if len(set(names)) < len(names):
        double = sorted({n for n in names if names.count(n) > 1})
        raise DataError(f"expected every column once, got {', '.join(double)} more than once; rename or drop one")
    return pa.table(columns, names=names)


def _scan_files(con: Any, pattern: str, view: str) -> None:
    # A file that is there is meant, whatever signs its name holds. `glob.glob` takes absolute and relative patterns
    # alike; Path.glob only relative ones.
    paths = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not paths:
        raise DataError(f"{pattern}: no such file; give the path of a Parquet or CSV file, or a glob for many")
    selects = []
    for place, path in enumerate(paths):
        part = f"{view}_file_{place}"
        load_file(con, path, part)
        selects.append(f"select * from {quoted(part)}")
    con.execute(f"create or replace temp view {quoted(view)} as " + " union all by name ".join(selects))


def load_file(con: Any, path: str, table: str, *, skip: int = 0) -> None:
    """Make the temporary table `table` of one Parquet or CSV file; `skip` lines of a CSV stand before its header.

    Raises
    ------
    DataError
        The file is empty or can't be read at all.
    """
    if is_parquet(path):
        _load(con, path, table, [f"read_parquet({literal_file(path)})"])
        return
    readable = as_utf8(path)
    try:
        _load(con, path, table, [csv_reader(readable, path, skip=skip, strict=strict) for strict in (True, False)])
        keep_torn_lines(con, {readable: path})
    finally:
        if readable != path:
            Path(readable).unlink(missing_ok=True)


def _load(con: Any, path: str, table: str, readers: list[str]) -> None:
    for place, reader in enumerate(readers):
        try:
            con.execute(f"create or replace temp table {quoted(table)} as select * from {reader}")
            return
        except duckdb.InvalidInputException as error:
            if place + 1 == len(readers):
                raise _unreadable(path, error) from None
            drop_reader_tables(con)
        except duckdb.Error as error:
            raise _unreadable(path, error) from None


def _unreadable(path: str, error: Exception) -> DataError:
    return DataError(f"{path}: can't be read as {Path(path).suffix or 'CSV'} ({_first_line(error)})")


def is_parquet(path: str) -> bool:
    """Tell a Parquet file by its name."""
    return Path(path).suffix.lower() in (".parquet", ".pq")


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


def literal_file(path: str) -> str:
    """Quote a file's name for SQL: DuckDB takes any name for a pattern, and would read `d1.csv` for `d[1].csv`.

    >>> literal_file("d[1].csv")
    "'d[[]1].csv'"
    """
    return literal(glob.escape(path))


def literal(text: str) -> str:
    """Quote a text for SQL."""
    return "'" + text.replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
