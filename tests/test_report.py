from __future__ import annotations

import csv
import html
import json
import re
import shutil
import string
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import openpyxl
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from small_market import fitted

from hitfinder.diagnosis import diagnosis_words
from hitfinder.errors import DataError, HitfinderError, SettingsError
from hitfinder.promise import ScalePromise, StopPromise
from hitfinder.report import summary_of, write_list
from hitfinder.report.content import percent
from hitfinder.report.diagnosis import with_diagnosis
from hitfinder.report.words import load_words

# openpyxl can't keep the data bars; it only reads here.
pytestmark = pytest.mark.filterwarnings("ignore:.*xtension is not supported:UserWarning:openpyxl")

COLUMNS = [
    "rank", "sku_id", "batch_id", "hit_probability", "hit_probability_low", "hit_probability_high", "expected_value",
    "action", "reason_1", "reason_2", "reason_3", "model_version", "as_of",
]  # fmt: skip
AS_OF = pd.Timestamp("2025-06-02 06:00")
SUFFIXES = [".parquet", ".csv", ".xlsx", ".html"]
LONG_ID = "6912345678901234567"
ZERO_ID = "000123"
EVIL = '<script>document.title="owned"</script><img src=x onerror=alert(1)>'

TITLES = {
    "en": [("Linen", "Ribbed", "Pleated", "Quilted", "Waterproof", "Brushed cotton"),
           ("wrap dress", "tank top", "midi skirt", "crossbody bag", "hiking jacket", "pyjama set"),
           ("in sage", "with pockets", "for petite sizes", "2-pack", "spring edition")],
    "zh": [("法式", "新中式", "美式复古", "冰丝", "加绒", "小众设计感"),
           ("碎花连衣裙", "短款针织衫", "高腰半身裙", "腋下包", "防晒衣", "睡衣套装"),
           ("显瘦", "带口袋", "小个子", "两件装", "2025春季新款")],
}  # fmt: skip
CATEGORIES = {
    "en": ("Dresses", "Tops", "Skirts", "Bags", "Outdoor", "Sleepwear"),
    "zh": ("连衣裙", "上衣", "半身裙", "箱包", "户外", "家居服"),
}
REASONS = {
    "en": ("Adds to cart {r:.1f} times as often as its category, on {n} clicks",
           "{n} orders in the first 3 days; the batch's median is 4",
           "Click rate {p:.1%}, against {q:.1%} in its batch",
           "Two colours of the same style already sell well",
           "Few clicks so far ({n}); the range is still wide"),
    "zh": ("加购率是同类目的 {r:.1f} 倍（{n} 次点击）",
           "前 3 天成交 {n} 单，同批次中位数为 4 单",
           "点击率 {p:.1%}，同批次为 {q:.1%}",
           "同款的另外两个颜色已经卖得不错",
           "目前点击较少（{n} 次），范围仍然较宽"),
}  # fmt: skip
RULE_NAMES = {"en": ("orders a day", "add-to-cart rate", "click rate"), "zh": ("日均订单数", "加购率", "点击率")}


