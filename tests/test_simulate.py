"""The simulated market keeps the rules of the tables, and everything that it says is planted can be found in it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.errors import SettingsError
from hitfinder.settings import load_settings
from hitfinder.simulate import Market, simulate, write_market
from hitfinder.simulate.catalogue import CREATIVE_SD, STYLE_TAIL
from hitfinder.simulate.traffic import CHANNELS, DELAY_MAX
from hitfinder.simulate.words import ADJECTIVES, MATERIALS

GRAIN = ["sku_id", "period_start", "channel", "creative_id"]
COUNTS = ["impressions", "visitors", "clicks", "favorites", "carts", "orders", "units"]
MONEY = ["revenue", "refunds", "spend"]
DAY = pd.Timedelta(days=1)


@pytest.fixture(scope="module")
def market() -> Market:
    return simulate(weeks=8, skus_per_week=200, seed=5, complete=True)


@pytest.fixture(scope="module")
def aged(market: Market) -> pd.DataFrame:
    """Signals with the SKU's own columns and its age in days."""
    rows = market.signals.merge(market.skus, on="sku_id")
    return rows.assign(age=(rows["period_start"] - rows["launched_at"]).dt.days)


def _sums(rows: pd.DataFrame, market: Market) -> pd.DataFrame:
    sums = rows.groupby("sku_id")[COUNTS + MONEY].sum().reindex(market.skus["sku_id"], fill_value=0)
    return sums.reset_index(drop=True)


def _best(market: Market, values: pd.Series, k: int | pd.Series = 3) -> pd.Series:
    return values.groupby(market.skus["batch_id"]).rank(ascending=False, method="first") <= k


def _check_tables(market: Market) -> None:
    signals, skus = market.signals, market.skus
    assert not signals.isna().any(axis=None)
    assert not skus.isna().any(axis=None)
    assert not signals.duplicated(GRAIN).any()
    assert all(signals[c].dtype == np.int64 and (signals[c] >= 0).all() for c in COUNTS)
    assert all((signals[c] >= 0).all() for c in MONEY)
    assert (signals["clicks"] <= signals["impressions"]).all()
    assert (signals["visitors"] <= signals["clicks"]).all()
    assert ((signals["visitors"] > 0) == (signals["clicks"] > 0)).all()
    assert (signals["favorites"] <= signals["clicks"]).all()
    assert (signals["carts"] <= signals["clicks"]).all()
    assert (signals["units"] >= signals["orders"]).all()
    assert ((signals["orders"] > 0) == (signals["revenue"] > 0)).all()
    assert (signals["known_at"] >= signals["period_start"] + DAY).all()
    assert (signals[["period_start", "known_at"]].dtypes == "datetime64[us]").all()
    assert skus["sku_id"].is_unique
    assert (skus["title"].str.len() > 0).all()
    assert (skus["price"] > skus["unit_cost"]).all()
    assert set(signals["sku_id"]) <= set(skus["sku_id"])
    assert (skus["launched_at"].dt.day_of_week == 0).all()
    first = signals.merge(skus, on="sku_id")
    assert (first["period_start"] >= first["launched_at"]).all()
    money = first["units"] * first["price"]
    assert np.allclose(first["revenue"], money, atol=0.01)
    assert market.truth["sku_id"].tolist() == skus["sku_id"].tolist()
    assert not market.truth.isna().any(axis=None)


def test_the_tables_keep_the_rules_of_the_contract(market):
    _check_tables(market)
    assert list(market.signals.columns) == [*GRAIN, "known_at", *COUNTS, *MONEY]


@settings(max_examples=25, deadline=None)
@given(
    weeks=st.integers(1, 3),
    skus_per_week=st.integers(2, 25),
    seed=st.integers(0, 2**31 - 1),
    test_impressions=st.floats(1, 2000),
    appeal_scale=st.floats(0, 3),
    late_share=st.floats(0, 1),
    drift_week=st.none() | st.integers(0, 4),
    language=st.sampled_from(["en", "zh", "mixed"]),
    complete=st.booleans(),
)
def test_every_setting_of_the_knobs_keeps_the_rules(**knobs):
    _check_tables(simulate(hits_per_week=1, **knobs))


