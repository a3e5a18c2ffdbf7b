"""The parts of the model: prior, boosting, calibration, rules, content, design, and a saved model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import norm, spearmanr
from sklearn.utils.estimator_checks import parametrize_with_checks
from small_market import fitted, newest_batch

import hitfinder as hf
from hitfinder import thresholds
from hitfinder.errors import ModelError
from hitfinder.models import HitClassifier, calibration
from hitfinder.models.calibration import Calibration, fit_calibration
from hitfinder.models.content import ContentModel, fit_content, vectorise
from hitfinder.models.design import LOG_EARNING, Design, choose_design, funnel_to, simple_score, split_attributes
from hitfinder.models.linear import LinearPrior
from hitfinder.models.prior import PENALTIES, fit_platt, fit_prior
from hitfinder.models.rules import LOGISTIC, counted_names, fit_logistic_rule, plain_counts, rule_scores
from hitfinder.settings import parse_settings
from hitfinder.tables import COUNTS, MONEY

# ---------------------------------------------------------------------------------------------------------- estimator

WHY = "folds are drawn by position, and a weight of two is less evidence to the calibration than two rows"


@parametrize_with_checks(
    [HitClassifier(kind=kind, threads=1) for kind in ("prior", "boosted")],
    expected_failed_checks=lambda _: {"check_sample_weight_equivalence_on_dense_data": WHY},
)
def test_the_estimator_keeps_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def drawn():
    """Rows of which the first column tells, the second is noise and the third is missing now and then."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 3))
    X[rng.random(600) < 0.2, 2] = np.nan
    y = (X[:, 0] + rng.normal(size=600) > 1.3).astype(int)
    return X, y


def boosted(X, y, **settings):
    return HitClassifier(**{"kind": "boosted", "monotone": [1, 0, 0], "threads": 1, **settings}).fit(X, y)


@pytest.mark.parametrize("kind", ["prior", "boosted", "ranker"])
def test_contributions_sum_to_the_margin_up_to_a_constant(drawn, kind):
    X, y = drawn
    model = boosted(X, y, kind=kind, seeds=2)
    rest = model.margin(X) - model.contributions(X).sum(axis=1)
    assert np.ptp(rest) < 1e-9
    assert np.ptp(model.margin(X)) > 0.5


@pytest.mark.parametrize("kind", ["prior", "boosted", "ranker", "rule"])
def test_a_restored_estimator_gives_identical_numbers(drawn, kind):
    X, y = drawn
    model = boosted(X, y, kind=kind, seeds=2)
    again = HitClassifier.from_dict(json.loads(json.dumps(model.to_dict())))
    for one, other in zip(model.predict_interval(X), again.predict_interval(X), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(model.contributions(X), again.contributions(X))
    np.testing.assert_array_equal(model.predict(X), again.predict(X))


@pytest.mark.parametrize("kind", ["prior", "boosted", "ranker"])
def test_a_row_is_scored_alike_alone_and_among_others(drawn, kind):
    X, y = drawn
    model = boosted(X, y, kind=kind)
    together = model.margin(X[:40])
    np.testing.assert_array_equal(together, np.concatenate([model.margin(X[i : i + 1]) for i in range(40)]))
    np.testing.assert_array_equal(together[::-1], model.margin(X[:40][::-1]))


def test_seed_0_is_a_seed_and_another_seed_is_another_model(drawn):
    X, y = drawn
    zero = boosted(X, y, random_state=0).margin(X)
    np.testing.assert_array_equal(zero, boosted(X, y, random_state=0).margin(X))
    np.testing.assert_array_equal(zero, boosted(X, y, random_state=None).margin(X))
    assert not np.array_equal(zero, boosted(X, y, random_state=1).margin(X))


def test_more_seeds_are_an_average_of_members(drawn):
    X, y = drawn
    model = boosted(X, y, seeds=3)
    assert len(model.boosters_) == 3
    alone = [b.predict(X, raw_score=True) for b in model.boosters_]
    start = model.platt_[0] * model.prior_.score(X) + model.platt_[1]
    np.testing.assert_allclose(model.margin(X), start + np.mean(alone, axis=0))
    assert not np.array_equal(alone[0], alone[1])


def test_two_threads_grow_the_trees_that_one_grows(drawn):
    X, y = drawn
    one, two = (boosted(X, y, threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.margin(X), two.margin(X))


def test_more_of_a_rising_column_is_never_worse(drawn):
    X, y = drawn
    model = boosted(X, y)
    assert model.platt_[0] * model.prior_.coefficients[0] > 0
    grid = np.linspace(-4, 4, 200)
    for other in (-1.0, 0.0, 2.0):
        rows = np.column_stack([grid, np.full(200, other), np.full(200, np.nan)])
        assert (np.diff(model.margin(rows)) >= 0).all()
        probability, low, high = model.predict_interval(rows)
        assert (np.diff(probability) >= -1e-12).all()
        assert ((low >= 0) & (low <= probability + 1e-12) & (probability <= high + 1e-12) & (high <= 1)).all()


def test_the_margins_for_calibration_are_out_of_fold():
    """Each row's label is a coin's: a model that saw it would tell hits apart, one that did not can't."""
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(400, 30)), rng.integers(0, 2, 400)
    model = HitClassifier(kind="boosted", threads=1).fit(X, y, folds=np.arange(400) % 4)
    places = pd.Series(model.oof_margin_).rank().to_numpy()
    auc = (places[y == 1].mean() - places[y == 0].mean()) / len(y) + 0.5
    seen = pd.Series(model.margin(X)).rank().to_numpy()
    auc_seen = (seen[y == 1].mean() - seen[y == 0].mean()) / len(y) + 0.5
    assert abs(auc - 0.5) < 0.12
    assert auc_seen > 0.75


@pytest.mark.parametrize(
    ("change", "said"),
    [({"kind": "oracle"}, "kind: expected one of prior"), ({"y": [0, 1, 2] * 200}, "Only binary classification")],
)
def test_an_estimator_refuses_what_it_does_not_know(drawn, change, said):
    X, y = drawn
    y = change.pop("y", y)
    with pytest.raises(ValueError, match=said):
        HitClassifier(**change).fit(X, y)


def test_no_weight_at_all_is_refused(drawn):
    X, y = drawn
    with pytest.raises(ValueError, match=r"(?i)sample.weight"):
        HitClassifier(kind="prior").fit(X, y, np.zeros(len(y)))


def test_a_rule_is_its_first_column_and_its_probabilities_are_calibrated(drawn):
    X, y = drawn
    model = HitClassifier(kind="rule").fit(X[:, :1], y)
    np.testing.assert_array_equal(model.margin(X[:, :1]), X[:, 0])
    assert not model.contributions(X[:, :1]).any()
    top = X[:, 0] > 1.5
    assert model.predict_proba(X[:, :1])[top, 1].mean() == pytest.approx(y[top].mean(), abs=0.15)


# -------------------------------------------------------------------------------------------------------------- prior


def test_the_prior_finds_what_was_planted_and_shrinks_the_rest():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(4000, 4))
    signal = X @ [1.0, 1.0, 0.0, 0.0] + 0.5 * rng.normal(size=4000)
    standing = (pd.Series(signal).rank().to_numpy() - 0.5) / 4000
    prior, oof = fit_prior(X, standing, np.ones(4000), np.arange(4000) % 4, on(X, 0, 1))
    one, two, *nothing = prior.coefficients
    assert one == pytest.approx(two, rel=0.05)
    assert np.abs(nothing).max() < 0.05 * one
    assert np.corrcoef(oof, signal)[0, 1] > 0.9


