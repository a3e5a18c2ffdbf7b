"""What had sold out is not read as low demand: features and labels against slow loops, and unchanged elsewhere."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from test_features import DAY, EVERY_RATE, MONDAY, Oracle, assert_like_the_oracle, seconds, settings_of

import hitfinder.features
import hitfinder.labels
import hitfinder.warehouse
from hitfinder.errors import DataError
from hitfinder.features import count_pairs, features, look_at, look_back
from hitfinder.labels import MAX_COMPLETION, label
from hitfinder.settings import parse_settings
from hitfinder.tables import COUNTS, MONEY
from hitfinder.trial_table import pool_of
from hitfinder.warehouse import frame, load_sql

FROZEN = {path.stem: path.read_text(encoding="utf-8") for path in (Path(__file__).parent / "frozen_sql").glob("*.sql")}
VISITS = ("impressions", "visitors", "clicks", "favorites", "carts")
MEASURED = ["impressions", "clicks", "favorites", "orders", "units", "revenue", "refunds", "spend"]
PER_DAY = pd.Timedelta(days=1)


class StockedOracle(Oracle):
    """As the oracle of features, for SKUs that may have sold out."""

    def __init__(self, signals, skus, settings, as_of):
        super().__init__(signals, skus, settings, as_of)
        self.stock = dict(zip(skus["sku_id"], skus["stock"], strict=True))
        self.shown_only = False

    def sold_out_at(self, sku, moment):
        """The end of the period that reached the stock, where nothing was sold after it; else None."""
        stock = self.stock[sku]
        reports = super().visible(sku, moment)
        if pd.isna(stock) or stock <= 0:
            return None
        so_far = 0
        for start in sorted({r["period_start"] for r in reports}):
            so_far += sum(r["units"] or 0 for r in reports if r["period_start"] == start)
            if so_far >= stock:
                later = [r for r in reports if r["period_start"] > start]
                if any((r["units"] or 0) + (r["orders"] or 0) + (r["revenue"] or 0) > 0 for r in later):
                    return None
                return start + self.period
        return None

    def visible(self, sku, moment):
        end = self.sold_out_at(sku, moment)
        rows = []
        for r in super().visible(sku, moment):
            if end is None or r["period_start"] < end:
                rows.append(r | {"in_stock": True})
            elif not self.shown_only:
                rows.append(r | dict.fromkeys(VISITS) | {"in_stock": False})
        return rows

    def age(self, sku, moment):
        return max(seconds(moment - self.catalog[sku]["launched_at"]), 0) / DAY

    def days(self, sku, moment):
        end = self.sold_out_at(sku, moment)
        return self.age(sku, moment if end is None else min(moment, end))

    def context(self, moment, sku, listed):
        sums = {c: self.total(self.visible(sku, moment), c) for c in (*COUNTS, *MONEY)}
        self.shown_only = True
        told = super().context(moment, sku, listed)
        self.shown_only = False
        age = self.age(sku, moment)
        share = age * DAY / seconds(self.settings.label.test_window)
        gone = self.sold_out_at(sku, moment) is not None
        return told | sums | {"age_days": age, "age_share": share, "is_sold_out": gone}

    def count(self, moment, sku, rate):
        told = super().count(moment, sku, rate)
        if told is not None:
            return told
        # Unmeasured is only what was not counted while it was in stock.
        period_days = seconds(self.period) / DAY
        seen = [r for r in self.visible(sku, moment) if r["in_stock"]]
        if "_again_" in rate:
            seen = [r for r in seen if self.since_launch(sku, r) >= period_days]
        if seen:
            return None
        days = self.days(sku, moment)
        days = round(max(days - period_days, 0) if "_again_" in rate else days, 6)
        late = round((max(self.days(sku, moment) - period_days, 0) if "_again_" in rate else days) / 2, 6)
        return (0.0, days, 0.0, late) if rate.endswith("_per_day") else (0.0, 0.0, 0.0, 0.0)


def newest(signals, period=PER_DAY):
    known = signals["known_at"].fillna(signals["period_start"] + period)
    keys = ["sku_id", "period_start", "channel", "creative_id"]
    return signals.assign(known_at=known).sort_values("known_at", kind="stable").drop_duplicates(keys, keep="last")


def stocked(signals, skus, seed, period=PER_DAY):
    """Give some SKUs the stock that they had sold by some period, and stop the sales of some of these there."""
    rng = np.random.default_rng(seed)
    stock, signals = {}, signals.copy()
    sold_columns = [c for c in ("orders", "units", "revenue") if c in signals]
    for sku, rows in newest(signals, period).groupby("sku_id"):
        sums = rows.groupby("period_start")["units"].sum().sort_index().cumsum() if "units" in rows else []
        if len(sums) == 0 or rng.random() < 0.3:
            continue
        place = int(rng.integers(0, len(sums)))
        stock[sku] = int(sums.iloc[place])
        if rng.random() < 0.7:
            later = (signals["sku_id"] == sku) & (signals["period_start"] > sums.index[place])
            for column in sold_columns:
                signals.loc[later, column] = signals.loc[later, column].where(signals.loc[later, column].isna(), 0)
    return signals, skus.assign(stock=skus["sku_id"].map(stock).astype("Int64"))


slow = effort(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@slow
@given(seed=st.integers(0, 2**31 - 1), hours=st.sampled_from([24, 6]), after=st.integers(2 * 24, 30 * 24))
def test_features_of_what_sold_out_are_what_slow_loops_say(draw_log, draw_rates, compute_features, seed, hours, after):
    signals, skus = draw_log(seed, hours=hours, days=10, measured=MEASURED, n_batches=2)
    signals, skus = stocked(signals, skus, seed, pd.Timedelta(hours=hours))
    settings, as_of = settings_of(hours), MONDAY + pd.Timedelta(hours=after)
    rates = draw_rates(seed, [r for r in EVERY_RATE if "visitors" not in r and "carts" not in r])
    table = compute_features(signals, skus, settings, as_of, rates)
    oracle = StockedOracle(signals, skus, settings, as_of)
    assert_like_the_oracle(table, oracle, [(as_of, sku) for sku in skus["sku_id"]], rates)


def test_features_of_training_see_the_stock_as_it_was_known_then(draw_log, draw_rates, compute_features):
    settings, as_of = settings_of(24, ages=3), MONDAY + pd.Timedelta(days=30)
    found = 0
    for seed in range(3):
        signals, skus = stocked(*draw_log(seed, days=10, measured=MEASURED, n_batches=2), seed)
        rates = draw_rates(seed, ["orders_per_day", "clicks_per_impression", "units_again_per_day"])
        table = compute_features(signals, skus, settings, as_of, rates, back=True)
        oracle = StockedOracle(signals, skus, settings, as_of)
        moments = oracle.training_moments()
        assert_like_the_oracle(table, oracle, moments, rates)
        found += sum(oracle.sold_out_at(sku, moment) is not None for moment, sku in moments)
    assert found > 5  # else nothing was tested


@slow
@given(seed=st.integers(0, 2**31 - 1), after=st.integers(2 * 24, 20 * 24))
def test_later_rows_change_neither_stock_outs_nor_features(draw_log, draw_rates, known_warehouse, seed, after):
    signals, skus = stocked(*draw_log(seed, days=10, measured=MEASURED, n_batches=2), seed)
    settings, as_of = settings_of(24), MONDAY + pd.Timedelta(hours=after)
    known = signals["known_at"].fillna(signals["period_start"] + PER_DAY)
    then = signals[(known <= as_of) & (signals["period_start"] < as_of)].reset_index(drop=True)
    launched = skus.assign(launched_at=skus["launched_at"].fillna(MONDAY))
    rates = draw_rates(seed, ["orders_per_day", "units_per_impression"])
    tables = []
    for rows in (signals, then):
        con = known_warehouse(rows, launched, settings, as_of)
        try:
            look_at(con)
            count_pairs(con, list(rates["rate"]))
            tables.append((frame(con, "select * from stock_outs order by sku_id"), features(con, rates)))
        finally:
            con.close()
    for one, other in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize(
    ("stock", "back"), [(None, False), (None, True), ("plenty", True), (0, True), ("passed", False)]
)
def test_where_nothing_sold_out_every_bit_is_as_before(draw_log, draw_rates, known_warehouse, monkeypatch, back, stock):
    settings, as_of = settings_of(24, ages=3), MONDAY + pd.Timedelta(days=28)
    rates = draw_rates(5, EVERY_RATE)
    for seed in (3, 4):
        signals, skus = draw_log(seed, days=12, measured=None if stock is None else [*MEASURED, "carts", "visitors"])
        if stock == "plenty":
            skus = skus.assign(stock=10**9)
        elif stock == "passed":
            # Today's stock rather than the launch's: sales went on when it was reached.
            sums = newest(signals).query("units > 0").groupby(["sku_id", "period_start"])["units"].sum()
            # What all periods but the last sold.
            before = sums.groupby("sku_id").sum() - sums.groupby("sku_id").last()
            skus = skus.assign(stock=skus["sku_id"].map(before[before > 0]).astype("Int64"))
        elif stock == 0:
            skus = skus.assign(stock=0)
        new = pipeline(known_warehouse, signals, skus, settings, as_of, rates, back)
        with monkeypatch.context() as patch:
            for module in (hitfinder.warehouse, hitfinder.features, hitfinder.labels):
                patch.setattr(module, "load_sql", as_before)
            old = pipeline(known_warehouse, signals, skus, settings, as_of, rates, back)
        assert len(new[0])
        assert not new[0]["is_sold_out"].any()
        pd.testing.assert_frame_equal(new[0].drop(columns="is_sold_out"), old[0], check_exact=True)
        for one, other in zip(new[1], old[1], strict=True):
            pd.testing.assert_frame_equal(one[other.columns], other, check_exact=True)
            assert not one["is_completed"].any()


def as_before(name):
    if name == "catalog":  # which is asked whether any SKU can have sold out
        return f"select *, cast(null as bigint) as reached_stock from ({FROZEN[name]})"
    return FROZEN.get(name) or load_sql(name)


def pipeline(known_warehouse, signals, skus, settings, as_of, rates, back):
    con = known_warehouse(signals, skus, settings, as_of)
    try:
        (look_back if back else look_at)(con)
        count_pairs(con, list(rates["rate"]))
        told = features(con, rates)
        labels = [
            label(con, parse_settings({"label": {"test_window": "3d", "outcome_window": "6d", **rule}}),
                  outcomes_given=False)
            for rule in ({"metric": "clicks"}, {"metric": "clicks / impressions", "min_value": 0.1})
            if rule["metric"] == "clicks" or "impressions" in signals
        ]  # fmt: skip
        return told, labels
    finally:
        con.close()


def slow_values(signals, skus, settings, as_of):
    """What each SKU is labelled with: {sku: (value, completed, known_at)}."""
    rule, (top, _, below) = settings.label, settings.label.metric.partition(" / ")
    oracle = StockedOracle(signals, skus, settings, as_of)

    def add(rows, column):
        told = [r[column] for r in rows if r[column] is not None]
        return float(sum(told)) if told else None

    lines = {}
    for sku, about in oracle.catalog.items():
        opens = about["launched_at"] + rule.test_window
        closes = opens + rule.outcome_window
        if closes > as_of:
            continue
        end = oracle.sold_out_at(sku, as_of)
        end = end if end is not None and end < closes else None
        rows = [
            r | ({c: 0 for c in (*VISITS, "spend") if r[c] is not None} if end is not None and r["period_start"] >= end
                 else {})
            for r in Oracle.visible(oracle, sku, as_of)
        ]  # fmt: skip
        inside = [r for r in rows if opens <= r["period_start"] < closes]
        test = [r for r in rows if about["launched_at"] <= r["period_start"] < opens]
        known = max([closes, *(r["known_at"] for r in inside)])
        line = {"group": about["batch_id"], "end": end, "early": end is not None and end <= opens, "known": known}
        line |= {"num": add(inside, top), "den": add(inside, below) if below else 1.0, "empty": not inside}
        line |= {"test_num": add(test, top), "test_den": add(test, below) if below else 1.0}
        line["stretch"] = 1.0
        if end is not None and not below:
            whole, had = (
                (rule.test_window, max(end - about["launched_at"], settings.signals.period))
                if line["early"]
                else (rule.outcome_window, end - opens)
            )
            line["stretch"] = min(whole / had, MAX_COMPLETION)
        lines[sku] = line

    def ratio(chosen):
        here = [x for x in chosen if not x["early"]]
        sums = []
        for c in ("num", "den", "test_num", "test_den"):
            nothing = 1.0 if c.endswith("den") else 0.0
            sums.append(sum((nothing if x[c] is None else x[c]) * (x["stretch"] if c == "num" else 1) for x in here))
        told = [any(x[c] is not None for x in here) for c in ("num", "test_num")]
        num, den, test_num, test_den = sums
        if not all(told) or not den or not test_den or not test_num:
            return None
        return num / den / (test_num / test_den)

    found = {}
    for sku, line in lines.items():
        value, known = None, line["known"]
        if line["early"]:
            group = [x for x in lines.values() if x["group"] == line["group"]]
            known = max(x["known"] for x in group)
            times = ratio(group)
            times = ratio(lines.values()) if times is None else times
            if times is not None and line["test_num"] is not None and line["test_den"]:
                value = line["test_num"] / line["test_den"] * line["stretch"] * times
        elif below:
            value = line["num"] / line["den"] if line["num"] is not None and line["den"] else None
        elif line["empty"]:
            value = 0.0
        elif line["num"] is not None:
            value = line["num"] * line["stretch"]
        if value is not None and known <= as_of:
            found[sku] = (value, line["end"] is not None, known)
    return found


@slow
@given(
    seed=st.integers(0, 2**31 - 1),
    metric=st.sampled_from(["clicks", "revenue", "units", "clicks / impressions", "revenue / orders"]),
    after=st.integers(9 * 24, 40 * 24),
)
@example(seed=468, metric="clicks", after=216)
def test_labels_of_what_sold_out_are_what_slow_loops_say(draw_log, known_warehouse, seed, metric, after):
    signals, skus = stocked(*draw_log(seed, days=14, measured=MEASURED, n_batches=2), seed)
    rule = {"test_window": "3d", "outcome_window": "5d", "metric": metric}
    settings, as_of = parse_settings({"label": rule}), MONDAY + pd.Timedelta(hours=after)
    con = known_warehouse(signals, skus, settings, as_of)
    expected = slow_values(signals, skus, settings, as_of)
    try:
        table = label(con, settings, outcomes_given=False).set_index("sku_id")
    except DataError as error:  # nothing was known of the metric yet
        if expected or "never measured before the moment" not in str(error):
            raise
        return
    finally:
        con.close()
    assert set(table.index) == set(expected)
    for sku, (value, completed, known) in expected.items():
        row = table.loc[sku]
        assert row["value"] == pytest.approx(value, rel=1e-6, abs=1e-4), sku  # sums over groups are told to 1e-6
        assert (bool(row["is_completed"]), row["known_at"]) == (completed, known), sku


def batch_of(units, stock, *, days=12, shown=100):
    """Six SKUs launched together that sell `units[i]` a day until their stock is gone; a page is shown `days` days."""
    rows = []
    for i, (daily, left) in enumerate(zip(units, stock, strict=True)):
        for day in range(days):
            sold = daily if left is None else min(daily, left)
            left = None if left is None else left - sold
            rows.append({"sku_id": f"s{i}", "period_start": MONDAY + day * PER_DAY, "impressions": shown,
                         "clicks": 10, "orders": sold, "units": sold, "revenue": 2.0 * sold})  # fmt: skip
    return pd.DataFrame(rows), pd.DataFrame(
        {"sku_id": [f"s{i}" for i in range(len(units))], "batch_id": "b", "launched_at": MONDAY,
         "stock": pd.array(stock, dtype="Int64")}
    )  # fmt: skip


def values_of(known_warehouse, signals, skus, **rule):
    settings = parse_settings({"label": {"test_window": "2d", "outcome_window": "10d", "metric": "revenue", **rule}})
    con = known_warehouse(signals, skus, settings, MONDAY + 13 * PER_DAY)
    try:
        return label(con, settings, outcomes_given=False).set_index("sku_id")
    finally:
        con.close()


def test_an_outcome_that_was_cut_short_is_completed_at_its_own_pace(known_warehouse):
    # s0 sells 5 a day and is gone after 6 days, 4 of them in its window; s1 sells 3 a day throughout.
    signals, skus = batch_of([5, 3, 2, 2, 1, 1], [30, None, None, None, None, None])
    table = values_of(known_warehouse, signals, skus)
    assert table["value"].tolist() == [100, 60, 40, 40, 20, 20]
    assert table["is_completed"].tolist() == [True, False, False, False, False, False]
    assert table["hit"].tolist() == [True, False, False, False, False, False]
    blind = values_of(known_warehouse, signals, skus.assign(stock=None))
    assert blind["value"]["s0"] == 40
    assert not blind["hit"]["s0"]


def test_no_outcome_is_completed_to_more_than_the_stated_multiple(known_warehouse):
    signals, skus = batch_of([5, 3, 2, 2, 1, 1], [15, None, None, None, None, None])  # gone on the window's first day
    settings = {"outcome_window": "40d"}
    table = values_of(known_warehouse, signals, skus, **settings)
    assert table.empty  # not closed yet
    signals, skus = batch_of([5, 3, 2, 2, 1, 1], [15, None, None, None, None, None], days=42)
    settings = parse_settings({"label": {"test_window": "2d", "outcome_window": "40d", "metric": "revenue"}})
    con = known_warehouse(signals, skus, settings, MONDAY + 43 * PER_DAY)
    assert label(con, settings, outcomes_given=False).set_index("sku_id")["value"]["s0"] == 10 * MAX_COMPLETION
    con.close()


def test_who_was_gone_before_its_window_is_worth_its_test_times_what_windows_are_over_tests(known_warehouse):
    signals, skus = batch_of([9, 3, 2, 2, 1, 1], [9, None, None, None, None, None])  # s0 was gone after a day
    table = values_of(known_warehouse, signals, skus)
    assert table["value"]["s0"] == pytest.approx(9 * 2.0 * (2 / 1) * (10 / 2))  # two days' test, a window five times it
    assert table["is_completed"]["s0"]


def test_a_rate_is_taken_from_the_time_in_stock(known_warehouse):
    signals, skus = batch_of([5, 3, 2, 2, 1, 1], [30, None, None, None, None, None])
    table = values_of(known_warehouse, signals, skus, metric="revenue / impressions", min_value=0.05)
    assert table["value"]["s0"] == pytest.approx(5 * 2.0 / 100)


def test_given_outcomes_are_left_as_they_are(known_warehouse):
    signals, skus = batch_of([5, 3, 2, 2, 1, 1], [30, None, None, None, None, None])
    settings = parse_settings({"label": {"test_window": "2d", "outcome_window": "10d"}})
    con = known_warehouse(signals, skus, settings, MONDAY + 13 * PER_DAY)
    con.execute("create table outcomes as select sku_id, 7.0 as value, timestamp '2025-01-07' as known_at from skus")
    table = label(con, settings, outcomes_given=True)
    con.close()
    assert table["value"].tolist() == [7.0] * 6
    assert not table["is_completed"].any()


def test_refunds_of_what_was_sold_before_still_count(compute_features, draw_rates):
    signals, skus = batch_of([5, 3], [10, None])
    signals["refunds"] = 0.0
    signals.loc[(signals["sku_id"] == "s0") & (signals["period_start"] == MONDAY + 9 * PER_DAY), "refunds"] = 6.0
    rates = draw_rates(0, ["refunds_per_revenue", "clicks_per_impression", "units_per_day"])
    table = compute_features(signals, skus, settings_of(24), MONDAY + 12 * PER_DAY, rates).set_index("sku_id")
    s0 = table.loc["s0"]
    assert (s0["refunds_per_revenue.num"], s0["refunds_per_revenue.den"]) == (6.0, 20.0)
    assert (s0["impressions"], s0["active_periods"], s0["age_days"]) == (200, 2, 12)
    assert (s0["units_per_day.num"], s0["units_per_day.den"]) == (10, 2)
    assert table.loc["s1", "units_per_day.den"] == 12


def test_sales_that_go_on_prove_a_stock_wrong(known_warehouse):
    signals, skus = batch_of([5, 3], [None, None])
    settings = settings_of(24)
    for stock, out in ((10, 0), (55, 0), (56, 1), (60, 1), (0, 0)):
        con = known_warehouse(signals, skus.assign(stock=[stock, None]), settings, MONDAY + 12 * PER_DAY)
        look_at(con)
        assert con.execute("select count(*) from stock_outs").fetchone()[0] == out
        con.close()


def test_a_test_that_is_played_again_shows_no_page_without_stock(known_warehouse):
    signals, skus = batch_of([5, 3, 2, 2, 1, 1], [10, None, None, None, None, None])
    settings = parse_settings({"label": {"test_window": "6d", "outcome_window": "5d"}})
    con = known_warehouse(signals, skus, settings, MONDAY + 12 * PER_DAY)
    pool = pool_of(con, label(con, settings, outcomes_given=False), settings)
    con.close()
    assert pool.exposures.tolist() == [200, 600, 600, 600, 600, 600]
    assert pool.counts["units"].tolist() == [10, 18, 12, 12, 6, 6]
    assert not any(math.isnan(x) for x in pool.counts["revenue"])
