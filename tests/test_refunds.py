"""Returns before they arrive: sums against slow oracles, planted delays and shares found again, and no look ahead."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from scipy import stats

from hitfinder.admission import admit_signals_and_skus
from hitfinder.errors import DataError, SettingsError
from hitfinder.features import set_scope
from hitfinder.refunds import FORECAST_COLUMNS, RefundModel, fit_refunds, returns
from hitfinder.refunds.delays import PRIOR_REFUNDS, delay_shares, development, known_shares
from hitfinder.refunds.evidence import gather, set_grid
from hitfinder.refunds.intervals import still_to_come
from hitfinder.refunds.shrinkage import Prior, share_of
from hitfinder.settings import Settings, parse_settings
from hitfinder.warehouse import open_warehouse

START = pd.Timestamp("2025-01-06")
DAY = pd.Timedelta(days=1)
DELAYS = np.bincount([2, 3, 3, 4, 4, 4, 5, 5, 6, 9, 9, 9, 10, 10, 11, 12, 14, 14, 20, 25]) / 20
MEASURED = ["clicks", "orders", "revenue", "refunds"]


def draw_orders(seed, *, n_skus=120, days=70, own=0.0, mean_orders=40, delays=DELAYS):
    """Draw orders with planted shares by category and price: (orders, skus). Styles have three SKUs, launched daily."""
    rng = np.random.default_rng(seed)
    category = np.repeat(rng.choice(["dress", "mug"], n_skus // 3), 3)
    price = np.repeat(np.round(np.exp(rng.normal(3, 0.4, n_skus // 3)), 2), 3)
    odds = np.where(category == "dress", -0.8, -2.2) + 0.6 * np.log(price / np.exp(3))
    odds += np.repeat(rng.normal(0, own, n_skus // 3), 3) + rng.normal(0, own, n_skus)
    share = 1 / (1 + np.exp(-odds))
    launched = rng.integers(0, days - 5, n_skus)
    sku = np.repeat(np.arange(n_skus), rng.poisson(mean_orders * np.exp(rng.normal(-0.2, 0.6, n_skus))))
    day = launched[sku] + rng.integers(0, 30, len(sku))
    value = price[sku] * (1 + rng.poisson(0.2, len(sku)))
    back = rng.random(len(sku)) < share[sku]
    wait = rng.choice(len(delays), len(sku), p=delays)
    orders = pd.DataFrame({"sku": sku, "day": day, "value": value, "back": back, "return_day": day + wait})
    skus = pd.DataFrame(
        {
            "sku_id": [f"k{i:04d}" for i in range(n_skus)],
            "style_id": [f"s{i // 3}" for i in range(n_skus)],
            "category": category,
            "price": price,
            "launched_at": START + pd.to_timedelta(launched, unit="D"),
        }
    )
    return orders, skus, share


def as_signals(orders, skus):
    """Sum the orders up by SKU and day; each row is known at the end of its day."""
    sold = orders.groupby(["sku", "day"])["value"].agg(orders="size", revenue="sum")
    back = orders[orders["back"]].groupby(["sku", "return_day"])["value"].sum().rename("refunds")
    rows = sold.join(back.rename_axis(["sku", "day"]), how="outer").fillna(0).reset_index()
    rows["sku_id"] = skus["sku_id"].to_numpy()[rows["sku"]]
    rows["period_start"] = START + pd.to_timedelta(rows["day"], unit="D")
    return rows[["sku_id", "period_start", "orders", "revenue", "refunds"]].astype({"orders": int})


@pytest.fixture
def known():
    """Return `know(signals, skus, as_of, settings)`: a connection at that moment, closed at the end of the test."""
    opened = []

    def know(signals, skus, as_of, settings=None):
        settings = settings or Settings()
        con = open_warehouse(threads=1)
        opened.append(con)
        done = admit_signals_and_skus(con, signals, skus, period=settings.signals.period)
        assert not any(a.rejects for a in done)
        set_scope(con, settings, pd.Timestamp(as_of))
        return con

    yield know
    for con in opened:
        con.close()


# --- what is known of each SKU -----------------------------------------------------------------------------------


def oracle_sums(signals, origin, curve, sku, moment):
    """Sum one SKU's evidence at one moment, row by row, in plain Python."""
    newest = {}
    for row in signals[signals["sku_id"] == sku].to_dict("records"):
        known_at = row["period_start"] + DAY if pd.isna(row["known_at"]) else row["known_at"]
        if known_at > moment or row["period_start"] >= moment:
            continue
        key = (row["period_start"], str(row["channel"]), str(row["creative_id"]))
        if key not in newest or newest[key][0] < known_at:
            newest[key] = (known_at, row)
    total = dict.fromkeys(("revenue", "orders", "refunds", "measured_revenue", "squares", "developed"), 0.0)
    for _, row in newest.values():
        revenue = None if pd.isna(row["revenue"]) else float(row["revenue"])
        refunds = None if pd.isna(row["refunds"]) else float(row["refunds"])
        orders = (1 if (revenue or 0) > 0 else 0) if pd.isna(row["orders"]) else int(row["orders"])
        total["revenue"] += revenue or 0
        total["orders"] += orders
        if revenue is None or refunds is None:
            continue
        day = (row["period_start"] - origin) // DAY
        age = (moment - (origin + day * DAY)) // DAY
        total["refunds"] += refunds
        total["measured_revenue"] += revenue
        total["squares"] += revenue**2 / max(orders, 1)
        total["developed"] += revenue * (curve[age] if age < len(curve) else 1)
    return total


