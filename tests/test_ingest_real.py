"""Public logs, against counts that pandas makes on its own."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from hitfinder.ingest import ingest
from hitfinder.settings import Settings

FOLDER = os.environ.get("HITFINDER_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="HITFINDER_DATA is not set: no folder of public data to read")


def data(name: str) -> Path:
    return Path(FOLDER or "") / name


def read(folder: Path, table: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{table}.parquet")


def test_rees46_adds_up_to_its_events(tmp_path):
    done = ingest(data("rees46_head.csv"), into=tmp_path, settings=Settings())
    events = pd.read_csv(data("rees46_head.csv"))
    rows = read(tmp_path, "signals").set_index("sku_id")
    bought = events[events.event_type == "purchase"]
    assert done.rejects == {}
    assert rows.clicks.sum() == (events.event_type == "view").sum()
    assert rows.carts.sum() == (events.event_type == "cart").sum()
    assert rows.units.sum() == len(bought)
    assert rows.orders.sum() == len(bought.drop_duplicates(["product_id", "user_session"]))
    assert float(rows.revenue.sum()) == pytest.approx(bought.price.sum())
    visitors = events.groupby(events.product_id.astype(str)).user_id.nunique()
    assert (rows.visitors == visitors.reindex(rows.index)).all()
    assert done.persons == events.user_id.nunique()


def test_online_retail_adds_up_to_its_invoices_and_says_what_it_set_aside(tmp_path):
    done = ingest(data("online_retail_dev.parquet"), into=tmp_path, settings=Settings())
    lines = pd.read_parquet(data("online_retail_dev.parquet"))
    product = lines.StockCode.str.strip().str.contains(r"^\d{5}")
    good = lines[product & (lines.UnitPrice != 0)]
    assert done.rejects == {"not_a_product": (~product).sum(), "price_zero": (product & (lines.UnitPrice == 0)).sum()}
    assert len(read(tmp_path, "rejects")) == len(lines) - len(good)
    back = good.InvoiceNo.str.upper().str.startswith("C") | (good.Quantity < 0)
    rows = read(tmp_path, "signals")
    assert float(rows.revenue.sum()) == pytest.approx((good.Quantity * good.UnitPrice)[~back].sum())
    assert float(rows.refunds.sum()) == pytest.approx(-(good.Quantity * good.UnitPrice)[back].sum())
    sold = good[~back]
    keys = [sold.StockCode.str.strip(), sold.InvoiceDate.dt.floor("D")]
    assert rows.orders.sum() == sold.groupby(keys).InvoiceNo.nunique().sum()
    assert rows.visitors.sum() == sold.groupby(keys).CustomerID.nunique().sum()


def test_deskdrop_is_read_by_a_mapping_and_its_burn_in_is_old_stock(tmp_path):
    mapping = tmp_path / "m.toml"
    mapping.write_text(
        '[columns]\ntime="timestamp"\nevent="eventType"\nsku_id="content"\nperson="person"\nsession="session"\n'
        '[events]\nVIEW="clicks"\nLIKE="favorites"\nBOOKMARK="carts"\n"COMMENT CREATED"="orders"\nFOLLOW="ignored"\n'
    )
    burn_in = pd.Timedelta(days=28)
    out = tmp_path / "out"
    done = ingest(data("deskdrop_dev.parquet"), into=out, settings=Settings(), mapping=mapping, burn_in=burn_in)
    events = pd.read_parquet(data("deskdrop_dev.parquet"))
    assert done.left_out["events follow"] == (events.eventType == "FOLLOW").sum()
    used = events[events.eventType != "FOLLOW"]
    first = used.groupby("content").timestamp.min()
    fresh = used[used.content.isin(first[first >= used.timestamp.min().floor("D") + burn_in].index)]
    rows = read(out, "signals")
    assert rows.clicks.sum() == (fresh.eventType == "VIEW").sum()
    assert rows.favorites.sum() == (fresh.eventType == "LIKE").sum()
    assert set(read(out, "skus").sku_id) == set(fresh.content)
    assert done.left_out["skus of old stock"] == first.size - fresh.content.nunique()