def on(X, *columns):
    """Weigh these columns alike, and no others."""
    return np.isin(np.arange(X.shape[1]), columns).astype(float)


def two_steps(seed, n=3000):
    """Return features and standing: two steps of a funnel, the second seen with more or less noise, and a sign of it.

    Columns: both steps as a posterior mean says them, the sign, and the share of each step that is not known.
    """
    rng = np.random.default_rng(seed)
    click, order = rng.normal(0, 0.5, n), rng.normal(0, 0.8, n)
    sign = order + rng.normal(0, 1.0, n)
    noise = rng.choice([0.05, 3.0], n)  # a variance: at the end of a test, at its beginning
    unknown = noise / (noise + 0.8**2)
    seen = (1 - unknown) * (order + np.sqrt(noise) * rng.normal(size=n))
    X = np.column_stack([click, seen, sign, np.zeros(n), unknown])
    return X, (pd.Series(click + order).rank().to_numpy() - 0.5) / n


def test_what_other_columns_say_fades_as_the_funnel_gets_known():
    X, standing = two_steps(0)
    folds = np.arange(len(X)) % 4
    prior, oof = fit_prior(X, standing, np.ones(len(X)), folds, on(X, 2), funnel=[0, 1], unknown=[3, 4])
    late = X[:, 4] < 0.5
    weights = prior.weights(X) / prior.scale

    def rank(scores, rows):
        return spearmanr(scores[rows], standing[rows]).statistic

    # Known: a step counts as much as the other, and the sign for little. Not known: the sign stands for it.
    assert weights[late, 1].mean() == pytest.approx(weights[late, 0].mean(), rel=0.2)
    assert weights[~late, 2].mean() > 2 * weights[late, 2].mean() > 0
    _, plain = fit_prior(X, standing, np.ones(len(X)), folds, on(X, 2))
    gain = {when: rank(oof, rows) - rank(plain, rows) for when, rows in {"late": late, "early": ~late}.items()}
    assert gain["late"] > 0.03
    assert gain["early"] > -0.01  # before anything is known the sign decides either way


def test_with_everything_known_the_funnel_decides():
    X, standing = two_steps(1)
    prior, _ = fit_prior(X, standing, np.ones(len(X)), np.arange(len(X)) % 4, on(X, 2), funnel=[0, 1], unknown=[3, 4])
    known = np.where(np.arange(5) > 2, 0.0, X)
    click, order, sign = (prior.weights(known) / prior.scale)[0, :3]
    assert click == pytest.approx(order, rel=0.2)
    assert abs(sign) < 0.25 * order
    # A step that nobody measured is not known at all.
    np.testing.assert_array_equal(
        prior.score(np.where(np.arange(5) > 2, np.nan, X)), prior.score(np.where(np.arange(5) > 2, 1.0, X))
    )


def test_what_the_funnel_leaves_out_goes_on_counting_where_it_does_count():
    """Refunds, or outcomes of one's own: with everything known of the funnel, something else is worth as much."""
    rng = np.random.default_rng(4)
    step, other = rng.normal(0, 0.8, (2, 3000))
    unknown = rng.choice([0.05, 0.9], 3000)
    X = np.column_stack([(1 - unknown) * step, other, unknown])
    standing = (pd.Series(step - other).rank().to_numpy() - 0.5) / 3000
    prior, oof = fit_prior(X, standing, np.ones(3000), np.arange(3000) % 4, on(X, 0), funnel=[0], unknown=[2])
    known = X[:, 2] < 0.5
    step_weight, other_weight = (prior.weights(X) / prior.scale)[known, :2].mean(axis=0)
    assert other_weight < -0.5 * step_weight  # the ridge takes the rest
    assert spearmanr(oof[known], standing[known]).statistic > 0.95


def test_what_the_columns_add_sums_to_the_score_and_survives_being_saved():
    X, standing = two_steps(2, 300)
    prior, _ = fit_prior(X, standing, np.ones(300), np.arange(300) % 3, on(X, 2), funnel=[0, 1], unknown=[3, 4])
    np.testing.assert_allclose(prior.effects(X).sum(axis=1) + prior.intercept, prior.score(X))
    again = LinearPrior.from_dict(json.loads(json.dumps(prior.to_dict())))
    np.testing.assert_array_equal(again.score(X), prior.score(X))
    model = HitClassifier(kind="boosted", anchor_weights=[0, 0, 1, 0, 0], funnel_columns=[0, 1], unknown_columns=[3, 4])
    hit = (standing > 0.8).astype(int)
    model.fit(X, hit, standing=standing)
    apart = model.margin(X) - model.contributions(X).sum(axis=1)
    np.testing.assert_allclose(apart, apart[0], atol=1e-9)


