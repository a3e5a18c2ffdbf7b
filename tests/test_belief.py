"""What a running test has shown so far, and how far that may still move: by hand, by truth, by more evidence."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from hitfinder.admission import admit_signals_and_skus
from hitfinder.features import count_pairs, features, look_at, look_back, set_scope
from hitfinder.models.belief import Belief, fit_belief
from hitfinder.models.linear import LinearPrior
from hitfinder.pooling import choose_rates, fit_rates, load_pairs
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate
from hitfinder.warehouse import open_warehouse

RATES = ("clicks_per_impression", "orders_per_click")
COLUMNS = tuple(f"{rate}.{view}" for rate in RATES for view in ("level", "lead"))


def made(seed=0):
    rng = np.random.default_rng(seed)
    prior = LinearPrior(rng.normal(size=4), rng.uniform(0.2, 2, 4), rng.normal(size=4), float(rng.normal()))
    return Belief(COLUMNS, prior, RATES, float(rng.uniform(0.1, 2)))


def table_of(seed, n=8):
    rng = np.random.default_rng(seed)
    columns = {name: rng.normal(size=n) for name in COLUMNS}
    return pd.DataFrame(columns | {f"{rate}.spread": rng.uniform(0, 1.2, n) for rate in RATES})


# ---------------------------------------- by hand


def test_the_score_is_linear_and_what_was_not_measured_counts_as_average():
    belief, table = made(), table_of(0)
    table.loc[3, "orders_per_click.lead"] = np.nan
    prior = belief.prior
    for row in range(len(table)):
        expected = prior.intercept
        for k, name in enumerate(COLUMNS):
            value = table.loc[row, name]
            if not np.isnan(value):
                expected += prior.coefficients[k] * (value - prior.mean[k]) / prior.scale[k]
        assert belief.mean(table)[row] == pytest.approx(expected)


def test_the_doubt_is_that_of_all_rates_together():
    """A rate's logarithm moves its level and its lead alike; what was not measured has a spread of 1."""
    belief, table = made(), table_of(1)
    table.loc[2, "clicks_per_impression.spread"] = np.nan
    slope = belief.prior.coefficients / belief.prior.scale
    slopes = slope[0] + slope[1], slope[2] + slope[3]
    for row in range(len(table)):
        spread = [1.0 if np.isnan(s) else s for s in (table.loc[row, f"{rate}.spread"] for rate in RATES)]
        expected = belief.factor * np.hypot(slopes[0] * spread[0], slopes[1] * spread[1])
        assert belief.doubt(table)[row] == pytest.approx(expected)


def test_what_fades_with_the_funnel_known_doubts_less():
    """Orders are wanted: the slope of clicks is what lasts and, for the share not known, what clicks say of orders."""
    belief, table = made(), table_of(1)
    names = (*COLUMNS, *(f"{rate}.unknown" for rate in RATES))
    rng = np.random.default_rng(5)
    table = table.assign(**{name: rng.uniform(0, 1, len(table)) for name in names[4:]})
    of = belief.prior
    prior = LinearPrior(
        np.append(of.mean, [0, 0]), np.append(of.scale, [np.inf, np.inf]), np.append(of.coefficients, [0, 0]),
        of.intercept, np.asarray([0.7, 0, 0.4, 0, 0, 0]), (4, 5),
    )  # fmt: skip
    fading = Belief(names, prior, RATES, belief.factor)
    for row in range(len(table)):
        share = np.sqrt((table.loc[row, names[4]] + table.loc[row, names[5]]) / 2)
        slope = (of.coefficients * share + [0.7, 0, 0.4, 0]) / of.scale
        score = of.intercept + sum(slope[k] * (table.loc[row, name] - of.mean[k]) for k, name in enumerate(COLUMNS))
        assert fading.mean(table)[row] == pytest.approx(score)
        spread = [table.loc[row, f"{rate}.spread"] for rate in RATES]
        doubt = np.hypot((slope[0] + slope[1]) * spread[0], (slope[2] + slope[3]) * spread[1])
        assert fading.doubt(table)[row] == pytest.approx(belief.factor * doubt)
    assert (
        Belief.from_dict(json.loads(json.dumps(fading.to_dict()))).doubt(table).tolist() == fading.doubt(table).tolist()
    )


def test_nothing_else_of_the_table_is_read_and_the_order_of_columns_is_none():
    belief, table = made(), table_of(2)
    other = table.assign(content=99.0, month=7, **{"revenue_per_click.level": 5.0})
    other = other[[*reversed(other.columns)]]
    np.testing.assert_array_equal(belief.mean(other), belief.mean(table))
    np.testing.assert_array_equal(belief.doubt(other), belief.doubt(table))


def test_a_sku_is_believed_the_same_whoever_stands_beside_it():
    belief, table = made(), table_of(3, n=50)
    for rows in ([7], [3, 7, 49]):
        np.testing.assert_array_equal(belief.mean(table.iloc[rows]), belief.mean(table)[rows])
        np.testing.assert_array_equal(belief.doubt(table.iloc[rows]), belief.doubt(table)[rows])


