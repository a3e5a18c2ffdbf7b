"""The list as an Excel workbook: the list itself, and a sheet that explains it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hitfinder.diagnosis import diagnosis_words
from hitfinder.errors import DataError
from hitfinder.report.content import ACTIONS, REASONS, Content, decimals_of
from hitfinder.report.diagnosis import TIER_MARKS
from hitfinder.report.paper import MARKS
from hitfinder.report.sheets import MAX_TEXT, NEVER, fit_for_print, lines_of, open_book

__all__ = ["write_workbook"]

# What a buyer reads comes first, what a machine needs last.
ORDER = ("rank", "action", "sku_id", "title", "category", "price", "hit_probability", "hit_probability_low",
         "hit_probability_high", "expected_value",
         "expected_value_low", "expected_value_high", "tier", "diagnosis", "reason_1", "reason_2", "reason_3",
         "batch_id", "image_url", "model_version", "as_of")  # fmt: skip
WIDTHS = {"rank": 7, "action": 12, "sku_id": 22, "title": 34, "category": 16, "price": 10, "hit_probability": 13,
          "hit_probability_low": 12, "hit_probability_high": 12, "expected_value": 14,
          "expected_value_low": 13, "expected_value_high": 13, "tier": 12, "diagnosis": 34, "reason_1": 36,
          "reason_2": 36, "reason_3": 36, "batch_id": 12, "image_url": 13, "model_version": 18,
          "as_of": 17}  # fmt: skip
NUMBERS = ("price", "hit_probability", "hit_probability_low", "hit_probability_high", "expected_value",
           "expected_value_low", "expected_value_high")  # fmt: skip
FILLS = {"scale": MARKS["green"], "test": MARKS["amber"], "stop": MARKS["grey"]}
MAX_ROWS = 1_048_575  # below the headings
MAX_LINKS = 65_000  # Excel refuses a sheet with more than 65,530


def write_workbook(content: Content, path: Path) -> None:
    """Write the workbook. Ids stay texts, and no text becomes a formula or a link by itself.

    Raises
    ------
    DataError
        More rows than a sheet can hold.
    """
    if len(content.table) > MAX_ROWS:
        raise DataError(
            f"expected at most {MAX_ROWS} rows for a workbook, got {len(content.table)}; write .csv or .parquet"
        )
    created = NEVER if content.as_of is None else content.as_of.to_pydatetime()
    with open_book(path, content.title, created) as book:
        _list_sheet(book, content)
        _about_sheet(book, content)


def _headings(content: Content) -> dict[str, str]:
    """Heading of each column, in the order of the sheet; a column of the caller's own keeps its name."""
    words = content.words
    names = {name: words.get(name, name) for name in content.table.columns}
    names |= {"expected_value": content.value_heading}
    if "title" in names:
        names["title"] = words["title_column"]
    ordered = [n for n in ORDER if n in names]
    return {n: names[n] for n in [*ordered, *(n for n in names if n not in ordered)]}


