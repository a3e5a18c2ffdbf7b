"""Any table that people read, in the form that the file's suffix asks for: page, workbook, CSV or Parquet.

The ledger, the budget, stock and diagnoses are all a few sentences, a picture or two, and tables. What each column is
called and how its numbers are shown is said once, in `Column`; the file's form is not their business.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hitfinder.report.forms import check_suffix, csv_bytes, harmless
from hitfinder.report.whole import replacing
from hitfinder.report.words import load_words

__all__ = ["KINDS", "MARKS", "Column", "Paper", "Part", "Picture", "Sheet", "Tile", "lines_of", "write_paper"]

# How a number is shown: decimals of its text, and Excel's format. A badge is a text in the colour of its row's mark.
KINDS = {
    "text": (None, "@"),
    "badge": (None, "@"),
    "count": (0, "#,##0"),
    "money": (2, "#,##0.00"),
    "number": (2, "#,##0.00"),
    "days": (1, "#,##0.0"),
    "share": (1, "0.0%"),
    "percent": (0, "0%"),
    "moment": (None, "yyyy-mm-dd hh:mm"),
}
NUMERIC = ("count", "money", "number", "days", "share", "percent")
# Ink and ground in a workbook; those of a page are in page.css.
MARKS = {
    "green": ("#0B5D4B", "#D8F1E8"),
    "amber": ("#6B4400", "#FCECC9"),
    "red": ("#9C2A10", "#FDEBE3"),
    "grey": ("#454F5B", "#E6E9ED"),
}


@dataclass(frozen=True)
class Column:
    """How a column is read.

    Attributes
    ----------
    heading, meaning
        What it is called, and what that means, where it has to be told.
    kind
        A key of KINDS.
    width
        Of its text in a workbook, in letters.
    lines
        The columns that a page shows in this one's cells, one below the other, the first in bold; "": itself alone.
        Those that are no columns of the paper are texts, and only on the page.
    bar
        The columns that hold the ends of a bar that the page draws below the value, all on one scale from 0 to 100 %.
    """

    heading: str
    kind: str = "text"
    meaning: str = ""
    width: int = 14
    lines: Sequence[str] = ()
    bar: tuple[str, str] | None = None


@dataclass(frozen=True)
class Picture:
    """A drawing (SVG as text, whose letters show in any language), what it shows, and how it is read."""

    drawing: str
    title: str
    note: str = ""


@dataclass(frozen=True)
class Tile:
    """A number that is seen first: its name and colour, what share of the whole it is, and sentences."""

    name: str
    count: str
    share: float
    says: Sequence[str] = ()
    mark: str = ""


@dataclass(frozen=True)
class Part:
    """One table of a page: a heading, a note, and which rows (by place) and columns of the paper; None: all."""

    heading: str = ""
    note: str = ""
    rows: Sequence[int] | None = None
    columns: Sequence[str] | None = None
    folded: bool = False
    empty: str = ""


@dataclass(frozen=True)
class Sheet:
    """A further sheet of a workbook."""

    name: str
    table: pd.DataFrame
    columns: Mapping[str, Column]


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
        The columns that people see, in order; those that `table` lacks are left out.
    says
        Sentences above the table: what matters, and what weakens it.
    facts
        Single values on top: name, text.
    tiles, pictures
        Between them and the table, on the page.
    language
        `en` or `zh`.
    marks
        For each row the colour (a key of MARKS, or "") of its badge; where no column is one, of the row.
    parts
        The tables of the page; default: one of everything.
    data
        What CSV and Parquet hold, with all columns under their own names; default: `table`.
    sheet, about
        What the sheet of the table and that of all else are called; default: "List" and "About".
    sheets
        Further sheets of the workbook.
    """

    title: str
    table: pd.DataFrame
    columns: Mapping[str, Column]
    says: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    tiles: Sequence[Tile] = ()
    pictures: Sequence[Picture] = ()
    language: str = "en"
    marks: Sequence[str] = ()
    parts: Sequence[Part] = (Part(),)
    data: pd.DataFrame | None = None
    sheet: str = ""
    about: str = ""
    sheets: Sequence[Sheet] = ()


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
                _workbook(paper, words, partial)
            case ".csv":
                partial.write_bytes(_csv(paper))
            case _:
                table = paper.table if paper.data is None else paper.data
                pq.write_table(pa.Table.from_pandas(table, preserve_index=False), partial, compression="zstd")
    return out


def shown(value: Any, kind: str) -> str:
    """Return a value as text.

    >>> shown(1234.5, "money"), shown(0.123, "share"), shown(None, "count")
    ('1,234.50', '12.3%', '–')
    """
    if _missing(value):
        return "–"
    if kind == "moment":
        return f"{pd.Timestamp(value):%Y-%m-%d %H:%M}"
    decimals = KINDS[kind][0]
    if decimals is None:
        return str(value)
    return f"{float(value):,.{decimals}{'%' if kind in ('share', 'percent') else 'f'}}"


def _missing(value: Any) -> bool:
    return value is None or bool(pd.isna(value)) or (isinstance(value, float) and math.isinf(value))


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
    lines = [shown(record.get(line), kind) for line, kind in kinds.items() if not _missing(record.get(line))]
    cell: dict[str, Any] = {"kind": column.kind, "lines": [line for line in lines if line] or ["–"], "bar": None}
    if column.lines:
        cell["kind"] = "several"
    elif column.kind in NUMERIC:
        cell["kind"] = "number"
    if column.bar and not any(_missing(record[end]) for end in column.bar):
        low, value, high = (100 * min(max(record[at], 0.0), 1.0) for at in (column.bar[0], name, column.bar[1]))
        cell["bar"] = (f"{min(low, 99.0):.1f}", f"{max(high - low, 1.0):.1f}", f"{min(value, 98.5):.1f}")
    return cell