def test_a_column_that_never_differed_moves_nothing():
    belief = made()
    scale = np.array([np.inf, np.inf, 1.0, 1.0])
    still = Belief(COLUMNS, LinearPrior(belief.prior.mean, scale, np.ones(4), 0.0), RATES, 1.0)
    table = table_of(4)
    np.testing.assert_allclose(still.doubt(table), 2 * table["orders_per_click.spread"])


@effort(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), shrink=st.floats(0, 1))
def test_less_spread_is_less_doubt(seed, shrink):
    belief, table = made(seed), table_of(seed)
    spreads = [f"{rate}.spread" for rate in RATES]
    less = table.assign(**{name: table[name] * shrink for name in spreads})
    assert (belief.doubt(less) <= belief.doubt(table) + 1e-12).all()
    np.testing.assert_allclose(belief.doubt(less), belief.doubt(table) * shrink, atol=1e-12)


@pytest.mark.parametrize("of", [made, lambda: history_of(5, n=400)[1]], ids=["made up", "fitted"])
def test_written_and_read_a_belief_is_the_same(of):
    belief = of()
    again = Belief.from_dict(json.loads(json.dumps(belief.to_dict())))
    assert again.to_dict() == belief.to_dict()
    assert (again.columns, again.rates, again.factor) == (belief.columns, belief.rates, belief.factor)
    for name in ("mean", "scale", "coefficients"):
        np.testing.assert_array_equal(getattr(again.prior, name), getattr(belief.prior, name))


# ---------------------------------------- more evidence


@cache
def states():
    """Return (features of running tests at several moments, by sku_id and as_of; a belief about their rates)."""
    market = simulate(weeks=3, skus_per_week=40, complete=True, seed=2)
    settings = parse_settings({"label": {"outcome_window": "14d"}, "model": {"threads": 1}})
    batches = sorted(market.skus["batch_id"].unique())[-2:]
    skus = market.skus[market.skus["batch_id"].isin(batches)]
    # Launches over several days, so that a style's siblings come one after the other; and some SKUs nobody sees.
    skus = skus.assign(launched_at=skus["launched_at"] + pd.to_timedelta(np.arange(len(skus)) % 3, unit="D"))
    seen = skus["sku_id"][np.arange(len(skus)) % 7 != 0]
    signals = market.signals[market.signals["sku_id"].isin(seen)]
    con = open_warehouse(threads=1)
    try:
        admit_signals_and_skus(con, signals, skus, period=settings.signals.period)
        set_scope(con, settings, signals["known_at"].max())
        look_back(con)
        names = choose_rates(con)
        rates = fit_rates(load_pairs(con), names)
        tables = []
        for day in (0, 1, 2, 4, 7, 10):
            set_scope(con, settings, skus["launched_at"].max() + pd.Timedelta(days=day))
            look_at(con)
            count_pairs(con, names)
            tables.append(features(con, rates))
        columns = tuple(f"{rate}.{view}" for rate in names for view in ("level", "lead"))
        one = np.ones(len(columns))
        belief = Belief(columns, LinearPrior(one, one, np.linspace(0.1, 0.9, len(columns)), 0.0), tuple(names), 0.7)
        return pd.concat(tables).sort_values(["sku_id", "as_of"]).reset_index(drop=True), belief
    finally:
        con.close()


def test_doubt_never_rises_as_evidence_comes_in():
    table, belief = states()
    doubt = pd.Series(belief.doubt(table))
    assert doubt.gt(0).all()
    step = doubt.groupby(table["sku_id"]).diff().dropna()
    assert len(step) > 300
    assert (step <= 1e-12).all()
    # and a SKU that was shown in between is less in doubt than before
    shown = table["impressions"].fillna(0).astype(float).groupby(table["sku_id"]).diff().reindex(step.index) > 0
    assert shown.sum() > 200
    assert (step[shown] < 0).all()


def test_of_skus_that_nobody_saw_most_is_in_doubt():
    table, belief = states()
    doubt = belief.doubt(table)
    exposed = table["impressions"].fillna(0).to_numpy(dtype=float)
    for rows in table.groupby(["as_of", "batch_id", "style_id"]).indices.values():
        order = rows[np.argsort(exposed[rows])]
        if exposed[order[0]] == 0 and exposed[order[-1]] > 0:
            # Siblings know the same of their style, less what each saw itself: the unseen knows the least.
            assert doubt[order[0]] > doubt[order[-1]]


# ---------------------------------------- where the truth is known

SHOWN = np.array([20, 50, 100, 200, 400, 800, 3_000])


