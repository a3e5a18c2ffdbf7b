from __future__ import annotations

import csv
import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hitfinder.errors import DataError
from hitfinder.ingest import ingest
from hitfinder.settings import Settings, parse_settings

REES46 = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
HOURLY = parse_settings({"signals": {"period": "1h"}})


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, table: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{table}.parquet")


def rees46(path: Path, *lines: str) -> Path:
    return write(path, REES46 + "".join(line + "\n" for line in lines))


def test_events_are_counted_by_sku_and_period_and_persons_once(tmp_path):
    log = rees46(
        tmp_path / "log.csv",
        "2019-10-01 00:00:00 UTC,view,7,1,a.b,acme,10.50,person-1,s1",
        "2019-10-01 01:00:00 UTC,view,7,1,a.b,acme,10.50,person-1,s1",
        "2019-10-01 02:00:00 UTC,cart,7,1,a.b,acme,10.50,person-2,s2",
        "2019-10-01 02:01:00 UTC,purchase,7,1,a.b,acme,10.50,person-2,s2",
        "2019-10-01 02:02:00 UTC,purchase,7,1,a.b,acme,9.50,person-2,s2",
        "2019-10-02 00:00:00 UTC,remove_from_cart,7,1,a.b,acme,9.50,person-3,s3",
        "2019-10-02 00:00:00 UTC,view,8,1,,,3,person-3,s3",
    )
    done = ingest(log, into=tmp_path / "out", settings=Settings())
    rows = read(tmp_path / "out", "signals").set_index("sku_id")
    seven = rows.loc["7"]
    assert (seven.clicks, seven.visitors, seven.carts, seven.orders, seven.units) == (2, 2, 1, 1, 2)
    assert float(seven.revenue) == 20.0
    assert pd.isna(seven.impressions)
    assert pd.isna(seven.favorites)
    assert pd.isna(seven.refunds)
    assert seven.known_at == pd.Timestamp("2019-10-02")
    assert rows.loc["8"].orders == 0
    skus = read(tmp_path / "out", "skus").set_index("sku_id")
    assert (skus.loc["7"].brand, skus.loc["7"].category, float(skus.loc["7"].price)) == ("acme", "a.b", 10.5)
    assert done.left_out == {"events remove_from_cart": 1}
    assert done.persons == 3
    assert "persons: 3 counted, none kept" in str(done)


def test_hourly_periods_follow_the_settings(tmp_path):
    log = rees46(tmp_path / "log.csv", *(f"2019-10-01 0{h}:30:00 UTC,view,7,1,,,1,u,s" for h in range(3)))
    ingest(log, into=tmp_path / "out", settings=HOURLY)
    assert list(read(tmp_path / "out", "signals").period_start) == list(
        pd.date_range("2019-10-01", periods=3, freq="h")
    )


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("never,view,7,1,,,1,U,S", "event_time_unreadable"),
        (",view,7,1,,,1,U,S", "event_time_missing"),
        ("1970-01-01 00:00:00 UTC,view,7,1,,,1,U,S", "event_time_before_2000"),
        ("2999-01-01 00:00:00 UTC,view,7,1,,,1,U,S", "event_time_in_the_future"),
        ("2019-10-01 00:00:00 UTC,,7,1,,,1,U,S", "event_missing"),
        ("2019-10-01 00:00:00 UTC,dance,7,1,,,1,U,S", "event_unknown"),
        ("2019-10-01 00:00:00 UTC,view,,1,,,1,U,S", "sku_id_missing"),
        (f"2019-10-01 00:00:00 UTC,view,{'7' * 501},1,,,1,U,S", "sku_id_too_long"),
        (f"2019-10-01 00:00:00 UTC,view,7,1,,{'b' * 10_000_000},1,U,S", "brand_too_long"),
        ("2019-10-01 00:00:00 UTC,view,7,1,,,cheap,U,S", "price_unreadable"),
        ("2019-10-01 00:00:00 UTC,view,7,1,,,nan,U,S", "price_unreadable"),
        ("2019-10-01 00:00:00 UTC,view,7,1,,,inf,U,S", "price_unreadable"),
        ("2019-10-01 00:00:00 UTC,purchase,7,1,,,-1,U,S", "price_negative"),
        ("2019-10-01 00:00:00 UTC,purchase,7,1,,,1e18,U,S", "price_above_a_billion"),
        ("2019-10-01 00:00:00 UTC,purchase,7,1,,,,U,S", "price_missing"),
        ("2019-10-01 00:00:00 UTC,view,7,1,,,1,U", "torn_line"),
        ("2019-10-01 00:00:00 UTC,view,7,1,,,1,U,S,more", "torn_line"),
        ('2019-10-01 00:00:00 UTC,view,7,1,,"never closed,1,U,S', "torn_line"),
    ],
)
def test_a_bad_event_is_set_aside_under_its_rule_without_its_person(tmp_path, line, rule):
    good = "2019-10-01 00:00:00 UTC,view,7,1,,acme,1,visitor-77,session-77"
    log = rees46(tmp_path / "log.csv", good, line.replace(",U", ",visitor-99").replace(",S", ",session-99"))
    done = ingest(log, into=tmp_path / "out", settings=Settings())
    rejects = read(tmp_path / "out", "rejects")
    assert list(rejects.rule) == [rule]
    assert done.rejects == {rule: 1}
    assert json.loads(rejects.content[0])
    assert not any("-99" in text or "-77" in text for text in rejects.content)
    assert read(tmp_path / "out", "signals").clicks.tolist() == [1]


