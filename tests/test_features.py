"""Every feature against an independent oracle: slow loops, written from what each feature means."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from hitfinder.features import KEYS, RATES, VIEWS, look_at, look_back
from hitfinder.settings import parse_settings
from hitfinder.tables import COUNTS, MONEY
from hitfinder.warehouse import frame

DAY = 86400.0
EVERY_RATE = sorted(name for group in RATES.values() for name in group)
MONDAY = pd.Timestamp("2025-01-06")


def given_or_none(value):
    return None if value is None or pd.isna(value) else value


def seconds(span):
    return span / pd.Timedelta(seconds=1)


class Oracle:
    """What was known of a log at a moment, one plain row at a time."""

    def __init__(self, signals, skus, settings, as_of):
        self.settings, self.as_of = settings, as_of
        self.period = settings.signals.period
        self.reports = []
        for row in signals.to_dict("records"):
            row = {c: given_or_none(row.get(c)) for c in ("channel", "creative_id", "known_at", *COUNTS, *MONEY)} | {
                "sku_id": row["sku_id"],
                "period_start": row["period_start"],
            }
            row["known_at"] = row["known_at"] or row["period_start"] + self.period
            if row["known_at"] <= as_of and row["period_start"] < as_of:
                self.reports.append(row)
        self.catalog = {}
        for row in skus.to_dict("records"):
            seen = [r["period_start"] for r in self.reports if r["sku_id"] == row["sku_id"]]
            launch = given_or_none(row.get("launched_at")) or (min(seen) if seen else as_of)
            year, week, _ = launch.isocalendar()
            self.catalog[row["sku_id"]] = {
                "launched_at": launch,
                "batch_id": given_or_none(row.get("batch_id")) or f"{year}-W{week:02d}",
                "style_id": given_or_none(row.get("style_id")) or "sku:" + row["sku_id"],
                "category": given_or_none(row.get("category")) or "(none)",
                "price": given_or_none(row.get("price")),
            }

    def visible(self, sku, moment):
        """The newest report of each key that was known then, of periods that had begun."""
        newest = {}
        for r in self.reports:
            if r["sku_id"] != sku or r["known_at"] > moment or r["period_start"] >= moment:
                continue
            key = (r["period_start"], r["channel"], r["creative_id"])
            if key not in newest or newest[key]["known_at"] < r["known_at"]:
                newest[key] = r
        return list(newest.values())

    def days(self, sku, moment):
        return max(seconds(moment - self.catalog[sku]["launched_at"]), 0) / DAY

    def since_launch(self, sku, report):
        return seconds(report["period_start"] - self.catalog[sku]["launched_at"]) / DAY

    def training_moments(self):
        """Each SKU at its launch and at the shared steps after it, within its test window and before now."""
        window = self.settings.label.test_window
        per_age = round(window / self.settings.model.ages / self.period)
        step = max(1, per_age) * self.period
        moments = []
        for sku, known in self.catalog.items():
            launch = known["launched_at"]
            last = min(launch + window, self.as_of)
            grid = pd.Timestamp(0) + math.floor((launch - pd.Timestamp(0)) / step) * step + step
            of_sku = {launch} if launch <= last else set()
            while grid <= last:
                of_sku.add(grid)
                grid += step
            moments += [(moment, sku) for moment in of_sku]
        return sorted(moments)

    def total(self, reports, column):
        values = [r[column] for r in reports if r[column] is not None]
        return float(sum(values)) if values else math.nan

    def context(self, moment, sku, listed):
        """Everything but the rates; `listed` are the SKUs looked at in that moment."""
        me, seen, days = self.catalog[sku], self.visible(sku, moment), self.days(sku, moment)
        period_days = seconds(self.period) / DAY
        batch = [s for s in listed if self.catalog[s]["batch_id"] == me["batch_id"]]
        style = [s for s in batch if self.catalog[s]["style_id"] == me["style_id"]]
        prices = [self.catalog[s]["price"] for s in batch if self.catalog[s]["category"] == me["category"]]
        prices = [p for p in prices if p is not None]
        usual = statistics.median(prices) if prices else None
        price = me["price"]
        active = len({r["period_start"] for r in seen})
        last = max((self.since_launch(sku, r) for r in seen), default=None)
        return {
            **{k: me[k] for k in ("batch_id", "style_id", "category", "launched_at")},
            **{c: self.total(seen, c) for c in (*COUNTS, *MONEY)},
            "age_days": days,
            "is_sold_out": False,
            "age_share": days * DAY / seconds(self.settings.label.test_window),
            "active_periods": active,
            "active_share": active / max(days / period_days, 1),
            "quiet_days": math.nan if last is None else max(days - last, 0),
            "channels": len({r["channel"] for r in seen} - {None}),
            "creatives": len({r["creative_id"] for r in seen} - {None}),
            "siblings": len(style) - 1,
            "batch_skus": len(batch),
            "log_price": math.log(price) if price else math.nan,
            "price_lead": math.log(price / usual) if price and usual else math.nan,
            "month": moment.month,
            "launch_weekday": (me["launched_at"].weekday() + 1) % 7,
        }

    def count(self, moment, sku, rate):
        """What was counted on what: (num, den, num of the late half, den of the late half), or None: not measured.

        Of sizes of orders the logs are counted, of those that had a size.
        """
        seen, days = self.visible(sku, moment), self.days(sku, moment)
        period_days = seconds(self.period) / DAY
        over, _, on = rate.partition("_per_")
        again = over.endswith("_again")
        typical = over.startswith("typical_")
        over, on = (
            over.removesuffix("_again").removeprefix("typical_"),
            {"day": None}.get(on, "revenue" if on == "revenue" else on + "s"),
        )
        after = [r for r in seen if self.since_launch(sku, r) >= period_days]
        if again:
            days, seen = max(days - period_days, 0), after
        parts = []
        for r in seen:
            if over == "saves":
                saves = [r[c] for c in ("favorites", "carts") if r[c] is not None]
                num = sum(saves) if saves else None
            else:
                num = r[over]
            den = 0 if on is None else r[on]
            if typical and num is not None and den is not None:
                den = den if num > 0 else 0
                num = round(den * math.log(num / den), 6) if den > 0 else 0
            if num is not None and den is not None:
                parts.append((num, den, self.since_launch(sku, r) >= self.days(sku, moment) / 2))
        if seen and not parts:
            return None
        num, den = (float(sum(p[i] for p in parts)) for i in (0, 1))
        num_late, den_late = (float(sum(p[i] for p in parts if p[2])) for i in (0, 1))
        if on is None:
            den, den_late = round(days, 6), round(days / 2, 6)  # days are told to a tenth of a second
        return num, den, num_late, den_late

    def rates(self, moment, listed, pooling):
        """The shrunk rates of every SKU looked at in a moment, under one pooling (a row of the table of rates)."""
        counted = {sku: self.count(moment, sku, pooling["rate"]) for sku in listed}
        # A pull between logs of sizes is one between logs; elsewhere the rates themselves are pulled.
        there, back = (math.log, math.exp) if pooling["rate"].startswith("typical_") else (float, float)

        def pool(members):
            told = [counted[s] for s in members if counted[s] is not None]
            return sum(c[0] for c in told), sum(c[1] for c in told)

        def pull(num_den, strength, towards):
            return back((num_den[0] + strength * there(towards)) / (num_den[1] + strength))

        rows = {}
        for sku in listed:
            me = self.catalog[sku]
            batch = [s for s in listed if self.catalog[s]["batch_id"] == me["batch_id"]]
            category = [s for s in batch if self.catalog[s]["category"] == me["category"]]
            siblings = [s for s in batch if self.catalog[s]["style_id"] == me["style_id"] and s != sku]
            num, den, num_late, den_late = counted[sku] or (0.0, 0.0, 0.0, 0.0)
            batch_rate = pull(pool(batch), pooling["batch_strength"], pooling["mean"])
            category_rate = pull(pool(category), pooling["category_strength"], batch_rate)
            style_rate = pull(pool(siblings), pooling["style_strength"], category_rate)
            known = pool(siblings)[1] + pooling["style_strength"]
            own = pooling["sku_strength"] * known / (pooling["sku_strength"] + known)
            sku_rate = pull((num, den), own, style_rate)
            late = pull((num_late, den_late), own, style_rate)
            early = pull((num - num_late, max(den - den_late, 0)), own, style_rate)
            rows[sku] = {
                "num": num,
                "den": den,
                "is_measured": counted[sku] is not None,
                "batch_rate": batch_rate,
                "category_rate": category_rate,
                "sku_rate": sku_rate,
                "own_weight": den / (den + own),
                "spread": math.sqrt(pooling["sku_strength"] / (den + own)),
                "unknown": pooling["sku_strength"]
                / (den + own)
                / (1 + pooling["sku_strength"] / pooling["style_strength"]),
                "level": math.log(sku_rate / pooling["mean"]),
                "lead": math.log(sku_rate / batch_rate),
                "sibling_lead": math.log(style_rate / category_rate),
                "trend": math.log(late / early),
            }
        return rows


def assert_like_the_oracle(table, oracle, moments, rates):
    assert list(zip(table["as_of"], table["sku_id"], strict=True)) == sorted(moments)
    listed = {moment: [s for m, s in moments if m == moment] for moment, _ in moments}
    context = pd.DataFrame([oracle.context(m, s, listed[m]) for m, s in sorted(moments)])
    for name in context:
        check(name, table[name], context[name])
    for pooling in rates.to_dict("records"):
        by_moment = {m: oracle.rates(m, skus, pooling) for m, skus in listed.items()}
        expected = pd.DataFrame([by_moment[m][s] for m, s in sorted(moments)])
        for name in expected:
            check(f"{pooling['rate']}.{name}", table[f"{pooling['rate']}.{name}"], expected[name])
        check_places(table, pooling["rate"])
    columns = [*KEYS, *context, *(f"{rate}.{c}" for rate in rates["rate"] for c in [*expected, "place"])]
    assert sorted(table.columns) == sorted(columns)  # nothing is left that no oracle knows


def check(name, got, expected):
    if expected.dtype == float:
        np.testing.assert_allclose(got.to_numpy(float), expected.to_numpy(), rtol=1e-9, atol=1e-9, err_msg=name)
    else:
        assert got.tolist() == expected.tolist(), name


def check_places(table, rate):
    """The share of the batch below, ties in the middle."""
    for _, group in table.groupby(["as_of", "batch_id"]):
        shrunk = group[f"{rate}.sku_rate"].to_numpy()
        expected = [((shrunk < x).sum() + (shrunk == x).sum() / 2) / len(shrunk) for x in shrunk]
        np.testing.assert_allclose(group[f"{rate}.place"].to_numpy(), expected, rtol=1e-12, err_msg=rate)


def settings_of(hours, ages=7):
    return parse_settings({"signals": {"period": f"{hours}h"}, "label": {"test_window": "7d"}, "model": {"ages": ages}})


@effort(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**31 - 1),
    hours=st.sampled_from([24, 6]),
    on_impressions=st.booleans(),
    after=st.integers(0, 30 * 24),
)
def test_every_feature_of_a_list_is_what_slow_loops_say(
    draw_log, draw_rates, compute_features, seed, hours, on_impressions, after
):
    signals, skus = draw_log(seed, hours=hours, on_impressions=on_impressions, days=10)
    settings, as_of = settings_of(hours), MONDAY + pd.Timedelta(hours=after)
    rates = draw_rates(seed, EVERY_RATE)
    table = compute_features(signals, skus, settings, as_of, rates)
    oracle = Oracle(signals, skus, settings, as_of)
    assert_like_the_oracle(table, oracle, [(as_of, sku) for sku in skus["sku_id"]], rates)


@pytest.mark.parametrize(("seed", "hours", "ages"), [(1, 24, 7), (2, 24, 2), (3, 6, 7), (4, 24, 50)])
def test_every_feature_of_the_training_moments_is_what_slow_loops_say(
    draw_log, draw_rates, compute_features, seed, hours, ages
):
    signals, skus = draw_log(seed, hours=hours, on_impressions=seed % 2 == 0, days=10, n_batches=2)
    settings, as_of = settings_of(hours, ages), MONDAY + pd.Timedelta(days=11)
    rates = draw_rates(seed, EVERY_RATE)
    table = compute_features(signals, skus, settings, as_of, rates, back=True)
    oracle = Oracle(signals, skus, settings, as_of)
    assert len(table) > len(skus)
    assert_like_the_oracle(table, oracle, oracle.training_moments(), rates)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("back", [False, True])
def test_a_warehouse_for_small_tables_gives_every_feature_to_the_last_digit(
    draw_log, draw_rates, compute_features, seed, back
):
    log = draw_log(seed, hours=24, on_impressions=seed % 2 == 0, days=10, measured=[*COUNTS, *MONEY])
    told = [
        compute_features(*log, settings_of(24), MONDAY + pd.Timedelta(days=9), draw_rates(seed, EVERY_RATE),
                         back=back, threads=2, small=small)
        for small in (False, True)
    ]  # fmt: skip
    pd.testing.assert_frame_equal(*told, check_exact=True)


def test_a_sku_is_shown_at_its_launch_and_at_every_shared_step_of_its_test_window(known_warehouse):
    skus = pd.DataFrame({"sku_id": ["early", "late"], "launched_at": [MONDAY, MONDAY + pd.Timedelta(hours=53)]})
    signals = pd.DataFrame({"sku_id": ["early"], "period_start": [MONDAY], "clicks": [1]})
    con = known_warehouse(signals, skus, settings_of(24), MONDAY + pd.Timedelta(days=30))
    look_back(con)
    moments = frame(con, "select sku_id, as_of from moments").groupby("sku_id")["as_of"].agg(list).to_dict()
    con.close()
    days = [MONDAY + pd.Timedelta(days=d) for d in range(10)]
    assert sorted(moments["early"]) == days[:8]
    assert sorted(moments["late"]) == [MONDAY + pd.Timedelta(hours=53), *days[3:10]]


def test_a_report_that_replaces_an_older_one_counts_from_the_moment_it_is_known(compute_features, draw_rates):
    key = {"sku_id": "a", "period_start": MONDAY}
    signals = pd.DataFrame(
        [
            key | {"known_at": MONDAY + pd.Timedelta(days=1), "clicks": 5},
            key | {"known_at": MONDAY + pd.Timedelta(days=3), "clicks": 7},
        ]
    )
    skus = pd.DataFrame({"sku_id": ["a"], "launched_at": [MONDAY]})
    rates = draw_rates(0, ["clicks_per_day"])
    table = compute_features(signals, skus, settings_of(24), MONDAY + pd.Timedelta(days=7), rates, back=True)
    assert table["clicks"].fillna(-1).tolist() == [-1, 5, 5, 7, 7, 7, 7, 7]


def test_what_was_not_measured_stays_null_and_pulls_no_pool(compute_features, draw_rates):
    days = [MONDAY, MONDAY + pd.Timedelta(days=1)]
    signals = pd.DataFrame(
        [
            {"sku_id": sku, "period_start": day, "clicks": 2, "visitors": 3 if sku == "measured" else None}
            for sku in ("measured", "not measured")
            for day in days
        ]
    ).astype({"visitors": "Int64"})
    skus = pd.DataFrame({"sku_id": ["measured", "not measured", "unseen"], "batch_id": "b", "launched_at": MONDAY})
    names = ["visitors_per_day", "visitors_again_per_day", "clicks_per_impression"]
    table = compute_features(
        signals, skus, settings_of(24), MONDAY + pd.Timedelta(days=2), draw_rates(0, names)
    ).set_index("sku_id")
    assert table["visitors"].fillna(-1).tolist() == [6, -1, -1]
    assert table["clicks"].fillna(-1).tolist() == [4, 4, -1]
    assert table[["impressions", "revenue", "log_price", "price_lead"]].isna().all(axis=None)  # the columns are absent
    assert table["quiet_days"].isna().tolist() == [False, False, True]
    # Seen, but not this: no exposure. Not seen at all: two days on which nothing came.
    assert table["visitors_per_day.is_measured"].tolist() == [True, False, True]
    assert table["visitors_per_day.den"].tolist() == [2, 0, 2]
    assert table["visitors_again_per_day.is_measured"].tolist() == [True, False, True]
    assert table["visitors_again_per_day.den"].tolist() == [1, 0, 1]
    assert table["clicks_per_impression.is_measured"].tolist() == [False, False, True]
    assert table["clicks_per_impression.den"].tolist() == [0, 0, 0]
    assert table["visitors_per_day.own_weight"]["not measured"] == 0


def test_a_sku_of_which_nothing_is_known_stands_where_its_pool_stands(compute_features, draw_rates):
    signals = pd.DataFrame({"sku_id": "a", "period_start": [MONDAY], "clicks": [50], "impressions": [100]})
    skus = pd.DataFrame({"sku_id": ["a", "new"], "batch_id": "b", "launched_at": [MONDAY, pd.NaT]})
    rates = draw_rates(0, ["clicks_per_day", "clicks_per_impression"])
    table = compute_features(signals, skus, settings_of(24), MONDAY + pd.Timedelta(days=2), rates)
    new = table.set_index("sku_id").loc["new"]
    assert new["age_days"] == 0
    for rate in rates["rate"]:
        assert new[f"{rate}.own_weight"] == 0
        assert new[f"{rate}.trend"] == 0
        assert new[f"{rate}.sku_rate"] == pytest.approx(new[f"{rate}.category_rate"])


def test_an_order_is_as_large_as_it_typically_is_and_free_ones_have_no_size(compute_features, draw_rates):
    """Two SKUs sell nine orders of 10 and 20; the first sells one of 77,184 besides, the second gives one away."""
    sold = {"bulk": [10] * 9 + [77_184], "plain": [20] * 9 + [0]}
    signals = pd.DataFrame(
        [
            {"sku_id": sku, "period_start": MONDAY + pd.Timedelta(hours=hour), "orders": 1, "revenue": value}
            for sku, values in sold.items()
            for hour, value in enumerate(values)
        ]
    )
    skus = pd.DataFrame({"sku_id": list(sold), "batch_id": list(sold), "launched_at": MONDAY})
    rates = draw_rates(0, ["typical_revenue_per_order"]).assign(
        mean=15.0, batch_strength=1.0, category_strength=1e9, style_strength=1e9, sku_strength=1e-9
    )
    table = compute_features(signals, skus, settings_of(1), MONDAY + pd.Timedelta(days=2), rates).set_index("sku_id")
    assert table["typical_revenue_per_order.den"].to_dict() == {"bulk": 10, "plain": 9}
    assert table.loc["plain", "typical_revenue_per_order.sku_rate"] == pytest.approx(20)
    assert table.loc["bulk", "typical_revenue_per_order.sku_rate"] == pytest.approx((10**9 * 77_184) ** 0.1)
    # A batch is pulled to history by one order of that size.
    assert table.loc["plain", "typical_revenue_per_order.batch_rate"] == pytest.approx((20**9 * 15) ** 0.1)


def test_both_looks_can_be_taken_on_one_connection(draw_log, known_warehouse):
    con = known_warehouse(*draw_log(1), settings_of(24), MONDAY + pd.Timedelta(days=9))
    for look in (look_back, look_at, look_back):
        look(con)
        assert con.execute("select count(*) from totals").fetchone()[0] > 0
    con.close()


def test_every_number_is_finite_or_null_and_the_views_of_a_rate_are_never_null(draw_log, draw_rates, compute_features):
    signals, skus = draw_log(5)
    table = compute_features(signals, skus, settings_of(24), MONDAY + pd.Timedelta(days=9), draw_rates(5, EVERY_RATE))
    numbers = table.select_dtypes("number")
    assert not np.isinf(numbers.to_numpy(float)).any()
    views = table[[f"{rate}.{view}" for rate in EVERY_RATE for view in VIEWS]]
    assert views.notna().all(axis=None)
    assert views.filter(like="place").gt(0).all(axis=None)
    assert views.filter(like="place").lt(1).all(axis=None)
