"""Trials as tables: the same features as by the public road, nothing unbought, and no copy seen by another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from hitfinder.features import look_back
from hitfinder.settings import parse_settings
from hitfinder.tables import COUNTS, MONEY
from hitfinder.trial import Pool, play
from hitfinder.trial_table import TrialTable, pool_of, repeat_pool

MONDAY = pd.Timestamp("2025-01-06")
SETTINGS = parse_settings({"label": {"test_window": "7d", "outcome_window": "7d"}, "model": {"threads": 1}})
NAMES = ["clicks_per_impression", "orders_per_impression", "orders_per_click", "revenue_per_order", "orders_per_day"]
DAILY = ["clicks_per_day", "orders_per_day", "orders_again_per_day", "revenue_per_order"]
ROUNDS = 4


@dataclass(frozen=True)
class Random:
    """Buys at random, some SKUs nothing at all."""

    most: int

    def spend(self, view, rng):
        return rng.integers(0, self.most, len(view.batch)) * (rng.random(len(view.batch)) < 0.7)

    def score(self, view):
        return view.bought.astype(float)


def counted(seed, n=24, batches=3):
    """Draw a pool of impressions, clicks, orders and revenue."""
    rng = np.random.default_rng(seed)
    exposures = rng.integers(0, 900, n)
    clicks = rng.binomial(exposures, rng.uniform(0, 0.3, n))
    orders = rng.binomial(clicks, 0.3)
    counts = {"clicks": clicks, "orders": orders, "revenue": orders * rng.integers(100, 5_000, n) / 100}
    counts = {name: values.astype(float) for name, values in counts.items()}
    return Pool(ids(n), np.sort(rng.integers(0, batches, n)), exposures, counts, np.full(batches, 2))


def by_day(seed, n=15, batches=3):
    """Draw a pool of days, seven for each SKU."""
    rng = np.random.default_rng(seed)
    clicks = rng.poisson(2, (n, 7)) * (rng.random((n, 7)) < 0.8)
    orders = rng.binomial(clicks, 0.4)
    counts = {"clicks": clicks, "orders": orders, "revenue": orders * 7.25}
    counts = {name: values.astype(float) for name, values in counts.items()}
    return Pool(ids(n), np.sort(rng.integers(0, batches, n)), np.full(n, 7), counts, np.full(batches, 2))


def ids(n):
    return np.array([f"sku {i:02d}" for i in range(n)], dtype=object)


def catalogue(pool, seed=0):
    """Draw what the SKUs are; some batches are launched over several days, in the middle of a day."""
    rng = np.random.default_rng(seed)
    n = len(pool.batch)
    return pd.DataFrame(
        {
            "style_id": rng.choice(["s1", "s2", "s3", "s4"], n),
            "category": rng.choice(["dress", "coat"], n),
            "price": rng.choice([19.5, 30.0, 42.25, np.nan], n),
            "title": [f"thing {i}" for i in range(n)],
            "launched_at": MONDAY
            + pd.to_timedelta(7 * pool.batch, unit="D")
            + pd.to_timedelta(rng.choice([10, 34, 63], n), unit="h"),
        }
    )


def played(pool, seed=0, rounds=ROUNDS):
    most = 4 if pool.by_period else 200
    return play(pool, Random(most), np.full(len(pool.slots), 10**6), rounds, np.random.default_rng(seed)).views


def table_of(pool, catalog, settings=SETTINGS):
    return TrialTable(pool, catalog, settings)


def each(pool, catalog, views, rates):
    """Return the features after every view, in order."""
    table = table_of(pool, catalog)
    try:
        return [table.features(view, rates) for view in views]
    finally:
        table.close()


def by_hand(pool, catalog, views, batch):
    """Write down what was bought for one batch, as a merchant's tables: (signals, skus, as_of)."""
    of = np.flatnonzero(pool.batch == batch)
    launch = catalog["launched_at"].iloc[of].min()
    last = views[-1]

    def clock(view):
        return launch + pd.Timedelta(days=7) * view.round / ROUNDS

    skus = catalog.iloc[of].assign(sku_id=pool.sku_id[of], batch_id=f"{batch}", launched_at=launch)
    rows = []
    for i in of:
        if pool.by_period:
            began = clock(last) - last.bought[i] * pd.Timedelta(days=1)
            skus.loc[i, "launched_at"] = began
            for day in range(last.bought[i]):
                counts = {name: pool.counts[name][i, day] for name in pool.counts}
                if any(counts.values()):
                    start = began + day * pd.Timedelta(days=1)
                    rows.append({"sku_id": pool.sku_id[i], "period_start": start} | counts)
            continue
        for before, after in pairwise(views):
            if after.bought[i] > before.bought[i]:
                counts = {name: after.counts[name][i] - before.counts[name][i] for name in pool.counts}
                times = {"period_start": clock(before), "known_at": clock(after)}
                bought = {"impressions": after.bought[i] - before.bought[i]}
                rows.append({"sku_id": pool.sku_id[i]} | times | bought | counts)
    nothing = {name: pd.Series(dtype=float) for name in ("sku_id", "period_start", "clicks")}
    return pd.DataFrame(rows) if rows else pd.DataFrame(nothing), skus, clock(last)