def test_of_two_scores_that_say_the_same_neither_is_needed_and_none_counts_against():
    rng = np.random.default_rng(3)
    level = rng.normal(size=500)
    standing = (pd.Series(level + rng.normal(size=500)).rank().to_numpy() - 0.5) / 500
    X = np.column_stack([level, np.full(500, 0.5)])
    prior, _ = fit_prior(X, standing, np.ones(500), np.arange(500) % 5, on(X, 0), funnel=[0], unknown=[1])
    assert (prior.weights(X)[:, 0] > 0).all()
    against, _ = fit_prior(X, 1 - standing, np.ones(500), np.zeros(500, dtype=int), on(X, 0), funnel=[0], unknown=[1])
    assert against.lasting[0] <= 0  # by the ridge alone: no score is started from the wrong way round
    assert np.abs(against.weights(X)[0, 0]) < np.abs(prior.weights(X)[0, 0])


def test_a_fold_without_weight_is_no_division_by_zero():
    X, standing = two_steps(3, 200)
    weight = (np.arange(200) % 4 > 0).astype(float)
    prior, oof = fit_prior(X, standing, weight, np.arange(200) % 4, on(X, 2))
    assert np.isfinite(oof).all()
    assert np.isfinite(prior.score(X)).all()


def test_a_strong_penalty_leaves_the_weights_of_the_anchor():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(30, 3))
    standing = (pd.Series(rng.normal(size=30) + X[:, 0] + X[:, 1]).rank().to_numpy() - 0.5) / 30
    prior, _ = fit_prior(
        X, standing, np.ones(30), np.zeros(30, dtype=int), [1.0, 2.0, 0.0]
    )  # one fold: the largest penalty
    target = norm.ppf(np.clip(standing, 1e-3, 1 - 1e-3))
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    # By hand: the sum of the columns as they came first, then one ridge step away from it.
    both = X[:, 0] + 2 * X[:, 1]
    both = both - both.mean()
    size = max(float(both @ (target - target.mean())) / float(both @ both), 0.0)
    start = size * np.asarray([1.0, 2.0, 0.0]) * X.std(axis=0)
    gram, cross = Z.T @ Z, Z.T @ (target - target.mean())
    expected = start + np.linalg.solve(gram + PENALTIES[-1] * 30 * np.eye(3), cross - gram @ start)
    np.testing.assert_allclose(prior.coefficients, expected, rtol=1e-6, atol=1e-9)


def test_a_missing_value_counts_as_average_and_a_constant_column_as_nothing():
    rng = np.random.default_rng(4)
    X = np.column_stack([rng.normal(size=200), np.full(200, 7.0)])
    standing = (pd.Series(X[:, 0]).rank().to_numpy() - 0.5) / 200
    prior, _ = fit_prior(X, standing, np.ones(200), np.arange(200) % 2, on(X, 0))
    at_mean, missing = prior.score(np.asarray([[prior.mean[0], 7.0], [np.nan, np.nan]]))
    assert at_mean == pytest.approx(missing)
    assert prior.score(np.asarray([[0.3, 7.0], [0.3, 1e9]])).tolist() == [prior.score([[0.3, 7.0]])[0]] * 2
    again = LinearPrior.from_dict(json.loads(json.dumps(prior.to_dict())))
    np.testing.assert_array_equal(again.score(X), prior.score(X))


def test_a_row_of_weight_2_counts_like_two_rows_to_the_prior():
    rng = np.random.default_rng(5)
    X, folds = rng.normal(size=(60, 2)), np.arange(60) % 3
    standing = (pd.Series(X[:, 0] + rng.normal(size=60)).rank().to_numpy() - 0.5) / 60
    twice = np.arange(60) < 20
    weighted, _ = fit_prior(X, standing, 1.0 + twice, folds, on(X))
    order = np.concatenate([np.arange(60), np.flatnonzero(twice)])
    repeated, _ = fit_prior(X[order], standing[order], np.ones(80), folds[order], on(X[order]))
    np.testing.assert_allclose(weighted.coefficients, repeated.coefficients, rtol=1e-9)


def listed(n_lists: int, size: int, *, across: float):
    """One feature that helps within its list; `across` is what a list's mean of it does to the whole list."""
    rng = np.random.default_rng(11)
    lists = np.repeat(np.arange(n_lists), size)
    season = 2 * rng.normal(size=n_lists)[lists]
    own = rng.normal(size=n_lists * size)
    standing = norm.cdf(0.5 * own + across * season + 0.5 * rng.normal(size=n_lists * size))
    return np.column_stack([season + own, own]), standing, lists


def test_what_moves_a_whole_list_does_not_teach_the_prior_who_stands_above_whom():
    X, standing, lists = listed(40, 20, across=-0.5)
    X, weight = X[:, :1], np.ones(800)
    within, _ = fit_prior(X, standing, weight, lists % 4, on(X, 0), lists)
    across, _ = fit_prior(X, standing, weight, lists % 4, on(X, 0))
    assert across.coefficients[0] <= 0
    assert 0.25 < within.coefficients[0] / within.scale[0] < 0.6


def test_whole_lists_rise_and_fall_with_their_outcomes_and_keep_their_order():
    """The first feature is the second and a season: within lists they tell the same, between lists only one of them."""
    X, standing, lists = listed(40, 20, across=0.0)
    prior, _ = fit_prior(X, standing, np.ones(800), lists % 4, on(X, 0), lists)
    level, lead = prior.coefficients / prior.scale
    assert level + lead == pytest.approx(0.5, abs=0.1)
    assert lead > 0.4 * (level + lead)  # the start, and with it a fit within lists alone, puts next to all on the level


