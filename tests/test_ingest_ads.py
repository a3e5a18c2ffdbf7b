from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hitfinder.errors import DataError
from hitfinder.ingest import ingest
from hitfinder.settings import Settings


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def read(folder: Path, table: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{table}.parquet")


TAOBAO = (
    "万相台 商品报表\n账户：某某旗舰店\n\n"
    "日期,商品ID,商品名称,展现量,点击量,点击率,收藏宝贝数,总购物车数,总成交笔数,总成交金额(元),花费（元）\n"
    '2025年1月6日,="612345678901",连衣裙,"1,234",56,4.54%,7,8,2,"￥1,234.50",99.9\n'
    '20250107,\t612345678901,连衣裙,1000,50,5%,--,8,-,0,"1,000"\n'
    "2025/1/6,6.12E+11,连衣裙,1000,50,5%,1,8,1,0,10\n"
    '合计,,,"3,234",156,4.8%,8,24,3,"1,234.50",1109.9\n'
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_chinese_report_is_read_in_any_encoding_with_preamble_and_total(tmp_path, encoding, delimiter):
    text = TAOBAO
    if delimiter == "\t":
        text = text.replace("\t", "").replace('"1,234"', "1234").replace('"1,000"', "1000").replace('"3,234"', "3234")
        text = text.replace('"￥1,234.50"', "￥1234.50").replace('"1,234.50"', "1234.50").replace(",", "\t")
    report = write(tmp_path / "report.csv", text, encoding)
    done = ingest(report, into=tmp_path / "out", settings=Settings(), channel="taobao")
    rows = read(tmp_path / "out", "signals")
    assert done.formats == ("ads",)
    assert list(rows.sku_id) == ["612345678901"] * 2
    assert list(rows.period_start) == [pd.Timestamp("2025-01-06"), pd.Timestamp("2025-01-07")]
    assert list(rows.known_at) == [pd.Timestamp("2025-01-07"), pd.Timestamp("2025-01-08")]
    assert list(rows.impressions) == [1234, 1000]
    assert [float(v) for v in rows.revenue] == [1234.5, 0]
    assert [float(v) for v in rows.spend] == [99.9, 1000]
    assert rows.favorites.isna().tolist() == [False, True]
    assert rows.orders.isna().tolist() == [False, True]
    assert list(rows.channel) == ["taobao"] * 2
    assert done.rejects == {"sku_id_mangled": 1, "summary_row": 1}
    assert done.admissions[0].ignored_columns == ("商品名称", "点击率")


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("日期,商品ID,曝光次数,点击次数,消耗(元)", "2025-01-06,7,100,10,5"),
        ("日期,SKU ID,展现数,点击数,花费", "20250106,7,100,10,5"),
        ("日期,商品id,曝光量,点击量,花费(元)", "2025/1/6,7,100,10,5"),
        ("Day,Product Item ID,Impr.,Clicks,Cost", "2025-01-06,7,100,10,5"),
        ("Day,Product ID,Impressions,Link clicks,Amount spent (USD)", "2025-01-06,7,100,10,5"),
        ("By Day,Product ID,Impressions,Clicks (Destination),Cost", "2025-01-06,7,100,10,5"),
        ("DATE;Product_ID;IMPRESSIONS;CLICKS;SPEND", "2025-01-06;7;100;10;5"),
    ],
)
def test_the_names_of_each_platform_are_known(tmp_path, header, row):
    done = ingest(write(tmp_path / "r.csv", f"{header}\n{row}\n"), into=tmp_path / "out", settings=Settings())
    got = read(tmp_path / "out", "signals").iloc[0]
    assert (got.sku_id, got.period_start, got.impressions, got.clicks) == ("7", pd.Timestamp("2025-01-06"), 100, 10)
    assert float(got.spend) == 5
    assert done.rejects == {}


def test_a_mapping_file_adds_names_and_its_names_win(tmp_path):
    mapping = write(tmp_path / "m.toml", '[headers]\nsku_id = ["Artikel"]\nperiod_start = ["Tag"]\nclicks = ["Cost"]\n')
    report = write(tmp_path / "r.csv", "Tag,Artikel,Cost\n2025-01-06,7,3\n")
    ingest(report, into=tmp_path / "out", settings=Settings(), mapping=mapping)
    got = read(tmp_path / "out", "signals").iloc[0]
    assert got.clicks == 3
    assert pd.isna(got.spend)


def test_a_mapping_file_with_an_unknown_column_is_refused(tmp_path):
    mapping = write(tmp_path / "m.toml", '[headers]\nclickz = ["Cost"]\n')
    report = write(tmp_path / "r.csv", "Date,Product ID,Cost\n2025-01-06,7,3\n")
    with pytest.raises(DataError, match="clickz"):
        ingest(report, into=tmp_path / "out", settings=Settings(), mapping=mapping)


def test_bad_rows_of_a_report_are_set_aside_by_rule_and_buyers_are_dropped(tmp_path):
    report = write(
        tmp_path / "r.csv",
        "Date,Product ID,买家昵称,Impressions,Clicks\n2025-01-06,7,buyer-a,100,10\n2025-01-06,8,buyer-a,10,100\n"
        "2025-01-06,9,buyer-a,many,1\n2025-01-06,10,buyer-a,-5,1\nsome day,10,buyer-a,5,1\n2025-01-06,7,buyer-b,90,9\n"
        "2025-01-06,11,buyer-a,1.5,1\n2025-01-06,12,buyer-a\n",
    )
    done = ingest(report, into=tmp_path / "out", settings=Settings())
    assert done.rejects == {
        "clicks_above_impressions": 1,
        "duplicate_key": 1,
        "impressions_negative": 1,
        "impressions_unreadable": 2,
        "period_start_unreadable": 1,
        "torn_line": 1,
    }
    assert done.admissions[0].rows == 8
    assert done.dropped_columns == ("买家昵称",)
    assert "buyer-" not in read(tmp_path / "out", "rejects").to_csv()


def test_a_report_without_a_header_line_says_what_is_missing(tmp_path):
    report = write(tmp_path / "r.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match="names a date, a product id and a count"):
        ingest(report, format="ads", into=tmp_path / "out", settings=Settings())


def test_a_mapping_may_not_rename_what_is_no_column_of_signals(tmp_path):
    from hitfinder.ingest.mappings import shipped
    from hitfinder.tables import SIGNALS

    assert set(shipped("ad_reports")["headers"]) == set(SIGNALS.column_names)
    names = [name for names in shipped("ad_reports")["headers"].values() for name in names]
    assert len(names) == len(set(names)), "a name that stands for two columns is read by chance"