def test_the_same_seed_gives_the_same_market_and_another_seed_another():
    one, again, other = (simulate(weeks=2, skus_per_week=30, seed=s) for s in (0, 0, 1))
    for name in ("signals", "skus", "truth"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(again, name))
        assert not getattr(one, name).equals(getattr(other, name))


def test_the_log_ends_when_the_newest_test_is_over():
    market = simulate(weeks=4, skus_per_week=40)
    end = pd.Timestamp("2025-01-06") + 28 * DAY
    assert market.signals["known_at"].max() == end
    assert market.signals["period_start"].max() == end - DAY
    assert market.skus["launched_at"].max() == end - 7 * DAY
    assert market.skus["batch_id"].unique().tolist() == ["2025-W02", "2025-W03", "2025-W04", "2025-W05"]


def test_an_earlier_moment_is_the_same_market_with_less_of_it_known():
    whole = simulate(weeks=5, skus_per_week=40, complete=True)
    moment = pd.Timestamp("2025-01-22 12:00")
    part = simulate(weeks=5, skus_per_week=40, as_of=moment)
    expected = whole.signals[whole.signals["known_at"] <= moment].reset_index(drop=True)
    pd.testing.assert_frame_equal(part.signals, expected)
    assert part.skus["batch_id"].nunique() == 3
    assert len(part.truth) == len(part.skus)


def test_a_moment_with_a_zone_is_read_as_utc():
    there = simulate(weeks=2, skus_per_week=20, hits_per_week=1, as_of="2025-01-12T08:00+08:00")
    here = simulate(weeks=2, skus_per_week=20, hits_per_week=1, as_of="2025-01-12")
    pd.testing.assert_frame_equal(there.signals, here.signals)


def test_batches_hold_about_what_was_asked_and_about_three_hits(market):
    sizes = market.skus["batch_id"].value_counts().sort_index()
    assert sizes.between(150, 250).all()
    assert len(set(sizes)) > 1
    truth = market.truth
    hits = truth.groupby("batch_id")["is_hit"].sum()
    assert (hits == np.rint(0.015 * sizes).astype(int)).all()
    assert hits.mean() == pytest.approx(3, abs=0.3)
    assert (truth["is_hit"] == _best(market, truth["expected_revenue"], truth["batch_id"].map(hits))).all()


def test_styles_hold_one_to_six_skus_that_differ_in_colour_or_size_only(market):
    styles = market.skus.groupby("style_id")
    assert set(styles.size()) == {1, 2, 3, 4, 5, 6}
    for shared in ("batch_id", "category", "price", "unit_cost", "brand", "season"):
        assert set(styles[shared].nunique()) == {1}
    assert not market.skus.duplicated(["style_id", "colour", "size"]).any()


def test_most_of_the_variance_of_appeal_lies_between_styles(market):
    truth = market.truth.assign(style=market.skus["style_id"])
    within = truth.groupby("style")["appeal"].var().mean()
    assert 0.75 < 1 - within / truth["appeal"].var() < 0.95


def test_revenue_has_a_heavy_tail_without_a_gap_below_the_hits(market, aged):
    revenue = _sums(aged[aged["age"].between(7, 34)], market)["revenue"]
    relative = revenue / revenue.groupby(market.skus["batch_id"]).transform("median")
    best = np.sort(relative)[::-1]
    index = 1 / np.mean(np.log(best[:40] / best[40]))
    assert 1.0 < index < 2.5
    assert 0.10 < revenue[_best(market, revenue)].sum() / revenue.sum() < 0.40
    third_to_fourth = [np.sort(r)[-3] / np.sort(r)[-4] for _, r in revenue.groupby(market.skus["batch_id"])]
    assert np.median(third_to_fourth) < 1.4