def test_a_list_mean_tells_the_held_fold_nothing_of_its_own_outcomes(monkeypatch):
    monkeypatch.setattr("hitfinder.models.prior.PENALTIES", (1.0,))
    X, standing, lists = listed(40, 20, across=0.3)
    folds = np.arange(800) % 4  # a list's rows lie in all folds
    _, scores = fit_prior(X, standing, np.ones(800), folds, on(X, 0), lists)
    turned = np.where(folds == 0, 1 - standing, standing)
    _, others = fit_prior(X, turned, np.ones(800), folds, on(X, 0), lists)
    np.testing.assert_allclose(scores[folds == 0], others[folds == 0], rtol=1e-12)
    assert not np.allclose(scores[folds == 1], others[folds == 1])


def test_skus_that_stand_alone_on_their_lists_are_learned_from_all_the_same():
    X, standing, _ = listed(40, 20, across=0.0)
    alone, _ = fit_prior(X[:, 1:], standing, np.ones(800), np.arange(800) % 4, on(X[:, 1:], 0), np.arange(800))
    plain, _ = fit_prior(X[:, 1:], standing, np.ones(800), np.arange(800) % 4, on(X[:, 1:], 0))
    np.testing.assert_allclose(alone.coefficients, plain.coefficients, rtol=0.02)


def test_platt_never_turns_the_prior_around_and_knows_the_base_rate():
    y = np.asarray([0.0] * 90 + [1.0] * 10)
    slope, level = fit_platt(np.arange(100.0), y, np.ones(100))
    assert slope > 0
    assert expit(slope * np.arange(100.0) + level).mean() == pytest.approx(0.1, abs=0.02)
    for scores, labels in ((-np.arange(100.0), y), (np.zeros(100), y), (np.arange(100.0), np.zeros(100))):
        slope, level = fit_platt(scores, labels, np.ones(100))
        assert slope == 0
        assert expit(level) == pytest.approx((labels.sum() + 0.5) / 101)


def test_boosting_corrects_little_where_the_prior_has_it_all(drawn):
    rng = np.random.default_rng(6)
    X = rng.normal(size=(800, 2))
    y = (rng.random(800) < expit(2.0 * X[:, 0])).astype(int)
    model = boosted(X, y, monotone=None, prior_columns=[0])
    start = model.platt_[0] * model.prior_.score(X[:, :1]) + model.platt_[1]
    assert 0 < np.std(model.margin(X) - start) < 0.5 * np.std(start)


# -------------------------------------------------------------------------------------------------------- calibration


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(12, 300), st.floats(0, 1), st.integers(1, 3), st.booleans())
def test_calibration_is_two_rising_curves_within_0_and_1(seed, n, share, copies, ties):
    rng = np.random.default_rng(seed)
    margin = rng.integers(0, 4, n).astype(float) if ties else rng.normal(size=n)
    y = (rng.random(n) < share).astype(float)
    curve = fit_calibration(margin, y, rng.integers(0, copies, n))
    probability, low, high = curve.interval(np.linspace(-6, 6, 50))
    for values in (probability, low, high):
        assert ((values >= 0) & (values <= 1)).all()
        assert (np.diff(values) >= -1e-12).all()
    assert (low <= probability + 1e-12).all()
    assert (probability <= high + 1e-12).all()
    again = Calibration.from_dict(json.loads(json.dumps(curve.to_dict())))
    np.testing.assert_array_equal(again.interval(margin), curve.interval(margin))


def test_calibrated_probabilities_are_the_shares_of_hits():
    rng = np.random.default_rng(7)
    margin = rng.normal(size=4000)
    y = (rng.random(4000) < expit(2 * margin - 1)).astype(float)
    curve = fit_calibration(margin, y, np.zeros(4000, dtype=int))
    probability, low, high = curve.interval(np.asarray([-1.5, 0.0, 1.5]))
    np.testing.assert_allclose(probability, expit(2 * np.asarray([-1.5, 0.0, 1.5]) - 1), atol=0.07)
    assert (high - low).max() < 0.25


def test_the_interval_is_wide_where_there_is_little_evidence():
    rng = np.random.default_rng(8)
    margin = rng.normal(size=2000)
    y = (rng.random(2000) < expit(2 * margin)).astype(float)
    few, many = (fit_calibration(margin[:n], y[:n], np.zeros(n, dtype=int)) for n in (40, 2000))
    at = np.linspace(-1, 1, 30)
    width = [np.mean(c.interval(at)[2] - c.interval(at)[1]) for c in (few, many)]
    assert width[0] > 2 * width[1]


def test_a_sku_that_is_shown_often_is_no_more_evidence():
    rng = np.random.default_rng(9)
    margin = rng.normal(size=80)
    y = (margin + rng.normal(size=80) > 1).astype(float)
    at = np.linspace(-2, 2, 100)

    def width(copies, counted_as):
        curve = fit_calibration(np.tile(margin, copies), np.tile(y, copies), counted_as)
        _, low, high = curve.interval(at)
        return (high - low).mean()

    once = width(1, np.zeros(80, dtype=int))
    assert width(4, np.repeat(np.arange(4), 80)) == pytest.approx(once, rel=0.1)
    assert width(4, np.zeros(320, dtype=int)) < 0.7 * once  # as if they were others


def test_rows_marked_as_too_early_are_not_calibrated_on():
    rng = np.random.default_rng(10)
    margin = rng.normal(size=200)
    y = (margin + rng.normal(size=200) > 1).astype(float)
    curve = fit_calibration(margin, y, np.zeros(200, dtype=int))
    early = fit_calibration(
        np.concatenate([margin, margin]), np.concatenate([y, 1 - y]), np.repeat([0, -1], 200).astype(int)
    )
    at = np.linspace(-2, 2, 30)
    np.testing.assert_array_equal(early.interval(at), curve.interval(at))


# -------------------------------------------------------------------------------------------------------------- rules


def table_of(**columns):
    rows = len(next(iter(columns.values())))
    blank = dict.fromkeys((*COUNTS, *MONEY), [np.nan] * rows)
    keys = {"as_of": [0] * rows, "batch_id": ["b"] * rows, "category": ["c"] * rows, "age_days": [8.0] * rows}
    return pd.DataFrame({**keys, **blank, **columns})