@pytest.mark.parametrize("seed", range(4))
def test_evidence_is_what_a_slow_count_gives(seed, draw_log, known):
    signals, skus = draw_log(seed, measured=MEASURED)
    con = known(signals, skus, START + 60 * DAY)
    origin, _ = set_grid(con)
    curve = np.linspace(0, 1, 12)
    rng = np.random.default_rng(seed)
    pairs = pd.DataFrame({"sku_id": np.repeat(skus["sku_id"].to_numpy(), 2)})
    pairs["moment"] = START + pd.to_timedelta(rng.integers(0, 40 * 24, len(pairs)), unit="h")
    pairs = pairs.drop_duplicates()
    own, siblings = gather(con, curve, pairs)
    style = dict(zip(skus["sku_id"], skus["style_id"], strict=True))
    for row, other in zip(own.to_dict("records"), siblings.to_dict("records"), strict=True):
        expected = oracle_sums(signals, origin, curve, row["sku_id"], row["moment"])
        assert {k: row[k] for k in expected} == pytest.approx(expected, abs=1e-3)
        name = style[row["sku_id"]]
        family = [] if pd.isna(name) else [k for k, s in style.items() if s == name and k != row["sku_id"]]
        rest = [oracle_sums(signals, origin, curve, k, row["moment"])["developed"] for k in family]
        assert other["developed"] == pytest.approx(sum(rest), abs=1e-3)


# --- delays ------------------------------------------------------------------------------------------------------


def test_late_reports_are_found_though_the_newest_days_hide_theirs():
    rng = np.random.default_rng(0)
    room = rng.integers(1, 12, 40_000)  # many days are so young that only the punctual reports are there
    delay = rng.choice([1, 2, 5, 8], len(room), p=[0.5, 0.2, 0.2, 0.1])
    seen = delay <= room
    lateness = pd.DataFrame({"delay": delay[seen], "room": room[seen], "reports": 1})
    share = known_shares(lateness, 10)
    assert share == pytest.approx([0, 0.5, 0.7, 0.7, 0.7, 0.9, 0.9, 0.9, 1, 1, 1], abs=0.02)
    naive = [(lateness["delay"] <= s).mean() for s in range(11)]
    assert naive[1] > 0.55  # what comes of forgetting the hidden


