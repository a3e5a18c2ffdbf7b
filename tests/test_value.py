"""What a SKU will be worth: planted parts are recovered, intervals hold, and what else is on a call has no say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hitfinder.models.value import COVERAGE, ValueModel, fit_value


def planted(seed, n=1500, loss=0.0, base=0.5):
    """Draw SKUs whose chance to sell on and worth are known: logistic in the margin, log-linear in margin and price."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 1, n)
    table = pd.DataFrame({"log_price": rng.normal(4, 0.5, n)})
    chance = 1 / (1 + np.exp(-(base + 1.5 * margin)))
    worth = np.exp(3 + 0.6 * margin + 0.9 * (table["log_price"].to_numpy() - 4))
    sold = rng.random(n) < chance
    value = np.where(sold, worth * rng.gamma(2, 0.5, n), -loss)
    folds = rng.integers(0, 5, n)
    return margin, table, value, folds, chance * worth - (1 - chance) * loss


def fitted(seed, **more):
    margin, table, value, folds, _ = planted(seed, **more)
    grid = np.quantile(margin, np.linspace(0, 1, 60))
    return fit_value(margin, table, value, np.ones(len(value)), folds, grid)


@pytest.mark.parametrize("loss", [0.0, 6.0])
def test_the_planted_expectation_is_recovered_where_one_curve_by_margin_can_not(loss):
    model = fitted(1, loss=loss)
    margin, table, value, _, truth = planted(2, loss=loss)
    found = model.expected(margin, table)
    assert np.corrcoef(found, truth)[0, 1] > 0.97
    assert found.mean() == pytest.approx(value.mean(), rel=0.12, abs=1.0)
    # A curve by margin alone can't tell a dear SKU from a cheap one.
    bins = pd.qcut(margin, 20, labels=False)
    by_margin = pd.Series(truth).groupby(bins).transform("mean")
    assert ((found - truth) ** 2).mean() < 0.3 * ((by_margin - truth) ** 2).mean()


@pytest.mark.parametrize(("base", "missed_below"), [(20.0, 0.1), (0.5, 0.0)])
def test_the_interval_misses_no_more_than_a_tenth_at_either_end(base, missed_below):
    below, above = [], []
    for seed in range(6):
        model = fitted(seed, loss=4.0, base=base)
        margin, table, value, _, _ = planted(100 + seed, loss=4.0, base=base)
        low, high = model.interval(model.expected(margin, table))
        below.append((value < low).mean())
        above.append((value > high).mean())
    assert np.mean(above) == pytest.approx((1 - COVERAGE) / 2, abs=0.02)
    # Where a tenth and more are worth the same least, nothing lies below it.
    assert np.mean(below) == pytest.approx(missed_below, abs=0.02)


def test_beyond_the_last_level_losses_do_not_grow_with_what_is_expected():
    for loss, base in ((60.0, -1.5), (40.0, -2.0)):
        model = fitted(5, loss=loss, base=base)
        last = model.levels[-1]
        low, high = model.interval(np.array([last, 2 * last, 10 * last]))
        assert low[0] == low[1] == low[2] >= -loss
        assert (np.diff(high) > 0).all()
        assert high[2] <= high[0] + 5.0 * 9 * last + 1e-9


def test_beyond_the_last_level_the_interval_still_misses_no_more_than_a_tenth_at_either_end():
    below, above, n = 0, 0, 0
    for seed in range(8):
        model = fitted(seed, base=20.0)
        margin, table, value, _, _ = planted(200 + seed, n=6000, base=20.0)
        expected = model.expected(margin, table)
        low, high = model.interval(expected)
        beyond = expected > model.levels[-1]
        assert (high[beyond] > 1.2 * expected[beyond]).all()
        below, above, n = (
            below + (value < low)[beyond].sum(),
            above + (value > high)[beyond].sum(),
            n + beyond.sum(),
        )
    assert n > 1000
    assert above / n <= (1 - COVERAGE) / 2 + 0.02
    assert below / n <= (1 - COVERAGE) / 2 + 0.02
    assert 1 - (above + below) / n == pytest.approx(COVERAGE, abs=0.08)


def test_what_is_expected_to_lose_more_than_any_level_may_lose_more_still():
    model = fitted(1, loss=6.0, base=-1.0)
    below = np.array([model.levels[0] - 10.0, model.levels[0] - 20.0])
    low, high = model.interval(below)
    assert (low < below).all()
    assert (high > below).all()
    assert low[1] < low[0]


def test_the_interval_widens_with_what_is_expected_and_holds_it():
    model = fitted(3)
    expected = np.linspace(0, 150, 50)
    low, high = model.interval(expected)
    assert (low <= expected).all()
    assert (high >= expected).all()
    assert high[-1] - low[-1] > high[0] - low[0]


def test_what_else_is_on_the_call_changes_nothing():
    model = fitted(4)
    margin, table, *_ = planted(5, n=50)
    alone = np.array([model.expected(margin[i : i + 1], table.iloc[i : i + 1])[0] for i in range(50)])
    assert alone == pytest.approx(model.expected(margin, table), rel=1e-12)


def test_an_unknown_price_stands_in_the_middle_and_a_strange_one_is_cut():
    model = fitted(4)
    at = np.zeros(4)
    prices = pd.DataFrame({"log_price": [np.nan, model.centre[1], 50.0, model.centre[1] + 3 * model.scale[1]]})
    unknown, middle, strange, far = model.expected(at, prices)
    assert unknown == pytest.approx(middle)
    assert strange == pytest.approx(far)


def test_too_few_that_sold_on_leave_their_mean():
    rng = np.random.default_rng(0)
    margin, value = rng.normal(size=200), np.zeros(200)
    value[:10] = 5.0
    model = fit_value(
        margin, pd.DataFrame(index=range(200)), value, np.ones(200), rng.integers(0, 4, 200), np.sort(margin)
    )
    assert model.coefficients == ()
    assert model.expected(margin, pd.DataFrame(index=range(200))).sum() == pytest.approx(50, rel=0.05)


def test_where_nothing_was_worth_anything_nothing_is_expected():
    margin = np.arange(100.0)
    nothing = pd.DataFrame(index=range(100))
    model = fit_value(margin, nothing, np.zeros(100), np.ones(100), np.arange(100) % 4, margin)
    assert model.expected(margin, nothing).tolist() == [0.0] * 100


def test_it_comes_back_from_plain_values_as_it_was():
    model = fitted(6)
    assert ValueModel.from_dict(model.to_dict()) == model