def test_a_rule_is_scored_only_where_its_counts_were_measured():
    clicks = set(rule_scores(table_of(clicks=[1.0, 2.0])))
    assert "clicks a day" in clicks
    assert all(name.startswith("clicks") for name in clicks)
    shown = set(rule_scores(table_of(clicks=[1.0], impressions=[9.0])))
    assert shown == {*clicks, "shrunk click rate"}
    everything = set(rule_scores(table_of(**{name: [1.0, 2.0] for name in (*COUNTS, *MONEY)})))
    assert everything >= {*shown, "orders a day", "visitors a day", "revenue so far", "rule of thumb"}
    assert counted_names(table_of(clicks=[np.nan, 2.0], revenue=[0.0, 0.0])) == ["clicks", "revenue"]


def test_the_rules_are_what_they_say():
    table = table_of(clicks=[10.0, np.nan], impressions=[100.0, np.nan], orders=[3.0, 0.0], revenue=[7.5, np.nan])
    scores = rule_scores(table)
    assert scores["clicks a day"].tolist() == [1.1, 0.1]
    assert scores["orders a day"].tolist() == [0.4, 0.1]
    assert scores["revenue so far"].tolist() == [7.5, 0.0]
    assert scores["shrunk click rate"] == pytest.approx([(10 + 60 * 0.1) / 160, 0.1])


def test_the_rule_of_thumb_counts_its_conditions():
    names = ["clicks", "impressions", "favorites", "carts", "orders"]
    rows = [
        [400, 8000, 60, 20, 12],  # clicks, click rate, saves (twice), conversion
        [400, 8000, 10, 10, 12],  # no saves
        [100, 8000, 2, 2, 0],  # nothing
        [0, 4000, 0, 0, 0],  # shown often, never clicked: out
    ]
    table = table_of(**{name: [float(row[i]) for row in rows] for i, name in enumerate(names)})
    whole = np.floor(2 * rule_scores(table)["rule of thumb"]) / 2
    assert whole.tolist() == [4.5, 3.0, 0.0, -1.0]


def test_the_logistic_rule_learns_and_survives_hits_only():
    rng = np.random.default_rng(10)
    table = table_of(clicks=rng.poisson(30, 400).astype(float), revenue=rng.exponential(9, 400))
    hit = (table["revenue"] > 20).to_numpy(dtype=float)
    X = plain_counts(table, ["clicks", "revenue"])
    rule = fit_logistic_rule(X, hit, np.ones(400))
    assert np.corrcoef(rule.score(X), table["revenue"])[0, 1] > 0.8
    assert not fit_logistic_rule(X, np.ones(400), np.ones(400)).score(X).any()


def test_a_weight_on_a_column_that_the_prior_does_not_read_is_refused():
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    for weights in ([0.0, 1.0, 1.0], [1.0, 1.0]):
        with pytest.raises(ValueError, match="anchor_weights: expected one per column"):
            HitClassifier(kind="prior", prior_columns=[0, 1], anchor_weights=weights).fit(X, y)


# ------------------------------------------------------------------------------------------------------------ content


def catalogue(rng, n=240):
    kinds, winners = rng.integers(0, 2, n), ("Linen summer dress", "棉麻连衣裙夏季")
    return kinds, pd.DataFrame(
        {
            "title": [winners[i % 2] if kind else "plain mug" for i, kind in enumerate(kinds)],
            "colour": rng.choice(["red", "blue", None], n),
        }
    )


def test_titles_in_two_languages_tell_winners_apart():
    rng = np.random.default_rng(11)
    kinds, skus = catalogue(rng)
    standing = (pd.Series(kinds + rng.normal(0, 0.5, len(kinds))).rank().to_numpy() - 0.5) / len(kinds)
    X = vectorise(skus, ["colour"])
    model, oof = fit_content(X, standing, np.arange(len(kinds)) % 6)
    assert oof[kinds == 1].mean() > oof[kinds == 0].mean() + 0.5
    new = pd.DataFrame({"title": ["棉麻连衣裙", "mug plain", None], "colour": [None, "red", None]})
    winner, loser, _ = model.score(vectorise(new, ["colour"]))
    assert winner > loser
    again = ContentModel.from_dict(json.loads(json.dumps(model.to_dict())))
    np.testing.assert_array_equal(again.score(X), model.score(X))


def test_titles_that_tell_nothing_are_left_out():
    rng = np.random.default_rng(12)
    _, skus = catalogue(rng)
    standing = (rng.permutation(len(skus)) + 0.5) / len(skus)
    model, scores = fit_content(vectorise(skus, ["colour"]), standing, np.arange(len(skus)) % 6)
    assert model is None
    assert not scores.any()
    nothing = vectorise(pd.DataFrame({"title": [None] * 9, "colour": [None] * 9}), ["colour"])
    assert fit_content(nothing, standing[:9], np.arange(9) % 3)[0] is None


def test_a_content_score_never_saw_the_skus_own_outcome():
    """Every title is unique and its outcome a coin's: only a model that saw the outcome could know."""
    rng = np.random.default_rng(13)
    letters = rng.integers(0x4E00, 0x9FA5, size=(200, 8))
    skus = pd.DataFrame({"title": ["".join(map(chr, row)) for row in letters]})
    standing = (rng.permutation(200) + 0.5) / 200
    _, oof = fit_content(vectorise(skus, []), standing, np.arange(200) % 5)
    assert not oof.any() or abs(np.corrcoef(oof, standing)[0, 1]) < 0.2


# ------------------------------------------------------------------------------------------------------------- design


