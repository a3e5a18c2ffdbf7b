"""How any table gets in: Parquet and CSV files, DataFrames, Arrow, relations."""

from __future__ import annotations

import glob
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from hitfinder.errors import DataError
from hitfinder.warehouse.csv_text import as_utf8, csv_reader, drop_reader_tables, keep_torn_lines
from hitfinder.warehouse.engine import first_line, literal_file, quoted

__all__ = ["TableLike", "is_parquet", "load_file", "reads", "scan"]

# pandas or polars DataFrame, pyarrow Table, DuckDB relation, or the path of a Parquet or CSV file (a glob for many).
TableLike = Any


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
                f"the DuckDB relation can't be read ({first_line(error)}); "
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
    paths = _named(pattern)
    if not paths:
        raise DataError(f"{pattern}: no such file; give the path of a Parquet or CSV file, or a glob for many")
    selects = []
    for place, path in enumerate(paths):
        part = f"{view}_file_{place}"
        load_file(con, path, part)
        selects.append(f"select * from {quoted(part)}")
    con.execute(f"create or replace temp view {quoted(view)} as " + " union all by name ".join(selects))


def _named(pattern: str) -> list[str]:
    # A file that is there is meant, whatever signs its name holds. `glob.glob` takes absolute and relative patterns
    # alike; Path.glob only relative ones.
    return [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207


def reads(source: TableLike, path: Path) -> bool:
    """Tell whether `scan` of `source` reads the file `path`, or would if it were there.

    >>> reads("shop/*.csv", Path("shop/list.csv")), reads("shop/signals.csv", Path("shop/list.csv"))
    (True, False)
    """
    if not isinstance(source, str | Path):
        return False
    try:
        whole = path.resolve()
        named = (source, *_named(str(source)))
        return any(Path(name).resolve() == whole for name in named) or fnmatch(str(whole), str(Path(source).absolute()))
    except (OSError, RuntimeError):  # a name too long, a link to itself: nothing that could be read
        return False


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
    return DataError(f"{path}: can't be read as {Path(path).suffix or 'CSV'} ({first_line(error)})")


def is_parquet(path: str) -> bool:
    """Tell a Parquet file by its name."""
    return Path(path).suffix.lower() in (".parquet", ".pq")