def assert_same(got, expected, *, but=()):
    assert sorted(got.columns) == sorted(expected.columns)
    assert len(got) == len(expected)
    for name in got.columns.difference(but):
        np.testing.assert_array_equal(
            *(t[name].to_numpy(dtype=object, na_value=None) for t in (got, expected)), err_msg=name
        )


# ---------------------------------------- the same as by the public road


@pytest.mark.parametrize(("make", "names"), [(counted, NAMES), (by_day, DAILY)], ids=["impressions", "periods"])
@pytest.mark.parametrize("seed", [0, 1])
def test_features_are_those_of_the_same_signals_entered_by_hand(make, names, seed, compute_features, draw_rates):
    pool, rates = make(seed), draw_rates(seed, names)
    catalog, views = catalogue(pool, seed), played(pool, seed)
    compared = 0
    for k, table in enumerate(each(pool, catalog, views, rates)):
        if k in (1, 3):
            continue
        for batch in range(len(pool.slots)):
            signals, skus, as_of = by_hand(pool, catalog, views[: k + 1], batch)
            expected = compute_features(signals, skus, SETTINGS, as_of, rates)
            mine = table[table["batch_id"] == f"{batch}"].reset_index(drop=True)
            assert_same(mine, expected)
            compared += len(expected)
    assert compared == 3 * len(pool.batch)


def test_features_come_in_the_order_of_the_pool_whatever_that_is(draw_rates):
    pool, rates = counted(2), draw_rates(2, NAMES)
    catalog, views = catalogue(pool), played(pool)
    order = np.random.default_rng(0).permutation(len(pool.batch))

    def moved(x):
        values = {name: counts[order] for name, counts in x.counts.items()}
        at = {name: getattr(x, name)[order] for name in ("sku_id", "batch", "bought", "room") if hasattr(x, name)}
        return replace(x, counts=values, **at)

    other = replace(moved(pool), exposures=pool.exposures[order])
    plain = each(pool, catalog, views, rates)
    for one, two in zip(each(other, catalog.iloc[order], [moved(v) for v in views], rates), plain, strict=True):
        assert one["sku_id"].tolist() == other.sku_id.tolist()
        pd.testing.assert_frame_equal(one, two.iloc[order].reset_index(drop=True))


def test_looking_after_several_rounds_at_once_is_looking_after_each(draw_rates):
    pool, rates = counted(3), draw_rates(3, NAMES)
    catalog, views = catalogue(pool), played(pool)
    one_by_one = pd.concat(each(pool, catalog, views, rates))
    table = table_of(pool, catalog)
    for view in views:
        table.signals(view)
    table.look_after(views, NAMES)
    together = table.features_looked_at(rates)
    table.close()
    keys = ["as_of", "sku_id"]
    assert_same(together, one_by_one.sort_values(keys).reset_index(drop=True))


def test_a_batch_starts_at_once_with_its_first_sku_and_its_clock_runs_to_the_end_of_the_window(draw_rates):
    pool = counted(4)
    catalog, views = catalogue(pool), played(pool)
    table = table_of(pool, catalog)
    first = catalog["launched_at"].groupby(pool.batch).min()
    assert (table.clock(views[0]) == first[pool.batch].to_numpy()).all()
    assert (table.clock(views[-1]) == (first + pd.Timedelta(days=7))[pool.batch].to_numpy()).all()
    table.close()
    shown = each(pool, catalog, views, draw_rates(0, NAMES))[2]
    assert (shown["launched_at"] == first[pool.batch].to_numpy()).all()
    assert shown["age_days"].tolist() == pytest.approx([3.5] * len(pool.batch))


