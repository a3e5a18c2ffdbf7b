"""The only place that knows an engine: DuckDB, the SQL files, and how any table gets in."""

from hitfinder.warehouse.csv_text import (
    as_utf8,
    csv_header,
    csv_reader,
    decode_line,
    drop_reader_tables,
    keep_torn_lines,
)
from hitfinder.warehouse.engine import (
    build,
    build_text,
    execute,
    fetch,
    frame,
    literal,
    literal_file,
    load_sql,
    open_warehouse,
    quoted,
)
from hitfinder.warehouse.sources import TableLike, is_parquet, load_file, reads, scan

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
    "fetch",
    "frame",
    "is_parquet",
    "keep_torn_lines",
    "literal",
    "literal_file",
    "load_file",
    "load_sql",
    "open_warehouse",
    "quoted",
    "reads",
    "scan",
]