def history_of(seed, *, shape=25.0, n=4_000, rates=("clicks_per_impression",), lists=40):
    """Draw tests of which all is known: Gamma appeal, Poisson counts, states as exposures come in.

    The strength that shrinks a rate is the true one: shape / mean, in exposures.
    """
    rng = np.random.default_rng(seed)
    mean = 0.05
    strength = shape / mean
    columns = {"sku": np.repeat(np.arange(n), len(SHOWN)), "den": np.tile(SHOWN, n)}
    latent = np.zeros(n)
    for rate in rates:
        truth = rng.gamma(shape, mean / shape, n)
        latent += np.log(truth / mean)
        counted = rng.poisson(truth[:, None] * np.diff(SHOWN, prepend=0)).cumsum(axis=1)
        shrunk = (counted + shape) / (SHOWN + strength)
        level = np.log(shrunk / mean).ravel()
        spread = np.sqrt(strength / (columns["den"] + strength))
        columns |= {f"{rate}.level": level, f"{rate}.lead": level.copy(), f"{rate}.spread": spread}
    batch = np.arange(n) % lists
    standing = pd.Series(latent + rng.normal(0, 0.05, n)).groupby(batch).rank(pct=True).to_numpy() * 0.98 + 0.01
    table = pd.DataFrame(columns)
    of = table["sku"].to_numpy()
    lists_ = batch[of] * len(SHOWN) + np.tile(np.arange(len(SHOWN)), n)
    belief = fit_belief(
        table, of, standing[of], np.full(len(table), 1 / len(SHOWN)), batch[of] % 3, lists_, list(rates),
        {f"{rate}.level": 1.0 for rate in rates}, [],
    )  # fmt: skip
    return table, belief


@pytest.mark.parametrize("rates", [("clicks_per_impression",), RATES], ids=["one rate", "two rates"])
def test_scores_move_until_the_end_by_as_much_as_their_doubt_shrinks(rates):
    table, belief = history_of(0, rates=rates)
    shape = (-1, len(SHOWN))
    score, doubt = belief.mean(table).reshape(shape), belief.doubt(table).reshape(shape)
    for state in range(len(SHOWN) - 1):
        moved = score[:, -1] - score[:, state]
        expected = np.sqrt(doubt[:, state] ** 2 - doubt[:, -1] ** 2)
        assert np.ptp(expected) < 1e-9  # all were shown alike: one group of spread
        # 4000 SKUs tell a standard deviation to about 1 %; a logarithm of counts as small as these is not quite normal.
        assert moved.std() == pytest.approx(expected[0], rel=0.08), SHOWN[state]
        # A mean's logarithm falls a little as it spreads; nothing else moves all scores.
        assert abs(moved.mean()) < 0.2 * expected[0]


@pytest.mark.parametrize("shape", [10.0, 25.0, 60.0])
def test_the_factor_is_the_spread_of_true_rates(shape):
    """A Gamma of that shape has a logarithm with a standard deviation of about one over its root."""
    _, belief = history_of(1, shape=shape)
    assert belief.factor == pytest.approx(1 / np.sqrt(shape), rel=0.12)


def test_where_scores_never_moved_there_is_no_doubt():
    rng = np.random.default_rng(0)
    n = 300
    level = rng.normal(size=n)
    rows = {"clicks_per_impression.level": level, "clicks_per_impression.lead": level}
    table = pd.DataFrame(rows | {"clicks_per_impression.spread": 0.5})
    standing = (level.argsort().argsort() + 0.5) / n
    belief = fit_belief(
        table, np.arange(n), standing, np.ones(n), np.arange(n) % 3, np.arange(n) % 10,
        ["clicks_per_impression"], {"clicks_per_impression.level": 1.0}, [],
    )  # fmt: skip
    assert belief.factor == 0.0
    assert not belief.doubt(table).any()


def test_a_season_that_moves_a_whole_list_is_no_doubt_about_its_skus():
    """The same tests, but each list's rates rise or fall together from state to state."""
    table, plain = history_of(2)
    rng = np.random.default_rng(3)
    season = rng.normal(0, 2, (40, len(SHOWN)))
    of = table["sku"].to_numpy()
    state = np.tile(np.arange(len(SHOWN)), len(table) // len(SHOWN))
    moved = table.assign(
        **{name: table[name] + season[of % 40, state] for name in table if name.endswith((".level", ".lead"))}
    )
    rank = table.groupby("sku")["clicks_per_impression.level"].last().groupby(np.arange(4_000) % 40).rank(pct=True)
    standing = rank.to_numpy()[of] * 0.98 + 0.01
    fits = [
        fit_belief(
            rows, of, standing, np.full(len(rows), 1 / len(SHOWN)), of % 40 % 3, (of % 40) * len(SHOWN) + state,
            ["clicks_per_impression"], {"clicks_per_impression.level": 1.0}, [],
        )
        for rows in (table, moved)
    ]  # fmt: skip
    assert plain.factor > 0
    assert fits[1].factor == pytest.approx(fits[0].factor, rel=0.1)
