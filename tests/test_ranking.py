"""The list: its columns, its order, its actions, and what may not change it."""

from __future__ import annotations

import warnings

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from small_market import fitted, newest_batch

import hitfinder as hf
from hitfinder.errors import DataError, ModelError, NotEnoughHistoryError, SettingsError
from hitfinder.ranking import newest_batch as name_of_newest_batch
from hitfinder.ranking import only_batch

COLUMNS = [
    "rank",
    "sku_id",
    "batch_id",
    "hit_probability",
    "hit_probability_low",
    "hit_probability_high",
    "expected_value",
    "action",
    "reason_1",
    "reason_2",
    "reason_3",
    "model_version",
    "as_of",
]


def ranked(signals=None, skus=None, as_of=None, **options):
    asked = newest_batch()
    signals, skus, as_of = (g if g is not None else a for g, a in zip((signals, skus, as_of), asked, strict=True))
    return hf.rank(fitted()[1], signals, skus, as_of, **options)


def test_a_list_has_the_columns_of_the_contract_and_every_sku_once_best_first():
    _, skus, as_of = newest_batch()
    found = ranked()
    assert found.columns.tolist() == COLUMNS
    assert sorted(found["sku_id"]) == sorted(skus["sku_id"])
    assert found["rank"].tolist() == list(range(1, len(skus) + 1))
    assert (np.diff(found["hit_probability"]) <= 0).all()
    p, low, high = (found[c] for c in COLUMNS[3:6])
    assert ((low >= 0) & (low <= p) & (p <= high) & (high <= 1)).all()
    assert found["hit_probability"].nunique() > 5
    assert (found["as_of"] == as_of).all()
    assert (found["model_version"] == fitted()[1].version).all()
    assert found["reason_1"].notna().all()


def test_the_greatest_expected_value_first_where_that_is_asked_for_with_an_interval_around_it():
    by_chance, found = ranked(), ranked(by="expected_value", intervals=True)
    assert found.columns.tolist() == [*COLUMNS, "expected_value_low", "expected_value_high"]
    assert (np.diff(found["expected_value"]) <= 0).all()
    assert (found["expected_value_low"] <= found["expected_value"]).all()
    assert (found["expected_value"] <= found["expected_value_high"]).all()
    assert (found["expected_value_low"] < found["expected_value_high"]).any()
    again = found.set_index("sku_id").loc[by_chance["sku_id"]]
    kept = [name for name in COLUMNS if name not in ("rank", "sku_id")]
    pd.testing.assert_frame_equal(again[kept].reset_index(drop=True), by_chance[kept])
    with pytest.raises(SettingsError, match="expected hit_probability or expected_value, got 'gmv'"):
        ranked(by="gmv")


def test_an_action_follows_from_the_margin_and_the_thresholds():
    found, model = ranked(), fitted()[1]
    limits = model.thresholds
    told = [model.estimator.calibration_.interval(np.array([limits[name]]))[0][0] for name in ("stop", "scale")]
    for row in found.itertuples():
        if row.hit_probability < told[0] - 1e-12:
            assert row.action == "stop"
        elif told[0] + 1e-12 < row.hit_probability < told[1] - 1e-12:
            assert row.action == "test"
        elif row.hit_probability > told[1] + 1e-12:
            assert row.action == "scale"
    assert found["action"].nunique() >= 2
    order = ["scale", "test", "stop"]
    assert found["action"].map(order.index).is_monotonic_increasing


def test_skus_without_a_signal_or_a_launch_or_in_no_batch_come_back_too():
    _signals, skus, as_of = newest_batch()
    more = pd.DataFrame(
        {
            "sku_id": ["nobody saw it", "comes next month", "bare"],
            "batch_id": [skus["batch_id"].iloc[0], "next", None],
            "launched_at": [pd.NaT, as_of + pd.Timedelta(days=30), pd.NaT],
        }
    )
    found = ranked(skus=pd.concat([skus, more]))
    assert sorted(found["sku_id"]) == sorted([*skus["sku_id"], *more["sku_id"]])
    new = found.set_index("sku_id").loc[more["sku_id"]]
    assert new["hit_probability"].between(0, 1).all()
    assert new["reason_1"].str.contains("no signal yet").all()
    assert new["batch_id"].notna().all()