def _list_sheet(book: Any, content: Content) -> None:
    sheet = book.add_worksheet(content.words["sheet_list"])
    table, n_rows = content.table, len(content.table)
    headings = _headings(content)
    look = {"valign": "top", "font_size": 10}
    dark = {"bold": True, "font_color": "white", "bg_color": "#1F2D3A", "valign": "vcenter", "text_wrap": True}
    head, head_of_numbers = book.add_format(dark), book.add_format({**dark, "align": "right"})
    plain = book.add_format(look)
    formats = {
        **dict.fromkeys(("diagnosis", *REASONS), book.add_format(
            {**look, "text_wrap": True, "align": "left", "indent": 1})),
        "title": book.add_format({**look, "text_wrap": True}),
        **dict.fromkeys(("hit_probability_low", "hit_probability_high"), book.add_format(
            {**look, "num_format": "0.0%", "font_color": "#5A6673"})),
        "hit_probability": book.add_format({**look, "num_format": "0.0%", "bold": True}),
        "expected_value": book.add_format({**look, "num_format": _number_format(table["expected_value"])}),
        **dict.fromkeys(("expected_value_low", "expected_value_high"), book.add_format(
            {**look, "num_format": _number_format(table["expected_value"]), "font_color": "#5A6673"})),
        "sku_id": book.add_format({**look, "num_format": "@"}),
        "as_of": book.add_format({**look, "num_format": "yyyy-mm-dd hh:mm", "align": "left"}),
        "action": book.add_format({**look, "bold": True, "align": "center"}),
        "tier": book.add_format({**look, "bold": True, "align": "center"}),
        "rank": book.add_format({**look, "num_format": "0", "align": "center"}),
        "image_url": book.add_format({**look, "font_color": "#0B57A4", "underline": 1}),
    }  # fmt: skip
    if "price" in table:
        formats["price"] = book.add_format({**look, "num_format": "#,##0.00"})
    tiers = {tier: diagnosis_words(content.language)[f"tier_{tier}"] for tier in TIER_MARKS}
    sheet.set_row(0, 32)
    for place, (name, heading) in enumerate(headings.items()):
        sheet.set_column(place, place, WIDTHS.get(name, 16), None)
        sheet.write_string(0, place, heading, head_of_numbers if name in NUMBERS else head)
        values = table[name]
        if name == "action":
            values = values.map({a: content.words[f"action_{a}"] for a in ACTIONS})
        if name == "tier":
            values = values.replace(tiers)
        _write_column(sheet, place, name, values, formats.get(name, plain), content)

    _set_heights(sheet, table)
    places = {name: place for place, name in enumerate(headings)}
    last = max(n_rows, 1)
    # By rule and not by cell, so that the colour follows when a buyer overrides the action.
    coloured = [("action", content.words[f"action_{action}"], colours) for action, colours in FILLS.items()]
    coloured += [("tier", tiers[tier], MARKS[mark]) for tier, mark in TIER_MARKS.items() if "tier" in places]
    for name, value, (ink, fill) in coloured:
        rule = {"type": "cell", "criteria": "==", "value": f'"{value}"',
                "format": book.add_format({"font_color": ink, "bg_color": fill})}  # fmt: skip
        sheet.conditional_format(1, places[name], last, places[name], rule)
    bar = {"type": "data_bar", "bar_solid": True, "bar_color": "#9FD5C5", "bar_border_color": "#9FD5C5",
           "min_type": "num", "max_type": "num", "min_value": 0, "max_value": 1}  # fmt: skip
    sheet.conditional_format(1, places["hit_probability"], last, places["hit_probability"], bar)
    sheet.ignore_errors({"number_stored_as_text": f"A2:XFD{last + 1}"})
    sheet.freeze_panes(1, places["sku_id"] + 1)
    sheet.autofilter(0, 0, last, len(headings) - 1)
    fit_for_print(sheet, content.title, content.words)
    sheet.repeat_rows(0)
    sheet.print_area(0, 0, last, places["reason_3"])  # what only machines need stays off the paper


def _number_format(column: pd.Series) -> str:
    decimals = decimals_of(column)
    return "#,##0" + ("." + "0" * decimals if decimals else "")