def test_the_steps_towards_the_delay_are_those_of_a_slow_count():
    rng = np.random.default_rng(3)
    rows = []
    for sku in range(6):
        for day in range(24):
            if rng.random() < 0.7:
                back = float(rng.poisson(0.4))
                rows.append([f"k{sku}", "ab"[sku % 2], day, 24 - day, float(rng.integers(0, 5)), back])
    daily = pd.DataFrame(rows, columns=["sku_id", "category", "day", "age", "orders", "refunds"])
    longest, known = 5, np.ones(9)
    known[0] = 0.0
    found, matched = delay_shares(daily, known, longest, 1.0)

    begin, last = 5, 24  # a quarter of 24 days is 6, and the longest lag 5
    sold = {(r.sku_id, r.day): r.orders for r in daily.itertuples()}
    back = [(r.sku_id, r.category, r.day, r.refunds) for r in daily.itertuples() if r.refunds > 0 and r.day >= begin]
    back = [(s, c, t, w) for s, c, t, w in back if any(sold.get((s, t - lag), 0) for lag in range(longest + 1))]
    assert matched == len(back)
    edges = stats.gamma.cdf(np.arange(longest + 2), 2, scale=6.5)
    prior = [b - a + 1e-6 for a, b in pairwise(edges)]
    prior = [PRIOR_REFUNDS * p / sum(prior) for p in prior]
    exposed = {c: [0.0] * (longest + 1) for c in "ab"}
    for r in daily.itertuples():
        for lag in range(longest + 1):
            exposed[r.category][lag] += r.orders if begin <= r.day + lag < last else 0
    f = [p / sum(prior) for p in prior]
    for _ in range(300):
        new = list(prior)
        for s, _, t, w in back:
            parts = [f[lag] * sold.get((s, t - lag), 0) for lag in range(longest + 1)]
            for lag in range(longest + 1):
                new[lag] += w * parts[lag] / sum(parts)
        for c in "ab":
            rate = sum(w for _, k, _, w in back if k == c) / sum(e * p for e, p in zip(exposed[c], f, strict=True))
            for lag in range(longest + 1):
                new[lag] += rate * f[lag] * (max(exposed[c]) - exposed[c][lag])
        total = sum(new)
        kernel = [[np.exp(-0.5 * ((i - j) / max(0.03 * i, 1e-3)) ** 2) for j in range(longest + 1)] for i in range(6)]
        smooth = [
            sum(new[i] / total * kernel[i][j] / sum(kernel[i]) for i in range(longest + 1)) for j in range(longest + 1)
        ]
        moved = sum(abs(a - b) for a, b in zip(smooth, f, strict=True))
        f = smooth
        if moved < 1e-5:
            break
    assert found == pytest.approx(f, abs=1e-6)


def test_planted_delays_are_found_from_a_log_that_cuts_them_off(known):
    orders, skus, _ = draw_orders(1, n_skus=300)
    con = known(as_signals(orders, skus), skus, START + 55 * DAY)
    model = fit_refunds(con)
    found = np.cumsum(model.delays)
    true = np.cumsum(np.pad(DELAYS, (0, 61 - len(DELAYS))))[: len(found)]
    assert np.abs(found - true).max() < 0.05
    assert model.median_delay_days == pytest.approx(9, abs=1)
    # The mean lag of the refunds seen is shorter than the truth: late ones are cut off. The estimate is not misled.
    seen = orders[orders["back"] & (orders["return_day"] < 55)]
    cut = (seen["return_day"] - seen["day"]).mean()
    mean = (np.arange(len(model.delays)) * np.array(model.delays)).sum()
    true_mean = (np.arange(len(DELAYS)) * DELAYS).sum()
    assert abs(mean - true_mean) < abs(cut - true_mean)


def test_delays_can_be_longer_than_a_young_log_shows_and_then_are_not_asked_for(known):
    orders, skus, _ = draw_orders(2, days=20)
    model = fit_refunds(known(as_signals(orders, skus), skus, START + 15 * DAY))
    assert len(model.delays) <= 15
    assert sum(model.delays) == pytest.approx(1)