EVENT = st.tuples(
    st.sampled_from(["2019-10-01 00:00:00 UTC", "2019-10-02 05:00:00 UTC", "", "x", "1970-01-01", "infinity"]),
    st.sampled_from(["view", "cart", "purchase", "remove_from_cart", "?", ""]),
    st.sampled_from(["7", "8", "00A", "", "9" * 600]),
    st.sampled_from(["1", "", "-1", "nan", "1e400", "2.5", '"5'[1:] + '"', "1,5"]),
    st.integers(0, 20),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENT, min_size=1, max_size=30))
def test_every_event_that_came_is_counted_once_and_no_person_is_anywhere(tmp_path_factory, events):
    tmp = tmp_path_factory.mktemp("events")
    log = tmp / "log.csv"
    with log.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(REES46.strip().split(","))
        for at, kind, sku, price, person in events:
            out.writerow([at, kind, sku, "c", "", "", price, f"pers-{person}-on", f"sess-{person}-ion"])
        out.writerow(["2019-10-01 00:00:00 UTC", "view", "7", "c", "", "", "1", "pers-0-on", ""])
    done = ingest(log, into=tmp / "out", settings=Settings())
    admission = done.admissions[0]
    assert admission.rows == len(events) + 1
    assert admission.kept + sum(admission.rejects.values()) + sum(done.left_out.values()) == admission.rows
    signals, rejects = read(tmp / "out", "signals"), read(tmp / "out", "rejects")
    assert len(rejects) == sum(done.rejects.values())
    counted = signals.clicks.sum() + signals.carts.sum() + signals.units.sum()
    assert counted == admission.kept
    for path in (tmp / "out").iterdir():
        text = str(done) + path.name + path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            text += pd.read_parquet(path).to_csv()
        assert "pers-" not in text
        assert "sess-" not in text


def test_retailrocket_is_recognised_and_its_milliseconds_are_read(tmp_path):
    log = write(
        tmp_path / "events.csv",
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n1433221332118,257597,addtocart,355908,\n"
        "1433221332119,257597,transaction,355908,4000\n1433221332120,257597,transaction,355908,4000\n",
    )
    done = ingest(log, into=tmp_path / "out", settings=Settings())
    row = read(tmp_path / "out", "signals").iloc[0]
    assert done.formats == ("retailrocket",)
    assert row.period_start == pd.Timestamp("2015-06-02")
    assert (row.clicks, row.carts, row.orders, row.visitors) == (1, 1, 1, 1)
    assert pd.isna(row.units)
    assert pd.isna(row.revenue)


