"""What people read, before it has a form: a few sentences, a picture or two, and tables.

What each column is called and how its numbers are shown is said once, in `Column`; the file's form is not its business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

__all__ = ["KINDS", "MARKS", "NUMERIC", "Column", "Paper", "Part", "Picture", "Sheet", "Tile", "is_missing", "shown"]

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


def shown(value: Any, kind: str) -> str:
    """Return a value as text.

    >>> shown(1234.5, "money"), shown(0.123, "share"), shown(None, "count")
    ('1,234.50', '12.3%', '–')
    """
    if is_missing(value):
        return "–"
    if kind == "moment":
        return f"{pd.Timestamp(value):%Y-%m-%d %H:%M}"
    decimals = KINDS[kind][0]
    if decimals is None:
        return str(value)
    return f"{float(value):,.{decimals}{'%' if kind in ('share', 'percent') else 'f'}}"


def is_missing(value: Any) -> bool:
    """Tell whether there is no value to show."""
    return value is None or bool(pd.isna(value)) or (isinstance(value, float) and math.isinf(value))