def sample(n: int = 200, language: str = "en", seed: int = 7) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A list such as `rank` returns, and the SKU table beside it."""
    rng = np.random.default_rng(seed)
    probability = np.sort(rng.beta(0.35, 5, n))[::-1].clip(0.0004, 0.97)
    width = rng.uniform(0.15, 0.9, n)
    action = np.where(probability > 0.25, "scale", np.where(probability > 0.04, "test", "stop"))

    def reason() -> str:
        text = REASONS[language][rng.integers(5)]
        return text.format(r=rng.uniform(1.1, 4), n=rng.integers(5, 900), p=rng.uniform(0.03, 0.09), q=0.021)

    ids = [f"SKU-{i:05d}" for i in rng.permutation(n)]
    ids[: min(n, 2)] = [LONG_ID, ZERO_ID][:n]
    n_reasons = rng.integers(1, 4, n)
    ranked = pd.DataFrame({
        "rank": np.arange(1, n + 1),
        "sku_id": pd.Series(ids, dtype="str"),
        "batch_id": "2025-W22",
        "hit_probability": probability,
        "hit_probability_low": probability * (1 - width),
        "hit_probability_high": probability + (1 - probability) * width * 0.35,
        "expected_value": np.where(rng.random(n) < 0.05, np.nan, 40 + probability * 12_000),
        "action": action,
        **{f"reason_{k + 1}": [reason() if k < m else None for m in n_reasons] for k in range(3)},
        "model_version": "v12",
        "as_of": AS_OF.as_unit("us"),
    })[COLUMNS]  # fmt: skip
    adjectives, things, endings = TITLES[language]
    thing = rng.integers(0, 6, n)
    skus = pd.DataFrame({
        "sku_id": pd.Series(ids, dtype="str"),
        "title": [f"{adjectives[rng.integers(6)]}{'' if language == 'zh' else ' '}{things[t]}"
                  f"{'' if language == 'zh' else ' '}{endings[rng.integers(5)]}" for t in thing],
        "category": [CATEGORIES[language][t] for t in thing],
        "price": rng.integers(990, 29_900, n) / 100,
        "image_url": [f"https://img.example.com/{i}.jpg" for i in range(n)],
        "colour": "red",
    })  # fmt: skip
    return ranked, skus.sample(frac=1, random_state=seed)


def summary(language: str = "en") -> dict[str, object]:
    names = RULE_NAMES[language]
    return {
        "ranked_by": "hitfinder model" if language == "en" else "hitfinder 模型",
        "metric": "revenue",
        "n_trained": 5_000,
        "note": "A short week: the holiday on Thursday." if language == "en" else "本周较短：周四放假。",
        "k": 20,
        "rules": [
            {"name": names[0], "average_precision": 0.412, "hits_at_k": 0.5},
            {"name": names[1], "average_precision": 0.337, "hits_at_k": 0.44},
            {"name": names[2], "average_precision": 0.18, "hits_at_k": None},
        ],
        "model": {"average_precision": 0.486, "hits_at_k": 0.58},
    }


class Page(HTMLParser):
    """The texts of the list's cells, every attribute, and every tag of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.inside = self.open = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.inside = dict(attrs).get("id") == "list"
        if tag == "tr" and self.inside:
            self.cells.append([])
        if tag in ("td", "th") and self.inside:
            self.cells[-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.open = False
        if tag == "table":
            self.inside = False

    def handle_data(self, data):
        if self.inside and self.open:
            self.cells[-1][-1] += data

    @property
    def rows(self) -> list[list[str]]:
        return self.cells[1:]


def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def sheet_rows(path: Path, sheet: int = 0) -> list[list[object]]:
    return [[c.value for c in row] for row in openpyxl.load_workbook(path).worksheets[sheet].iter_rows()]


# --- one road in, four forms out


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_form_is_written_and_nothing_else_is_left_in_the_folder(tmp_path, suffix, language):
    ranked, skus = sample(20, language)
    out = write_list(
        ranked, tmp_path / "new" / f"list{suffix}", skus=skus, language=language, summary=summary(language)
    )
    assert out == tmp_path / "new" / f"list{suffix}"
    assert [p.name for p in out.parent.iterdir()] == [f"list{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_list_gives_the_same_bytes(tmp_path, suffix):
    ranked, skus = sample(30)
    one = write_list(ranked, tmp_path / f"a{suffix}", skus=skus, summary=summary())
    program = (
        "import sys, pandas as pd, test_report as t; from hitfinder.report import write_list;"
        "r, s = t.sample(30); write_list(r, sys.argv[1], skus=s, summary=t.summary())"
    )
    other = tmp_path / f"b{suffix}"
    subprocess.run([sys.executable, "-c", program, str(other)], check=True, cwd=Path(__file__).parent)
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_list_can_be_written_and_read(tmp_path, suffix):
    ranked, skus = sample(3)
    out = write_list(ranked.head(0), tmp_path / f"list{suffix}", skus=skus)
    if suffix == ".parquet":
        assert pd.read_parquet(out).shape == (0, 17)
    elif suffix == ".csv":
        assert pd.read_csv(out).shape == (0, 17)
    elif suffix == ".xlsx":
        assert sum(any(v is not None for v in row) for row in sheet_rows(out)) == 1
    else:
        assert load_words("en")["empty"] in out.read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_five_thousand_rows_all_come_out(tmp_path, suffix):
    ranked, skus = sample(5_000)
    out = write_list(ranked, tmp_path / f"list{suffix}", skus=skus)
    if suffix == ".parquet":
        ids = list(pd.read_parquet(out)["sku_id"])
    elif suffix == ".csv":
        ids = list(pd.read_csv(out, dtype={"sku_id": str})["sku_id"])
    elif suffix == ".xlsx":
        ids = [row[2] for row in sheet_rows(out)[1:]]
    else:
        assert out.stat().st_size < 10_000_000
        ids = re.findall(r'<span class="id">(.*?)</span>', out.read_text(encoding="utf-8"))
    assert ids == list(ranked["sku_id"])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_callers_tables_are_left_alone(tmp_path, suffix):
    ranked, skus = sample(10)
    before = ranked.copy(deep=True), skus.copy(deep=True)
    write_list(ranked, tmp_path / f"list{suffix}", skus=skus, summary=summary())
    assert_frame_equal(ranked, before[0])
    assert_frame_equal(skus, before[1])


def test_a_shuffled_list_comes_out_best_first(tmp_path):
    ranked, _ = sample(50)
    out = write_list(ranked.sample(frac=1, random_state=1), tmp_path / "list.parquet")
    assert_frame_equal(pd.read_parquet(out), ranked)


def test_an_upper_case_suffix_is_understood(tmp_path):
    assert write_list(sample(3)[0], tmp_path / "LIST.CSV").read_bytes().startswith(b"\xef\xbb\xbf")


# --- refusals


@pytest.mark.parametrize("name", ["list.pdf", "list", "list.xls"])
def test_an_unknown_suffix_is_refused_with_the_four_known_ones(tmp_path, name):
    with pytest.raises(DataError, match=r"\.parquet, \.csv, \.xlsx, \.html") as caught:
        write_list(sample(3)[0], tmp_path / "new" / name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_an_unknown_language_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(SettingsError, match="en or zh, got 'fr'"):
        write_list(sample(3)[0], tmp_path / "list.csv", language="fr")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("action", "buy", "scale, test, stop, got buy"),
        ("hit_probability", 1.2, "hit_probability from 0 to 1, got 1.2"),
        ("hit_probability_low", -0.1, "hit_probability_low from 0 to 1"),
        ("expected_value", np.inf, "finite numbers in expected_value"),
        ("expected_value", "much", "expected numbers in expected_value"),
        ("rank", 1.5, "whole numbers in rank"),
        ("sku_id", None, "a sku_id in every row, 3 are empty"),
        ("sku_id", 6.9e18, "sku_id as text, got float64"),
        ("sku_id", "same", "each sku_id once, 2 came again, such as 'same'"),
        ("as_of", "yesterday-ish", "timestamps in as_of"),
    ],
)
def test_an_impossible_value_is_refused_by_name(tmp_path, column, value, message):
    ranked = sample(3)[0].assign(**{column: value})
    with pytest.raises(DataError, match=re.escape(message)):
        write_list(ranked, tmp_path / "list.csv")
    assert not list(tmp_path.iterdir())


def test_a_missing_column_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="missing: action, as_of"):
        write_list(sample(3)[0].drop(columns=["as_of", "action"]), tmp_path / "list.csv")


