"""Write the ranked list; the suffix of the file says in which form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hitfinder.report.content import Content, prepare
from hitfinder.report.forms import check_suffix, csv_bytes, harmless
from hitfinder.report.whole import replacing

__all__ = ["write_list"]


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
        What `rank` returns: one row for each SKU. `reason_*` and `expected_value` may be NULL. Page and workbook show
        `tier` and `diagnosis` (see `report.diagnosis.with_diagnosis`), where it has them.
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
        that was used), `note`, `verdict` (figures beside the best simple rule, told in place of the note), `metric`,
        `n_trained`, `k`, `promises` (a mapping from `stop` and `scale` to what is promised about them, see
        `HitModel.promises`), `stopped_by_people` (how many stops are not the model's), and how each way did on past
        batches: `rules` (a list of mappings with `name`, `average_precision` and `hits_at_k`) and `model` (one such
        mapping). `hits_at_k` is the share of all hits that stood in the first `k` places. Other keys are shown under
        their own names.
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