def ga4_events() -> list[dict]:
    item = {"item_id": "S1", "item_name": "Shirt", "item_brand": "acme", "item_category": "tops", "price": 5.0}
    base = {"event_date": "20250106", "event_timestamp": 1736150400000000, "user_pseudo_id": "pseudo.123"}
    source = {"traffic_source": {"source": "google", "medium": "cpc"}}
    names = ["view_item_list", "view_item_list", "select_item", "view_item", "add_to_cart", "begin_checkout"]
    rows = [base | source | {"event_name": name, "items": [item]} for name in names]
    bought = item | {"quantity": 3, "item_revenue": 15.0}
    rows.append(base | source | {"event_name": "purchase", "items": [bought], "ecommerce": {"transaction_id": "T1"}})
    rows.append(base | source | {"event_name": "page_view", "items": []})
    rows.append(base | source | {"event_name": "purchase", "items": []})
    return rows


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_ga4_items_become_signals_from_nested_parquet_and_from_json(tmp_path, form):
    text = "".join(json.dumps(row) + "\n" for row in ga4_events())
    source = write(tmp_path / "export.json", text)
    if form == "parquet":
        source = tmp_path / "export.parquet"
        with duckdb.connect() as con:
            con.execute(f"copy (from '{tmp_path / 'export.json'}') to '{source}' (format parquet)")
    done = ingest(source, into=tmp_path / "out", settings=Settings())
    row = read(tmp_path / "out", "signals").iloc[0]
    assert done.formats == ("ga4",)
    assert (row.impressions, row.clicks, row.carts, row.orders, row.units) == (2, 1, 1, 1, 3)
    assert (float(row.revenue), row.visitors, row.channel) == (15.0, 1, "google / cpc")
    assert done.rejects == {"no_items": 1}
    assert done.left_out == {"events begin_checkout": 1, "events without items": 1}
    skus = read(tmp_path / "out", "skus").iloc[0]
    assert (skus.title, skus.brand, skus.category) == ("Shirt", "acme", "tops")
    assert "pseudo" not in read(tmp_path / "out", "rejects").to_csv()


def test_ga4_counts_page_views_as_clicks_where_no_list_is_tracked(tmp_path):
    rows = [row for row in ga4_events() if row["event_name"] in ("view_item", "purchase") and row["items"]]
    source = write(tmp_path / "e.json", "".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    done = ingest(source, into=tmp_path / "out", settings=Settings())
    row = read(tmp_path / "out", "signals").iloc[0]
    assert pd.isna(row.impressions)
    assert row.clicks == 1
    assert done.rejects == {"torn_line": 1}


UCI = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"


def test_cancelled_invoice_lines_are_refunds_of_the_day_they_were_cancelled(tmp_path):
    source = write(
        tmp_path / "r.csv",
        UCI + "536365,85123A,LANTERN,6,12/1/2010 8:26,2.55,cust17850,UK\n"
        "C536400,85123A,LANTERN,-2,12/3/2010 8:26,2.55,cust17850,UK\n"
        "536366,POST,POSTAGE,1,12/1/2010 8:26,18,cust17850,UK\n"
        "536367,85123A,,5,12/1/2010 8:26,0,,UK\n"
        "536368,85123A,LANTERN,x,12/1/2010 8:26,2.55,cust17850,UK\n",
    )
    done = ingest(source, into=tmp_path / "out", settings=Settings())
    rows = read(tmp_path / "out", "signals")
    assert list(rows.period_start) == [pd.Timestamp("2010-12-01"), pd.Timestamp("2010-12-03")]
    assert [float(v) for v in rows.revenue] == [15.3, 0.0]
    assert [float(v) for v in rows.refunds] == [0.0, 5.1]
    assert list(rows.orders) == [1, 0]
    assert done.rejects == {"not_a_product": 1, "price_zero": 1, "quantity_unreadable": 1}
    assert "cust17850" not in read(tmp_path / "out", "rejects").to_csv()


def test_a_mapping_file_reads_any_other_log(tmp_path):
    mapping = write(
        tmp_path / "m.toml",
        '[columns]\ntime = "when"\nevent = "what"\nsku_id = "which"\nperson = "who"\n[events]\nLOOK = "clicks"\n',
    )
    log = write(tmp_path / "log.csv", "when,what,which,who\n2024-01-01T23:30:00-02:00,LOOK,a,somebody\n")
    done = ingest(log, into=tmp_path / "out", settings=Settings(), mapping=mapping, channel="app")
    row = read(tmp_path / "out", "signals").iloc[0]
    assert (row.period_start, row.clicks, row.channel) == (pd.Timestamp("2024-01-02"), 1, "app")
    assert done.formats == ("events",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[columns]\ntime = 'a'\n[events]\nx = 'clicks'\n", "expected event, sku_id"),
        ("[columns]\ntime = 'a'\nevent='b'\nsku_id='c'\n[events]\nx = 'dances'\n", "got dances"),
        ("[columns]\ntime = 'a'\nevent='b'\nsku_id='c'\nfoo='d'\n[events]\nx = 'clicks'\n", "unknown key foo"),
        ("time_unit = 'h'\n[columns]\ntime = 'a'\nevent='b'\nsku_id='c'\n[events]\nx = 'clicks'\n", "time_unit"),
        ("[columns]\ntime = 1\n", "ours ="),
        ("[what]\n", "expected \\[columns\\]"),
        ("= 1", "no valid TOML"),
    ],
)
def test_a_mapping_that_can_not_be_understood_is_refused_with_a_reason(tmp_path, text, message):
    mapping, log = write(tmp_path / "m.toml", text), rees46(tmp_path / "log.csv", "")
    with pytest.raises(DataError, match=message):
        ingest(log, into=tmp_path / "out", settings=Settings(), mapping=mapping)