def test_expected_outcomes_are_the_mean_of_realised_ones(market, aged):
    outcome = _sums(aged[aged["age"].between(7, 34)], market)
    truth = market.truth
    assert outcome["revenue"].sum() / truth["expected_revenue"].sum() == pytest.approx(1, abs=0.02)
    assert outcome["orders"].sum() / truth["expected_orders"].sum() == pytest.approx(1, abs=0.02)
    test = _sums(aged[aged["age"] < 7], market)
    assert test["orders"].sum() / truth["expected_test_orders"].sum() == pytest.approx(1, abs=0.06)


def test_expected_profit_is_what_orders_and_refunds_leave(market, aged):
    window = _sums(aged[aged["age"].between(7, 34)], market)
    kept = window["revenue"] * (1 - market.truth["return_rate"]) - window["units"] * market.skus["unit_cost"]
    assert (kept - window["spend"]).sum() / market.truth["expected_profit"].sum() == pytest.approx(1, abs=0.04)


def test_the_test_finds_some_hits_and_the_truth_most_of_them():
    by_orders, by_truth = [], []
    for seed in range(3):
        market = simulate(seed=seed, complete=True)
        launched = market.signals["sku_id"].map(market.skus.set_index("sku_id")["launched_at"])
        age = (market.signals["period_start"] - launched).dt.days
        orders = _sums(market.signals[age < 7], market)["orders"]
        outcome = _sums(market.signals[age.between(7, 34)], market)["revenue"]
        label = _best(market, outcome)
        by_orders.append(label[_best(market, orders)].mean())
        by_truth.append(label[market.truth["is_hit"]].mean())
    assert 0.45 < np.mean(by_orders) < 0.65
    assert np.mean(by_truth) >= 0.80


def test_the_funnel_is_in_the_range_of_real_shops(market):
    total = market.signals[COUNTS + MONEY].sum()
    assert 0.015 < total["clicks"] / total["impressions"] < 0.035
    assert 0.05 < (total["favorites"] + total["carts"]) / total["clicks"] < 0.15
    assert 0.01 < total["orders"] / total["clicks"] < 0.04
    assert 0.85 < total["visitors"] / total["clicks"] < 0.92
    assert 0.05 < total["refunds"] / total["revenue"] < 0.20
    assert market.truth["click_rate"].quantile([0.02, 0.95]).between(0.004, 0.055).all()
    assert market.truth["order_rate"].median() == pytest.approx(0.02, abs=0.005)


def test_rates_in_the_signals_are_the_true_rates(market, aged):
    main = aged[aged["age"].between(7, 34) & (aged["impressions"] > 0)]
    sums = _sums(main, market)
    truth = market.truth
    noise = np.sqrt(sums["impressions"] * truth["click_rate"])
    assert np.std((sums["clicks"] - sums["impressions"] * truth["click_rate"]) / noise) == pytest.approx(1, abs=0.1)
    assert sums["carts"].sum() / (sums["clicks"] * truth["cart_rate"]).sum() == pytest.approx(1, abs=0.02)
    assert sums["favorites"].sum() / (sums["clicks"] * truth["favorite_rate"]).sum() == pytest.approx(1, abs=0.02)


def test_only_the_test_spreads_traffic_over_channels_and_creatives(market, aged):
    shown = aged[aged["impressions"] > 0]
    test, later = shown[shown["age"] < 7], shown[shown["age"] >= 7]
    assert set(test["channel"]) == {c.name for c in CHANNELS}
    assert set(test.groupby("sku_id")["creative_id"].nunique()) == {1, 2, 3}
    assert set(later["channel"]) == {CHANNELS[0].name}
    assert set(later.groupby("sku_id")["creative_id"].nunique()) == {1}
    assert later["age"].max() == 34
    daily = test.groupby("sku_id")["impressions"].sum() / 7
    assert daily.quantile([0.05, 0.95]).between(150, 700).all()


def test_outcome_traffic_is_the_same_for_all_skus_of_a_batch(market, aged):
    window = _sums(aged[aged["age"].between(7, 34)], market)["impressions"]
    spread = window.groupby(market.skus["batch_id"]).agg(lambda x: x.std() / np.sqrt(x.mean()))
    assert spread.between(0.8, 1.2).all()  # what Poisson leaves


