"""The connection to DuckDB, statements that come again, the SQL files, and how names and values are quoted."""

from __future__ import annotations

import glob
import os
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from hitfinder.errors import DataError

__all__ = [
    "build",
    "build_text",
    "execute",
    "fetch",
    "first_line",
    "frame",
    "literal",
    "literal_file",
    "load_sql",
    "open_warehouse",
    "quoted",
]

# How many parsed statements a process keeps.
MAX_PARSED = 512
# What DuckDB's optimizer goes on doing where tables are small. Its other passes (some forty) take a quarter of the
# time of a test plan and save nothing in it; these keep a table that is larger than expected from being a disaster.
QUICK_PASSES = ("cte_inlining", "deliminator", "filter_pushdown", "in_clause", "limit_pushdown", "unnest_rewriter",
                "unused_columns")  # fmt: skip


def open_warehouse(
    path: str | Path | None = None, *, threads: int = 0, memory: str | None = None, small: bool = False
) -> Any:
    """Open a DuckDB connection with hitfinder's conventions.

    Parameters
    ----------
    path
        A database file; None for one in memory.
    threads
        0 for as many as the machine has. Answers do not depend on it.
    memory
        A ceiling such as `4GB`; what does not fit spills to disk. None for DuckDB's own default.
    small
        For one batch in memory: waking threads and polishing plans takes longer than its sums. Answers are the same.
        Not with `path` or `memory`.

    Notes
    -----
    Timestamps are UTC, extensions are never fetched, and files are spilled beside the system's temporary files.
    """
    assert not (small and (path or memory))
    config = _config(threads)
    if memory:
        config["memory_limit"] = memory
    try:
        if path is None and memory is None:
            con = _in_memory(os.getpid(), 1 if small else threads, small).cursor()
        else:
            con = duckdb.connect(str(path) if path else ":memory:", config=config)
    except duckdb.IOException as error:
        raise DataError(f"{path}: can't be opened as a database ({first_line(error)})") from None
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
def _in_memory(pid: int, threads: int, small: bool) -> Any:
    """Return this process's one database in memory of a kind: to start one takes longer than a small plan.

    Callers get connections of their own to it; all tables are temporary, so none sees another's, and they end with it.
    """
    del pid
    database = duckdb.connect(":memory:", config=_config(threads))
    if small:
        # Their names change from version to version of DuckDB, and one that it does not know is refused.
        passes = [row[0] for row in database.execute("select * from duckdb_optimizers()").fetchall()]
        left_out = ",".join(name for name in passes if name not in QUICK_PASSES)
        database.execute(f"set global disabled_optimizers = {literal(left_out)}")
    return database


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


def fetch(con: Any, query: str) -> dict[str, npt.NDArray[Any]]:
    """Run a query that will come again and return its columns; what is NULL is NaN, NaT or None.

    For a few hundred rows DuckDB's own way to a DataFrame takes longer than many a query: it fills in each NULL by way
    of pandas.

    >>> fetch(open_warehouse(), "select unnest([1.5, null]) as a, unnest(['x', null]) as b")
    {'a': array([1.5, nan]), 'b': array(['x', None], dtype=object)}
    """
    return {name: _filled(values) for name, values in execute(con, query).fetchnumpy().items()}


def _filled(values: Any) -> npt.NDArray[Any]:
    """Return a column without its mask."""
    if not isinstance(values, np.ma.MaskedArray):
        return np.asarray(values)
    if values.dtype.kind == "M":
        return np.asarray(values.filled(np.datetime64("NaT")))
    # Whole numbers of which one is missing are floats, what is no number is an object.
    number = values.dtype.kind in "iuf"
    filled = np.array(values.data, dtype=np.float64 if number else object)
    filled[np.ma.getmaskarray(values)] = np.nan if number else None
    return filled


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


def literal(text: str) -> str:
    """Quote a text for SQL."""
    return "'" + text.replace("'", "''") + "'"


def literal_file(path: str) -> str:
    """Quote a file's name for SQL: DuckDB takes any name for a pattern, and would read `d1.csv` for `d[1].csv`.

    >>> literal_file("d[1].csv")
    "'d[[]1].csv'"
    """
    return literal(glob.escape(path))


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