def test_without_any_signal_a_list_needs_the_moment():
    signals, skus, _as_of = newest_batch()
    found = ranked(signals=signals[:0])
    assert len(found) == len(skus)
    assert found["hit_probability"].between(0, 1).all()
    with pytest.raises(NotEnoughHistoryError, match="moment as_of"):
        hf.rank(fitted()[1], signals[:0], skus)


def test_no_skus_give_an_empty_list_with_all_columns():
    _, skus, _ = newest_batch()
    found = ranked(skus=skus[:0])
    assert found.empty
    assert found.columns.tolist() == COLUMNS


def test_the_moment_is_the_newest_signals_unless_it_is_given_in_any_zone():
    signals, skus, as_of = newest_batch()
    assert (hf.rank(fitted()[1], signals, skus)["as_of"] == signals["known_at"].max()).all()
    expected = ranked()
    for same in (as_of.tz_localize("UTC"), as_of.tz_localize("UTC").tz_convert("Asia/Shanghai"), str(as_of)):
        pd.testing.assert_frame_equal(ranked(as_of=same), expected)
    pd.testing.assert_frame_equal(ranked(as_of=as_of.to_pydatetime()), expected)


@pytest.mark.parametrize("moment", ["soon", "", pd.NaT, float("nan")])
def test_a_moment_that_is_none_is_refused(moment):
    with pytest.raises(DataError, match="as_of: expected a moment"):
        ranked(as_of=moment)


