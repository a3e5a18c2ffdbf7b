"""The split of one budget: against a conic solver, against what duality proves, and by its properties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from budget_oracle import by_cvxpy, draw_instance, upper_bound
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.budget.allotment import Lines, allot, best_return, greatest_spend, spend_for_value, value_of
from hitfinder.budget.cautious import chance_of, draw, tighten
from hitfinder.budget.curvature import effective, fit_curvature
from hitfinder.budget.responses import fit_responses

SOME = settings(max_examples=60, deadline=None)


@st.composite
def problems(draw_from):
    """Lines with everything awkward: ties, nothing to gain, margins below 0, equal bounds; a total and a target."""
    n = draw_from(st.integers(1, 8))

    def numbers(low, high, *special):
        one = st.one_of(st.floats(low, high), *(st.just(value) for value in special))
        return np.array(draw_from(st.lists(one, min_size=n, max_size=n)))

    low = numbers(0, 50, 0.0)
    lines = Lines(
        numbers(0, 20, 0.0, 5.0), numbers(0.01, 1e6, 10.0), numbers(-1, 1, 0.0, 0.5), low, low + numbers(0, 500, 0.0)
    )
    total = draw_from(st.one_of(st.floats(0, 3000), st.just(0.0), st.just(float(low.sum()))))
    return lines, total, draw_from(st.one_of(st.just(0.0), st.floats(0.01, 25)))


def checked(lines, split, total, target):
    """Every constraint holds, to a rounding error."""
    assert (split.spend >= lines.low - 1e-9).all()
    assert (split.spend <= lines.high + 1e-9).all()
    assert split.spend.sum() <= total + 1e-9 * (1 + total)
    assert value_of(lines, split.spend).sum() >= target * split.spend.sum() - 1e-7 * (1 + target * split.spend.sum())


@SOME
@given(problem=problems())
def test_a_split_never_breaks_a_constraint(problem):
    lines, total, target = problem
    split = allot(lines, total, target)
    if split.met:
        checked(lines, split, total, target)
    elif lines.low.sum() <= total * (1 + 1e-9):
        best = best_return(lines, total)
        assert value_of(lines, best).sum() < target * best.sum()


@SOME
@given(problem=problems())
def test_no_split_can_earn_more_as_duality_proves_whatever_the_margins(problem):
    lines, total, target = problem
    split = allot(lines, total, target)
    if split.met and np.isfinite(split.price_of_money + split.price_of_target):
        bound = upper_bound(lines, total, target, split.price_of_money, split.price_of_target)
        scale = 1 + abs(bound) + split.value.sum() * (1 + split.price_of_target) + total * split.price_of_money
        assert split.profit >= bound - 1e-5 * scale


@SOME
@given(problem=problems(), more=st.floats(1.0, 3.0))
def test_more_budget_never_earns_less(problem, more):
    lines, total, target = problem
    less, greater = allot(lines, total, target), allot(lines, more * total, target)
    if less.met:
        assert greater.met
        assert greater.profit >= less.profit - 1e-6 * (1 + abs(less.profit))


@SOME
@given(problem=problems(), more=st.floats(1.0, 3.0))
def test_a_higher_target_never_earns_more(problem, more):
    lines, total, target = problem
    low, high = allot(lines, total, target), allot(lines, total, more * target)
    if high.met:
        assert low.met
        assert high.profit <= low.profit + 1e-6 * (1 + abs(low.profit))


@pytest.mark.parametrize("seed", range(40))
def test_the_split_earns_what_a_conic_solver_finds(seed):
    lines, total, target = draw_instance(seed)
    split, theirs = allot(lines, total, target), by_cvxpy(lines, total, target)
    if theirs is None:
        assert not split.met
    else:
        assert split.met
        checked(lines, split, total, target)
        if not np.isnan(theirs):
            assert split.profit == pytest.approx(theirs, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_margins_below_zero_are_used_only_to_meet_the_target_and_to_the_best(seed):
    lines, total, target = draw_instance(seed, negative_margins=True)
    split = allot(lines, total, target)
    if split.met and np.isfinite(split.price_of_money + split.price_of_target):
        bound = upper_bound(lines, total, target, split.price_of_money, split.price_of_target)
        assert split.profit >= bound - 1e-4 * max(abs(bound), 1.0)
        if split.price_of_target == 0:
            assert (split.spend[lines.margin <= 0] == lines.low[lines.margin <= 0]).all()


def test_two_thousand_lines_alike_are_given_alike_and_all_of_the_total():
    n = 2000
    lines = Lines(np.full(n, 4.0), np.full(n, 100.0), np.full(n, 0.5), np.zeros(n), np.full(n, 300.0))
    split = allot(lines, 50_000.0, 2.0)
    assert np.allclose(split.spend, 25.0)
    assert split.spend.sum() == pytest.approx(50_000)


def test_lines_that_are_all_but_straight_share_what_the_target_leaves():
    """Neighbouring prices are far apart in money here: the answer lies between two of them."""
    lines = Lines(np.array([5.0, 2.0]), np.array([1e12, 1e12]), np.array([0.1, 0.9]), np.zeros(2), np.full(2, 100.0))
    split = allot(lines, 200.0, 4.0)
    # 5a + 2b = 4(a + b) where the second line takes all that the first can carry.
    low = allot(replace(lines, low=np.array([100.0, 0.0])), 200.0, 4.0)
    assert low.spend == pytest.approx([100.0, 50.0], rel=1e-6)
    assert split.profit >= low.profit - 1e-6


def test_where_the_target_is_out_of_reach_the_greatest_return_is_given():
    lines = Lines(
        np.array([4.0, 2.0]), np.array([50.0, 50.0]), np.array([0.5, 0.5]), np.array([20.0, 20.0]), np.full(2, 90.0)
    )
    split = allot(lines, 150.0, 5.0)
    assert not split.met
    grid = np.linspace(20, 90, 281)
    a, b = np.meshgrid(grid, grid)
    value = sum(s * 50 * np.log1p(x / 50) for s, x in ((4.0, a), (2.0, b)))
    best = np.where(a + b <= 150, value / (a + b), 0).max()
    assert split.return_on_spend == pytest.approx(best, rel=1e-4)
    assert split.return_on_spend >= best - 1e-12


def test_the_greatest_spend_that_meets_a_target_is_found_and_no_more_would():
    lines = Lines(np.array([6.0, 4.0]), np.array([50.0, 80.0]), np.array([0.2, 0.2]), np.zeros(2), np.full(2, 500.0))
    spend = greatest_spend(lines, 2000.0, 3.0)
    assert value_of(lines, spend).sum() == pytest.approx(3.0 * spend.sum(), rel=1e-6)
    a = np.linspace(0, 500, 501)
    x, y = np.meshgrid(a, a)
    value = 300 * np.log1p(x / 50) + 320 * np.log1p(y / 80)
    assert (x + y)[value >= 3 * (x + y)].max() == pytest.approx(spend.sum(), abs=2.0)
    assert greatest_spend(replace(lines, low=np.full(2, 400.0)), 2000.0, 5.0) is None
    assert greatest_spend(replace(lines, low=np.full(2, 400.0)), 700.0, 0.0) is None


@pytest.mark.parametrize(("total", "target"), [(-1, 0), (np.nan, 0), (1, -1), (1, np.inf)])
def test_a_total_or_target_that_is_none_is_refused(total, target):
    with pytest.raises(ValueError, match="expected 0 or more"):
        allot(Lines(*np.ones((5, 1))), total, target)


@pytest.mark.parametrize(("name", "value"), [("slope", -1), ("half", 0), ("low", -1), ("low", 3), ("margin", np.nan)])
def test_lines_that_make_no_sense_are_refused(name, value):
    given = {"slope": 1.0, "half": 1.0, "margin": 0.5, "low": 0.0, "high": 2.0, name: value}
    with pytest.raises(ValueError, match="expected"):
        Lines(**{key: np.array([float(one)]) for key, one in given.items()})


def test_spend_for_a_value_brings_that_value_and_none_is_asked_of_a_line_that_brings_nothing():
    slope, half = np.array([4.0, 0.0, 4.0]), np.array([50.0, 50.0, 50.0])
    spend = spend_for_value(slope, half, np.array([300.0, 10.0, 0.0]))
    assert value_of(Lines(slope, half, slope, 0 * slope, 0 * slope), spend[:1].repeat(3))[0] == pytest.approx(300)
    assert spend[1:].tolist() == [np.inf, 0.0]


# Curves from history.


def market(seed, *, multiple=1.0, n=300, weeks=10, varied=0.5, common=0.0, dispersion=30.0):
    """Weeks of lines with a known truth: gamma slopes of relative sd 0.5 around 4, orders worth `dispersion`."""
    rng = np.random.default_rng(seed)
    slope = 4 * rng.gamma(4, 0.25, n)
    usual = np.exp(rng.normal(4, 0.7, n))
    spend = usual[:, None] * np.exp(varied * rng.standard_normal((n, weeks)))
    shift = np.exp(common * rng.standard_normal(weeks))
    value = dispersion * rng.poisson(slope[:, None] * effective(spend, multiple * usual) * shift / dispersion)
    line, week = np.indices(spend.shape)
    ids = [f"k{i:03}" for i in range(n)]
    rows = pd.DataFrame({"sku_id": np.array(ids)[line.ravel()], "channel": "ads", "category": "all",
                         "week": weeks - 1 - week.ravel(), "spend": spend.ravel(), "value": value.ravel()})  # fmt: skip
    return rows, pd.Series(slope, index=ids)


@pytest.mark.parametrize("multiple", [0.5, 2.0, 16.0])
def test_a_planted_curvature_is_found_within_a_factor_of_two(multiple):
    found = fit_responses(market(1, multiple=multiple)[0]).channels.iloc[0]
    assert found["curve"] == "learned"
    assert multiple / 2 <= found["half_at"] <= multiple * 2


def test_where_spend_never_varied_the_stated_default_stays():
    found = fit_responses(market(1, varied=0.0)[0], default_half=3.0)
    assert found.channels.loc[0, ["half_at", "curve"]].tolist() == [3.0, "default"]
    assert set(found.lines["curve"]) == {"default"}


def test_a_channel_without_variation_borrows_from_the_others():
    told, _ = market(1, multiple=2.0)
    still, _ = market(2, varied=0.0, n=40)
    found = fit_responses(pd.concat([told, still.assign(channel="feed")])).channels.set_index("channel")
    assert found["curve"].to_dict() == {"ads": "learned", "feed": "pooled"}
    assert 1 <= found.loc["feed", "half_at"] <= 4


def test_weeks_that_are_good_for_all_are_not_taken_for_curvature():
    rng = np.random.default_rng(0)
    spend = np.exp(rng.normal(4, 0.3, (200, 8)))
    value = 4 * effective(spend, np.full(200, 60.0)) * np.linspace(0.8, 1.2, 8)
    found = fit_curvature(spend, value, np.zeros(200, dtype=int), ["ads"], np.array([1.0]), 1.0)
    assert 0.5 <= found["half_at"][0] <= 2


def test_slopes_lie_within_their_errors_and_nearer_than_raw_ratios():
    weeks, truth = market(3, multiple=2.0, weeks=4)
    found = fit_responses(weeks)
    lines = found.lines.set_index("sku_id").loc[truth.index]
    far = (lines["slope"] - truth) / lines["slope_sd"]
    assert 0.75 < float((far.abs() < 1.645).mean()) <= 1.0
    raw = lines["value"] / effective(weeks.groupby("sku_id")["spend"].apply(list).pipe(lambda s: np.array(s.tolist())),
                                     lines["half"].to_numpy()).sum(axis=1)  # fmt: skip
    assert ((lines["slope"] - truth) ** 2).mean() < ((raw - truth) ** 2).mean()
    assert found.channels["dispersion"][0] == pytest.approx(30, rel=0.2)
    slope, sd = found.expected_of("ads", "never seen")
    assert slope == pytest.approx(truth.mean(), rel=0.25)
    assert 0.5 * truth.std() < sd < 2 * truth.std()


@pytest.mark.parametrize(("orders", "own"), [(2_000, 0.55), (0.05, 0.4)])
def test_one_week_counts_by_its_orders_and_its_spread(orders, own):
    """Slopes differ by half of themselves: a week of thousands of orders tells them apart, a week of a few does not."""
    rng = np.random.default_rng(4)
    n, worth = 60, 20.0
    slope = 4 * rng.gamma(4, 0.25, n)
    spend = np.exp(rng.normal(0, 0.3, n)) * orders * worth / 4
    counted = rng.poisson(slope * effective(spend[:, None], spend)[:, 0] / worth)
    weeks = pd.DataFrame({"sku_id": [f"k{i:02}" for i in range(n)], "channel": "ads", "category": "all", "week": 0,
                          "spend": spend, "orders": counted, "value": worth * counted})  # fmt: skip
    found = fit_responses(weeks).lines
    raw = weeks["value"].to_numpy() / effective(spend[:, None], found["half"].to_numpy())[:, 0]
    followed = np.cov(found["slope"], raw)[0, 1] / raw.var(ddof=1)
    assert followed > own if orders > 1 else followed < own
    # What one week says of the next is never taken for certain.
    assert (found["slope_sd"] / found["slope"]).min() > 0.05


def test_in_one_week_categories_that_differ_are_told_apart_and_one_of_two_lines_is_not_believed():
    rng = np.random.default_rng(5)
    n = 200
    category = np.where(np.arange(n) < 100, "a", "b")
    slope = np.where(category == "a", 2.0, 6.0) * rng.gamma(25, 1 / 25, n)
    spend = np.full(n, 20.0)
    counted = rng.poisson(slope * effective(spend[:, None], spend)[:, 0] / 20.0)
    weeks = pd.DataFrame({"sku_id": [f"k{i:03}" for i in range(n)], "channel": "ads", "category": category, "week": 0,
                          "spend": spend, "orders": counted, "value": 20.0 * counted})  # fmt: skip
    found = fit_responses(weeks)
    middle = found.lines.groupby("category")["slope"].mean()
    assert middle["a"] == pytest.approx(2.0, rel=0.25)
    assert middle["b"] == pytest.approx(6.0, rel=0.25)
    within = found.lines["slope"] - found.lines["category"].map(middle)
    raw = weeks["value"] / effective(spend[:, None], found.lines["half"].to_numpy())[:, 0]
    assert within.std() < 0.5 * (raw - raw.groupby(weeks["category"]).transform("mean")).std()


def test_what_moves_all_lines_of_a_channel_together_is_found():
    calm, stormy = (fit_responses(market(5, common=sd, weeks=12)[0]).channels["common_sd"][0] for sd in (0.0, 0.3))
    assert calm < 0.12
    assert 0.15 < stormy < 0.5


def test_late_orders_count_for_the_week_before():
    rows = pd.DataFrame({"sku_id": "a", "channel": "ads", "category": "c", "week": [2, 1, 0], "spend": [10.0, 0, 0],
                         "value": [20.0, 15.0, 100.0]})  # fmt: skip
    lines = fit_responses(rows).lines
    assert lines[["spend", "value", "last_spend"]].values.tolist() == [[10.0, 35.0, 0.0]]


def test_history_without_spend_gives_no_lines():
    rows = pd.DataFrame(
        {"sku_id": ["a"], "channel": ["ads"], "category": ["c"], "week": [0], "spend": [0.0], "value": [5.0]}
    )
    assert fit_responses(rows).lines.empty


# The cautious mode.


def some_lines(n=30):
    rng = np.random.default_rng(4)
    slope = rng.gamma(4, 1.0, n)
    return Lines(slope, np.full(n, 60.0), np.full(n, 0.4), np.zeros(n), np.full(n, 90.0)), 0.4 * slope


def drawn(lines, sd, n_draws, seed):
    return draw(lines.slope, sd, np.zeros(len(sd), dtype=int), np.array([0.1]), np.array([20.0]), n_draws,
                np.random.default_rng(seed))  # fmt: skip


def test_a_tightened_split_meets_the_target_with_the_chance_asked_for_in_draws_it_has_not_seen():
    lines, sd = some_lines()
    on_average = allot(lines, 1500.0)
    target = on_average.return_on_spend
    split, made_for, chance = tighten(lines, drawn(lines, sd, 4000, 0), 1500.0, target, 0.9)
    assert chance >= 0.9
    assert made_for > target
    unseen = drawn(lines, sd, 20_000, 1)
    assert chance_of(unseen, split, target) == pytest.approx(0.9, abs=0.02)
    assert chance_of(unseen, on_average, target) < 0.6
    assert split.profit < on_average.profit


def test_a_chance_that_needs_no_tightening_changes_nothing():
    lines, sd = some_lines()
    split, made_for, _ = tighten(lines, drawn(lines, sd, 1000, 0), 1500.0, 0.5, 0.9)
    assert made_for == 0.5
    assert (split.spend == allot(lines, 1500.0, 0.5).spend).all()


def test_a_chance_out_of_reach_gives_the_greatest_found():
    lines, sd = some_lines()
    held = replace(lines, low=np.full(30, 80.0))
    met = allot(held, 3000.0).return_on_spend
    _, _, chance = tighten(held, drawn(held, sd, 1000, 0), 3000.0, met, 0.99)
    assert 0 < chance < 0.99
    assert tighten(held, drawn(held, sd, 1000, 0), 3000.0, 50.0, 0.9) is None


def test_draws_are_right_in_mean_and_spread():
    lines, sd = some_lines()
    draws = drawn(lines, sd, 20_000, 2)
    values = draws.totals(100.0 * np.eye(30)[3])
    assert values.mean() == pytest.approx(100.0, rel=0.02)
    share = sd[3] / lines.slope[3]
    expected = (100 * share) ** 2 + (100 * 0.1) ** 2 + 20 * 100.0
    assert values.std() == pytest.approx(np.sqrt(expected), rel=0.1)