def test_sku_tables_that_cannot_be_matched_are_refused(tmp_path):
    ranked, skus = sample(3)
    with pytest.raises(DataError, match="expected the column sku_id, got title"):
        write_list(ranked, tmp_path / "list.csv", skus=skus[["title"]])
    two = pd.concat([skus, skus.assign(title="another")])
    with pytest.raises(DataError, match="3 came with different rows"):
        write_list(ranked, tmp_path / "list.csv", skus=two)
    with pytest.raises(DataError, match="expected numbers in price"):
        write_list(ranked, tmp_path / "list.csv", skus=skus.assign(price="cheap"))


def test_a_summary_of_the_wrong_shape_is_refused(tmp_path):
    for bad in ({"rules": {"name": "x"}}, {"rules": ["x"]}, {"model": [1]}):
        with pytest.raises(DataError, match="summary: expected"):
            write_list(sample(3)[0], tmp_path / "list.html", summary=bad)


def test_a_place_that_cannot_be_written_is_said_in_one_line_and_the_old_file_stays(tmp_path):
    (tmp_path / "list.csv").mkdir()
    (tmp_path / "list.csv" / "kept").touch()
    with pytest.raises(HitfinderError, match="can't be written") as caught:
        write_list(sample(3)[0], tmp_path / "list.csv")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["list.csv", "kept"]


# --- for machines: parquet, csv


def test_parquet_keeps_every_column_type_and_value(tmp_path):
    ranked, skus = sample(40)
    out = write_list(ranked.assign(extra=1.5), tmp_path / "list.parquet", skus=skus)
    table = pq.read_table(out)
    assert table.column_names == [*COLUMNS, "extra", "title", "category", "price", "image_url"]
    assert str(table.schema.field("as_of").type) == "timestamp[us]"
    back = table.to_pandas()
    assert_frame_equal(back[COLUMNS], ranked)
    beside = ranked[["sku_id"]].merge(skus, on="sku_id")
    assert_frame_equal(back[["title", "category", "price"]], beside[["title", "category", "price"]])


def test_csv_reads_back_with_all_columns_and_plain_numbers(tmp_path):
    ranked, skus = sample(40, "zh")
    out = write_list(ranked, tmp_path / "list.csv", skus=skus, language="zh")
    assert out.read_bytes().startswith(b"\xef\xbb\xbfrank,sku_id,batch_id,hit_probability,")
    back = pd.read_csv(out, dtype={"sku_id": "str"}, parse_dates=["as_of"], encoding="utf-8-sig")
    assert_frame_equal(back[COLUMNS], ranked, check_dtype=False)
    assert {LONG_ID, ZERO_ID} <= set(back["sku_id"])
    assert back["title"].str.contains(r"[\u4e00-\u9fff]").all()


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", " =", "＝", "＋"])
def test_no_text_in_a_csv_file_can_run_as_a_formula(tmp_path, start):
    ranked, skus = sample(2)
    bad = f'{start}HYPERLINK("http://x","y")'
    ranked["sku_id"] = skus["sku_id"] = [bad, "fine"]
    ranked["reason_1"] = bad
    ranked["batch_id"] = bad
    out = write_list(ranked, tmp_path / "list.csv", skus=skus.assign(title=bad))
    back = csv_rows(out)
    for name in ("sku_id", "batch_id", "reason_1", "title"):
        assert back[0][name] == f"'{bad}"
    assert back[1]["sku_id"] == "fine"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=6))
def test_any_title_survives_csv_but_for_the_apostrophe(tmp_path_factory, titles):
    ranked, skus = sample(len(titles))
    skus = ranked[["sku_id"]].assign(title=titles)
    out = write_list(ranked, tmp_path_factory.mktemp("csv") / "list.csv", skus=skus)
    back = csv_rows(out)
    for title, got in zip(titles, (row["title"] for row in back), strict=True):
        assert got in (title, f"'{title}")
        assert got.lstrip()[:1] not in {*"=+-@＝＋－＠"}


def test_timestamps_with_a_zone_become_utc(tmp_path):
    ranked = sample(3)[0]
    ranked["as_of"] = pd.Timestamp("2025-06-02 14:00", tz="Asia/Shanghai")
    out = write_list(ranked, tmp_path / "list.csv")
    assert set(pd.read_csv(out)["as_of"]) == {"2025-06-02 06:00:00"}