def test_a_list_of_one_batch_does_not_depend_on_another_in_the_same_call():
    """Not even in its reasons."""
    market, model = fitted()
    _, skus, as_of = newest_batch()
    alone = hf.rank(model, market.signals, skus, as_of)
    for others in (market.skus, market.skus[market.skus["batch_id"] >= "2025-W08"]):
        together = hf.rank(model, market.signals, others, as_of)
        mine = together[together["sku_id"].isin(skus["sku_id"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(mine.drop(columns="rank"), alone.drop(columns="rank"), check_exact=True)


def test_order_and_later_rows_change_nothing():
    signals, skus, as_of = newest_batch()
    expected = ranked()
    shuffled = signals.sample(frac=1, random_state=0)[list(reversed(signals.columns))]
    pd.testing.assert_frame_equal(ranked(shuffled, skus.sample(frac=1, random_state=1)), expected, check_exact=True)
    known = signals[signals["known_at"] <= as_of]
    assert len(known) < len(signals)
    pd.testing.assert_frame_equal(ranked(known), expected, check_exact=True)


def test_every_kind_of_table_gives_the_same_list(tmp_path):
    signals, skus, _as_of = newest_batch()
    expected = ranked()
    for name, table in (("signals", signals), ("skus", skus)):
        table.to_parquet(tmp_path / f"{name}.parquet")
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    signals[:300].to_parquet(tmp_path / "part-1.parquet")
    signals[300:].to_parquet(tmp_path / "part-2.parquet")
    con = duckdb.connect()
    forms = {
        "polars": (pl.from_pandas(signals), pl.from_pandas(skus)),
        "pyarrow": (pa.Table.from_pandas(signals), pa.Table.from_pandas(skus)),
        "relation": (con.from_df(signals), con.from_df(skus)),
        "parquet": (tmp_path / "signals.parquet", str(tmp_path / "skus.parquet")),
        "csv": (str(tmp_path / "signals.csv"), tmp_path / "skus.csv"),
        "glob": (str(tmp_path / "part-*.parquet"), skus),
    }
    for form, (one, other) in forms.items():
        pd.testing.assert_frame_equal(ranked(one, other), expected, check_exact=True, obj=form)
    con.close()


def test_the_newest_batch_is_the_one_launched_last():
    market, model = fitted()
    batches = sorted(market.skus["batch_id"].unique())[-2:]
    skus = market.skus[market.skus["batch_id"].isin(batches)]
    renamed = skus.assign(batch_id=skus["batch_id"].map({batches[0]: "z old", batches[1]: "a new"}))
    found = hf.rank(model, market.signals, renamed, market.skus["launched_at"].max())
    assert name_of_newest_batch(found, renamed) == "a new"
    # Another list knows no launches but those of the SKUs.
    other = pd.DataFrame(found[["sku_id", "batch_id", "as_of"]].to_dict("list"))
    assert name_of_newest_batch(other, renamed) == "a new"
    assert name_of_newest_batch(other, renamed.drop(columns="launched_at")) == "z old"


def test_where_no_launch_is_given_the_first_signal_tells_the_newest_batch():
    market, model = fitted()
    weeks = sorted(market.skus["batch_id"].unique())[-3:]
    skus = market.skus[market.skus["batch_id"].isin(weeks)].drop(columns="launched_at")
    skus = skus.assign(batch_id=skus["batch_id"].map(dict(zip(weeks, ("drop-8", "drop-9", "drop-10"), strict=True))))
    never_seen = pd.DataFrame({"sku_id": ["dead", "dead too"], "batch_id": ["drop-8", "drop-99"]})
    skus = pd.concat([skus, never_seen], ignore_index=True)
    first = market.signals.groupby("sku_id")["period_start"].min()
    last = first.reindex(skus["sku_id"]).max()
    found = hf.rank(model, market.signals, skus, last + pd.Timedelta(days=2))
    assert set(only_batch(found, skus, "newest")["batch_id"]) == {"drop-10"}
    assert name_of_newest_batch(found[found["batch_id"] != "drop-10"], skus) == "drop-9"
    # What came later was not known: then drop-9 was the newest.
    before = first.reindex(skus.loc[skus["batch_id"] == "drop-10", "sku_id"]).min()
    assert name_of_newest_batch(hf.rank(model, market.signals, skus, before), skus) == "drop-9"
    assert found.columns.tolist() == COLUMNS


def test_ranking_changes_none_of_its_arguments():
    signals, skus, _ = newest_batch()
    before = signals.copy(deep=True), skus.copy(deep=True)
    ranked(signals, skus)
    pd.testing.assert_frame_equal(signals, before[0])
    pd.testing.assert_frame_equal(skus, before[1])


def test_a_launch_that_is_only_planned_is_not_the_newest_batch():
    skus = pd.DataFrame({"sku_id": ["a", "b"], "launched_at": pd.to_datetime(["2025-01-06", "2025-02-03"])})
    rows = pd.DataFrame({"sku_id": ["a", "b"], "batch_id": ["now", "planned"]})
    assert name_of_newest_batch(rows.assign(as_of=pd.Timestamp("2025-01-13")), skus) == "now"
    assert name_of_newest_batch(rows.assign(as_of=pd.Timestamp("2025-02-03")), skus) == "planned"
    assert name_of_newest_batch(rows, skus) == "planned"
    assert name_of_newest_batch(rows[1:].assign(as_of=pd.Timestamp("2025-01-13")), skus) == "planned"


def test_a_name_in_a_model_s_place_is_refused_with_how_to_load_it():
    with pytest.raises(ModelError, match=r"got a str; load it with hf.load_model\('models:/hitfinder@champion'\)"):
        hf.rank("models:/hitfinder@champion", None, None)


def test_a_misspelt_count_does_not_change_the_list_in_silence():
    signals, skus, as_of = newest_batch()
    misspelt = signals.rename(columns={"clicks": "klicks"})
    with pytest.warns(
        UserWarning, match=r"the model reads clicks, of which nothing was counted here.*not used: klicks"
    ):
        ranked(misspelt, skus, as_of)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranked(signals, skus, as_of)
