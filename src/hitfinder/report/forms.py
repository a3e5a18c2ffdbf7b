"""Forms of a table's file: which suffixes there are, and CSV that spreadsheets read as it is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hitfinder.errors import DataError
from hitfinder.warehouse import reads

__all__ = ["check_out", "check_suffix", "csv_bytes", "harmless"]

SUFFIXES = (".parquet", ".csv", ".xlsx", ".html")


def check_suffix(out: str | Path, allowed: Sequence[str] = SUFFIXES) -> None:
    """Refuse a name that could not be written (by `write_list`, or by who says what is allowed), before any work.

    Raises
    ------
    DataError
        The suffix is none of those.
    """
    suffix = Path(out).suffix
    if suffix.lower() not in allowed:
        raise DataError(f"{out}: expected a name that ends in {', '.join(allowed)}, got {suffix or 'no suffix'!r}")


def check_out(
    out: Iterable[str | Path], *, read: Iterable[Any], check: Callable[[str | Path], None] = check_suffix
) -> None:
    """Refuse names that could not be written, and those of files that are read, before any work.

    Parameters
    ----------
    out
        The files to write.
    read
        What the work reads: tables, of which some are paths or globs; None for what was not given.
    check
        What refuses a name that can't be written.

    Raises
    ------
    DataError
        A suffix that nothing can be written as, or a file that is read, now or when the same is called again.
    """
    sources = [source for source in read if source is not None]
    for path in map(Path, out):
        check(path)
        if any(reads(source, path) for source in sources):
            raise DataError(f"{path}: expected another file than those that are read; it would be overwritten")


def csv_bytes(table: pd.DataFrame) -> bytes:
    """Return a table as CSV that spreadsheets read as it is meant."""
    # Line ends as in RFC 4180. With a line feed alone, a bare carriage return in a title goes unquoted.
    # The mark at the start (BOM) tells Excel that this is UTF-8; without it Chinese comes out garbled.
    return table.to_csv(index=False, lineterminator="\r\n").encode("utf-8-sig")


def harmless(value: object) -> str:
    """Keep a spreadsheet from running a text as a formula, full-width signs of Chinese keyboards included.

    >>> harmless("=1+1"), harmless("dress")
    ("'=1+1", 'dress')
    """
    text = str(value)
    return f"'{text}" if text.lstrip()[:1] in {*"=+-@＝＋－＠"} or text[:1] in {*"\t\r\n"} else text