def test_attributes_are_sorted_into_categories_and_numbers():
    skus = pd.DataFrame(
        {
            "sku_id": list("abcd"),
            "category": ["x", None, "x", "y"],
            "weight": [1.0, 2.5, np.nan, 3.0],
            "is_new": [True, False, True, True],
            "colour": ["red", "red", "blue", None],
            "barcode": ["1a", "2b", "3c", "4d"],  # another one in every row
            "empty": [None] * 4,
            "since": pd.to_datetime(["2025-01-01"] * 4),
        }
    )
    assert split_attributes(skus, ("sku_id", "category")) == (["category", "colour", "is_new"], ["weight"])


def test_a_design_reads_its_columns_in_its_own_order():
    rates = ["clicks_per_impression", "refunds_per_revenue"]
    design = choose_design(rates, ["weight"], metric="clicks", on_impressions=False, history_days=30, hit_share=0.05)
    assert "month" not in design.columns
    assert "log_impressions" not in design.columns
    assert (
        "month" in choose_design([], [], metric="clicks", on_impressions=True, history_days=400, hit_share=0.05).columns
    )
    assert len(set(design.columns)) == len(design.columns)
    rising = {name for name, up in zip(design.columns, design.monotone, strict=True) if up}
    assert "clicks_per_impression.level" in rising
    assert not any(name.startswith("refunds") for name in rising)
    assert design.anchor == {"clicks_per_impression.level": 1.0, "content": 1.0}  # what kin tell is a log of a rate too
    assert [name for name, w in zip(design.columns, design.anchor_weights, strict=True) if w] == list(design.anchor)
    assert [design.columns[i] for i in design.funnel_columns] == ["clicks_per_impression.level"]
    assert [design.columns[i] for i in design.unknown_columns] == ["clicks_per_impression.unknown"]
    assert set(design.unknown) <= set(design.prior)
    table = pd.DataFrame({name: [float(i)] for i, name in enumerate(reversed(design.columns))}).drop(columns="weight")
    row = design.matrix(table)[0]
    assert np.isnan(row[design.columns.index("weight")])
    assert row[0] == len(design.columns) - 1
    assert Design.from_dict(json.loads(json.dumps(design.to_dict()))) == design


IMPRESSION_RATES = ["clicks_per_impression", "carts_per_click", "orders_per_click", "revenue_per_order"]


@pytest.mark.parametrize(
    ("metric", "rates", "steps"),
    [
        ("carts", IMPRESSION_RATES, ["clicks_per_impression", "carts_per_click"]),
        ("orders", IMPRESSION_RATES, ["clicks_per_impression", "orders_per_click"]),
        ("profit", IMPRESSION_RATES, ["clicks_per_impression", "orders_per_click", "revenue_per_order"]),
        ("revenue", ["revenue_per_impression"], ["revenue_per_impression"]),
        ("revenue", ["clicks_per_impression", "revenue_per_click"], ["clicks_per_impression", "revenue_per_click"]),
        ("revenue / orders", IMPRESSION_RATES, ["revenue_per_order"]),
        ("units", ["units_per_impression", "units_per_order"], ["units_per_impression"]),  # orders are not there
        ("revenue", ["orders_per_day", "revenue_per_day", "revenue_per_order"], []),
        ("orders / clicks", ["orders_per_day", "orders_per_click"], ["orders_per_click"]),
        ("revenue", ["clicks_per_impression"], []),
        ("refunds", [*IMPRESSION_RATES, "refunds_per_revenue"], []),
    ],
)
def test_the_funnel_leads_from_the_exposure_to_the_metric_in_the_most_steps(metric, rates, steps):
    assert funnel_to(metric, rates) == steps


PACES = ["orders_again_per_day", "orders_per_day", "visitors_again_per_day", "visitors_per_day"]
DAY_RATES = [*PACES, "clicks_per_day", "revenue_per_day", "typical_revenue_per_order", "typical_units_per_order"]


@pytest.mark.parametrize(
    ("metric", "rates", "expected"),
    [
        ("revenue", DAY_RATES, dict.fromkeys(PACES, 0.25) | {"typical_revenue_per_order": 1.0}),
        ("profit", DAY_RATES, dict.fromkeys(PACES, 0.25) | {"typical_revenue_per_order": 1.0}),
        ("units", DAY_RATES, dict.fromkeys(PACES, 0.25) | {"typical_units_per_order": 1.0}),
        ("orders", DAY_RATES, dict.fromkeys(PACES, 0.25)),
        ("clicks", DAY_RATES, {"clicks_per_day": 1 / 3, "visitors_per_day": 1 / 3, "visitors_again_per_day": 1 / 3}),
        ("visitors", DAY_RATES, {"visitors_per_day": 0.5, "visitors_again_per_day": 0.5}),
        ("revenue", ["revenue_per_day"], {"revenue_per_day": 1.0}),  # orders are not counted
        ("revenue", ["clicks_per_day"], {"clicks_per_day": 1.0}),  # nor is revenue: what there is
        ("orders / clicks", ["clicks_per_day", "orders_per_click"], {"clicks_per_day": 0.5, "orders_per_click": 0.5}),
        ("revenue", IMPRESSION_RATES, dict.fromkeys(IMPRESSION_RATES[:3], 1 / 3)),
        ("refunds", ["refunds_per_revenue"], {}),
    ],
)
def test_where_nothing_is_learned_a_sku_is_worth_its_pace_times_the_typical_order(metric, rates, expected):
    assert simple_score(metric, rates) == pytest.approx({f"{rate}.level": w for rate, w in expected.items()})


def test_the_lower_ranks_are_not_learned_from_where_exposures_are_days():
    by_days, by_impressions = (
        choose_design(rates, [], metric="orders", on_impressions=counted, history_days=30, hit_share=0.05)
        for rates, counted in ((["orders_per_day"], False), (["orders_per_impression"], True))
    )
    assert by_days.floor > 0 == by_impressions.floor
    shares = [0.05, 0.2, 0.5, 0.9]
    floors = [
        choose_design(["orders_per_day"], [], metric="orders", on_impressions=False, history_days=30, hit_share=s).floor
        for s in shares
    ]
    assert floors == pytest.approx([by_days.floor, 0.6, 0.0, 0.0])  # as many others as hits are told apart
    rng = np.random.default_rng(6)
    X = rng.normal(size=(600, 2))
    top = (pd.Series(X[:, 0] + 0.3 * rng.normal(size=600)).rank().to_numpy() - 0.5) / 600
    # Below the floor it is another matter who stands above whom.
    standing = np.where(top > by_days.floor, top, by_days.floor * (pd.Series(X[:, 1]).rank().to_numpy() - 0.5) / 600)
    fits = [
        fit_prior(X, standing, np.ones(600), np.arange(600) % 3, on(X), floor=floor)[0] for floor in (0, by_days.floor)
    ]
    of_other = [abs(prior.coefficients[1] / prior.coefficients[0]) for prior in fits]
    assert of_other[1] < 0.1 < of_other[0]


