"""What may not change an answer: the future, the order of rows, other batches, threads, names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hitfinder.features import RATES, count_pairs, look_back
from hitfinder.labels import label
from hitfinder.pooling import choose_rates, fit_rates, load_pairs
from hitfinder.settings import parse_settings
from hitfinder.tables import COUNTS, MONEY

MONDAY = pd.Timestamp("2025-01-06")
AS_OF = MONDAY + pd.Timedelta(days=16)
SETTINGS = parse_settings({"label": {"test_window": "5d", "outcome_window": "7d", "metric": "clicks"}})
NAMES = sorted(name for group in RATES.values() for name in group)


@pytest.fixture(params=[1, 2])
def log(request, draw_log):
    return draw_log(request.param, measured=[*COUNTS, *MONEY], on_impressions=request.param != 2)


@pytest.fixture
def learn(known_warehouse):
    """Return `learn(signals, skus)`: the labels and the pooling, learned as a fit learns them."""

    def learn(signals, skus, as_of=AS_OF, threads=1):
        con = known_warehouse(signals, skus, SETTINGS, as_of, threads)
        try:
            labels = label(con, SETTINGS, outcomes_given=False)
            look_back(con)
            chosen = choose_rates(con)  # leaves the pairs behind
            return labels, fit_rates(load_pairs(con), chosen)
        finally:
            con.close()

    return learn


def same(a, b):
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def all_of(signals, skus, compute_features, learn, draw_rates, **options):
    """Everything that is computed from a log: features under a given pooling, labels, and the pooling learned."""
    rates = draw_rates(0, NAMES)
    looks = [compute_features(signals, skus, SETTINGS, AS_OF, rates, back=back, **options) for back in (False, True)]
    return [*looks, *learn(signals, skus, **options)]


def test_what_came_after_the_moment_changes_nothing(log, compute_features, learn, draw_rates):
    signals, skus = log
    known = signals["known_at"].fillna(signals["period_start"] + pd.Timedelta(days=1))
    past = signals[(known <= AS_OF) & (signals["period_start"] < AS_OF)]
    assert 0 < len(past) < len(signals)
    future = past.tail(20).assign(clicks=0, impressions=9999)
    ends = past.tail(20)["period_start"] + pd.Timedelta(days=1)
    # Known later, though it tells of before; and a period that begins at the moment itself, known at once.
    late = future.assign(known_at=np.maximum(ends, AS_OF) + pd.Timedelta(microseconds=1))
    next_one = future.drop_duplicates("sku_id").assign(period_start=AS_OF, known_at=AS_OF)
    more = pd.concat([signals, late, next_one], ignore_index=True)
    more = more.drop_duplicates(["sku_id", "period_start", "channel", "creative_id", "known_at"])
    expected = all_of(past, skus, compute_features, learn, draw_rates)
    for got, want in zip(all_of(more, skus, compute_features, learn, draw_rates), expected, strict=True):
        same(got, want)


def test_a_training_moment_sees_nothing_that_was_known_after_it(draw_log, compute_features, draw_rates):
    signals, skus = draw_log(4, measured=[*COUNTS, *MONEY])
    skus = skus.assign(launched_at=skus["launched_at"].fillna(MONDAY))  # a launch left out is known later by itself
    rates = draw_rates(0, NAMES)
    table = compute_features(signals, skus, SETTINGS, AS_OF, rates, back=True)
    for moment in sorted(table["as_of"].unique())[1:8:3]:
        earlier = compute_features(signals, skus, SETTINGS, moment, rates, back=True)
        then = table["as_of"] <= moment
        same(table[then].reset_index(drop=True), earlier)


def test_the_order_of_rows_columns_and_skus_changes_nothing(log, compute_features, learn, draw_rates):
    signals, skus = log
    expected = all_of(signals, skus, compute_features, learn, draw_rates)
    rng = np.random.default_rng(7)
    shuffled = signals.sample(frac=1, random_state=7)[list(rng.permutation(signals.columns))]
    skus = skus.sample(frac=1, random_state=8)[list(rng.permutation(skus.columns))]
    for got, want in zip(all_of(shuffled, skus, compute_features, learn, draw_rates), expected, strict=True):
        same(got, want)


def test_two_threads_say_exactly_what_one_says(log, compute_features, learn, draw_rates):
    one, two = (all_of(*log, compute_features, learn, draw_rates, threads=n) for n in (1, 2))
    for got, want in zip(two, one, strict=True):
        same(got, want)


def test_two_threads_say_exactly_what_one_says_of_many_rows(compute_features, draw_rates):
    rng = np.random.default_rng(0)
    n = 150_000  # more than one thread takes at once
    signals = pd.DataFrame(
        {
            "sku_id": rng.integers(0, 1500, n).astype(str),
            "period_start": MONDAY + pd.to_timedelta(rng.integers(0, 10, n), unit="D"),
            "creative_id": np.arange(n).astype(str),
            "impressions": rng.integers(100, 1000, n),
            "clicks": rng.integers(0, 50, n),
            "revenue": rng.exponential(10, n).round(2),
        }
    )
    skus = pd.DataFrame({"sku_id": np.arange(1500).astype(str), "launched_at": MONDAY, "style_id": "s"})
    skus["batch_id"] = (np.arange(1500) % 3).astype(str)
    rates = draw_rates(0, ["clicks_per_impression", "revenue_per_click", "revenue_per_day"])
    one, two = (compute_features(signals, skus, SETTINGS, AS_OF, rates, threads=threads) for threads in (1, 2))
    same(one, two)


@pytest.mark.parametrize("back", [False, True], ids=["list", "training moments"])
def test_another_batch_changes_nothing_for_the_first(log, back, compute_features, draw_rates):
    signals, skus = log
    skus = skus.assign(batch_id=skus["batch_id"].fillna("left out"))
    rates = draw_rates(0, NAMES)
    expected = compute_features(signals, skus, SETTINGS, AS_OF, rates, back=back)
    # The style and the category keep their names: neither may leak from batch to batch.
    others = skus.assign(sku_id="other " + skus["sku_id"], batch_id="other " + skus["batch_id"])
    their_signals = signals.assign(sku_id="other " + signals["sku_id"])
    both = compute_features(
        pd.concat([signals, their_signals]), pd.concat([skus, others]), SETTINGS, AS_OF, rates, back=back
    )
    is_other = both["sku_id"].str.startswith("other ")
    same(both[~is_other].reset_index(drop=True), expected)
    theirs = both[is_other].reset_index(drop=True)
    values = expected.columns.difference(["sku_id", "batch_id", "style_id"])
    same(theirs[values], expected[values])


def test_other_names_for_the_skus_change_nothing_else(log, compute_features, learn, draw_rates):
    signals, skus = log
    ids = sorted(skus["sku_id"])
    new = dict(zip(ids, reversed([f"裙子 {i:03d}" for i in range(len(ids))]), strict=True))
    skus = skus.assign(style_id=skus["style_id"].fillna("own " + skus["sku_id"]))  # the default is made of the id
    expected = all_of(signals, skus, compute_features, learn, draw_rates)
    renamed = all_of(
        signals.assign(sku_id=signals["sku_id"].map(new)),
        skus.assign(sku_id=skus["sku_id"].map(new)),
        compute_features,
        learn,
        draw_rates,
    )
    for got, want in zip(renamed[:3], expected[:3], strict=True):
        order = ["sku_id", *want.columns.intersection(["as_of"])]
        want = want.assign(sku_id=want["sku_id"].map(new)).sort_values(order).reset_index(drop=True)
        same(got.sort_values(order).reset_index(drop=True), want)
    pd.testing.assert_frame_equal(renamed[3], expected[3], rtol=1e-9)


def test_rows_of_skus_that_were_not_asked_for_change_nothing(log, compute_features, draw_rates):
    signals, skus = log
    asked = skus[skus["batch_id"] == "batch 0"]
    rates = draw_rates(0, NAMES)
    with_others = compute_features(signals, asked, SETTINGS, AS_OF, rates)
    without = compute_features(signals[signals["sku_id"].isin(asked["sku_id"])], asked, SETTINGS, AS_OF, rates)
    assert len(without) == len(asked) > 0
    same(with_others, without)


def test_ten_times_the_counts_and_ten_times_the_strength_are_the_same_rates(draw_log, compute_features, draw_rates):
    signals, skus = draw_log(2, measured=["clicks", "impressions", "orders"])
    rates = draw_rates(0, ["clicks_per_impression", "orders_per_click"])
    strengths = [c for c in rates if c.endswith("_strength")]
    table = compute_features(signals, skus, SETTINGS, AS_OF, rates)
    tenfold = compute_features(
        signals.assign(**{c: signals[c] * 10 for c in ("clicks", "impressions", "orders")}),
        skus,
        SETTINGS,
        AS_OF,
        rates.assign(**{c: rates[c] * 10 for c in strengths}),
    )
    views = [f"{rate}.{v}" for rate in rates["rate"] for v in ("level", "lead", "sibling_lead", "trend", "own_weight")]
    pd.testing.assert_frame_equal(table[views], tenfold[views], rtol=1e-9, atol=1e-12)


def test_counting_again_under_the_same_pooling_gives_the_same(log, known_warehouse):
    con = known_warehouse(*log, SETTINGS, AS_OF)
    look_back(con)
    count_pairs(con, NAMES)
    first = load_pairs(con)
    count_pairs(con, NAMES)
    same(load_pairs(con), first)
    con.close()
