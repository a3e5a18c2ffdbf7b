"""Write the ranked list; the suffix of the file says in which form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hitfinder.errors import DataError
from hitfinder.report.content import Content, prepare
from hitfinder.report.whole import replacing

__all__ = ["check_suffix", "csv_bytes", "harmless", "write_list"]


def write_list(
    ranked: pd.DataFrame,
    out: str | Path,
    *,
    skus: pd.DataFrame | None = None,
    language: str = "en",
    summary: Mapping[str, Any] | None = None,
    hindsight: Mapping[str, Any] | None = None,
) -> Path:
    """Write a ranked list to a file, whole or not at all. The same list gives the same bytes.

    Parameters
    ----------
    ranked
        What `rank` returns: one row for each SKU. `reason_*` and `expected_value` may be NULL.
    out
        Where to. ``.parquet`` and ``.csv`` keep the field names; ``.xlsx`` and ``.html`` are for readers and speak
        `language`. A missing folder is made. In a CSV file a text that a spreadsheet would run as a formula gets a
        leading apostrophe; a spreadsheet that opens CSV shortens ids of many digits, the workbook does not.
    skus
        The SKU table. Its `title`, `category`, `price` and `image_url` are shown beside, where it has them.
    language
        ``"en"`` or ``"zh"``; the reasons are already sentences of that language.
    summary
        What to say on top of the page and on the second sheet, all optional: `ranked_by` (name of the way of ranking
        that was used), `note`, `metric`, `n_trained`, `k`, `promises` (a mapping from `stop` and `scale` to what is
        promised about them, see `HitModel.promises`), and how each way did on past batches: `rules` (a list of mappings
        with `name`, `average_precision` and `hits_at_k`) and `model` (one such mapping). `hits_at_k` is the share of
        all hits that stood in the first `k` places. Other keys are shown under their own names.
    hindsight
        What became of past lists, `Hindsight.to_dict()`; the page tells it.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    DataError
        The suffix is not one of the four, or the list or the SKU table is not what was expected.
    SettingsError
        The language is not known.
    HitfinderError
        The file can't be written.
    """
    out = Path(out)
    check_suffix(out)
    content = prepare(ranked, skus, language, summary, hindsight)
    with replacing(out) as partial:
        out.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[out.suffix.lower()](content, partial)
    return out


def _write_parquet(content: Content, path: Path) -> None:
    pq.write_table(pa.Table.from_pandas(content.table, preserve_index=False), path, compression="zstd")


def _write_csv(content: Content, path: Path) -> None:
    table = content.table.copy()
    for name in table.columns:
        if not (pd.api.types.is_numeric_dtype(table[name]) or pd.api.types.is_datetime64_any_dtype(table[name])):
            table[name] = table[name].map(harmless, na_action="ignore")
    whole_seconds = (table["as_of"].dropna() == table["as_of"].dropna().dt.floor("s")).all()
    table["as_of"] = table["as_of"].dt.strftime("%Y-%m-%d %H:%M:%S" if whole_seconds else "%Y-%m-%d %H:%M:%S.%f")
    path.write_bytes(csv_bytes(table))


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


def _write_workbook(content: Content, path: Path) -> None:
    # XlsxWriter and Jinja are imported when a list is written: `import hitfinder` needs neither.
    from hitfinder.report.workbook import write_workbook

    write_workbook(content, path)


def _write_page(content: Content, path: Path) -> None:
    from hitfinder.report.page import render_page

    path.write_bytes(render_page(content).encode())


WRITERS: dict[str, Callable[[Content, Path], None]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".xlsx": _write_workbook,
    ".html": _write_page,
}


def check_suffix(out: str | Path) -> None:
    """Refuse a name that `write_list` could not write, before any work is done for it.

    Raises
    ------
    DataError
        The suffix is not one of the four.
    """
    suffix = Path(out).suffix
    if suffix.lower() not in WRITERS:
        raise DataError(f"{out}: expected a name that ends in {', '.join(WRITERS)}, got {suffix or 'no suffix'!r}")