# --- the workbook


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_workbook_holds_ids_as_text_and_the_rest_as_numbers_and_times(tmp_path, language):
    ranked, skus = sample(60, language)
    out = write_list(ranked, tmp_path / "list.xlsx", skus=skus, language=language, summary={"metric": "revenue"})
    words = load_words(language)
    sheet = openpyxl.load_workbook(out).worksheets[0]
    place = {c.value: c.column for c in sheet[1]}
    cell = {h: sheet.cell(2, place[words[h]]) for h in ("sku_id", "hit_probability", "as_of", "expected_revenue")}
    assert (cell["sku_id"].value, cell["sku_id"].data_type) == (LONG_ID, "s")
    assert sheet.cell(3, place[words["sku_id"]]).value == ZERO_ID
    assert cell["hit_probability"].value == pytest.approx(ranked["hit_probability"][0])
    assert cell["hit_probability"].number_format == "0.0%"
    assert cell["as_of"].value == AS_OF.to_pydatetime()
    assert cell["expected_revenue"].value == pytest.approx(ranked["expected_value"][0])
    assert {c.value for c in sheet[2]} >= {words["action_scale"], skus.set_index("sku_id").loc[LONG_ID, "title"]}
    assert sheet.freeze_panes == "D2"
    assert sheet.auto_filter.ref == f"A1:Q{len(ranked) + 1}"
    assert sheet.cell(2, place[words["image_url"]]).hyperlink.target.startswith("https://img.example.com/")
    rules = {r.formula[0] for area in sheet.conditional_formatting for r in area.rules if r.type == "cellIs"}
    assert rules == {f'"{words[f"action_{a}"]}"' for a in ("scale", "test", "stop")}


def test_the_second_sheet_explains_every_column_and_shows_the_summary(tmp_path):
    ranked, skus = sample(60)
    out = write_list(ranked, tmp_path / "list.xlsx", skus=skus, summary=summary())
    rows = sheet_rows(out, 1)
    fields = {row[1]: row[2] for row in rows}
    assert {*COLUMNS, "title", "category", "price", "image_url"} <= set(fields)
    assert all(fields[c] for c in COLUMNS)
    flat = [str(v) for row in rows for v in row if v is not None]
    assert {
        "2025-06-02 06:00 UTC",
        "v12",
        "5,000",
        "0.49",
        "58%",
        "orders a day",
        "hitfinder model (used here)",
    } <= set(flat)
    assert "A short week: the holiday on Thursday." in flat


def test_no_text_in_the_workbook_becomes_a_formula_or_a_link(tmp_path):
    ranked, skus = sample(3)
    out = write_list(
        ranked.assign(reason_1="=1+1", batch_id="http://example.com"),
        tmp_path / "list.xlsx",
        skus=skus.assign(title="=cmd|'/c calc'!A1", image_url="javascript:alert(1)"),
        summary={"note": "=1+1"},
    )
    for sheet in openpyxl.load_workbook(out).worksheets:
        for row in sheet.iter_rows():
            for cell in row:
                assert cell.data_type != "f"
                assert cell.hyperlink is None
    assert "=cmd|'/c calc'!A1" in sheet_rows(out)[1]


def test_a_text_too_long_for_a_cell_is_visibly_cut(tmp_path):
    ranked, skus = sample(1)
    out = write_list(ranked, tmp_path / "list.xlsx", skus=skus.assign(title="x" * 40_000))
    (title,) = (v for v in sheet_rows(out)[1] if isinstance(v, str) and v.startswith("xx"))
    assert len(title) == 32_767
    assert title.endswith("x…")


def test_the_workbook_says_it_was_made_as_of_the_list(tmp_path):
    out = write_list(sample(3)[0], tmp_path / "list.xlsx")
    assert openpyxl.load_workbook(out).properties.created == AS_OF.to_pydatetime().replace(tzinfo=None)
    empty = write_list(sample(3)[0].head(0), tmp_path / "empty.xlsx")
    assert openpyxl.load_workbook(empty).properties.created == pd.Timestamp("2000-01-01")


def test_null_reasons_and_values_are_empty_cells(tmp_path):
    ranked = sample(2)[0].assign(expected_value=np.nan, reason_1=None, batch_id=None)
    rows = sheet_rows(write_list(ranked, tmp_path / "list.xlsx"))
    for heading in ("Expected value", "Reason 1", "Batch"):
        assert [row[rows[0].index(heading)] for row in rows[1:]] == [None, None]


# --- the page


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_shows_what_the_list_says(tmp_path, language):
    ranked, skus = sample(200, language)
    out = write_list(ranked, tmp_path / "list.html", skus=skus, language=language, summary=summary(language))
    words, got = load_words(language), page(out)
    titles = skus.set_index("sku_id")["title"]
    assert len(got.rows) == 200
    for want, row in zip(ranked.to_dict("records"), got.rows, strict=True):
        assert row[0] == str(want["rank"])
        assert titles[want["sku_id"]] in row[1]
        assert want["sku_id"] in row[1]
        assert row[2] == words[f"action_{want['action']}"]
        assert row[3].startswith(percent(want["hit_probability"]))
        assert percent(want["hit_probability_low"]) in row[3]
        assert percent(want["hit_probability_high"]) in row[3]
        assert row[4] == (f"{want['expected_value']:,.0f}" if pd.notna(want["expected_value"]) else words["none"])
        for k in (1, 2, 3):
            assert pd.isna(want[f"reason_{k}"]) or want[f"reason_{k}"] in row[5]
    text = out.read_text(encoding="utf-8")
    counts = re.findall(r'<p class="count">([\d,]+)</p>', text)
    assert counts == [str((ranked["action"] == a).sum()) for a in ("scale", "test", "stop")]
    assert "2025-06-02 06:00 UTC" in text
    assert ("html", {"lang": words["lang"]}) in got.tags
    assert words["expected_revenue"] in text