def test_periods_of_a_week_are_counted_in_weeks(known):
    settings = parse_settings({"signals": {"period": "7d"}})
    orders, skus, _ = draw_orders(3, n_skus=240, delays=np.array([0, 0, 0, 0, 0, 0, 0, 0.6, 0, 0, 0, 0, 0, 0, 0.4]))
    orders["day"] = orders["day"] // 7 * 7
    orders["return_day"] = orders["return_day"] // 7 * 7
    skus["launched_at"] = START
    model = fit_refunds(known(as_signals(orders, skus), skus, START + 105 * DAY, settings))
    assert model.step_days == 7
    assert sum(model.delays[:4]) == pytest.approx(1, abs=0.05)
    assert model.development[1] == pytest.approx(0, abs=0.05)  # known a week after its week began, and nothing is back
    assert model.development[-1] == 1


# --- shares ------------------------------------------------------------------------------------------------------


def evidence(developed, refunds, revenue=None, value=10.0, n=1):
    revenue = developed if revenue is None else revenue
    row = {"category": "dress", "style_id": "s", "price": 20.0, "revenue": revenue, "orders": revenue / value}
    row |= {"refunds": refunds, "measured_revenue": revenue, "squares": revenue * value, "developed": developed}
    return pd.DataFrame([row] * n)


PRIOR = Prior(np.log(0.2 / 0.8), {"dress": 0.0}, {"dress": 1e9}, {"dress": 20.0}, 0.0, 1.0, 1e9, 5.0, 1.0)


def test_a_sku_alone_gets_the_mean_of_its_beta():
    belief = share_of(PRIOR, evidence(400.0, 160.0), evidence(0.0, 0.0))
    strength = 5 * 0.8 / 0.2  # 20 orders: a variance of mean^2 / 5
    assert belief.mean[0] == pytest.approx((16 + strength * 0.2) / (40 + strength), rel=1e-4)
    assert belief.concentration[0] == pytest.approx(40 + strength, rel=1e-4)


def test_siblings_move_the_share_and_the_skus_own_refunds_move_it_more():
    prior = Prior(**{**PRIOR.to_dict(), "style_strength": 5.0})
    nothing = evidence(0.0, 0.0)
    alone = share_of(prior, nothing, nothing).mean[0]
    by_family = share_of(prior, nothing, evidence(1000.0, 500.0)).mean[0]
    by_own = share_of(prior, evidence(1000.0, 500.0), nothing).mean[0]
    assert alone == pytest.approx(0.2)
    assert alone < by_family < by_own < 0.5


def test_a_category_that_history_never_had_is_known_less_well():
    here = share_of(PRIOR, evidence(0.0, 0.0), evidence(0.0, 0.0))
    new = share_of(PRIOR, evidence(0.0, 0.0).assign(category="hat"), evidence(0.0, 0.0))
    assert new.concentration[0] < here.concentration[0]


def test_one_bulk_order_is_less_evidence_than_many_small_ones():
    many = share_of(PRIOR, evidence(1000.0, 1000.0, value=10.0), evidence(0.0, 0.0)).mean[0]
    bulk = share_of(PRIOR, evidence(1000.0, 1000.0, value=1000.0), evidence(0.0, 0.0)).mean[0]
    assert 0.2 < bulk < many


@budget(max_examples=60, deadline=None)
@given(mean=st.floats(0.01, 0.9), strength=st.floats(0.6, 500), n=st.integers(1, 60), chance=st.floats(0.02, 0.98))
def test_the_ends_for_few_orders_are_those_of_a_beta_binomial(mean, strength, n, chance):
    [found] = still_to_come(np.array([mean]), np.array([strength]), np.array([float(n)]), (chance,))[0] * n
    cdf = stats.betabinom(n, mean * strength, (1 - mean) * strength).cdf
    assert cdf(round(found)) >= chance - 1e-6
    assert found < 0.5 or cdf(round(found) - 1) < chance + 1e-6


def test_the_ends_for_many_orders_are_near_those_of_a_beta_binomial():
    for mean, strength, n in [(0.2, 30, 100), (0.05, 200, 400), (0.5, 8, 80)]:
        found = still_to_come(np.array([mean]), np.array([strength]), np.array([float(n)]), (0.1, 0.9)).ravel()
        exact = stats.betabinom(n, mean * strength, (1 - mean) * strength).ppf([0.1, 0.9]) / n
        assert found == pytest.approx(exact, abs=1.2 / n + 0.004)


