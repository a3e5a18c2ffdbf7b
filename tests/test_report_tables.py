"""A paper: what the page shows, what the workbook holds, and what machines get."""

from __future__ import annotations

import math
import re

import openpyxl
import pandas as pd
import pytest

from hitfinder.errors import SettingsError
from hitfinder.report.paper import Column, Paper, Part, Picture, Sheet, Tile
from hitfinder.report.sheets import lines_of
from hitfinder.report.tables import write_paper

TABLE = pd.DataFrame(
    {
        "sku_id": ["a", "<b>", "=c"],
        "tier": ["Hot", "Tail", "Tail"],
        "gain": [0.4, math.inf, 1.7],
        "low": [0.2, float("nan"), 1.2],
        "high": [0.6, float("nan"), 2.5],
        "cost": [1.23456, 2.0, None],
        "said": ["more", "", "much more"],
    }
)
COLUMNS = {
    "sku_id": Column("SKU"),
    "tier": Column("Tier", "badge"),
    "gain": Column("Gain", "percent", "what it gains", lines=("gain", "said"), bar=("low", "high")),
    "cost": Column("Cost", "money"),
    "absent": Column("Absent"),
}
MARKS = ["red", "grey", "grey"]


def text_of(paper, tmp_path):
    return write_paper(paper, tmp_path / "p.html").read_text(encoding="utf-8")


def test_a_page_shows_parts_of_the_table_under_headings_of_their_own(tmp_path):
    parts = [Part("First", "a note", rows=[2, 0], columns=["sku_id"]), Part("Second", rows=[], empty="none at all")]
    text = text_of(Paper("T", TABLE, COLUMNS, marks=MARKS, parts=parts), tmp_path)
    assert re.findall(r"<td>(.*?)</td>", text) == ["=c", "a"]
    assert re.findall(r'<tr class="(\w+)"', text) == ["grey", "red"]
    assert "a note" in text
    assert "none at all" in text
    folded = text_of(Paper("T", TABLE, COLUMNS, parts=[Part("More", folded=True)]), tmp_path)
    assert '<details class="part"><summary>More</summary>' in folded


def test_a_cell_may_hold_several_lines_and_a_bar_that_never_leaves_its_track(tmp_path):
    text = text_of(Paper("T", TABLE, COLUMNS, marks=MARKS), tmp_path)
    cells = re.findall(r'<td class="several">(.*?)</td>', text)
    assert [re.findall("<span>(.*?)</span>", cell) for cell in cells] == [["40%", "more"], ["–"], ["170%", "much more"]]
    bars = [re.findall(r'class="band" x="(.*?)" y="2" width="(.*?)"', cell) for cell in cells]
    assert bars == [[("20.0", "40.0")], [], [("99.0", "1.0")]]
    assert '<td><span class="badge">Hot</span></td>' in text


def test_every_text_is_escaped_and_nothing_is_loaded(tmp_path):
    paper = Paper(
        "<i>", TABLE, COLUMNS, says=["<i>"], facts=[("<i>", "<i>")], tiles=[Tile("<i>", "<i>", 0.5, ["<i>"], "red")],
        pictures=[Picture("<svg></svg>", "<i>", "<i>")], parts=[Part("<i>", "<i>")],
    )  # fmt: skip
    text = text_of(paper, tmp_path)
    assert "<i>" not in text
    assert "<td>&lt;b&gt;</td>" in text
    assert not re.search(r"(src|href)=|<script|url\(", text)


def test_the_workbook_colours_the_badge_or_else_the_row_and_holds_every_sheet(tmp_path):
    more = [Sheet("Other", TABLE[["cost"]], {"cost": Column("Cost", "money")})]
    paper = Paper("T & T", TABLE, COLUMNS, says=["well"], marks=MARKS, sheet="Plan", about="Notes", sheets=more)
    book = openpyxl.load_workbook(write_paper(paper, tmp_path / "p.xlsx"))
    assert book.sheetnames == ["Plan", "Other", "Notes"]
    assert [cell.value for cell in book["Plan"][1]] == ["SKU", "Tier", "Gain", "Cost"]
    assert [cell.value for cell in book["Plan"]["C"]] == ["Gain", 0.4, None, 1.7]
    assert book["Plan"]["A4"].data_type == "s"
    fills = [cell.fill.fgColor.rgb for cell in book["Plan"][2]]
    assert fills == ["00000000", "FFFDEBE3", "00000000", "00000000"]
    assert "well" in [cell.value for cell in book["Notes"]["B"]]
    plain = {**COLUMNS, "tier": Column("Tier")}
    book = openpyxl.load_workbook(write_paper(Paper("T", TABLE, plain, marks=MARKS), tmp_path / "q.xlsx"))
    assert book.sheetnames == ["List", "About"]
    assert {cell.fill.fgColor.rgb for cell in book["List"][2]} == {"FFFDEBE3"}


def test_machines_get_the_data_and_not_what_people_read(tmp_path):
    data = TABLE.assign(tier=["hot", "tail", "tail"], other=range(3))
    paper = Paper("T", TABLE, COLUMNS, data=data)
    pd.testing.assert_frame_equal(pd.read_parquet(write_paper(paper, tmp_path / "p.parquet")), data, check_dtype=False)
    written = pd.read_csv(write_paper(paper, tmp_path / "p.csv"))
    assert [*written.columns] == [*data.columns]
    assert written["sku_id"].tolist() == ["a", "<b>", "'=c"]
    assert written["cost"].iloc[0] == 1.2346  # money to four decimals, as the ledger's


def test_another_language_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="language"):
        write_paper(Paper("T", TABLE, COLUMNS, language="fr"), tmp_path / "p.html")
    assert not list(tmp_path.iterdir())


def test_chinese_takes_twice_the_room():
    assert lines_of("测款排名", 4) == 2
    assert lines_of("test", 4) == 1