def test_the_bar_stands_where_the_numbers_say(tmp_path):
    ranked = sample(2)[0].assign(
        hit_probability=[0.30, 0.0], hit_probability_low=[0.10, 0.0], hit_probability_high=[0.50, 0.02]
    )
    got = page(write_list(ranked, tmp_path / "list.html"))
    band = [a for tag, a in got.tags if a.get("class") == "band"]
    mark = [a for tag, a in got.tags if a.get("class") == "mark"]
    # All bars end at 50%, the first round number that holds every range.
    assert [(float(b["x"]), float(b["width"])) for b in band] == [(20.0, 80.0), (0.0, 4.0)]
    assert [float(m["x"]) + 0.75 for m in mark] == pytest.approx([60.0, 0.75], abs=0.06)


def test_whatever_a_title_holds_is_shown_as_text(tmp_path):
    ranked, skus = sample(3)
    ranked = ranked.assign(reason_1=EVIL, model_version=EVIL, batch_id=EVIL)
    out = write_list(
        ranked,
        tmp_path / "list.html",
        skus=skus.assign(title=EVIL, category=EVIL),
        summary={"note": EVIL, EVIL: EVIL, "ranked_by": EVIL, "rules": [{"name": EVIL, EVIL: EVIL}]},
    )
    got = page(out)
    assert sum(tag == "script" for tag, _ in got.tags) == 1
    assert not any(tag == "img" for tag, _ in got.tags)
    assert all(EVIL in row[1] and EVIL in row[5] for row in got.rows)


def test_the_page_refers_to_nothing_outside_itself(tmp_path):
    ranked, skus = sample(20)
    out = write_list(ranked, tmp_path / "list.html", skus=skus, summary=summary())
    for tag, attributes in page(out).tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form", "a"}
        assert not {"src", "href", "srcset", "action", "style"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    text = out.read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?:|\bfetch\b|XMLHttpRequest", text)
    assert "default-src &#39;none&#39;" in text


def test_the_table_is_marked_up_for_screen_readers(tmp_path):
    got = page(write_list(sample(5)[0], tmp_path / "list.html", summary=summary()))
    heads = [a for tag, a in got.tags if tag == "th"]
    assert all(a.get("scope") in ("col", "row") for a in heads)
    assert sum(tag == "caption" for tag, _ in got.tags) == 1
    assert all(a.get("aria-hidden") == "true" for tag, a in got.tags if tag == "svg")
    groups = [a for _, a in got.tags if a.get("role") == "group"]
    assert groups
    assert all(a["aria-label"] for a in groups)


def test_a_page_says_so_when_a_simple_rule_did_better_than_what_was_used(tmp_path):
    said = summary()
    fine = write_list(sample(5)[0], tmp_path / "fine.html", summary=said).read_text(encoding="utf-8")
    said["model"] = {"average_precision": 0.2, "hits_at_k": 0.2}
    worse = write_list(sample(5)[0], tmp_path / "worse.html", summary=said).read_text(encoding="utf-8")
    said["ranked_by"] = "orders a day"
    rule = write_list(sample(5)[0], tmp_path / "rule.html", summary=said).read_text(encoding="utf-8")
    warning = load_words("en")["worse_than_rule"].format(rule="orders a day")
    assert [warning in text for text in (fine, worse, rule)] == [False, True, False]
    assert re.search(r'class="used"><th scope="row">orders a day', rule)
    assert re.search(r'class="used"><th scope="row">hitfinder model', fine)


def test_unmeasured_numbers_are_dashes_and_never_zeros(tmp_path):
    ranked = sample(2)[0].assign(
        hit_probability=np.nan, hit_probability_low=np.nan, hit_probability_high=np.nan, expected_value=np.nan,
        reason_1=None, reason_2=None, reason_3=None,
    )  # fmt: skip
    for row in page(write_list(ranked, tmp_path / "list.html")).rows:
        assert [t.strip() for t in row[3:]] == ["–", "–", "–"]


@given(st.floats(0, 1))
def test_per_cents_are_right_and_never_pretend_certainty(share):
    text = percent(share)
    shown = float(text.strip("<>%")) / 100
    if text[0] == "<":
        assert 0 < share < shown
    elif text[0] == ">":
        assert shown < share < 1
    else:
        assert abs(shown - share) <= (0.0005001 if share < 0.0995 else 0.005001)
        assert (shown in (0, 1)) <= (share == shown)


# --- what is promised

STOP = StopPromise(threshold=0.03, max_hits_lost=0.1, confidence=0.9, n_batches=24, needed=9)
NO_STOP = StopPromise(threshold=None, max_hits_lost=0.1, confidence=0.9, n_batches=6, needed=9)
SCALE = ScalePromise(
    threshold=0.4, max_false_scaled=0.5, confidence=0.9, n_batches=24, needed=4, n_scaled=31, n_batches_scaling=20
)
NO_SCALE = ScalePromise(
    threshold=None, max_false_scaled=0.5, confidence=0.9, n_batches=24, needed=4, n_scaled=0, n_batches_scaling=0
)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("stop", "scale"), [(STOP, SCALE), (NO_STOP, NO_SCALE)], ids=["promised", "nothing promised"])
def test_the_list_says_beside_its_actions_what_is_promised_or_that_nothing_is(tmp_path, language, stop, scale):
    said = summary(language) | {"promises": {"stop": stop, "scale": scale}}
    words = load_words(language)
    paths = [
        write_list(sample(9, language)[0], tmp_path / f"list{suffix}", language=language, summary=said)
        for suffix in (".html", ".xlsx")
    ]
    text = html.unescape(paths[0].read_text(encoding="utf-8"))
    part = text[text.index('<section class="promises">') :].partition("</section>")[0]
    assert words["promises"] in part
    rows = sheet_rows(paths[1], 1)
    start, end = ([row[0] for row in rows].index(words[heading]) for heading in ("actions", "quality"))
    for action, promise in (("scale", scale), ("stop", stop)):
        assert f"{words[f'action_{action}']}</span></dt><dd>{promise.sentence(language)}</dd>" in part
        assert [words[f"action_{action}"], promise.sentence(language)] in [row[:2] for row in rows[start:end]]