def test_by_profit_what_is_left_of_the_revenue_is_the_last_step():
    design = choose_design(IMPRESSION_RATES, [], metric="profit", on_impressions=True, history_days=30, hit_share=0.05)
    assert design.funnel == (*(f"{rate}.level" for rate in funnel_to("profit", IMPRESSION_RATES)), LOG_EARNING)
    design = choose_design(
        ["visitors_per_day"], [], metric="profit", on_impressions=False, history_days=30, hit_share=0.05
    )
    assert design.funnel == design.unknown == ()


def test_a_fitted_model_and_its_belief_lean_on_the_funnel_to_their_metric():
    model = fitted()[1]
    steps = funnel_to(model.settings.label.metric, model.rates["rate"].tolist())
    assert len(steps) == 3
    own, belief = model.estimator.prior_, model.belief.prior
    for prior, columns in ((own, model.design.prior), (belief, model.belief.columns)):
        assert [columns[i] for i in prior.unknown] == [f"{rate}.unknown" for rate in steps]
        lasting = prior.lasting / prior.scale
        at = [columns.index(f"{rate}.level") for rate in steps]
        assert (lasting[at] > 0).all()
        assert np.abs(np.delete(lasting, at)).max() < lasting[at].max()


# -------------------------------------------------------------------------------------------------------- saved model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "模型 1"
    return fitted()[1].save(folder)


def test_a_saved_model_opens_with_identical_numbers(saved):
    _, model = fitted()
    again = hf.open_model(saved)
    signals, skus, as_of = newest_batch()
    pd.testing.assert_frame_equal(
        hf.rank(again, signals, skus, as_of), hf.rank(model, signals, skus, as_of), check_exact=True
    )
    assert again.digest() == model.digest()
    assert again.report == json.loads(json.dumps(model.report))
    assert again.settings == model.settings


@pytest.mark.parametrize("winner", ["boosted", "ranker", "orders a day", LOGISTIC])
def test_models_of_every_kind_are_saved_whole(winner, drawn, tmp_path):
    _, model = fitted()
    signals, skus, as_of = newest_batch()
    columns = len(model.design.columns)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, columns))
    y = (X[:, 0] > 1).astype(int)
    if winner in ("boosted", "ranker"):
        model = replace(model, winner=winner, estimator=HitClassifier(kind=winner, seeds=2, threads=1).fit(X, y))
    else:
        logistic = fit_logistic_rule(X[:, :3], y.astype(float), np.ones(200))
        estimator = HitClassifier(kind="rule").fit(X[:, :1], y)
        model = replace(model, winner=winner, estimator=estimator, logistic=logistic)
        model = replace(model, logistic_counts=("clicks", "orders"))
    again = hf.open_model(model.save(tmp_path / "model"))
    pd.testing.assert_frame_equal(
        hf.rank(again, signals, skus, as_of), hf.rank(model, signals, skus, as_of), check_exact=True
    )


def test_a_folder_of_a_model_is_written_anew_and_another_is_left_alone(saved, tmp_path):
    _, model = fitted()
    (saved / "stray.txt").write_text("x")
    assert model.save(saved) == saved
    assert not (saved / "stray.txt").exists()
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]  # nothing temporary is left
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError, match="expected a new folder"):
        model.save(other)
    assert [p.name for p in other.iterdir()] == ["thesis.txt"]


def test_what_is_no_model_is_refused_in_one_line(saved, tmp_path):
    def refused(folder, said):
        with pytest.raises(ModelError, match=said) as caught:
            hf.open_model(folder)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "nowhere", "no whole model")
    refused(tmp_path, "no whole model")
    file = tmp_path / "list.csv"
    file.write_text("x")
    refused(file, "no whole model")
    values = json.loads((saved / "model.json").read_text("utf-8"))
    broken = tmp_path / "broken"
    broken.mkdir()
    for text, said in (
        ("{", "can't be read"),
        ("[]", "can't be read"),
        (json.dumps({**values, "format": 99}), "format 6, got 99"),
        (json.dumps({k: v for k, v in values.items() if k != "rates"}), "can't be read"),
        (json.dumps({**values, "boosters": 2}), "booster_0.txt is missing"),
    ):
        (broken / "model.json").write_text(text, "utf-8")
        refused(broken, said)
    (broken / "booster_0.txt").write_text("tree\nversion=v4\nnum_class=1\n")
    (broken / "model.json").write_text(json.dumps({**values, "boosters": 1}), "utf-8")
    refused(broken, "can't be read")


def weighted_rows(seed=11, n=3000):
    """Rows, a third of which are seen one in five times: (margin, y, weight) of all and of those seen."""
    rng = np.random.default_rng(seed)
    margin, rare = rng.normal(size=n), rng.random(n) < 0.33
    # At the same margin the rare ones are hits more often: whoever counts rows says too little.
    y = (rng.random(n) < expit(2 * margin - 1.5 + 3 * rare)).astype(float)
    seen = ~rare | (rng.random(n) < 0.2)
    return margin, y, np.where(rare, 5.0, 1.0), seen