def test_planted_shares_of_categories_and_prices_are_found(known):
    orders, skus, share = draw_orders(5, n_skus=600)
    model = fit_refunds(known(as_signals(orders, skus), skus, START + 70 * DAY))
    gap = model.prior.category_effects["dress"] - model.prior.category_effects["mug"]
    assert gap == pytest.approx(1.4, abs=0.25)
    assert model.prior.price_effect == pytest.approx(0.6, abs=0.25)
    assert model.prior.sku_strength > 10  # there is nothing of the SKU's own to be found
    assert model.prior.mean(skus) == pytest.approx(share, abs=0.08)


def test_differences_between_skus_are_found_where_there_are_some_and_believed_more(known):
    orders, skus, share = draw_orders(6, n_skus=450, own=0.6, mean_orders=60)
    con = known(as_signals(orders, skus), skus, START + 90 * DAY)
    model = fit_refunds(con)
    assert model.prior.sku_strength < 12
    assert 1 <= model.prior.dispersion < 2  # there is none beyond that of the orders' values, which is counted apart
    told = model.forecast(con)
    sold = (told["developed_share"] > 0.9).to_numpy()
    own = np.abs(told["next_share"].to_numpy() - share)[sold].mean()
    expected = np.abs(model.prior.mean(skus) - share)[sold].mean()
    assert own < 0.6 * expected


@pytest.mark.parametrize("own", [0.0, 0.6])
def test_the_interval_holds_the_final_share_about_as_often_as_it_says(own, known):
    held, total = 0.0, 0
    for seed in (200, 201, 202):
        orders, skus, _ = draw_orders(seed, n_skus=300, own=own, mean_orders=90)
        con = known(as_signals(orders, skus), skus, START + 60 * DAY)
        told = fit_refunds(con).forecast(con)
        so_far = orders[orders["day"] < 60]
        final = so_far.assign(back=so_far["value"] * so_far["back"]).groupby("sku")[["back", "value"]].sum()
        final = (final["back"] / final["value"]).reindex(range(len(skus)))
        # Where something is out still, and enough of it that whole orders do not decide.
        open_ = ((told["developed_share"] < 0.8) & (told["orders"] >= 30)).to_numpy()
        y, low, high = (x.to_numpy()[open_] for x in (final, told["return_share_low"], told["return_share_high"]))
        held += ((y >= low - 1e-9) & (y <= high + 1e-9)).sum()
        total += len(y)
    assert total > 200
    assert 0.72 < held / total < 0.88  # two or three standard errors about 0.8


def test_refunds_to_come_are_those_that_come_where_the_historical_mean_lags(known):
    said, due, mean, final = [], [], [], []
    for seed in (29, 30, 31):
        orders, skus, _ = draw_orders(seed, n_skus=240, own=0.3)
        signals = as_signals(orders, skus)
        con = known(signals, skus, START + 45 * DAY)
        said.append(fit_refunds(con).forecast(con)["refunds_to_come"].sum())
        so_far = orders[orders["day"] < 45]
        due.append(so_far.loc[so_far["back"] & (so_far["return_day"] >= 45), "value"].sum())
        before = signals[signals["period_start"] < START + 45 * DAY]
        mean.append(before["refunds"].sum() / before["revenue"].sum())
        final.append((so_far["value"] * so_far["back"]).sum() / so_far["value"].sum())
    assert sum(said) == pytest.approx(sum(due), rel=0.2)  # three of its standard errors
    assert sum(mean) < 0.8 * sum(final)


# --- as of -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_rows_from_after_the_moment_change_nothing(seed, draw_log):
    signals, skus = draw_log(seed, measured=MEASURED)
    moment = START + 16 * DAY
    at = signals["known_at"].fillna(signals["period_start"] + DAY)
    before = signals[(at <= moment) & (signals["period_start"] < moment)]
    assert 0 < len(before) < len(signals)
    skus = skus.assign(launched_at=skus["launched_at"].fillna(START))  # else the first signal, which may lie after
    pd.testing.assert_frame_equal(
        returns(signals, skus, Settings(), as_of=moment), returns(before, skus, Settings(), as_of=moment)
    )


