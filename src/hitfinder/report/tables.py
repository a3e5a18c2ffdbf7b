"""Any table that people read, in the form that the file's suffix asks for: page, workbook, CSV or Parquet.

The ledger, the budget, stock and diagnoses are all a few sentences, a picture or two, and a table. What each column is
called and how its numbers are shown is said once, in `Column`; the file's form is not their business.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hitfinder.report.lists import check_suffix, csv_bytes, harmless
from hitfinder.report.whole import replacing
from hitfinder.report.words import check_language

__all__ = ["KINDS", "Column", "Paper", "write_paper"]

# How a number is shown: decimals of its text, and Excel's format.
KINDS = {
    "text": (None, "@"),
    "count": (0, "#,##0"),
    "money": (2, "#,##0.00"),
    "number": (2, "#,##0.00"),
    "share": (1, "0.0%"),
    "moment": (None, "yyyy-mm-dd hh:mm"),
}


@dataclass(frozen=True)
class Column:
    """How a column is read: its heading, `kind` (a key of KINDS), what it means, and how wide its text is."""

    heading: str
    kind: str = "text"
    meaning: str = ""
    width: int = 14


@dataclass(frozen=True)
class Paper:
    """A table with all that a reader sees around it.

    Attributes
    ----------
    title
        The heading.
    table
        One row per line, in the order in which it is read.
    columns
        The columns that people see, in order. CSV and Parquet hold all columns of `table` under their own names.
    says
        Sentences above the table: what matters, and what weakens it.
    facts
        Single values above the table: name, text.
    pictures
        PNG files, or SVG as text (whose letters show in any language), and what they show, in words.
    language
        `en` or `zh`.
    marks
        For each row a word of `report/tables.css` that colours it: `good`, `fair`, `poor` or "".
    """

    title: str
    table: pd.DataFrame
    columns: Mapping[str, Column]
    says: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    pictures: Sequence[tuple[bytes | str, str]] = ()
    language: str = "en"
    marks: Sequence[str] = field(default=())


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
    check_language(paper.language)
    with replacing(out) as partial:
        out.parent.mkdir(parents=True, exist_ok=True)
        {".html": _page, ".xlsx": _workbook, ".csv": _csv, ".parquet": _parquet}[out.suffix.lower()](paper, partial)
    return out


def shown(value: Any, kind: str) -> str:
    """Return a value as text.

    >>> shown(1234.5, "money"), shown(0.123, "share"), shown(None, "count")
    ('1,234.50', '12.3%', '–')
    """
    if value is None or pd.isna(value):
        return "–"
    if kind == "moment":
        return f"{pd.Timestamp(value):%Y-%m-%d %H:%M}"
    decimals = KINDS[kind][0]
    if decimals is None:
        return str(value)
    return f"{100 * float(value):,.{decimals}f}%" if kind == "share" else f"{float(value):,.{decimals}f}"


def _page(paper: Paper, path: Path) -> None:
    from hitfinder.report.pages import digest, resource, template

    style = resource("tables.css")
    columns = {name: column for name, column in paper.columns.items() if name in paper.table}
    marks = list(paper.marks) or [""] * len(paper.table)
    rows = [
        {"mark": mark, "cells": [(shown(record[name], c.kind), c.kind in NUMERIC) for name, c in columns.items()]}
        for record, mark in zip(paper.table.to_dict("records"), marks, strict=True)
    ]
    pictures = [
        (picture if isinstance(picture, str) else "", "" if isinstance(picture, str) else _base64(picture), words)
        for picture, words in paper.pictures
    ]
    page = template("tables.html.j2").render(
        lang={"en": "en", "zh": "zh-CN"}[paper.language],
        title=paper.title,
        says=paper.says,
        facts=paper.facts,
        pictures=pictures,
        columns=[(c.heading, c.kind in NUMERIC) for c in columns.values()],
        meanings=[(c.heading, c.meaning) for c in columns.values() if c.meaning],
        rows=rows,
        empty={"en": "Nothing to show.", "zh": "没有可显示的内容。"}[paper.language],
        how={"en": "What the columns mean", "zh": "各列含义"}[paper.language],
        style=style,
        policy=f"default-src 'none'; img-src data:; style-src '{digest(style)}'; base-uri 'none'; form-action 'none'",
    )
    path.write_bytes(page.encode())


def _base64(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


NUMERIC = ("count", "money", "number", "share")
FILLS = {"good": "#D8F1E8", "fair": "#FCECC9", "poor": "#FDEBE3"}


def _workbook(paper: Paper, path: Path) -> None:
    import xlsxwriter

    columns = {name: column for name, column in paper.columns.items() if name in paper.table}
    options = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with xlsxwriter.Workbook(str(path), options) as book:
        # A fixed moment, so that the same paper gives the same bytes.
        book.set_properties({"title": paper.title, "created": dt.datetime(2000, 1, 1), "author": "hitfinder"})  # noqa: DTZ001  # Excel knows no zones
        sheet = book.add_worksheet({"en": "List", "zh": "列表"}[paper.language])
        head = book.add_format({"bold": True, "font_color": "white", "bg_color": "#1F2D3A", "text_wrap": True})
        marks = list(paper.marks) or [""] * len(paper.table)
        for place, (name, column) in enumerate(columns.items()):
            sheet.set_column(place, place, column.width)
            sheet.write_string(0, place, column.heading, head)
            looks = {
                mark: book.add_format({"num_format": KINDS[column.kind][1], "valign": "top", "font_size": 10}
                                      | ({"text_wrap": True} if column.kind == "text" else {})
                                      | ({"bg_color": FILLS[mark]} if mark in FILLS else {}))
                for mark in sorted(set(marks))
            }  # fmt: skip
            for row, (value, mark) in enumerate(zip(paper.table[name], marks, strict=True), start=1):
                _write_cell(sheet, row, place, value, column.kind, looks[mark])
        last = max(len(paper.table), 1)
        sheet.freeze_panes(1, 1)
        sheet.autofilter(0, 0, last, max(len(columns) - 1, 0))
        sheet.repeat_rows(0)
        sheet.set_landscape()
        sheet.fit_to_pages(1, 0)
        about = book.add_worksheet({"en": "About", "zh": "说明"}[paper.language])
        about.set_column(0, 0, 34)
        about.set_column(1, 1, 90)
        bold, wrap = book.add_format({"bold": True, "valign": "top"}), book.add_format({"text_wrap": True})
        about.write_string(0, 0, paper.title, bold)
        lines = [("", text) for text in paper.says] + list(paper.facts)
        lines += [(c.heading, c.meaning) for c in columns.values() if c.meaning]
        for row, (name, text) in enumerate(lines, start=2):
            about.write_string(row, 0, name, bold)
            about.write_string(row, 1, text, wrap)


def _write_cell(sheet: Any, row: int, place: int, value: Any, kind: str, look: Any) -> None:
    if value is None or pd.isna(value):
        sheet.write_blank(row, place, None, look)
    elif kind == "moment":
        sheet.write_datetime(row, place, pd.Timestamp(value).to_pydatetime(), look)
    elif kind in NUMERIC:
        sheet.write_number(row, place, float(value), look)
    else:
        sheet.write_string(row, place, str(value)[:32_767], look)


def _csv(paper: Paper, path: Path) -> None:
    table = paper.table.copy()
    for name in table.columns:
        if not (pd.api.types.is_numeric_dtype(table[name]) or pd.api.types.is_datetime64_any_dtype(table[name])):
            table[name] = table[name].map(harmless, na_action="ignore")
    path.write_bytes(csv_bytes(table))


def _parquet(paper: Paper, path: Path) -> None:
    pq.write_table(pa.Table.from_pandas(paper.table, preserve_index=False), path, compression="zstd")