def test_a_list_of_which_nothing_is_known_says_nothing_of_promises(tmp_path):
    text = write_list(sample(3)[0], tmp_path / "list.html", summary=summary()).read_text(encoding="utf-8")
    assert '<section class="promises">' not in text
    assert load_words("en")["promises"] not in text


@pytest.mark.parametrize("promises", [["stop"], {"stop": "None are lost."}, {"plan_stop": STOP}])
def test_promises_of_the_wrong_shape_are_refused(tmp_path, promises):
    with pytest.raises(DataError, match="summary: expected promises"):
        write_list(sample(3)[0], tmp_path / "list.html", summary={"promises": promises})


def test_the_summary_of_a_model_holds_its_promises_and_each_form_of_the_list_takes_it(tmp_path):
    _, model = fitted()
    said = summary_of(model)
    assert said["promises"] == {action: model.promises[action] for action in ("scale", "stop")}
    for suffix in SUFFIXES:
        write_list(sample(3)[0], tmp_path / f"list{suffix}", summary=said)
    text = html.unescape((tmp_path / "list.html").read_text(encoding="utf-8"))
    assert all(promise.sentence() in text for promise in said["promises"].values())


# --- the words


def words_of_both() -> dict[str, dict[str, str]]:
    return tomllib.loads(resources.files("hitfinder.report").joinpath("words.toml").read_text(encoding="utf-8"))


def test_both_languages_have_every_word_with_the_same_places():
    words = words_of_both()
    assert set(words) == {"en", "zh"}
    assert list(words["en"]) == list(words["zh"])

    def places(text: str) -> set[str | None]:
        return {name for _, name, _, _ in string.Formatter().parse(text)} - {None}

    for key, text in words["en"].items():
        assert text
        assert words["zh"][key]
        assert places(text) == places(words["zh"][key]), key


def test_chinese_texts_are_chinese_and_english_ones_are_not():
    words = words_of_both()
    signs = {"lang", "none", "range", "list_sep"}
    for key, text in words["zh"].items():
        assert key in signs or re.search(r"[\u4e00-\u9fff]", text) or text == "SKU", key
        assert not re.search(r"[\u4e00-\u9fff]", words["en"][key]), key


def test_no_word_is_left_that_nothing_says():
    package = resources.files("hitfinder.report")
    code = "".join(p.read_text(encoding="utf-8") for p in package.iterdir() if p.name.endswith((".py", ".j2")))
    built = re.compile(
        r"action_\w+|expected_\w+|metric\w*|verdict_\w+|rule_\w+|\w+_meaning|reason_\d|precision_at_k|rank\w*|batch_id|model_version|n_trained"
    )
    for key in words_of_both()["en"]:
        assert built.fullmatch(key) or re.search(rf"[\"'\.\[]{key}\b", code), key


VERDICT = {"rule": "logistic regression", "ours": 0.725, "theirs": 0.59, "ranks": True, "mean": 0.135, "low": 0.077,
           "high": 0.194}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "english", "chinese"),
    [
        ({}, "better than the best simple rule (logistic regression): average precision 0.725 against 0.590, a lead of "
         "0.135 (0.077 to 0.194).", "优于最好的简单规则（逻辑回归）"),
        ({"low": -0.01}, "about as good as the best simple rule", "大致相当"),
        ({"low": -0.2, "high": -0.1, "mean": -0.15, "ranks": False}, "So that rule ranks this list.", "按该规则排序"),
    ],
)  # fmt: skip
def test_the_headline_is_worded_by_language_from_the_figures(tmp_path, changes, english, chinese):
    for language, said in (("en", english), ("zh", chinese)):
        ranked, skus = sample(5, language)
        told = {**summary(language), "note": "the model (prior) beats", "verdict": {**VERDICT, **changes}}
        path = write_list(ranked, tmp_path / "list.html", skus=skus, language=language, summary=told)
        page = path.read_text(encoding="utf-8")
        assert said in page
        assert "the model (prior)" not in page


def test_names_of_rules_are_said_in_the_language(tmp_path):
    ranked, skus = sample(5, "zh")
    told = {**summary("zh"), "rules": [{"name": "rule of thumb", "average_precision": 0.9}], "ranked_by": "hitfinder"}
    page = write_list(ranked, tmp_path / "list.html", skus=skus, language="zh", summary=told).read_text("utf-8")
    assert "经验法则" in page
    assert "rule of thumb" not in page