def test_the_order_of_rows_changes_nothing():
    orders, skus, _ = draw_orders(10, n_skus=60)
    signals = as_signals(orders, skus)
    told = returns(signals, skus, Settings(), as_of=START + 50 * DAY)
    again = returns(
        signals.sample(frac=1, random_state=1), skus.sample(frac=1, random_state=2), Settings(), START + 50 * DAY
    )
    pd.testing.assert_frame_equal(told, again)


def test_a_past_moment_reads_as_it_did_then(known):
    orders, skus, _ = draw_orders(11, n_skus=60)
    signals = as_signals(orders, skus)
    late, then = (known(signals, skus, START + day * DAY) for day in (65, 40))
    model = fit_refunds(late)
    rng = np.random.default_rng(0)
    pairs = skus[["sku_id"]].assign(moment=START + 40 * DAY).sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(
        model.share_at(late, pairs).sort_values("sku_id", ignore_index=True).drop(columns="moment"),
        model.forecast(then),
    )
    # Each pair stands for itself: who else is asked for, and when, changes nothing.
    mixed = pairs.assign(moment=START + pd.to_timedelta(rng.integers(20, 60, len(pairs)), unit="D"))
    at_once = model.share_at(late, mixed)
    for place in (0, 17, 42):
        pd.testing.assert_frame_equal(
            at_once.iloc[[place]].reset_index(drop=True), model.share_at(late, mixed.iloc[[place]])
        )


# --- what is not known -------------------------------------------------------------------------------------------


def test_a_shop_that_reports_no_refunds_has_no_share_rather_than_one_of_zero(known):
    orders, skus, _ = draw_orders(12, n_skus=30)
    signals = as_signals(orders, skus).drop(columns="refunds")
    model = fit_refunds(known(signals, skus, START + 60 * DAY))
    assert "refunds" in model.unknown
    told = returns(signals, skus, Settings(), as_of=START + 60 * DAY)
    names = ["return_share", "return_share_low", "return_share_high", "refunds_seen", "refunds_to_come", "next_share"]
    assert told[names].isna().all(axis=None)
    assert len(told) == len(skus)
    assert (told["orders"] > 0).any()


def test_refunds_of_zero_throughout_are_zero_with_an_upper_bound(known):
    orders, skus, _ = draw_orders(12, n_skus=30)
    signals = as_signals(orders, skus).assign(refunds=0.0)
    con = known(signals, skus, START + 60 * DAY)
    told = fit_refunds(con).forecast(con)
    assert (told[["return_share", "return_share_low", "refunds_to_come"]] == 0).all(axis=None)
    assert told["return_share_high"].max() < 0.1
    assert (told["return_share_high"] > 0).all()
    fewer = signals[signals["sku_id"] < "k0003"]
    con = known(fewer, skus, START + 60 * DAY)
    # Fewer orders exclude less.
    assert fit_refunds(con).upper > told["return_share_high"].max()


def test_a_sku_without_orders_gets_what_is_expected_of_its_like(known):
    orders, skus, _ = draw_orders(13, n_skus=150)
    new = pd.DataFrame({"sku_id": ["new dress", "new mug"], "category": ["dress", "mug"], "price": [20.0, 20.0]})
    new = new.assign(style_id=["x", "y"], launched_at=START + 59 * DAY)
    con = known(as_signals(orders, skus), pd.concat([skus, new]), START + 60 * DAY)
    model = fit_refunds(con)
    told = model.forecast(con).set_index("sku_id").loc[["new dress", "new mug"]]
    assert told["return_share"].to_numpy() == pytest.approx(model.prior.mean(new), abs=1e-3)
    assert told["return_share"].iloc[0] > 1.5 * told["return_share"].iloc[1]
    assert (told["return_share_low"] < told["return_share"]).all()
    assert (told["return_share"] < told["return_share_high"]).all()
    assert told["developed_share"].isna().all()
    assert (told[["refunds_seen", "refunds_to_come", "orders"]] == 0).all(axis=None)


