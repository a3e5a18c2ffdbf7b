"""Pooling: strengths that follow what history shows, and that survive anything."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from hitfinder.features import RATES, count_pairs, look_back
from hitfinder.pooling import GRID, LEVELS, choose_rates, fit_rates, load_pairs
from hitfinder.settings import Settings

MONDAY = pd.Timestamp("2025-01-06")
RATE = "clicks_per_impression"
EVERY_RATE = sorted(name for group in RATES.values() for name in group)


def pairs_of(rates, exposure, rng, *, styles=1, rate=RATE, batch_size=50, moments=(1, 3, 7)):
    """Count SKUs of the given true rates, so far, at some days of their week: what `load_pairs` returns."""
    n = len(rates)
    daily = rng.poisson(np.asarray(rates)[:, None] * exposure, (n, max(moments)))
    ids = np.arange(n)
    frames = [
        pd.DataFrame(
            {
                "as_of": MONDAY + pd.Timedelta(days=moment),
                "sku_id": [f"s{i:05d}" for i in ids],
                "batch_id": [f"b{b}" for b in ids // batch_size],
                "category": "c",
                "style_id": [f"st{s}" for s in ids // styles],
                "rate": rate,
                "num": daily[:, :moment].sum(axis=1).astype(float),
                "den": float(exposure * moment),
                "is_measured": True,
            }
        )
        for moment in moments
    ]
    return pd.concat(frames).sort_values(["rate", "sku_id", "as_of"], ignore_index=True)


def assert_sound(table, names):
    assert table["rate"].tolist() == list(names)
    numbers = table.drop(columns="rate").to_numpy(float)
    assert np.isfinite(numbers).all()
    assert (numbers > 0).all()


def gamma_rates(rng, n, mean, spread):
    """True rates with the given spread (sd over mean): under them the best strength is known, 1 / (mean spread²)."""
    return rng.gamma(1 / spread**2, mean * spread**2, n)


@pytest.mark.parametrize("spread", [0.25, 0.5, 1.0])
def test_the_strength_of_a_sku_is_near_the_best_one_where_that_is_known(spread):
    rng, mean = np.random.default_rng(0), 0.02
    pairs = pairs_of(gamma_rates(rng, 3000, mean, spread), 300, rng)
    fitted = fit_rates(pairs, [RATE]).iloc[0]
    assert fitted["mean"] == pytest.approx(mean, rel=0.1)
    # The grid's own steps are a factor 1.6.
    # Not below what the grid reaches; the grid's own steps are a factor of 1.6.
    best = max(1 / (mean * spread**2), GRID[0] * 2100)
    assert best / 2 < fitted["sku_strength"] < best * 2


def test_the_less_skus_differ_the_stronger_the_pull():
    strengths = []
    for spread in (1.0, 0.4, 0.15, 0.001):
        rng = np.random.default_rng(1)
        pairs = pairs_of(gamma_rates(rng, 2000, 0.02, spread), 300, rng)
        strengths.append(fit_rates(pairs, [RATE])["sku_strength"][0])
    assert strengths == sorted(strengths)
    assert strengths[-1] > 20 * strengths[0]


def test_noise_from_day_to_day_makes_the_pull_stronger():
    strengths = []
    for noise in (0.0, 0.8):
        rng = np.random.default_rng(2)
        true = gamma_rates(rng, 2000, 0.02, 0.4)
        days = [pairs_of(true * rng.gamma(1 / noise**2, noise**2, 2000) if noise else true, 300, rng, moments=(1,))]
        days += [pairs_of(true * rng.gamma(1 / noise**2, noise**2, 2000) if noise else true, 300, rng, moments=(1,))]
        later = days[1].assign(
            as_of=MONDAY + pd.Timedelta(days=2), num=days[0]["num"] + days[1]["num"], den=days[0]["den"] * 2
        )
        pairs = pd.concat([days[0], later]).sort_values(["rate", "sku_id", "as_of"], ignore_index=True)
        strengths.append(fit_rates(pairs, [RATE])["sku_strength"][0])
    assert strengths[1] > 1.5 * strengths[0]


def test_siblings_are_believed_where_styles_differ_and_not_where_they_do_not():
    rng = np.random.default_rng(3)
    by_style = np.repeat(gamma_rates(rng, 500, 0.02, 0.8), 4)
    by_sku = gamma_rates(rng, 2000, 0.02, 0.8)
    alike, apart = (
        fit_rates(pairs_of(true, 300, np.random.default_rng(4), styles=4), [RATE]).iloc[0]
        for true in (by_style, by_sku)
    )
    assert alike["style_strength"] < apart["style_strength"] / 5
    assert alike["sku_strength"] > apart["sku_strength"]  # what the siblings say is better than what the SKU says


def test_batches_are_believed_where_they_differ():
    strengths = []
    for spread in (0.6, 0.0):
        rng = np.random.default_rng(5)
        season = np.repeat(gamma_rates(rng, 60, 0.02, spread) if spread else np.full(60, 0.02), 30)
        pairs = pairs_of(season * gamma_rates(rng, 1800, 1.0, 0.3), 300, rng, batch_size=30)
        strengths.append(fit_rates(pairs, [RATE])["batch_strength"][0])
    assert strengths[0] < strengths[1]


@pytest.mark.parametrize("rate", [RATE, "units_per_day", "revenue_per_click", "refunds_per_revenue", "orders_per_day"])
@effort(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_whatever_was_counted_the_pooling_is_finite_and_positive(rate, seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    pairs = pairs_of(rng.exponential(0.02, n), int(rng.integers(1, 200)), rng, rate=rate, batch_size=3, styles=2)
    for column in ("num", "den"):  # holes, and corrected reports that take back what was counted
        pairs[column] = pairs[column].mask(rng.random(len(pairs)) < 0.3, 0)
        pairs[column] *= rng.choice([0.0, 1.0, 1e6])
    pairs = pairs[rng.random(len(pairs)) < 0.8].reset_index(drop=True)
    before = pairs.copy()
    assert_sound(fit_rates(pairs, [rate]), [rate])
    pd.testing.assert_frame_equal(pairs, before)


def test_a_report_that_takes_back_what_was_counted_stops_no_fit():
    """A cancelled order: the SKU had 2 units on Tuesday and has 1 since."""
    rng = np.random.default_rng(6)
    pairs = pairs_of(gamma_rates(rng, 20, 2.0, 0.5), 1, rng, rate="units_per_day")
    first = pairs["sku_id"] == "s00000"
    pairs.loc[first, "num"] = [2.0, 1.0, 1.0]
    pairs.loc[pairs["sku_id"] == "s00001", "num"] = [90.0, 1.0, 1.0]
    assert_sound(fit_rates(pairs, ["units_per_day"]), ["units_per_day"])


@pytest.mark.parametrize("rate", [RATE, "units_per_day"])
def test_where_nothing_tells_strengths_apart_the_strongest_pull_is_taken(rate):
    pairs = pairs_of([0.5], 30, np.random.default_rng(7), rate=rate)  # one SKU, one batch
    fitted = fit_rates(pairs, [rate]).iloc[0]
    for level in LEVELS[:3]:
        assert fitted[f"{level}_strength"] == pytest.approx(GRID[-1] * 30 * 7)


def test_where_nothing_was_counted_the_pooling_is_still_sound():
    pairs = pairs_of([0.0] * 10, 30, np.random.default_rng(8))
    assert_sound(fit_rates(pairs, [RATE]), [RATE])
    assert_sound(fit_rates(pairs.assign(den=0.0), [RATE]), [RATE])
    assert_sound(fit_rates(pairs.iloc[:0], [RATE, "orders_per_day"]), [RATE, "orders_per_day"])


def test_a_sku_without_a_later_moment_tells_the_mean_only():
    rng = np.random.default_rng(9)
    pairs = pairs_of(gamma_rates(rng, 100, 0.02, 0.5), 300, rng, moments=(7,))
    fitted = fit_rates(pairs, [RATE]).iloc[0]
    assert fitted["mean"] == pytest.approx(pairs["num"].sum() / pairs["den"].sum())
    assert {fitted[f"{level}_strength"] for level in LEVELS} == {GRID[-1] * 2100}


def test_only_the_skus_that_are_given_are_learned_from(draw_log, known_warehouse):
    """The pooling of some SKUs is the same whether others stand in the log or not, and whatever they did."""
    signals, skus = draw_log(11, measured=["clicks", "impressions", "orders", "units"], n_batches=4)
    skus = skus.assign(batch_id=skus["batch_id"].fillna("left out"))
    mine = skus.loc[skus["batch_id"].isin(["batch 0", "batch 1"]), "sku_id"]
    found = []
    for source, some in (
        (signals, skus),
        (signals[signals["sku_id"].isin(mine)], skus[skus["sku_id"].isin(mine)]),
        (signals.assign(clicks=signals["clicks"].where(signals["sku_id"].isin(mine), 0)), skus),
    ):
        con = known_warehouse(source, some, Settings(), MONDAY + pd.Timedelta(days=40))
        look_back(con)
        names = ["clicks_per_impression", "orders_per_click", "units_per_day"]
        count_pairs(con, names)
        pairs = load_pairs(con)
        con.close()
        found.append(fit_rates(pairs[pairs["sku_id"].isin(mine)], names))
    for other in found[1:]:
        pd.testing.assert_frame_equal(found[0], other, check_exact=True)


def test_rates_are_counted_on_impressions_where_there_are_any_and_on_days_otherwise(draw_log, known_warehouse):
    for on_impressions in (True, False):
        log = draw_log(12, on_impressions=on_impressions, measured=None)
        con = known_warehouse(*log, Settings(), MONDAY + pd.Timedelta(days=40))
        look_back(con)
        names = choose_rates(con)
        left = {row[0] for row in con.execute("select distinct rate from pairs").fetchall()}
        con.close()
        assert names == sorted(names)
        assert left == set(names)  # the pairs of the others are gone
        assert any(n in RATES["impression"] for n in names) == on_impressions
        assert any(n in RATES["day"] for n in names) != on_impressions
        assert set(names) <= set(EVERY_RATE)


def test_nothing_counted_means_no_rates(known_warehouse):
    signals = pd.DataFrame({"sku_id": ["a"], "period_start": [MONDAY], "clicks": [9]})  # one short of enough
    con = known_warehouse(signals, pd.DataFrame({"sku_id": ["a"]}), Settings(), MONDAY + pd.Timedelta(days=1))
    look_back(con)
    assert choose_rates(con) == []
    assert load_pairs(con).empty
    con.close()


def test_the_strength_of_a_size_is_that_of_its_logs_and_a_bulk_order_hardly_moves_it():
    """Log sizes: 1 between SKUs and 1.5 between a SKU's orders, so that 1.5^2 / 1^2 orders are the right pull."""
    rng, n, orders = np.random.default_rng(9), 2000, 4
    true = rng.normal(3, 1, n)
    logs = true[:, None] + rng.normal(0, 1.5, (n, 2 * orders))
    bulk = logs.copy()
    bulk[0, 0] = np.log(77_184.0)
    fits = []
    for each in (logs, bulk):
        frames = [
            pd.DataFrame(
                {
                    "as_of": MONDAY + pd.Timedelta(days=day),
                    "sku_id": [f"s{i:05d}" for i in range(n)],
                    "batch_id": "b",
                    "category": "c",
                    "style_id": [f"st{i}" for i in range(n)],
                    "rate": "typical_revenue_per_order",
                    "num": each[:, : day * orders].sum(axis=1),
                    "den": float(day * orders),
                    "is_measured": True,
                }
            )
            for day in (1, 2)
        ]
        pairs = pd.concat(frames).sort_values(["rate", "sku_id", "as_of"], ignore_index=True)
        fits.append(fit_rates(pairs, ["typical_revenue_per_order"]).iloc[0])
    assert fits[0]["mean"] == pytest.approx(np.exp(3), rel=0.1)
    assert 1.5**2 / 2 < fits[0]["sku_strength"] < 1.5**2 * 2
    assert fits[1]["mean"] == pytest.approx(fits[0]["mean"], rel=0.01)
    assert fits[1]["sku_strength"] == fits[0]["sku_strength"]
