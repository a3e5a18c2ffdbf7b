"""Labels against slow loops, and the edges of their windows."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from hitfinder.admission import admit
from hitfinder.errors import DataError, SettingsError
from hitfinder.labels import MIN_GROUP, label, parse_metric
from hitfinder.settings import parse_settings
from hitfinder.tables import COUNTS, MONEY, OUTCOMES

MONDAY = pd.Timestamp("2025-01-06")
DAY = pd.Timedelta(days=1)
US = pd.Timedelta(microseconds=1)


def rule(metric="clicks", test="2d", outcome="3d", **rest):
    return parse_settings({"label": {"test_window": test, "outcome_window": outcome, "metric": metric, **rest}})


@pytest.fixture
def labelled(known_warehouse):
    """Return `labelled(signals, skus, settings, as_of, outcomes=None)`: the labels."""

    def labelled(signals, skus, settings, as_of, outcomes=None):
        con = known_warehouse(signals, skus, settings, as_of)
        try:
            if outcomes is not None:
                assert not admit(con, OUTCOMES, outcomes).rejects
            return label(con, settings, outcomes_given=outcomes is not None)
        finally:
            con.close()

    return labelled


def batch(n=6, **columns):
    return pd.DataFrame({"sku_id": [f"s{i}" for i in range(n)], "batch_id": "b", "launched_at": MONDAY} | columns)


def sold(values, day=2, **columns):
    rows = [{"sku_id": f"s{i}", "period_start": MONDAY + day * DAY, "clicks": v} for i, v in enumerate(values)]
    return pd.DataFrame(rows).assign(**columns)


def slow_labels(signals, skus, settings, as_of, outcomes=None):
    """The rule, one SKU at a time, from what the words say."""
    told, numerator, _, denominator = settings.label, *settings.label.metric.partition(" / ")
    newest = {}
    for row in signals.to_dict("records"):
        known = row["period_start"] + settings.signals.period if pd.isna(row["known_at"]) else row["known_at"]
        key = tuple(None if pd.isna(row[c]) else row[c] for c in ("sku_id", "period_start", "channel", "creative_id"))
        if known <= as_of and row["period_start"] < as_of and (key not in newest or newest[key][0] < known):
            newest[key] = (known, row)
    reports = [row for _, row in newest.values()]
    found = []
    for sku in skus.to_dict("records"):
        mine = [r for r in reports if r["sku_id"] == sku["sku_id"]]
        launch = sku["launched_at"]
        if pd.isna(launch):
            launch = min((r["period_start"] for r in mine), default=as_of)
        opens = launch + told.test_window
        closes = opens + told.outcome_window
        if closes > as_of:
            continue
        inside = [r for r in mine if opens <= r["period_start"] < closes]
        value, known_at = None, max([closes, *(r["known_at"] for r in inside)])
        if outcomes is not None:
            known_at = closes
            of_sku = outcomes[outcomes["sku_id"] == sku["sku_id"]]
            if len(of_sku) and of_sku["known_at"].iloc[0] <= as_of:
                value, known_at = of_sku["value"].iloc[0], max(closes, of_sku["known_at"].iloc[0])
        elif denominator:
            num, den = total(inside, numerator), total(inside, denominator)
            value = num / den if num is not None and den else None
        else:
            value = total(inside, numerator) if inside else 0.0
        if value is None:
            continue
        week = "{}-W{:02d}".format(*launch.isocalendar()[:2])
        group = sku[told.within]
        if pd.isna(group):
            group = "(none)" if told.within == "category" else week
        found.append({"sku_id": sku["sku_id"], "within_group": group, "launched_at": launch, "value": float(value)})
        found[-1]["known_at"] = known_at
    for one in found:
        group = [f["value"] for f in found if f["within_group"] == one["within_group"]]
        below, above = (sum(v < one["value"] for v in group), sum(v > one["value"] for v in group))
        one["group_skus"] = len(group)
        one["standing"] = (below + (len(group) - above)) / 2 / len(group)
        one["problem"] = "too_small" if len(group) < MIN_GROUP else None
        if told.min_value is not None:
            one["hit"] = one["value"] >= told.min_value
        else:
            one["hit"] = above < math.ceil(told.top_share * len(group)) and below > 0
            if not one["problem"] and len(set(group)) == 1:
                one["problem"] = "all_equal"
    return sorted(found, key=lambda f: (f["launched_at"], f["sku_id"]))


def total(reports, column):
    values = [r[column] for r in reports if not pd.isna(r[column])]
    return float(sum(values)) if values else None


@effort(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**31 - 1),
    metric=st.sampled_from(["clicks", "revenue", "clicks / impressions", "revenue / orders"]),
    choice=st.sampled_from([{"top_share": 0.05}, {"top_share": 0.34}, {"min_value": 3.0}]),
    within=st.sampled_from(["batch_id", "category"]),
    after=st.integers(3 * 24, 40 * 24),
    with_outcomes=st.booleans(),
)
def test_labels_are_what_slow_loops_say(draw_log, labelled, seed, metric, choice, within, after, with_outcomes):
    signals, skus = draw_log(seed, measured=["clicks", "impressions", "orders", "revenue"])
    settings, as_of = rule(metric, "3d", "5d", within=within, **choice), MONDAY + pd.Timedelta(hours=after)
    outcomes = None
    if with_outcomes:
        rng = np.random.default_rng(seed)
        some = skus["sku_id"].sample(frac=0.7, random_state=seed)
        known = MONDAY + pd.to_timedelta(rng.integers(0, 1000, len(some)), unit="h")
        outcomes = pd.DataFrame({"sku_id": some, "value": rng.integers(-2, 5, len(some)) / 2, "known_at": known})
    try:
        table = labelled(signals, skus, settings, as_of, outcomes)
    except DataError as error:
        if "never measured" not in str(error):
            raise
        return  # nothing had been seen yet
    expected = slow_labels(signals, skus, settings, as_of, outcomes)
    assert table["sku_id"].tolist() == [e["sku_id"] for e in expected]
    for column in ("within_group", "launched_at", "known_at", "group_skus", "hit"):
        assert table[column].tolist() == [e[column] for e in expected], column
    for column in ("value", "standing"):
        assert table[column].tolist() == pytest.approx([e[column] for e in expected]), column
    assert [None if pd.isna(p) else p for p in table["problem"]] == [e["problem"] for e in expected]


@pytest.mark.parametrize(
    ("offset", "counts"),
    [(2 * DAY - US, False), (2 * DAY, True), (5 * DAY - US, True), (5 * DAY, False)],
    ids=["just before it opens", "as it opens", "just before it closes", "as it closes"],
)
def test_the_outcome_window_takes_its_first_moment_and_not_its_last(labelled, offset, counts):
    signals = sold([7], day=0, period_start=MONDAY + offset)
    table = labelled(signals, batch(1), rule(), MONDAY + 30 * DAY)
    assert table["value"].tolist() == [7 if counts else 0]


def test_a_window_counts_from_the_moment_it_has_closed(labelled):
    signals = sold([1])
    closes = MONDAY + 5 * DAY
    assert labelled(signals, batch(), rule(), closes - US).empty
    table = labelled(signals, batch(), rule(), closes)
    assert table["known_at"].tolist() == [closes] * 6


def test_a_report_counts_once_it_is_known_and_its_revision_replaces_it(labelled):
    first, second = MONDAY + 6 * DAY, MONDAY + 8 * DAY
    signals = pd.concat([sold([5], known_at=first), sold([3], known_at=second)])
    for as_of, value in ((first - US, 0), (first, 5), (second - US, 5), (second, 3)):
        # Before anything was counted, the metric was not measured at all: something else has to be there.
        seen = pd.concat([signals, sold([0, 1], day=1, known_at=MONDAY + 2 * DAY)])
        table = labelled(seen, batch(), rule(), as_of).set_index("sku_id")
        assert table["value"]["s0"] == value


def test_ties_at_the_edge_of_the_top_share_are_all_hits_but_the_last_place_never_is(labelled):
    skus = batch(8)
    table = labelled(sold([9, 9, 9, 5, 1, 1, 1, 1]), skus, rule(top_share=0.25), MONDAY + 30 * DAY)
    assert table.sort_values("sku_id")["hit"].tolist() == [True] * 3 + [False] * 5
    # With two thirds wanted and most at the bottom, those at the bottom are still no hits.
    table = labelled(sold([9, 0, 0, 0, 0, 0, 0, 0]), skus, rule(top_share=0.66), MONDAY + 30 * DAY)
    assert table.sort_values("sku_id")["hit"].tolist() == [True] + [False] * 7


@pytest.mark.parametrize(("n", "problem"), [(MIN_GROUP - 1, "too_small"), (MIN_GROUP, None)])
def test_a_group_that_is_too_small_is_named(labelled, n, problem):
    table = labelled(sold(range(n)), batch(n), rule(), MONDAY + 30 * DAY)
    assert [None if pd.isna(p) else p for p in table["problem"]] == [problem] * n


def test_a_group_in_which_all_are_equal_is_named_unless_the_value_is_given(labelled):
    signals = sold([4] * 6)
    assert labelled(signals, batch(), rule(), MONDAY + 30 * DAY)["problem"].tolist() == ["all_equal"] * 6
    table = labelled(signals, batch(), rule(min_value=4), MONDAY + 30 * DAY)
    assert table["problem"].isna().all()
    assert table["hit"].all()


def test_a_value_is_a_hit_from_the_limit_on(labelled):
    table = labelled(sold([3, 4, 5, 0, 0, 0]), batch(), rule(min_value=4), MONDAY + 30 * DAY)
    assert table.sort_values("sku_id")["hit"].tolist() == [False, True, True, False, False, False]


def test_hits_are_taken_within_the_column_that_is_named(labelled):
    skus = batch(12, Season=["a"] * 6 + [None] * 6, size=[1] * 6 + [2] * 6)
    signals = sold(range(12))
    by_season = labelled(signals, skus, rule(within="Season"), MONDAY + 30 * DAY)
    assert sorted(by_season[by_season["hit"]]["sku_id"]) == ["s11", "s5"]
    assert set(by_season["within_group"]) == {"a", "(none)"}
    assert set(by_season["batch"]) == {"b"}  # the unit in time, whatever group hits are taken in
    assert set(labelled(signals, skus, rule(within="size"), MONDAY + 30 * DAY)["within_group"]) == {"1", "2"}
    with pytest.raises(DataError, match=r"label\.within: expected a column of skus .*'colour'"):
        labelled(signals, skus, rule(within="colour"), MONDAY + 30 * DAY)


def test_given_outcomes_count_from_the_moment_they_are_known_and_need_no_signals(labelled):
    outcomes = pd.DataFrame({"sku_id": [f"s{i}" for i in range(6)], "value": [5.0, 1, 2, 3, -4, 0]})
    outcomes["known_at"] = MONDAY + np.arange(20, 26) * DAY
    signals = sold([9])
    table = labelled(signals, batch(), rule("orders"), MONDAY + 24 * DAY, outcomes)
    assert dict(zip(table["sku_id"], table["value"], strict=True)) == {"s0": 5, "s1": 1, "s2": 2, "s3": 3, "s4": -4}
    assert table.sort_values("sku_id")["known_at"].tolist() == list(outcomes["known_at"][:5])
    assert table[table["hit"]]["sku_id"].tolist() == ["s0"]


def test_a_rate_over_nothing_is_no_value(labelled):
    signals = pd.DataFrame(
        {"sku_id": ["s0", "s1", "s2"], "period_start": MONDAY + 2 * DAY, "clicks": [1, 0, 2], "impressions": [10, 0, 4]}
    )
    table = labelled(signals, batch(), rule("click_rate"), MONDAY + 30 * DAY)
    assert dict(zip(table["sku_id"], table["value"], strict=True)) == {"s0": 0.1, "s2": 0.5}


def test_a_sku_that_was_seen_without_the_metric_has_no_value(labelled):
    """NULL means not measured and is never read as 0; a SKU of which no report came sold nothing."""
    signals = sold([3, None, 4], impressions=9).astype({"clicks": "Int64"})
    table = labelled(signals, batch(4), rule(), MONDAY + 30 * DAY)
    assert dict(zip(table["sku_id"], table["value"], strict=True)) == {"s0": 3, "s2": 4, "s3": 0}


def test_a_metric_that_was_never_measured_is_refused(labelled):
    with pytest.raises(DataError, match=r"signals\.revenue: label\.metric needs it, but it was never measured"):
        labelled(sold([1]), batch(), rule("revenue"), MONDAY + 30 * DAY)
    with pytest.raises(DataError, match=r"signals\.orders"):
        labelled(sold([1]), batch(), rule("clicks / orders"), MONDAY + 30 * DAY)


@pytest.mark.parametrize("metric", [*COUNTS, *MONEY])
def test_every_counted_column_is_a_metric_and_may_be_divided(metric):
    assert parse_metric(metric) == (metric, None)
    assert parse_metric(f" {metric}/impressions ") == (metric, "impressions")


@pytest.mark.parametrize(
    "metric", ["", "sales", "revenue /", "/ orders", "revenue / sales", "a / b / c", "revenue; drop table x", "Revenue"]
)
def test_what_is_no_metric_is_refused_with_the_list_of_those_there_are(metric):
    with pytest.raises(SettingsError, match=r"label\.metric: expected one of impressions, .*click_rate") as caught:
        parse_metric(metric)
    assert repr(metric) in str(caught.value)