def _workbook(paper: Paper, words: dict[str, str], path: Path) -> None:
    import xlsxwriter

    options = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with xlsxwriter.Workbook(str(path), options) as book:
        # A fixed moment, so that the same paper gives the same bytes.
        book.set_properties({"title": paper.title, "created": dt.datetime(2000, 1, 1), "author": "hitfinder"})  # noqa: DTZ001  # Excel knows no zones
        first = Sheet(paper.sheet or words["sheet_list"], paper.table, paper.columns)
        for sheet, marks in [(first, paper.marks), *((further, ()) for further in paper.sheets)]:
            _set_up(_table_sheet(book, sheet, marks), paper, words)
        about = book.add_worksheet(paper.about or words["sheet_about"])
        about.set_column(0, 0, 34)
        about.set_column(1, 1, 90)
        bold, wrap = (book.add_format({how: True, "valign": "top"}) for how in ("bold", "text_wrap"))
        about.write_string(0, 0, paper.title, bold)
        lines = [("", text) for text in paper.says] + list(paper.facts)
        lines += [(tile.name, " · ".join((tile.count, *tile.says))) for tile in paper.tiles]
        lines += [(picture.title, picture.note) for picture in paper.pictures if picture.note]
        lines += [(part.heading, part.note) for part in paper.parts if part.note]
        lines += [(c.heading, c.meaning) for name, c in paper.columns.items() if c.meaning and name in paper.table]
        for row, (name, text) in enumerate(lines, start=2):
            about.write_string(row, 0, name, bold)
            about.write_string(row, 1, text, wrap)
            about.set_row(row, 15 * max(lines_of(text, 88), lines_of(name, 32)))
        _set_up(about, paper, words)


def _table_sheet(book: Any, sheet: Sheet, marks: Sequence[str]) -> Any:
    columns = {name: column for name, column in sheet.columns.items() if name in sheet.table}
    marks = marks or [""] * len(sheet.table)
    badges = [name for name, column in columns.items() if column.kind == "badge"]
    page = book.add_worksheet(sheet.name)
    dark = {"bold": True, "font_color": "white", "bg_color": "#1F2D3A", "text_wrap": True, "valign": "vcenter"}
    page.set_row(0, 15 * max((lines_of(c.heading, c.width - 2) for c in columns.values()), default=1) + 2)
    heights = [1] * len(sheet.table)
    for place, (name, column) in enumerate(columns.items()):
        page.set_column(place, place, column.width)
        side = {"align": "right"} if column.kind in NUMERIC else {"align": "left", "indent": 1, "text_wrap": True}
        page.write_string(0, place, column.heading, book.add_format(dark | side))
        look = {"num_format": KINDS[column.kind][1], "valign": "top", "font_size": 10} | side
        coloured = name in badges or not badges
        looks = {mark: book.add_format(look | _colours(mark, coloured, column.kind)) for mark in sorted(set(marks))}
        for row, (value, mark) in enumerate(zip(sheet.table[name], marks, strict=True)):
            _write_cell(page, row + 1, place, value, column.kind, looks[mark])
            if column.kind == "text" and not _missing(value):
                heights[row] = max(heights[row], lines_of(str(value), column.width - 2))
    for row, height in enumerate(heights, start=1):
        if height > 1:  # not every program gives a row the room that its texts need
            page.set_row(row, 14 * min(height, 8))
    page.freeze_panes(1, 1)
    page.autofilter(0, 0, max(len(sheet.table), 1), max(len(columns) - 1, 0))
    page.repeat_rows(0)
    return page


def _colours(mark: str, coloured: bool, kind: str) -> dict[str, Any]:
    if not coloured or mark not in MARKS:
        return {}
    ink, ground = MARKS[mark]
    return {"bg_color": ground} | ({"font_color": ink, "bold": True} if kind == "badge" else {})


def _set_up(sheet: Any, paper: Paper, words: dict[str, str]) -> None:
    """Make a sheet fit for paper."""
    sheet.set_landscape()
    sheet.set_paper(9)  # A4
    sheet.fit_to_pages(1, 0)
    sheet.set_footer(f"&L&8{paper.title.replace('&', '&&')}&R&8{words['page_of']}")


def _write_cell(sheet: Any, row: int, place: int, value: Any, kind: str, look: Any) -> None:
    if _missing(value):
        sheet.write_blank(row, place, None, look)
    elif kind == "moment":
        sheet.write_datetime(row, place, pd.Timestamp(value).to_pydatetime(), look)
    elif kind in NUMERIC:
        sheet.write_number(row, place, float(value), look)
    else:
        sheet.write_string(row, place, str(value)[:32_767], look)


def lines_of(text: str, width: int) -> int:
    """Lines that a text takes at a width in Latin signs, a little too many rather than too few.

    >>> lines_of("Two words", 20), lines_of("数据还不明朗：继续测试。", 20), lines_of("", 20)
    (1, 2, 1)
    """
    # Chinese signs are twice as wide.
    return sum(
        max(1, -(-sum(2 if ord(s) > 0x2E80 else 1 for s in part) // width)) for part in (text or " ").splitlines()
    )


def _csv(paper: Paper) -> bytes:
    table = (paper.table if paper.data is None else paper.data).copy()
    for name in table.columns:
        if name in paper.columns and paper.columns[name].kind == "money":
            table[name] = table[name].round(4)  # as the ledger's
        elif not (pd.api.types.is_numeric_dtype(table[name]) or pd.api.types.is_datetime64_any_dtype(table[name])):
            table[name] = table[name].map(harmless, na_action="ignore")
    return csv_bytes(table)
