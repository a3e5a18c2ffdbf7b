"""Papers as Excel workbooks: tables on sheets of their own, and a sheet that says what they mean."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xlsxwriter

from hitfinder.report.paper import KINDS, MARKS, NUMERIC, Paper, Sheet, is_missing

__all__ = ["fit_for_print", "lines_of", "open_book", "write_sheets"]

# A cell holds no more.
MAX_TEXT = 32_767
# Excel knows no zones.
NEVER = dt.datetime(2000, 1, 1)  # noqa: DTZ001


def open_book(path: Path, title: str, created: dt.datetime = NEVER) -> Any:
    """Open a workbook to write, in which ids stay texts and no text becomes a formula or a link by itself.

    The moment is part of the file: a fixed one gives the same bytes each time.
    """
    options = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    book = xlsxwriter.Workbook(str(path), options)
    book.set_properties({"title": title, "created": created, "author": "hitfinder"})
    return book


def write_sheets(paper: Paper, words: dict[str, str], path: Path) -> None:
    """Write a paper as a workbook."""
    with open_book(path, paper.title) as book:
        first = Sheet(paper.sheet or words["sheet_list"], paper.table, paper.columns)
        for sheet, marks in [(first, paper.marks), *((further, ()) for further in paper.sheets)]:
            fit_for_print(_table_sheet(book, sheet, marks), paper.title, words)
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
        fit_for_print(about, paper.title, words)


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
            if column.kind == "text" and not is_missing(value):
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


def fit_for_print(sheet: Any, title: str, words: dict[str, str]) -> None:
    """Make a sheet fit for paper: A4 across, as wide as one page, with its title and number."""
    sheet.set_landscape()
    sheet.set_paper(9)  # A4
    sheet.fit_to_pages(1, 0)
    sheet.set_margins(left=0.4, right=0.4, top=0.5, bottom=0.6)
    sheet.set_footer(f"&L&8{title.replace('&', '&&')}&R&8{words['page_of']}")


def _write_cell(sheet: Any, row: int, place: int, value: Any, kind: str, look: Any) -> None:
    if is_missing(value):
        sheet.write_blank(row, place, None, look)
    elif kind == "moment":
        sheet.write_datetime(row, place, pd.Timestamp(value).to_pydatetime(), look)
    elif kind in NUMERIC:
        sheet.write_number(row, place, float(value), look)
    else:
        sheet.write_string(row, place, str(value)[:MAX_TEXT], look)


def lines_of(text: str, width: int) -> int:
    """Lines that a text takes at a width in Latin signs, a little too many rather than too few.

    >>> lines_of("Two words", 20), lines_of("数据还不明朗：继续测试。", 20), lines_of("", 20)
    (1, 2, 1)
    """
    # Chinese signs are twice as wide.
    return sum(
        max(1, -(-sum(2 if ord(s) > 0x2E80 else 1 for s in part) // width)) for part in (text or " ").splitlines()
    )