def test_where_people_stopped_skus_the_promise_is_said_to_be_about_the_model_s_stops(tmp_path):
    ranked, skus = sample(5)
    promise = StopPromise(threshold=0.03, max_hits_lost=0.1, confidence=0.9, n_batches=24, needed=9)
    for by_people in (0, 2):
        told = {"promises": {"stop": promise}, "stopped_by_people": by_people}
        page = write_list(ranked, tmp_path / "list.html", skus=skus, summary=told).read_text("utf-8")
        assert ("not about those that people decided" in page) == bool(by_people)
        assert "stopped_by_people" not in page


# --- tier and diagnosis beside the list


def diagnosed(language: str = "en") -> tuple[pd.DataFrame, pd.DataFrame]:
    """A list with every tier and every step beside it, and the SKU table."""
    ranked, skus = sample(60, language)
    steps = ("click", "cart", "order", "return", "nothing", "too_little")
    found = pd.DataFrame({
        "sku_id": ranked["sku_id"],
        "tier": [("hot", "trending", "potential", "tail")[k % 4] for k in range(60)],
        "weak_step": [steps[k % 6] for k in range(60)],
    })  # fmt: skip
    return with_diagnosis(ranked, found.sample(frac=1, random_state=0), language), skus


@pytest.mark.parametrize("language", ["en", "zh"])
def test_page_and_workbook_say_each_skus_tier_and_what_is_weak(tmp_path, language):
    table, skus = diagnosed(language)
    words, said = load_words(language), diagnosis_words(language)
    got = page(write_list(table, tmp_path / "list.html", skus=skus, language=language)).rows
    assert [row[-1] for row in got] == [
        said[f"tier_{tier}"] + text for tier, text in zip(table["tier"], table["diagnosis"], strict=True)
    ]
    heads, *rows = sheet_rows(write_list(table, tmp_path / "list.xlsx", skus=skus, language=language))
    tier, diagnosis = heads.index(words["tier"]), heads.index(words["diagnosis"])
    assert [row[tier] for row in rows] == [said[f"tier_{tier}"] for tier in table["tier"]]
    assert [row[diagnosis] for row in rows] == table["diagnosis"].tolist()
    about = sheet_rows(tmp_path / "list.xlsx", 1)
    assert any(words["tier_meaning"] in row for row in about)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_column_of_ours_is_explained_in_the_workbook(tmp_path, language):
    table, skus = diagnosed(language)
    table = table.assign(expected_value_low=1.0, expected_value_high=9.0)
    path = write_list(table, tmp_path / "list.xlsx", skus=skus, language=language)
    words, heads = load_words(language), sheet_rows(path)[0]
    told = {row[1]: row[2] for row in sheet_rows(path, 1)}
    named = [*COLUMNS, "expected_value_low", "expected_value_high", "tier", "diagnosis", "title"]
    assert {name: told[name] for name in named} == {name: words[f"{name}_meaning"] for name in named}
    assert len(heads) >= len(named)


def test_a_list_without_a_diagnosis_says_nothing_of_one(tmp_path):
    ranked, _ = sample(20)
    text = write_list(ranked, tmp_path / "list.html").read_text(encoding="utf-8")
    assert '<td class="mend">' not in text
    assert load_words("en")["diagnosis_meaning"] not in text


def test_a_sku_that_was_not_diagnosed_stays_in_its_place(tmp_path):
    ranked, _ = sample(3)
    found = pd.DataFrame({"sku_id": [ranked["sku_id"].iloc[1]], "tier": ["hot"], "weak_step": ["order"]})
    table = with_diagnosis(ranked, found)
    assert table["sku_id"].tolist() == ranked["sku_id"].tolist()
    got = page(write_list(table, tmp_path / "list.html")).rows
    assert [row[-1] for row in got] == [
        "–", "HotWeak step: orders; what stands between click and order first.", "–"
    ]  # fmt: skip


# --- in a real browser and a real spreadsheet program

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH to open the page in")
OFFICE = shutil.which("soffice") or shutil.which("libreoffice")

# Stands in for a reader: clicks, types, and writes down what the page shows.
READER = """
<script>
const seen = {};
const visible = () => [...document.querySelectorAll("#list tbody tr")].filter((r) => !r.hidden);
const ids = () => visible().map((r) => r.querySelector(".id").textContent);
const column = (name) => document.querySelector(`#list th[data-sort=${name}]`);
const look = (name) => { seen[name] = { ids: ids(), shown: document.getElementById("shown").textContent }; };
const box = document.getElementById("search");
const type = (text) => { box.value = text; box.dispatchEvent(new Event("input")); };
const pick = (action) => document.querySelector(`#tools [data-action="${action}"]`).click();
look("start");
pick("scale"); look("scale");
seen.pressed = [...document.querySelectorAll("#tools [aria-pressed=true]")].map((b) => b.dataset.action);
pick(""); type("%SEARCH%"); look("search");
type("nothing like this"); look("none");
seen.hidden = [document.getElementById("list").hidden, document.getElementById("nothing").hidden];
type("");
column("value").firstChild.click(); look("value");
seen.sorted = column("value").getAttribute("aria-sort");
column("value").firstChild.click(); look("value_up");
const select = document.getElementById("sort");
select.value = "name"; select.dispatchEvent(new Event("change")); look("name");
select.value = "rank"; select.dispatchEvent(new Event("change")); look("rank");
seen.tools = document.getElementById("tools").hidden;
seen.wide = document.documentElement.scrollWidth > window.innerWidth;
document.documentElement.dataset.seen = JSON.stringify(seen);
</script>
"""