def test_a_table_that_has_been_played_on_can_be_played_on_anew(draw_rates):
    pool, rates = counted(5), draw_rates(5, NAMES)
    catalog = catalogue(pool)
    again = each(pool, catalog, [*played(pool, 1), *played(pool, 2)], rates)[ROUNDS + 1 :]
    for one, two in zip(again, each(pool, catalog, played(pool, 2), rates), strict=True):
        pd.testing.assert_frame_equal(one, two)


def test_rounds_out_of_order_are_refused(draw_rates):
    pool, rates = counted(6), draw_rates(6, NAMES)
    views = played(pool)
    table = table_of(pool, catalogue(pool))
    table.features(views[0], rates)
    with pytest.raises(ValueError, match="rounds in order, got round 2"):
        table.features(views[2], rates)
    table.close()
    days = table_of(by_day(6), catalogue(by_day(6)))
    with pytest.raises(ValueError, match="one view"):
        days.look_after(played(by_day(6))[:2], DAILY)
    days.close()


# ---------------------------------------- nothing unbought, and no other copy


def test_nothing_unbought_reaches_the_features_of_impressions(draw_rates):
    """The pool becomes another one; what was bought stays."""
    pool, rates = counted(7), draw_rates(7, NAMES)
    catalog, views = catalogue(pool), played(pool)
    huge = {name: values * 50 + 10_000 for name, values in pool.counts.items()}
    other = replace(pool, exposures=pool.exposures * 90 + 10**6, counts=huge)
    for one, two in zip(each(other, catalog, views, rates), each(pool, catalog, views, rates), strict=True):
        pd.testing.assert_frame_equal(one, two)
    assert (views[-1].bought < pool.exposures).any()


def test_nothing_unbought_reaches_the_features_of_periods(draw_rates):
    pool, rates = by_day(8), draw_rates(8, DAILY)
    catalog, views = catalogue(pool), played(pool, rounds=2)
    unbought = np.arange(7)[None, :] >= views[-1].bought[:, None]
    assert unbought.any()
    other = replace(pool, counts={name: np.where(unbought, 1e6, values) for name, values in pool.counts.items()})
    for one, two in zip(each(other, catalog, views, rates), each(pool, catalog, views, rates), strict=True):
        pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize(("make", "names"), [(counted, NAMES), (by_day, DAILY)], ids=["impressions", "periods"])
def test_copies_of_a_pool_do_not_see_each_other(make, names, draw_rates):
    pool, rates = make(9), draw_rates(9, names)
    catalog, n = catalogue(pool), len(pool.batch)
    many = repeat_pool(pool, 2)
    views = played(many, 1, rounds=2)
    together = each(many, pd.concat([catalog] * 2, ignore_index=True), views, rates)
    for copy in range(2):
        of = slice(copy * n, (copy + 1) * n)
        alone = [
            replace(
                view,
                sku_id=pool.sku_id,
                batch=pool.batch,
                bought=view.bought[of],
                counts={name: values[of] for name, values in view.counts.items()},
                room=view.room[of],
            )
            for view in views
        ]
        for one, two in zip(together, each(pool, catalog, alone, rates), strict=True):
            assert_same(one.iloc[of].reset_index(drop=True), two, but=["sku_id", "batch_id"])
    assert (views[-1].bought[:n] != views[-1].bought[n : 2 * n]).any()


def test_a_repeated_pool_holds_every_sku_once_per_copy_in_batches_of_its_own():
    pool = counted(10)
    many = repeat_pool(pool, 3)
    n, batches = len(pool.batch), len(pool.slots)
    assert len(set(many.sku_id)) == 3 * n
    assert many.sku_id[:n].tolist() == [f"0:{sku}" for sku in pool.sku_id]
    assert (many.batch == np.concatenate([pool.batch + c * batches for c in range(3)])).all()
    assert many.slots.tolist() == pool.slots.tolist() * 3
    for name, values in pool.counts.items():
        assert (many.counts[name].reshape(3, n) == values).all()
    assert (many.exposures.reshape(3, n) == pool.exposures).all()


# ---------------------------------------- pools