def _write_column(sheet: Any, place: int, name: str, values: pd.Series, look: Any, content: Content) -> None:
    n_links = 0
    for row, (value, missing) in enumerate(zip(values.tolist(), values.isna().tolist(), strict=True), start=1):
        if missing:
            sheet.write_blank(row, place, None, look)
        elif isinstance(value, bool):
            sheet.write_boolean(row, place, value, look)
        elif isinstance(value, dt.datetime):
            sheet.write_datetime(row, place, value, look)
        elif isinstance(value, int | float) and name != "sku_id":
            sheet.write_number(row, place, value, look)
        elif name == "image_url" and n_links < MAX_LINKS and _is_link(str(value)):
            sheet.write_url(row, place, str(value), look, content.words["open_image"])
            n_links += 1
        else:
            text = str(value)
            # A cell holds no more; the dots show that something was cut.
            sheet.write_string(row, place, text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…", look)


def _set_heights(sheet: Any, table: pd.DataFrame) -> None:
    """Give each row the room that its wrapped texts need: not every program does so when it opens the file."""
    wrapped = [n for n in ("title", "diagnosis", *REASONS) if n in table]
    for row, texts in enumerate(table[wrapped].itertuples(index=False), start=1):
        lines = max(
            (lines_of(str(t), WIDTHS[n] - 3) for n, t in zip(wrapped, texts, strict=True) if pd.notna(t)), default=1
        )
        sheet.set_row(row, 15 * min(lines, 8))


def _is_link(text: str) -> bool:
    return text.lower().startswith(("http://", "https://")) and len(text) <= 2_000


class _About:
    """A sheet that is written from top to bottom: texts beside each other, or one over several columns."""

    WIDTHS = (34, 28, 30, 22)

    def __init__(self, book: Any, name: str) -> None:
        self.sheet = book.add_worksheet(name)
        self.row = 0
        for place, width in enumerate(self.WIDTHS):
            self.sheet.set_column(place, place, width)
        self.sheet.hide_gridlines(2)
        wrapped = {"text_wrap": True, "valign": "top"}
        self.heading = book.add_format({"bold": True, "font_size": 16})
        self.part = book.add_format({"bold": True, "font_size": 12, "bottom": 1, "bottom_color": "#B8C1CB"})
        self.label = book.add_format({"font_color": "#5A6673", "valign": "top"})
        self.text = book.add_format(wrapped | {"align": "left"})
        self.strong = book.add_format(wrapped | {"bold": True})
        self.alarm = book.add_format(wrapped | {"bold": True, "font_color": "#8A2B06"})
        self.number = book.add_format({"align": "left", "valign": "top", "num_format": "#,##0"})

    def line(self, texts: Sequence[str], look: Any) -> None:
        """Write texts beside each other, and go on to the next row."""
        for place, text in enumerate(texts):
            self.sheet.write_string(self.row, place, text, look)
        self.row += 1

    def told(self, text: str, *beside: tuple[str | int, Any], look: Any = None) -> None:
        """Write a text over the columns right of what stands beside it; with room, since merged rows don't grow."""
        for place, (value, its_look) in enumerate(beside):
            self.sheet.write(self.row, place, value, its_look)
        start, look = len(beside), look or self.text
        self.sheet.merge_range(self.row, start, self.row, len(self.WIDTHS) - 1, "", look)
        self.sheet.write_string(self.row, start, text, look)
        room = sum(self.WIDTHS[start:]) - 4
        self.sheet.set_row(self.row, 15 * lines_of(text, room) + 1)
        self.row += 1

    def section(self, name: str) -> None:
        """Leave a row out and write a heading."""
        self.row += 1
        self.line((name, "", "", ""), self.part)


def _about_sheet(book: Any, content: Content) -> None:
    words = content.words
    about = _About(book, words["sheet_about"])
    about.line([content.title], about.heading)
    facts = [(words["as_of"], content.as_of_text), (words["model_version"], content.model_version),
             (words["n_skus"], f"{len(content.table):,}"), *content.facts]  # fmt: skip
    facts += [(words["note"], content.note)] if content.note else []
    for name, value in facts:
        about.told(value or words["none"], (name, about.label))
    _say_actions(book, about, content)
    if content.methods:
        _say_quality(about, content)
    about.section(words["columns"])
    about.line((words["column"], words["field"], words["meaning"]), about.label)
    for name, title in _headings(content).items():
        meaning = words[f"{name}_meaning"] if name in ORDER else ""
        about.told(meaning, (title, about.strong), (name, about.text))
    fit_for_print(about.sheet, content.title, words)
    about.sheet.fit_to_pages(1, 1)


def _say_actions(book: Any, about: _About, content: Content) -> None:
    """Say what each action means and of how many SKUs it is, and what is promised about it."""
    words = content.words
    about.section(words["actions"])
    about.line((words["action"], words["count"], words["meaning"]), about.label)
    for action in ACTIONS:
        ink, fill = FILLS[action]
        badge = book.add_format({"bold": True, "font_color": ink, "bg_color": fill, "valign": "top"})
        counted = (content.counts[action], about.number)
        about.told(words[f"action_{action}_meaning"], (words[f"action_{action}"], badge), counted)
    if content.promises:
        about.row += 1
        about.line([words["promises"]], about.label)
        for action, sentence in content.promises:
            about.told(sentence, (words[f"action_{action}"], about.text))


def _say_quality(about: _About, content: Content) -> None:
    """Put what ranked the list beside the rules, on past batches."""
    words = content.words
    about.section(words["quality"])
    about.told(words["quality_intro"])
    about.line((words["method"], *content.measures.values()), about.label)
    for method in content.methods:
        name = f"{method['name']} ({words['used']})" if method["used"] else method["name"]
        about.line((name, *method["texts"].values()), about.strong if method["used"] else about.text)
    for key in ("average_precision", "hits_at_k"):
        if key in content.measures:
            about.told(words[f"{key}_meaning"], look=about.label)
    if content.warning:
        about.told(content.warning, look=about.alarm)