def test_revenue_whose_refunds_nobody_measured_is_no_evidence_of_none(known):
    orders, skus, _ = draw_orders(14, n_skus=150)
    signals = as_signals(orders, skus)
    blind = signals[["sku_id", "period_start", "orders", "revenue"]].assign(channel="marketplace", refunds=None)
    both = pd.concat([signals.assign(channel="shop"), blind])
    one, two = (known(table, skus, START + 50 * DAY) for table in (signals, both))
    alone, beside = fit_refunds(one).forecast(one), fit_refunds(two).forecast(two)
    pd.testing.assert_series_equal(alone["return_share"], beside["return_share"])
    assert beside["refunds_to_come"].sum() > alone["refunds_to_come"].sum()


def test_every_sku_comes_back_once_with_shares_between_0_and_1(draw_log):
    for seed in range(2):
        signals, skus = draw_log(seed, measured=MEASURED)
        told = returns(signals, skus, Settings(), as_of=START + 30 * DAY)
        assert told["sku_id"].tolist() == sorted(skus["sku_id"])
        assert tuple(told.columns) == FORECAST_COLUMNS
        low, share, high = (told[c] for c in ("return_share_low", "return_share", "return_share_high"))
        assert ((low >= 0) & (low <= share) & (share <= high) & (high <= 1)).all()
        assert (told["refunds_to_come"] >= 0).all()


# --- the model as a value ----------------------------------------------------------------------------------------


def test_a_model_is_the_same_after_a_turn_through_json(known):
    orders, skus, _ = draw_orders(15, n_skus=60)
    con = known(as_signals(orders, skus), skus, START + 60 * DAY)
    model = fit_refunds(con)
    again = RefundModel.from_dict(json.loads(json.dumps(model.to_dict())))
    assert again == model
    pd.testing.assert_frame_equal(again.forecast(con), model.forecast(con))
    blank = fit_refunds(known(as_signals(orders, skus).drop(columns="refunds"), skus, START + 60 * DAY))
    assert RefundModel.from_dict(json.loads(json.dumps(blank.to_dict()))) == blank


def test_development_counts_both_delays():
    shares, told = np.array([0.2, 0.0, 0.8]), np.array([0.0, 0.5, 1.0])
    for age, found in enumerate(development(shares, told)):
        expected = sum(f * told[min(age - lag, 2)] for lag, f in enumerate(shares) if lag <= age)
        assert found == pytest.approx(expected)


def test_pairs_that_make_no_sense_are_refused(known):
    orders, skus, _ = draw_orders(16, n_skus=30)
    con = known(as_signals(orders, skus), skus, START + 60 * DAY)
    model = fit_refunds(con)
    pair = pd.DataFrame({"sku_id": ["k0001"], "moment": [START + 30 * DAY]})
    with pytest.raises(DataError, match="each pair once"):
        model.share_at(con, pd.concat([pair, pair]))
    with pytest.raises(DataError, match="moments up to"):
        model.share_at(con, pair.assign(moment=START + 61 * DAY))
    with pytest.raises(DataError, match="SKUs of skus"):
        model.share_at(con, pair.assign(sku_id="nobody"))
    with pytest.raises(SettingsError, match="level"):
        fit_refunds(con, level=1.0)
    with pytest.raises(SettingsError, match="max_delay"):
        fit_refunds(con, max_delay=pd.Timedelta(hours=5))
    with pytest.raises(DataError, match="as_of"):
        returns(as_signals(orders, skus), skus, Settings(), as_of="soon")


def test_the_moment_is_by_default_that_of_the_newest_report():
    orders, skus, _ = draw_orders(17, n_skus=30)
    signals = as_signals(orders, skus)
    newest = signals["period_start"].max() + DAY
    pd.testing.assert_frame_equal(returns(signals, skus, Settings()), returns(signals, skus, Settings(), as_of=newest))