def labels_of(skus, seed, share=0.8):
    rng = np.random.default_rng(seed)
    kept = skus[rng.random(len(skus)) < share]
    group = kept["sku_id"].str.split("-").str[1].to_numpy()
    labels = pd.DataFrame({"sku_id": kept["sku_id"].to_numpy(), "batch": group})
    return labels.assign(hit=rng.random(len(labels)) < 0.3)


def pool_and_truth(seed, know, draw_log, *, on_impressions, hours=24, measured=None, settings=SETTINGS):
    """Return (pool, labels, the rows that it should hold, as a pandas user would find them)."""
    signals, skus = draw_log(seed, on_impressions=on_impressions, hours=hours, measured=measured)
    as_of = MONDAY + pd.Timedelta(days=60)
    con = know(signals, skus, settings, as_of)
    labels = labels_of(skus, seed)
    pool = pool_of(con, labels.sample(frac=1, random_state=seed), settings)
    con.close()
    known = signals.assign(known_at=signals["known_at"].fillna(signals["period_start"] + settings.signals.period))
    known = known[(known["known_at"] <= as_of) & (known["period_start"] < as_of)].sort_values("known_at")
    launch = skus.set_index("sku_id")["launched_at"]
    launch = launch.fillna(known.groupby("sku_id")["period_start"].min()).fillna(as_of)
    keys = ["sku_id", "period_start", "channel", "creative_id"]
    # A test sees what was known by its end, from the period in which the SKU was launched on.
    in_time = known[known["known_at"] <= known["sku_id"].map(launch) + settings.label.test_window]
    newest = in_time.fillna({"channel": "-", "creative_id": "-"}).drop_duplicates(keys, keep="last")
    since = newest["period_start"] - newest["sku_id"].map(launch)
    inside = since > -settings.signals.period
    period = (since // settings.signals.period).clip(lower=0)
    rows = newest.assign(period=period)[inside & newest["sku_id"].isin(labels["sku_id"])]
    assert len(newest) < len(in_time) < len(known), "no report was superseded or late: the log tells nothing"
    return pool, labels.sort_values("sku_id").reset_index(drop=True), rows


MEASURED = ["clicks", "carts", "orders", "revenue"]


@pytest.mark.parametrize("seed", range(4))
def test_a_pool_of_impressions_holds_the_totals_of_the_test_windows(seed, known_warehouse, draw_log):
    pool, labels, rows = pool_and_truth(
        seed, known_warehouse, draw_log, on_impressions=True, measured=["impressions", *MEASURED]
    )
    assert not pool.by_period
    assert pool.sku_id.tolist() == labels["sku_id"].tolist()
    totals = rows.groupby("sku_id")[["impressions", *MEASURED]].sum().reindex(labels["sku_id"]).fillna(0).astype(float)
    assert totals["orders"].sum() > 0
    assert (pool.exposures == totals["impressions"]).all()
    assert set(pool.counts) == set(MEASURED)
    for name in MEASURED:
        np.testing.assert_allclose(pool.counts[name], totals[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize(("seed", "hours"), [(0, 24), (1, 24), (2, 12)])
def test_a_pool_of_periods_holds_each_period_of_the_test_windows(seed, hours, known_warehouse, draw_log):
    settings = parse_settings(
        {"signals": {"period": f"{hours}h"}, "label": {"test_window": "7d"}, "model": {"threads": 1}}
    )
    pool, labels, rows = pool_and_truth(
        seed, known_warehouse, draw_log, on_impressions=False, hours=hours, measured=MEASURED, settings=settings
    )
    periods = 7 * 24 // hours
    assert pool.by_period
    assert (pool.exposures == periods).all()
    for name in MEASURED:
        assert pool.counts[name].shape == (len(labels), periods)
        expected = rows.pivot_table(index="sku_id", columns="period", values=name, aggfunc="sum")
        expected = expected.reindex(index=labels["sku_id"], columns=range(periods)).fillna(0).to_numpy(dtype=float)
        np.testing.assert_allclose(pool.counts[name], expected, rtol=1e-12, err_msg=name)


def test_batches_and_slots_of_a_pool_are_those_of_the_labels(known_warehouse, draw_log):
    pool, labels, _ = pool_and_truth(1, known_warehouse, draw_log, on_impressions=True)
    groups = sorted(labels["batch"].unique())
    assert [groups[b] for b in pool.batch] == labels["batch"].tolist()
    hits = labels.groupby("batch")["hit"].sum()
    assert pool.slots.tolist() == [max(int(hits[g]), 1) for g in groups]


def test_money_without_orders_is_bought_by_the_period(known_warehouse, draw_log):
    money = ["impressions", "clicks", "revenue"]
    pool, _, _ = pool_and_truth(0, known_warehouse, draw_log, on_impressions=True, measured=money)
    assert pool.by_period
    assert set(pool.counts) == set(money)
    clicks = ["impressions", "clicks"]
    assert not pool_and_truth(0, known_warehouse, draw_log, on_impressions=True, measured=clicks)[0].by_period


@pytest.mark.parametrize("on_impressions", [True, False], ids=["impressions", "periods"])
def test_what_begins_when_the_test_ends_is_no_part_of_it_even_where_it_was_known_at_once(
    on_impressions, known_warehouse, draw_log
):
    signals, skus = draw_log(2, on_impressions=on_impressions, measured=[*["impressions"] * on_impressions, *MEASURED])
    skus = skus.dropna(subset=["launched_at"])
    at_once = signals[signals["sku_id"].isin(skus["sku_id"])].assign(known_at=lambda rows: rows["period_start"])
    at_once = at_once.drop_duplicates(["sku_id", "period_start", "channel", "creative_id"])
    end = at_once["sku_id"].map(skus.set_index("sku_id")["launched_at"]) + SETTINGS.label.test_window
    assert (at_once["period_start"] == end).any()
    pools = []
    for rows in (at_once, at_once[at_once["period_start"] < end]):
        con = known_warehouse(rows, skus, SETTINGS, MONDAY + pd.Timedelta(days=60))
        pools.append(pool_of(con, labels_of(skus, 0, share=1.0), SETTINGS))
        con.close()
    assert (pools[0].exposures == pools[1].exposures).all()
    for name, counts in pools[1].counts.items():
        assert (pools[0].counts[name] == counts).all()


def test_where_nothing_was_counted_in_any_test_window_there_is_no_pool(known_warehouse, draw_log):
    signals, skus = draw_log(0)
    late = skus.assign(launched_at=MONDAY + pd.Timedelta(days=300))
    con = known_warehouse(signals, late, SETTINGS, MONDAY + pd.Timedelta(days=60))
    assert pool_of(con, labels_of(skus, 0), SETTINGS) is None
    con.close()


@pytest.mark.parametrize("on_impressions", [True, False], ids=["impressions", "periods"])
def test_what_was_not_measured_of_a_batch_is_not_measured_in_its_trial(
    on_impressions, known_warehouse, draw_log, draw_rates
):
    """Carts came to be counted after the first batch: its trial must not show that nobody put anything into one."""
    signals, skus = draw_log(3, on_impressions=on_impressions, measured=[*["impressions"] * on_impressions, *MEASURED])
    first = skus["sku_id"].str.startswith("sku-0-")
    signals["carts"] = signals["carts"].mask(signals["sku_id"].isin(skus["sku_id"][first]))
    as_of = MONDAY + pd.Timedelta(days=60)
    labels = labels_of(skus, 0, share=1.0).sort_values("sku_id")
    rates = draw_rates(0, ["carts_per_click"])
    con = known_warehouse(signals, skus, SETTINGS, as_of)
    pool = pool_of(con, labels, SETTINGS)
    look_back(con)
    catalog = con.execute("select * from catalog order by sku_id").df()
    con.close()
    most = play(pool, Buyer(), np.full(len(pool.slots), 10**9), 1, np.random.default_rng(0)).views
    after = each(pool, catalog, most, rates)[-1].set_index("sku_id")
    clicked = after["clicks"].fillna(0) > 0
    unmeasured = np.isin(after.index, skus["sku_id"][first])
    assert (clicked & unmeasured).any()
    assert after["carts_per_click.is_measured"][clicked & ~unmeasured].any()
    assert not after["carts_per_click.is_measured"][clicked & unmeasured].any()


class Buyer:
    """Buys everything."""

    def spend(self, view, rng):
        return view.room

    def score(self, view):
        return view.bought


def test_every_count_of_the_contract_can_be_in_a_pool(known_warehouse, draw_log):
    everything = [*COUNTS, *MONEY]
    pool, _, _ = pool_and_truth(5, known_warehouse, draw_log, on_impressions=True, measured=everything)
    assert set(pool.counts) == set(everything) - {"impressions"}