def test_the_effect_of_a_creative_can_be_recovered(market, aged):
    shown = aged[aged["age"] < 7].groupby(["style_id", "creative_id"])[["impressions", "clicks"]].sum().reset_index()
    shown["log_rate"] = np.log((shown["clicks"] + 0.5) / shown["impressions"])
    in_style = shown["log_rate"] - shown.groupby("style_id")["log_rate"].transform("mean")
    main = aged[(aged["age"] == 10)].drop_duplicates("sku_id").merge(market.truth, on="sku_id")
    planted = main.drop_duplicates("creative_id").set_index("creative_id")["creative_effect"]
    assert planted.std() == pytest.approx(CREATIVE_SD, abs=0.03)
    several = shown.groupby("style_id")["creative_id"].transform("size") > 1
    pairs = shown.assign(seen=in_style, planted=shown["creative_id"].map(planted))[several].dropna()
    assert np.corrcoef(pairs["seen"], pairs["planted"])[0, 1] > 0.5


def test_orders_come_up_to_two_weeks_after_the_click(market, aged):
    rest = aged[(aged["impressions"] == 0) & (aged["orders"] > 0)]
    after = aged[aged["age"] > 34]
    assert len(rest) > 100
    assert 0.01 < after["orders"].sum() / aged["orders"].sum() < 0.10
    assert after.loc[after["orders"] > 0, "age"].max() <= 34 + DELAY_MAX


def test_refunds_come_one_to_four_weeks_after_orders(aged):
    by_age = aged.groupby("age")[["revenue", "refunds"]].sum()
    assert by_age["refunds"][by_age.index < 7].sum() == 0
    assert by_age["refunds"][by_age.index <= 14].sum() > 0
    wait = np.average(by_age.index, weights=by_age["refunds"]) - np.average(by_age.index, weights=by_age["revenue"])
    assert 10 < wait < 16
    assert aged.loc[aged["refunds"] > 0, "age"].max() <= 34 + DELAY_MAX + 28


def test_returns_differ_by_category_and_price(market):
    rates = market.truth["return_rate"]
    by_category = rates.groupby(market.skus["category"]).median()
    assert by_category["dresses"] > 3 * by_category["kitchen"]
    dresses = market.skus["category"] == "dresses"
    assert np.corrcoef(rates[dresses], market.skus.loc[dresses, "price"])[0, 1] > 0.9
    total = market.signals.groupby(market.signals["sku_id"].map(market.skus.set_index("sku_id")["category"]))[
        ["revenue", "refunds"]
    ].sum()
    share = total["refunds"] / total["revenue"]
    assert share["dresses"] > 2 * share["kitchen"]


def test_reports_are_late_by_channel_and_some_more_so():
    market = simulate(weeks=2, skus_per_week=60, late_share=0.2, complete=True)
    hours = (market.signals["known_at"] - market.signals["period_start"] - DAY) / pd.Timedelta(hours=1)
    for channel in CHANNELS:
        own = hours[market.signals["channel"] == channel.name]
        assert set(own) == {channel.delay_hours, channel.delay_hours + 72}
        assert (own > channel.delay_hours).mean() == pytest.approx(0.2, abs=0.03)
    assert hours[market.signals["channel"] == "ads"].min() > 24


def test_nothing_is_sold_beyond_the_stock_and_what_sells_best_runs_out():
    market = simulate(weeks=2, skus_per_week=60, test_impressions=100_000, complete=True)
    units = _sums(market.signals, market)["units"]
    left = market.skus["stock"] - units
    assert (left >= 0).all()
    assert 0.02 < (left <= 2).mean() < 0.6
    capped = market.truth["expected_orders"] == 0
    assert capped.any()
    assert (left[capped] <= 0.05 * market.skus["stock"][capped]).all()


