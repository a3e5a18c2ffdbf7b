"""Metrics against slow counting and against scikit-learn, and what the bootstrap promises."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from hitfinder.metrics import bootstrap_difference, calibration_error, list_metrics, summarise

rows_of_a_list = st.lists(
    st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=6
).filter(lambda rows: 0 < sum(hit for hit, *_ in rows) < len(rows))


@effort(max_examples=40, deadline=None)
@given(rows=rows_of_a_list)
def test_ties_count_as_if_broken_at_random(rows):
    hit, value, score = (np.array(column, float) for column in zip(*rows, strict=True))
    got = list_metrics(np.zeros(len(hit)), hit, value, score, min_size=2).iloc[0]
    k = int(hit.sum())
    # Every order in which a random breaking of ties could put the rows, each as likely as the others.
    orders = [o for o in permutations(range(len(hit))) if all(score[a] >= score[b] for a, b in pairwise(o))]
    found = np.mean([hit[list(o[:k])].sum() for o in orders])
    taken = np.mean([value[list(o[:k])].sum() for o in orders])
    best = np.sort(value)[::-1][:k].sum()
    assert got["k"] == k
    assert got["size"] == len(hit)
    assert got["found"] == pytest.approx(found)
    assert got["hits_at_k"] == pytest.approx(found / k)
    if best:
        assert got["value_at_k"] == pytest.approx(taken / best)
    else:
        assert np.isnan(got["value_at_k"])
    discount = 1 / np.log2(np.arange(2, k + 2))
    gain = np.mean([(hit[list(o[:k])] * discount).sum() for o in orders]) / discount.sum()
    assert got["ndcg_at_k"] == pytest.approx(gain)


@effort(max_examples=40, deadline=None)
@given(rows=rows_of_a_list)
def test_each_list_is_measured_by_scikit_learns_own_figures(rows):
    hit, value, score = (np.array(column, float) for column in zip(*rows, strict=True))
    got = list_metrics(np.zeros(len(hit)), hit, value, score, min_size=2).iloc[0]
    # scikit-learn's own figure where nothing is tied; where something is, its mean over every way to break the ties.
    orders = [o for o in permutations(range(len(hit))) if all(score[a] >= score[b] for a, b in pairwise(o))]
    lists = Counter(tuple(hit[list(o)]) for o in orders)
    mean = sum(n * average_precision_score(each, -np.arange(len(each))) for each, n in lists.items()) / len(orders)
    assert got["average_precision"] == pytest.approx(mean)
    if len(set(score)) == len(score):
        assert got["average_precision"] == pytest.approx(average_precision_score(hit, score))
    assert got["ndcg_at_k"] == pytest.approx(ndcg_score([hit], [score], k=int(hit.sum())))


def test_average_precision_without_ties_is_the_mean_precision_at_each_hit():
    rng = np.random.default_rng(0)
    hit = rng.random(40) < 0.2
    score = rng.permutation(40)
    order = np.argsort(-score)
    precisions = [hit[order][: place + 1].mean() for place in range(40) if hit[order][place]]
    got = list_metrics(np.zeros(40), hit, np.ones(40), score).iloc[0]
    assert got["average_precision"] == pytest.approx(np.mean(precisions))


def test_lists_without_a_hit_without_a_miss_or_too_small_are_left_out():
    lists = np.repeat(["no hit", "no miss", "small", "whole"], [10, 10, 9, 10])
    hit = np.concatenate([np.zeros(10), np.ones(10), [1], np.zeros(8), [1], np.zeros(9)])
    table = list_metrics(lists, hit, hit, np.arange(39.0))
    assert table.index.tolist() == ["whole"]
    assert list_metrics([], [], [], []).empty


def test_negative_values_count_as_nothing():
    table = list_metrics([0] * 4, [1, 0, 0, 0], [8, -100, -100, 4], [1, 4, 3, 2], min_size=4)
    assert table["value_at_k"].tolist() == [0]


@effort(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_only_the_order_of_scores_matters_not_that_of_rows(seed):
    rng = np.random.default_rng(seed)
    lists, hit = np.repeat([0, 1, 2], 12), rng.random(36) < 0.3
    value, score = rng.exponential(1, 36), rng.integers(0, 8, 36).astype(float)
    order = rng.permutation(36)
    table = list_metrics(lists, hit, value, score)
    moved = list_metrics(lists[order], hit[order], value[order], np.exp(score[order]))
    pd.testing.assert_frame_equal(table, moved, rtol=1e-9)


def test_a_summary_is_the_mean_over_lists():
    table = list_metrics(np.repeat([0, 1], 4), [1, 0, 0, 0] * 2, [1, 0, 0, 0] * 2, [4, 3, 2, 1, 1, 2, 3, 4], min_size=4)
    assert summarise(table) == {
        "average_precision": 0.625, "hits_at_k": 0.5, "ndcg_at_k": 0.5, "value_at_k": 0.5, "lists": 2,
    }  # fmt: skip
    assert summarise(table.iloc[:0]) == {}


def test_calibration_error_is_the_mean_gap_over_bins_of_equal_weight():
    rng = np.random.default_rng(1)
    p = rng.permutation(np.linspace(0.01, 0.99, 200))
    y = rng.random(200) < p**2
    order = np.argsort(p)
    slow = np.mean([abs(p[block].mean() - y[block].mean()) for block in np.array_split(order, 10)])
    assert calibration_error(p, y, np.ones(200)) == pytest.approx(slow)


@effort(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), levels=st.integers(1, 30))
def test_calibration_error_knows_weights_and_ties(seed, levels):
    rng = np.random.default_rng(seed)
    p = rng.integers(0, levels + 1, 60) / max(levels, 1)
    y, weight = rng.random(60) < 0.4, rng.integers(1, 4, 60)
    error = calibration_error(p, y, weight)
    assert 0 <= error <= 1
    order = rng.permutation(60)
    assert calibration_error(p[order], y[order], weight[order]) == pytest.approx(error)  # ties: no order decides
    # A weight is a number of equal rows, as long as no edge of a bin falls among them.
    if levels == 1:
        assert calibration_error(np.repeat(p, weight), np.repeat(y, weight), np.ones(weight.sum())) == (
            pytest.approx(error)
        )


def test_calibration_error_of_the_truth_is_small_and_of_a_lie_is_its_size():
    rng = np.random.default_rng(2)
    p = rng.uniform(0, 0.2, 50_000)
    y = rng.random(50_000) < p
    assert calibration_error(p, y, np.ones(50_000)) < 0.01
    assert calibration_error(p + 0.3, y, np.ones(50_000)) == pytest.approx(0.3, abs=0.01)
    assert np.isnan(calibration_error([0.5], [1], [0]))


def test_the_bootstrap_interval_covers_the_truth_about_nine_times_in_ten():
    """A true difference of 0.1, with batches of unequal size whose lists share a part: 400 trials."""
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(400):
        batch = np.repeat(np.arange(40), rng.integers(1, 5, 40))
        difference = 0.1 + rng.normal(0, 1, 40)[batch] + rng.normal(0, 0.5, len(batch))
        base = pd.Series(rng.random(len(batch)))
        found = bootstrap_difference(base + difference, base, pd.Series(batch), seed=trial, draws=400)
        covered += found.low <= 0.1 <= found.high
    # 90 % promised; the percentile bootstrap over 40 batches is known to be a little short. 3.5 binomial sd is 0.05.
    assert 0.84 <= covered / 400 <= 0.95


def test_batches_are_resampled_whole():
    """Ten lists of one batch say no more than one."""
    rng = np.random.default_rng(4)
    once = pd.Series(rng.normal(size=30))
    batch = pd.Series(np.arange(30))
    found = bootstrap_difference(once, once * 0, batch, seed=1)
    places = np.repeat(np.arange(30), 10)
    often = once.loc[places].reset_index(drop=True)
    again = bootstrap_difference(often, often * 0, pd.Series(places), seed=1)
    assert (again.mean, again.low, again.high) == pytest.approx((found.mean, found.low, found.high))
    assert found.low < found.mean < found.high


def test_the_share_of_positive_draws_agrees_with_the_interval():
    rng = np.random.default_rng(6)
    zero, units = pd.Series(np.zeros(50)), pd.Series(np.arange(50))
    for shift in (-0.5, -0.1, 0.0, 0.1, 0.5):
        found = bootstrap_difference(pd.Series(rng.normal(shift, 1, 50)), zero, units, seed=0)
        assert (found.positive > 0.95) == (found.low > 0)
        assert (found.positive < 0.05) == (found.high <= 0)
    assert bootstrap_difference(zero, zero, units, seed=0).positive == 0


def test_the_bootstrap_is_told_by_its_seed_and_aligned_by_index():
    rng = np.random.default_rng(5)
    a, b = pd.Series(rng.random(20)), pd.Series(rng.random(20))
    batch = pd.Series(np.arange(20) % 7)
    first = bootstrap_difference(a, b, batch, seed=0)
    assert first == bootstrap_difference(a, b, batch, seed=0)
    assert first != bootstrap_difference(a, b, batch, seed=1)
    assert first == bootstrap_difference(a, b.sample(frac=1, random_state=1), batch.iloc[::-1], seed=0)


@pytest.mark.parametrize("units", [2, 3, 5, 8])
def test_of_few_units_the_widened_interval_covers_the_truth_and_the_plain_one_does_not(units):
    rng = np.random.default_rng(units)
    covered = {False: 0, True: 0}
    for trial in range(400):
        gap = pd.Series(rng.normal(0.1, 1, units))
        for widened in covered:
            found = bootstrap_difference(gap, gap * 0, pd.Series(range(units)), seed=trial, draws=400, widened=widened)
            covered[widened] += found.low <= 0.1 <= found.high
            assert found.low <= found.mean <= found.high
    assert 0.83 <= covered[True] / 400 <= 0.95
    assert covered[False] < covered[True]
    assert units > 5 or covered[False] / 400 < 0.8


def test_one_unit_tells_nothing():
    one = pd.Series([0.4, 0.5])
    found = bootstrap_difference(one, one * 0, pd.Series([3, 3]), seed=0, widened=True)
    assert (found.mean, found.low, found.high, found.positive) == (pytest.approx(0.45), -np.inf, np.inf, 0.5)