def browse(path: Path, tmp_path: Path, *more: str, act: str = "--dump-dom") -> str:
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", *more, act,
        "--virtual-time-budget=5000", path.resolve().as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, timeout=180).stdout.decode()


@needs_browser
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_browser_runs_the_page_under_its_own_policy(tmp_path, language):
    ranked, skus = sample(200, language)
    skus["title"] = skus["title"].where(skus["sku_id"] != LONG_ID, EVIL)
    out = write_list(ranked, tmp_path / "list.html", skus=skus, language=language, summary=summary(language))
    got = Page(browse(out, tmp_path))
    (html,) = (a for tag, a in got.tags if tag == "html")
    assert html["data-ready"] == "true"
    assert [row[0] for row in got.rows] == [str(k) for k in range(1, 201)]
    assert EVIL in got.rows[0][1]
    assert not any(tag == "img" for tag, _ in got.tags)
    for _, attributes in got.tags:
        assert not any(urlsplit(v or "").scheme in ("http", "https") for v in attributes.values())


@needs_browser
def test_a_browser_prints_the_headings_on_every_sheet(tmp_path):
    reader = shutil.which("pdftotext")
    if reader is None:
        pytest.skip("no pdftotext on PATH to read the printed sheets with")
    out = write_list(sample(60)[0], tmp_path / "list.html")
    browse(out, tmp_path, "--no-pdf-header-footer", act=f"--print-to-pdf={tmp_path / 'list.pdf'}")
    text = subprocess.run([reader, "-layout", str(tmp_path / "list.pdf"), "-"], check=True, capture_output=True).stdout
    sheets = [s for s in text.decode().split("\f") if "SKU-0" in s]
    assert len(sheets) > 2
    for sheet in sheets:
        assert re.search(r"Rank +SKU +Action +Hit probability +Expected value +Why", sheet)


@needs_browser
@pytest.mark.parametrize("width", [1280, 1030, 900, 500])
def test_a_reader_can_filter_search_and_sort(tmp_path, width):
    ranked, skus = sample(60)
    ranked.loc[5, "expected_value"] = np.nan
    out = write_list(ranked, tmp_path / "list.html", skus=skus, summary=summary())
    text = out.read_text(encoding="utf-8")
    # The policy would rightly keep the reader's script out.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", text)
    out.write_text(text.replace("</body>", READER.replace("%SEARCH%", "dress SAGE") + "</body>"), encoding="utf-8")
    got = Page(browse(out, tmp_path, f"--window-size={width},900"))
    seen = json.loads(next(a for tag, a in got.tags if tag == "html")["data-seen"])

    ids = list(ranked["sku_id"])
    assert seen["start"] == {"ids": ids, "shown": "60 of 60 SKUs"}
    assert seen["scale"]["ids"] == list(ranked.loc[ranked["action"] == "scale", "sku_id"])
    assert 0 < len(seen["scale"]["ids"]) < 60
    assert seen["pressed"] == ["scale"]
    titles = ranked.merge(skus, on="sku_id").set_index("sku_id")["title"].str.lower()
    assert seen["search"]["ids"] == list(titles.index[titles.str.contains("dress") & titles.str.contains("sage")])
    assert len(seen["search"]["ids"]) > 0
    assert seen["none"] == {"ids": [], "shown": "0 of 60 SKUs"}
    assert seen["hidden"] == [True, False]
    by_value = ranked.sort_values("expected_value", ascending=False, kind="stable", na_position="last")
    assert seen["value"]["ids"] == list(by_value["sku_id"])
    assert seen["sorted"] == "descending"
    up = ranked.sort_values("expected_value", kind="stable", na_position="last")
    assert seen["value_up"]["ids"] == list(up["sku_id"])
    assert [titles[i] for i in seen["name"]["ids"]] == sorted(titles, key=lambda t: t.replace("-", " "))
    assert seen["rank"]["ids"] == ids
    assert seen["tools"] is False
    assert seen["wide"] is False


@pytest.mark.skipif(OFFICE is None, reason="no LibreOffice on PATH to open the workbook with")
def test_libreoffice_opens_the_workbook_and_shows_ids_per_cents_and_actions(tmp_path):
    ranked, skus = sample(30, "zh")
    out = write_list(ranked, tmp_path / "list.xlsx", skus=skus, language="zh", summary=summary("zh"))
    subprocess.run(
        [OFFICE, f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}", "--headless", "--convert-to",
         "csv:Text - txt - csv (StarCalc):44,34,76,1", "--outdir", str(tmp_path), str(out)],
        check=True, capture_output=True, timeout=180,
    )  # fmt: skip
    shown = pd.read_csv(tmp_path / "list.csv", dtype="str")
    assert list(shown["SKU 编号"]) == list(ranked["sku_id"])
    assert list(shown["爆款概率"]) == [f"{p:.1%}" for p in ranked["hit_probability"]]
    assert set(shown["建议动作"]) <= {"放量", "继续测款", "停测"}
    assert set(shown["数据截至（UTC）"]) == {"2025-06-02 06:00"}