def test_categories_seasons_and_prices_move_demand():
    market = simulate(weeks=52, skus_per_week=120, seed=1, complete=True)
    truth, skus = market.truth, market.skus
    plain = np.log(truth["order_rate"] * truth["click_rate"]) - truth["appeal"] - truth["click_bait_effect"]
    month = skus["launched_at"].dt.month
    for category, peak, trough in (("dresses", [5, 6], [11, 12]), ("knitwear", [11], [5])):
        own = skus["category"] == category
        assert plain[own & month.isin(peak)].mean() > plain[own & month.isin(trough)].mean() + 0.2
    levels = truth.groupby(skus["category"])["click_rate"].median()
    assert levels.max() > 1.3 * levels.min()
    assert np.corrcoef(plain, truth["log_price_position"])[0, 1] < -0.15
    spread = np.log(skus.drop_duplicates("style_id").groupby("category")["price"].agg(list).loc["bags"]).std()
    assert 0.25 < spread < 0.45


def test_traffic_follows_weekdays_and_grows(aged):
    main = aged[aged["age"].between(7, 34)]
    by_day = main.groupby(main["period_start"].dt.day_of_week)["impressions"].mean()
    assert by_day[5] > 1.08 * by_day[1]
    by_batch = main.groupby("launched_at")["impressions"].mean()
    assert by_batch.iloc[-1] > by_batch.iloc[0]


def test_some_words_of_titles_carry_demand_and_others_none(market):
    words = [f" {word} " for word, _ in (*ADJECTIVES, *MATERIALS)]
    has = np.column_stack([market.skus["title"].str.contains(word, regex=False) for word in words]).astype(float)
    assert (has.sum(axis=1) == 2).all()
    effect = market.truth["title_effect"]
    fitted = has @ np.linalg.lstsq(has, effect, rcond=None)[0]
    assert np.allclose(fitted, effect)
    assert effect.std() > 0.1
    assert 0.1 < (effect == 0).mean() < 0.5
    assert np.corrcoef(effect, market.truth["appeal"])[0, 1] > 0.1


@pytest.mark.parametrize(("language", "share"), [("en", 0.0), ("zh", 1.0), ("mixed", 0.5)])
def test_titles_come_in_the_language_asked_for(language, share):
    skus = simulate(weeks=2, skus_per_week=100, language=language).skus
    chinese = skus["title"].str.contains("[\u4e00-\u9fff]")
    assert chinese.mean() == pytest.approx(share, abs=0.15 if language == "mixed" else 0)
    assert skus["brand"].str.contains("[\u4e00-\u9fff]").mean() == (language == "zh")


def test_a_market_without_appeal_has_skus_that_differ_in_nothing_of_their_own():
    truth = simulate(weeks=2, skus_per_week=50, appeal_scale=0).truth
    assert not truth[["appeal", "style_effect", "sku_effect", "creative_effect", "click_bait_effect"]].any(axis=None)


def test_a_drift_changes_rates_from_its_week_on_and_nothing_before():
    calm, turned = (simulate(weeks=9, skus_per_week=60, seed=2, complete=True, drift_week=w) for w in (None, 6))
    pd.testing.assert_frame_equal(calm.skus, turned.skus)
    ratio = turned.truth["click_rate"] / calm.truth["click_rate"]
    early = calm.skus["launched_at"] + 35 * DAY <= pd.Timestamp("2025-01-06") + 42 * DAY
    late = calm.skus["launched_at"] + 7 * DAY >= pd.Timestamp("2025-01-06") + 42 * DAY
    assert (ratio[early] == 1).all()
    assert np.abs(np.log(ratio[late])).min() > 0
    per_category = np.log(ratio[late]).groupby(calm.skus.loc[late, "category"])
    assert per_category.mean().std() > 0.15
    assert per_category.std().max() < 0.05


def test_knobs_of_the_traffic_leave_the_catalogue_alone():
    one = simulate(weeks=2, skus_per_week=30)
    other = simulate(weeks=2, skus_per_week=30, test_impressions=900, late_share=0.5)
    pd.testing.assert_frame_equal(one.skus, other.skus)
    assert other.signals["impressions"].max() > one.signals["impressions"].max()


