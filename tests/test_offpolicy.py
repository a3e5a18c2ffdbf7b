"""Off-policy estimates against the truth: right on the whole, as sure as they say, refused where none can be made."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from hitfinder.errors import DataError
from hitfinder.offpolicy import ESTIMATORS, effective_size, estimate, total_range
from hitfinder.simulate import simulate


def market(rng, batches, n=60):
    """Scores that a list would have, and outcomes with a heavy tail: arrays (batches, SKUs)."""
    score = rng.normal(size=(batches, n))
    mood = rng.normal(0, 0.3, size=(batches, 1))
    return score, np.exp(0.8 * score + mood + rng.normal(0, 0.8, size=(batches, n)))


def keep_best(score, share):
    place = (-score).argsort(axis=1).argsort(axis=1)
    return (place < share * score.shape[1]).astype(float)


def log(rng, score, value, *, explore, kept_share=0.3):
    """Decide as a list does: the best are kept for certain, of the others each with the chance `explore`."""
    chance = np.where(keep_best(score, kept_share) > 0, 1.0, explore)
    kept = rng.random(chance.shape) < chance
    return pd.DataFrame(
        {
            "batch_id": np.repeat(np.arange(len(score)), score.shape[1]),
            "kept": kept.ravel(),
            "propensity": np.where(kept, chance, 1 - chance).ravel(),
            "outcome": np.where(kept, value, np.nan).ravel(),
        }
    )


def values_of(done):
    return done.table.set_index("estimator")["value"]


GOOD = np.exp(0.8**2 / 2)


@pytest.fixture(scope="module")
def many():
    """The same SKUs, with coins thrown 150 times: estimates of a policy that keeps half, by a good and a bad model."""
    rng = np.random.default_rng(0)
    score, value = market(rng, 8)
    target = keep_best(score, 0.5)
    truth = (target * value).sum(axis=1).mean()
    good, bad = np.exp(0.8 * score) * GOOD, np.exp(-0.8 * score) * 3
    rows = []
    for _ in range(150):
        logged = log(rng, score, value, explore=0.2)
        for name, q in {"good": good, "bad": bad}.items():
            found = values_of(estimate(logged, target.ravel(), predicted=q.ravel(), draws=2))
            rows.append({"model": name, **found})
    return pd.DataFrame(rows), truth


def test_over_many_throws_of_the_coin_the_estimates_are_right_on_the_whole(many):
    found, truth = many
    for model, name in [("good", "inverse_propensity"), ("good", "doubly_robust"), ("bad", "doubly_robust")]:
        values = found.loc[found["model"] == model, name]
        assert abs(values.mean() - truth) < 3.5 * values.std() / np.sqrt(len(values)), (model, name)
    normalised = found.loc[found["model"] == "good", "self_normalised"]
    assert abs(normalised.mean() / truth - 1) < 0.03  # a little bias is its price


def test_a_good_model_makes_the_doubly_robust_estimate_surer_and_a_bad_one_does_not_make_it_wrong(many):
    found, truth = many
    spread = found.groupby("model")[list(ESTIMATORS)].std()
    assert spread.loc["good", "doubly_robust"] < 0.85 * spread.loc["good", "inverse_propensity"]
    assert spread.loc["good", "self_normalised"] < spread.loc["good", "inverse_propensity"]
    bad = found.loc[found["model"] == "bad", "doubly_robust"]
    assert abs(bad.mean() / truth - 1) < 0.03
    assert spread.loc["bad", "doubly_robust"] > spread.loc["good", "doubly_robust"]


@pytest.mark.parametrize("batches", [8, 30])
def test_intervals_hold_the_truth_about_as_often_as_they_say(batches):
    rng = np.random.default_rng(7)
    everything = market(np.random.default_rng(99), 20_000)
    truth = (keep_best(everything[0], 0.5) * everything[1]).sum(axis=1).mean()
    held = dict.fromkeys(ESTIMATORS, 0)
    n = 120
    for seed in range(n):
        score, value = market(rng, batches)
        logged = log(rng, score, value, explore=0.2)
        q = np.exp(0.8 * score).ravel() * GOOD
        done = estimate(logged, keep_best(score, 0.5).ravel(), predicted=q, draws=200, seed=seed)
        for row in done.table.itertuples():
            held[row.estimator] += row.low <= truth <= row.high
    for name, count in held.items():
        # 0.84: the tail is heavy and batches are few; plain percentiles of 8 batches hold it in 81 of 100.
        assert binomtest(count, n, 0.84, alternative="less").pvalue > 0.02, (name, count)
        assert binomtest(count, n, 0.96, alternative="greater").pvalue > 0.02, (name, count)


def test_in_the_simulated_market_a_new_policy_is_estimated_as_it_would_have_done():
    """A list by clicks was logged, with a coin; what a list by orders would have brought is known to the simulation."""
    made = simulate(weeks=6, skus_per_week=60, complete=True, seed=5)
    signals = made.signals.merge(made.skus[["sku_id", "launched_at", "batch_id"]], on="sku_id")
    early = signals["period_start"] < signals["launched_at"] + pd.Timedelta(days=7)
    within = signals["period_start"] < signals["launched_at"] + pd.Timedelta(days=35)
    seen = signals[early].groupby("sku_id")[["clicks", "orders"]].sum()
    worth = signals[~early & within].groupby("sku_id")["revenue"].sum()
    skus = made.skus.set_index("sku_id").join(seen).join(worth.rename("value")).fillna({"value": 0.0}).reset_index()
    group = skus.groupby("batch_id")
    old = (group["clicks"].rank(ascending=False, method="first") <= 15).to_numpy()
    new = (group["orders"].rank(ascending=False, method="first") <= 15).to_numpy(dtype=float)
    truth = (new * skus["value"]).sum() / skus["batch_id"].nunique()
    q = (skus["orders"] * skus["value"].sum() / skus["orders"].sum()).to_numpy()
    chance = np.where(old, 1.0, 0.25)
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(80):
        kept = rng.random(len(skus)) < chance
        logged = skus[["batch_id"]].assign(
            kept=kept, propensity=np.where(kept, chance, 1 - chance), outcome=skus["value"].where(kept)
        )
        rows.append(values_of(estimate(logged, new, predicted=q, draws=2)))
    found = pd.DataFrame(rows)
    for name in ("inverse_propensity", "doubly_robust"):
        assert abs(found[name].mean() - truth) < 3.5 * found[name].std() / np.sqrt(len(found)), name
    # Had one taken what was seen as it came, the new list would have looked far worse than it is.
    plain = (new * skus["value"] * old).sum() / skus["batch_id"].nunique()
    assert plain < truth - 2 * found["doubly_robust"].std()


def tiny(**more):
    return pd.DataFrame(
        {
            "batch_id": ["a", "a", "a", "b", "b"],
            "kept": [True, True, False, True, False],
            "propensity": [1.0, 0.25, 0.75, 0.5, 0.5],
            "outcome": [10.0, 3.0, np.nan, 4.0, np.nan],
            **more,
        }
    )


def test_each_estimator_by_hand():
    done = estimate(tiny(), [1, 1, 0.5, 0.5, 1], predicted=[9, 2, 2, 6, 1])
    value = values_of(done)
    assert value["inverse_propensity"] == pytest.approx((10 + 4 * 3 + 0.5 * 2 * 4) / 2)
    weights, due = 1 + 4 + 1, 4.0
    assert value["self_normalised"] == pytest.approx((10 + 12 + 4) / weights * due / 2)
    assert value["doubly_robust"] == pytest.approx((9 + 2 + 1 + 3 + 1 + 1 * 1 + 4 * 1 + 0.5 * 2 * (-2)) / 2)
    assert done.logged == pytest.approx((13 + 4) / 2)
    assert done.effective == pytest.approx(6**2 / (1 + 16 + 1))
    assert (done.seen, done.skus, done.batches, done.clipped, done.uncovered) == (3, 5, 2, 0, 0)
    assert (done.table["gain"] == done.table["value"] - done.logged).all()


def test_what_keeping_costs_is_paid_for_each_kept_sku_and_needs_no_guess():
    free = estimate(tiny(), [1, 1, 1, 1, 1])
    dear = estimate(tiny(cost=2.0), [1, 1, 1, 1, 1])
    assert (values_of(free) - values_of(dear)).tolist() == [5.0, 5.0]
    assert free.logged - dear.logged == 3.0


def test_the_policy_that_was_logged_is_worth_what_it_brought():
    certain = tiny(propensity=1.0)
    done = estimate(certain, certain["kept"], predicted=[0] * 5)
    assert np.allclose(done.table["value"], done.logged)
    assert np.allclose(done.table[["gain", "gain_low", "gain_high"]], 0)


def test_stopping_all_brings_nothing():
    done = estimate(tiny(), [0] * 5, predicted=[5] * 5)
    assert (done.table["value"] == 0).all()
    assert done.effective == 0


def test_weights_are_cut_where_asked_and_counted():
    done = estimate(tiny(), [1] * 5, max_weight=2)
    assert done.clipped == 1
    assert values_of(done)["inverse_propensity"] == pytest.approx((10 + 6 + 8) / 2)


def test_a_choice_without_a_chance_counts_as_certain():
    chosen = tiny(propensity=[1.0, np.nan, 0.75, 0.5, 0.5])
    assert values_of(estimate(chosen, [1] * 5))["inverse_propensity"] == pytest.approx((10 + 3 + 8) / 2)
    with pytest.raises(DataError, match="stopped for certain"):
        estimate(tiny(propensity=[1.0, 0.25, np.nan, 0.5, 0.5]), [1] * 5)


def test_where_nothing_can_be_known_it_refuses_or_says_the_bounds():
    logged = tiny(propensity=[1.0, 0.25, 1.0, 0.5, 0.5])
    with pytest.raises(DataError, match=r"25% of the SKUs that it keeps \(1\) were stopped for certain"):
        estimate(logged, [1, 1, 1, 1, 0])
    assert estimate(logged, [1, 1, 0, 1, 0]).uncovered == 0  # it does not want that SKU
    done = estimate(logged, [1, 1, 1, 1, 0], bounds=(0, 100), predicted=[0] * 5)
    covered = estimate(logged, [1, 1, 0, 1, 0], predicted=[0] * 5)
    assert done.uncovered == 0.25
    assert done.table[["value", "gain"]].isna().all(axis=None)
    assert np.allclose(done.table["low"], covered.table["low"])
    assert np.allclose(done.table["high"], covered.table["high"] + 100 / 2)
    with pytest.raises(DataError, match="bounds"):
        estimate(logged, [1, 1, 1, 1, 0], bounds=(5, 1))


def test_one_batch_has_no_interval_and_none_has_nothing():
    done = estimate(tiny(batch_id="a"), [1] * 5)
    assert done.table[["low", "high"]].isna().all(axis=None)
    assert done.table["value"].notna().all()
    none = estimate(tiny().head(0), [])
    assert (none.batches, none.skus, none.logged) == (0, 0, 0.0)


def test_the_same_seed_gives_the_same_interval_whatever_the_order_within_batches():
    rng = np.random.default_rng(1)
    score, value = market(rng, 6)
    logged = log(rng, score, value, explore=0.3)
    target = keep_best(score, 0.5).ravel()
    one = estimate(logged, target, seed=4)
    pd.testing.assert_frame_equal(one.table, estimate(logged, target, seed=4).table)
    assert not np.allclose(one.table["low"], estimate(logged, target, seed=5).table["low"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"propensity": [0.0, 1, 1, 1, 1]}, "propensity: expected chances above 0 to 1, got 0.0"),
        ({"propensity": [1.5, 1, 1, 1, 1]}, "got 1.5"),
        ({"outcome": [np.nan, 1, 1, 1, 1]}, "outcome of every kept SKU, 1 are not known"),
        ({"kept": [None, True, True, True, True]}, "expected True or False in kept"),
        ({"cost": [np.inf, 1, 1, 1, 1]}, "cost: expected finite numbers"),
    ],
)
def test_impossible_logs_are_refused(change, said):
    with pytest.raises(DataError, match=said):
        estimate(tiny(**change), [0] * 5)


def test_impossible_questions_are_refused():
    with pytest.raises(DataError, match="propensity missing"):
        estimate(tiny().drop(columns="propensity"), [0] * 5)
    for target, said in (([2, 0, 0, 0, 0], "got 2.0"), ([-0.1, 0, 0, 0, 0], "got -0.1"), ([0], "each of the 5 rows")):
        with pytest.raises(DataError, match=said):
            estimate(tiny(), target)
    with pytest.raises(DataError, match="max_weight"):
        estimate(tiny(), [0] * 5, max_weight=0.5)
    with pytest.raises(DataError, match="level"):
        estimate(tiny(), [0] * 5, level=1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.data())
def test_the_range_of_a_total_holds_in_nine_of_ten_draws_for_every_truth(population, data):
    drawn, truth = data.draw(st.integers(0, population)), data.draw(st.integers(0, population))
    from scipy.stats import hypergeom

    holds = 0.0
    for found in range(max(0, drawn - (population - truth)), min(drawn, truth) + 1):
        low, high = total_range(found, drawn, population)
        assert found <= low <= high <= population - (drawn - found)
        holds += hypergeom.pmf(found, population, truth, drawn) * (low <= truth <= high)
    assert holds >= 0.9 - 1e-9


def test_an_impossible_draw_is_refused():
    for numbers in ((2, 1, 5), (-1, 1, 5), (0, 6, 5)):
        with pytest.raises(DataError, match="0 <= found"):
            total_range(*numbers)


def test_equal_weights_are_worth_their_number():
    assert effective_size(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_size([]) == 0
