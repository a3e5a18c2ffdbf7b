"""Any paper in the form that the file's suffix asks for: page, workbook, CSV or Parquet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hitfinder.report.forms import check_suffix, csv_bytes, harmless
from hitfinder.report.paper import NUMERIC, Column, Paper, Part, is_missing, shown
from hitfinder.report.sheets import write_sheets
from hitfinder.report.whole import replacing
from hitfinder.report.words import load_words

__all__ = ["write_paper"]


def write_paper(paper: Paper, out: str | Path) -> Path:
    """Write a paper to a file, whole or not at all. The same paper gives the same bytes.

    Parameters
    ----------
    paper
        What to write.
    out
        ``.html`` and ``.xlsx`` are for readers, ``.csv`` and ``.parquet`` keep the field names and every column. A
        missing folder is made.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    DataError
        The suffix is not one of the four.
    SettingsError
        The language is not known.
    HitfinderError
        The file can't be written.
    """
    out = Path(out)
    check_suffix(out)
    words = load_words(paper.language)
    with replacing(out) as partial:
        out.parent.mkdir(parents=True, exist_ok=True)
        match out.suffix.lower():
            case ".html":
                partial.write_bytes(_page(paper, words).encode())
            case ".xlsx":
                write_sheets(paper, words, partial)
            case ".csv":
                partial.write_bytes(_csv(paper))
            case _:
                table = paper.table if paper.data is None else paper.data
                pq.write_table(pa.Table.from_pandas(table, preserve_index=False), partial, compression="zstd")
    return out


def _page(paper: Paper, words: dict[str, str]) -> str:
    from hitfinder.report.pages import digest, resource, template

    style = resource("page.css") + resource("tables.css")
    return template("tables.html.j2").render(
        words=words,
        paper=paper,
        parts=[_part(paper, part, words) for part in paper.parts],
        meanings=[(c.heading, c.meaning) for name, c in paper.columns.items() if c.meaning and name in paper.table],
        style=style,
        policy=f"default-src 'none'; style-src '{digest(style)}'; base-uri 'none'; form-action 'none'",
    )


def _part(paper: Paper, part: Part, words: dict[str, str]) -> dict[str, Any]:
    """Put what one table of the page shows into texts."""
    names = [name for name in paper.columns if name in paper.table and (part.columns is None or name in part.columns)]
    rows = range(len(paper.table)) if part.rows is None else part.rows
    marks = paper.marks or [""] * len(paper.table)
    columns = [paper.columns[name] for name in names]
    records = paper.table.iloc[list(rows)].to_dict("records")
    return {
        "heading": part.heading,
        "note": part.note,
        "folded": part.folded,
        "empty": part.empty or words["nothing"],
        "columns": [(c.heading, "number" if c.kind in NUMERIC and not c.lines else "") for c in columns],
        "plain": all(column.kind != "badge" for column in columns),
        "rows": [
            {"mark": marks[row], "cells": [_cell(record, name, paper.columns) for name in names]}
            for row, record in zip(rows, records, strict=True)
        ],
    }


def _cell(record: dict[Any, Any], name: str, columns: Mapping[str, Column]) -> dict[str, Any]:
    column = columns[name]
    kinds = {line: columns[line].kind if line in columns else "text" for line in column.lines or [name]}
    lines = [shown(record.get(line), kind) for line, kind in kinds.items() if not is_missing(record.get(line))]
    cell: dict[str, Any] = {"kind": column.kind, "lines": [line for line in lines if line] or ["–"], "bar": None}
    if column.lines:
        cell["kind"] = "several"
    elif column.kind in NUMERIC:
        cell["kind"] = "number"
    if column.bar and not any(is_missing(record[end]) for end in column.bar):
        low, value, high = (100 * min(max(record[at], 0.0), 1.0) for at in (column.bar[0], name, column.bar[1]))
        cell["bar"] = (f"{min(low, 99.0):.1f}", f"{max(high - low, 1.0):.1f}", f"{min(value, 98.5):.1f}")
    return cell


def _csv(paper: Paper) -> bytes:
    table = (paper.table if paper.data is None else paper.data).copy()
    for name in table.columns:
        if name in paper.columns and paper.columns[name].kind == "money":
            table[name] = table[name].round(4)  # as the ledger's
        elif not (pd.api.types.is_numeric_dtype(table[name]) or pd.api.types.is_datetime64_any_dtype(table[name])):
            table[name] = table[name].map(harmless, na_action="ignore")
    return csv_bytes(table)