def test_the_files_come_back_as_they_were_and_the_settings_load(tmp_path):
    market = simulate(weeks=2, skus_per_week=40, hits_per_week=2, seed=7, language="zh")
    paths = write_market(market, tmp_path / "new" / "folder")
    assert [p.name for p in paths] == ["signals.parquet", "skus.parquet", "truth.parquet", "hitfinder.toml"]
    for path, frame in zip(paths, (market.signals, market.skus, market.truth), strict=False):
        pd.testing.assert_frame_equal(pd.read_parquet(path), frame)
    loaded = load_settings(paths[-1])
    assert loaded.seed == 7
    assert loaded.signals.period == DAY
    assert (loaded.label.test_window, loaded.label.outcome_window) == (7 * DAY, 28 * DAY)
    assert (loaded.label.metric, loaded.label.top_share, loaded.label.within) == ("revenue", 0.05, "batch_id")
    before = [p.read_bytes() for p in paths]
    assert [p.read_bytes() for p in write_market(market, tmp_path / "new" / "folder")] == before
    assert sorted(p.name for p in paths[0].parent.iterdir()) == sorted(p.name for p in paths)


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    market = simulate(weeks=1, skus_per_week=10, hits_per_week=1)
    old = write_market(market, tmp_path)[0].read_bytes()

    def fail(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fail)
    with pytest.raises(SettingsError, match="No space left on device"):
        write_market(simulate(weeks=1, skus_per_week=12, hits_per_week=1), tmp_path)
    assert (tmp_path / "signals.parquet").read_bytes() == old
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_that_is_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(SettingsError, match="can't be written"):
        write_market(simulate(weeks=1, skus_per_week=10, hits_per_week=1), tmp_path / "taken")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"weeks": 0}, "weeks: expected 1 to 520, got 0"),
        ({"skus_per_week": 0}, "skus_per_week: expected 1 to 100000, got 0"),
        ({"skus_per_week": 3}, "hits_per_week: expected more than 0, fewer than skus_per_week, got 3"),
        ({"seed": -1}, "seed: expected 0 to"),
        ({"test_impressions": 0}, "test_impressions: expected more than 0"),
        ({"appeal_scale": -0.1}, "appeal_scale: expected 0 to 3"),
        ({"late_share": 1.5}, "late_share: expected 0 to 1, got 1.5"),
        ({"drift_week": -1}, "drift_week: expected a week number"),
        ({"language": "fr"}, "language: expected en or zh or mixed, got 'fr'"),
        ({"start": "2025-01-07"}, "start: expected a Monday"),
        ({"start": "soon"}, "expected a moment such as 2025-01-06"),
        ({"as_of": "2025-01-06"}, "as_of: expected a moment after the start"),
        ({"as_of": "2025-02-06", "complete": True}, "expected either complete or as_of, got both"),
    ],
)
def test_a_knob_out_of_range_is_refused_with_what_was_expected(knobs, message):
    with pytest.raises(SettingsError) as caught:
        simulate(**knobs)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_spreads_taken_from_real_data_are_still_what_the_data_say():
    folder = os.environ.get("HITFINDER_DATA")
    if not folder:
        pytest.skip("HITFINDER_DATA is unset: no real data to compare with")
    tests = pd.read_parquet(Path(folder) / "upworthy_dev.parquet").query("clicks > 0")
    rate = tests["clicks"] / tests["impressions"]
    log_rate, noise = np.log(rate), (1 - rate) / tests["clicks"]
    group = tests["clickability_test_id"]
    size = group.groupby(group).transform("size")
    squares = (log_rate - log_rate.groupby(group).transform("mean")) ** 2
    within = (squares - noise * (1 - 1 / size))[size > 1].sum() / (len(tests[size > 1]) - group[size > 1].nunique())
    assert np.sqrt(within) == pytest.approx(CREATIVE_SD, abs=0.01)
    assert tests["clicks"].sum() / tests["impressions"].sum() == pytest.approx(0.020, abs=0.001)
    assert pytest.approx(1 / 1.67, abs=0.01) == STYLE_TAIL  # the tail index of the docstring