def test_a_log_with_line_ends_of_two_systems_and_two_encodings_is_read(tmp_path):
    lines = "2019-10-01 00:00:00 UTC,view,7,1,,品牌,1,u,s"
    raw = REES46.encode() + lines.encode() + b"\r\n" + lines.encode("gb18030") + b"\n"
    done = ingest(write(tmp_path / "l.csv", raw), into=tmp_path / "out", settings=Settings())
    assert done.admissions[0].kept == 2
    assert read(tmp_path / "out", "skus").brand.tolist() == ["品牌"]


def test_an_id_that_is_a_number_in_one_file_and_text_in_another_is_one_sku(tmp_path):
    frame = pd.DataFrame(
        {
            "event_time": ["2019-10-01"],
            "event_type": ["view"],
            "product_id": [123.0],
            "user_id": [1],
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    frame.assign(product_id="123", user_id="2").to_parquet(tmp_path / "b.parquet")
    ingest(tmp_path / "*.parquet", into=tmp_path / "out", settings=Settings())
    rows = read(tmp_path / "out", "signals")
    assert rows.sku_id.tolist() == ["123"]
    assert rows.visitors.tolist() == [2]


def test_a_log_larger_than_the_memory_given_goes_through(tmp_path):
    n = 2_000_000
    with duckdb.connect() as con:
        con.execute(
            f"""
            copy (
                select
                    strftime(timestamp '2024-01-01' + interval (i % 86400) seconds, '%Y-%m-%d %H:%M:%S UTC')
                        as event_time,
                    case when i % 20 = 0 then 'purchase' else 'view' end as event_type,
                    (i * 7919) % 4001 as product_id, 'c' || i % 7 as category_id, '' as category_code, 'b' as brand,
                    1.25 as price, 'user-' || (i * 31) % 300007 as user_id, uuid() as user_session
                from range({n}) as t(i)
            ) to '{tmp_path / "big.csv"}' (header)
            """
        )
    assert (tmp_path / "big.csv").stat().st_size > 200e6 * 0.9
    done = ingest(tmp_path / "big.csv", into=tmp_path / "out", settings=Settings(), memory="200MB")
    rows = read(tmp_path / "out", "signals")
    i = np.arange(n)
    assert done.admissions[0].kept == n
    assert rows.clicks.sum() == (i % 20 != 0).sum()
    assert float(rows.revenue.sum()) == 1.25 * (i % 20 == 0).sum()
    one = i[(i * 7919) % 4001 == 17]
    assert rows.set_index("sku_id").loc["17"].visitors == len(np.unique((one * 31) % 300007))