def test_weights_of_those_that_stand_for_others_reach_the_probabilities():
    margin, y, weight, seen = weighted_rows()
    copy = np.zeros(len(y), dtype=int)
    at = np.linspace(-1.5, 1.5, 40)
    truth = fit_calibration(margin, y, copy).interval(at)[0]
    blind = fit_calibration(margin[seen], y[seen], copy[seen]).interval(at)[0]
    told = fit_calibration(margin[seen], y[seen], copy[seen], weight[seen]).interval(at)[0]
    assert (truth - blind).mean() > 0.07
    assert abs((truth - told).mean()) < 0.03


def test_equal_weights_calibrate_to_the_bit_as_none_do():
    margin, y, _, seen = weighted_rows(n=300)
    copy = np.arange(300) % 3
    plain = fit_calibration(margin, y, copy).to_dict()
    assert fit_calibration(margin, y, copy, np.full(300, 0.037)).to_dict() == plain
    # One row of a SKU more or less is no weight: 26 or 27 of them.
    assert fit_calibration(margin, y, copy, np.where(seen, 1 / 26, 1 / 27)).to_dict() == plain
    # Sets are calibrated alone, so how much one weighs against another says nothing.
    assert fit_calibration(margin, y, copy, np.where(copy == 1, 9.0, 1.0)).to_dict() == plain


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(5, 80), st.booleans())
def test_the_weighted_fits_are_those_of_venn_abers_where_weights_are_equal(seed, n, ties):
    rng = np.random.default_rng(seed)
    margin = rng.integers(0, 4, n).astype(float) if ties else rng.normal(size=n)
    y = (rng.random(n) < 0.3).astype(float)
    grid = np.unique(np.concatenate([np.quantile(margin, np.linspace(0, 1, 20)), [margin.min() - 1]]))
    plain = calibration._venn_abers(margin, y, grid)
    weighted = calibration._weighted_venn_abers(margin, y, np.full(n, 3.0), grid)
    np.testing.assert_allclose(weighted, plain, atol=1e-9)


def test_a_heavy_weight_is_less_evidence_than_as_many_skus():
    rng = np.random.default_rng(12)
    margin = rng.normal(size=400)
    y = (rng.random(400) < expit(margin)).astype(float)
    weight = np.where(np.arange(400) % 10 == 0, 20.0, 1.0)
    at, copy = np.linspace(-1, 1, 30), np.zeros(400, dtype=int)

    def width(*of):
        _, low, high = fit_calibration(*of).interval(at)
        return (high - low).mean()

    again = np.repeat(np.arange(400), weight.astype(int))
    assert width(margin, y, copy, weight) > 2 * width(margin[again], y[again], np.zeros(len(again), dtype=int))


@pytest.mark.parametrize("kind", ["prior", "rule"])
def test_an_estimator_calibrates_by_its_weights(kind):
    margin, y, weight, seen = weighted_rows()
    X = margin[:, None]
    plain = HitClassifier(kind=kind).fit(X[seen], y[seen])
    same = HitClassifier(kind=kind).fit(X[seen], y[seen], np.full(seen.sum(), 0.5))
    told = HitClassifier(kind=kind).fit(X[seen], y[seen], weight[seen])
    share = y.mean()
    assert abs(told.predict_proba(X)[:, 1].mean() - share) < 0.02
    assert share - plain.predict_proba(X)[:, 1].mean() > 0.05
    if kind == "rule":
        assert same.calibration_.to_dict() == plain.calibration_.to_dict()


# --------------------------------------------------------------------------------------------------------- thresholds


def looks(margin, hit, weight):
    """One look at each SKU of one batch: too little for any promise, so the fallback decides."""
    n = len(margin)
    return pd.DataFrame(
        {
            "sku": range(n),
            "batch": "a",
            "launched": pd.Timestamp("2025-01-06"),
            "hit": np.asarray(hit, dtype=float),
            "weight": np.asarray(weight, dtype=float),
            "place": (np.argsort(np.argsort(margin)) + 1) / (n + 1),
            "margin": np.asarray(margin, dtype=float),
            "probability": 0.5,
        }
    )


def policy_of(**values):
    return parse_settings({"policy": values}).policy


def test_without_a_promise_the_stop_threshold_counts_hits_by_their_weight():
    margin, hit = np.arange(10.0), np.ones(10)
    policy = policy_of(max_hits_lost=0.2)

    def stop(weight):
        threshold, promise = thresholds._stop(looks(margin, hit, weight), policy)
        assert not promise.holds
        return threshold

    assert stop([1] * 10) == stop([0.37] * 10) == 2.0
    assert stop([11] + [1] * 9) == 0.0  # the lowest hit stands for more than may be lost
    assert stop([1] * 9 + [11]) == 4.0  # four of twenty


def test_without_a_promise_the_scale_threshold_balances_hits_by_their_weight():
    margin, hit = [5.0, 4.0, 3.0, 2.0, 1.0], [1, 0, 0, 1, 0]

    def scale(weight):
        threshold, promise = thresholds._scale(looks(margin, hit, weight), policy_of())
        assert not promise.holds
        return threshold

    assert scale([1] * 5) == scale([0.37] * 5) == 5.0
    assert scale([1, 1, 1, 9, 1]) == 2.0  # that hit stands for nine


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.floats(0, 0.99), st.floats(0.01, 30))
def test_equal_weights_give_the_thresholds_that_counting_gives(seed, n, share, weight):
    rng = np.random.default_rng(seed)
    margin, hit = rng.integers(0, 12, n).astype(float), rng.random(n) < 0.5
    table = looks(margin, hit, np.full(n, weight))
    threshold, promise = thresholds._stop(table, policy_of(max_hits_lost=share))
    hits = np.sort(margin[hit])
    if not promise.holds:
        assert threshold == (hits[int(np.floor(share * len(hits) + 1e-9))] if len(hits) else -np.inf)
    threshold, promise = thresholds._scale(table, policy_of())
    if not promise.holds:
        named = np.asarray([(margin >= m).sum() for m in np.unique(margin)])
        found = np.asarray([hit[margin >= m].sum() for m in np.unique(margin)])
        balance = 2 * found / (named + hit.sum())
        assert threshold == np.unique(margin)[np.flatnonzero(balance == balance.max())[-1]]
