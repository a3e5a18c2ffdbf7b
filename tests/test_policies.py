"""The peers: what each buys, whom each scales, and that none of them asks for more than it may."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from hitfinder.errors import DataError, SettingsError
from hitfinder.policies import FullTest, RuleOfThumb, SequentialHalving, ShorterTest, TopKThompson, peers
from hitfinder.trial import Pool, View, play

NAMES = list(peers("clicks"))


def pool_of(batch, exposures, slots, **counts):
    batch = np.asarray(batch)
    ids = np.array([f"s{i}" for i in range(len(batch))], dtype=object)
    counts = {name: np.asarray(values, dtype=float) for name, values in counts.items()}
    return Pool(ids, batch, np.broadcast_to(exposures, batch.shape).astype(np.int64), counts, np.asarray(slots))


def clear_pool(batches=2, n=16, exposures=100, slots=2):
    """The later in its batch, the better, and nothing left to chance: every SKU shows its rate in any sample."""
    clicks = np.tile(np.linspace(0, exposures, n).round(), batches)
    return pool_of(np.repeat(np.arange(batches), n), exposures, [slots] * batches, clicks=clicks)


def random_pool(seed, batches=3):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 40))
    exposures = rng.integers(0, 300, n)
    clicks = rng.binomial(exposures, rng.beta(1, 15, n))
    orders = rng.binomial(clicks, 0.3)
    batch = rng.integers(0, batches, n)
    slots = rng.integers(1, 6, batches)
    return pool_of(batch, exposures, slots, clicks=clicks, orders=orders, revenue=orders * 9.5)


def random_periods(seed, batches=2):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 20))
    ids = np.array([f"s{i}" for i in range(n)], dtype=object)
    counts = {"clicks": rng.poisson(4, (n, 7)).astype(float), "orders": rng.poisson(0.5, (n, 7)).astype(float)}
    counts["revenue"] = counts["orders"] * 20
    return Pool(ids, rng.integers(0, batches, n), np.full(n, 7), counts, rng.integers(1, 4, batches))


def in_batches(pool, values):
    return np.bincount(pool.batch, weights=values, minlength=len(pool.slots))


class Watched:
    """Passes a policy on and holds each of its wishes against what it may ask for."""

    def __init__(self, policy):
        self.policy = policy

    def spend(self, view, rng):
        want = self.policy.spend(view, rng)
        assert want.dtype == np.int64
        assert (want >= 0).all()
        assert (want <= view.room).all()
        assert (np.bincount(view.batch, weights=want, minlength=len(view.left)) <= view.left).all()
        return want

    def score(self, view):
        score = self.policy.score(view)
        assert score.shape == view.batch.shape
        assert np.isfinite(score).all()
        return score


@pytest.mark.parametrize("name", NAMES)
@effort(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    merit=st.sampled_from(["clicks", "orders", "revenue"]),
    share=st.floats(0, 1.2),
    rounds=st.integers(1, 6),
    by_period=st.booleans(),
)
def test_no_peer_asks_for_more_than_the_room_or_the_budget(name, seed, merit, share, rounds, by_period):
    pool = (random_periods if by_period else random_pool)(seed)
    budget = (share * in_batches(pool, pool.exposures)).astype(np.int64)
    played = play(pool, Watched(peers(merit)[name]), budget, rounds, np.random.default_rng(seed))
    assert (in_batches(pool, played.bought) <= budget).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_purchases_and_no_view_is_changed(name):
    pool = random_pool(5)
    once, again = (play(pool, peers("clicks")[name], np.full(3, 500), 4, np.random.default_rng(0)) for _ in range(2))
    assert (once.bought == again.bought).all()
    assert (once.score == again.score).all()
    assert once.views[0].bought.sum() == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_a_budget_buys_nothing_from_the_budget_of_another(name):
    a = clear_pool()
    played = play(a, peers("clicks")[name], np.array([800, 0]), 4, np.random.default_rng(0))
    assert in_batches(a, played.bought)[1] == 0
    assert in_batches(a, played.bought)[0] > 0


def test_a_full_test_buys_all_in_the_first_round_and_scores_by_rate():
    pool = random_pool(1)
    played = play(pool, FullTest("clicks"), np.full(3, 10**6), 3, np.random.default_rng(0))
    assert (played.views[1].bought == pool.exposures).all()
    shown = pool.exposures > 0
    np.testing.assert_allclose(played.score[shown], (pool.counts["clicks"] / np.maximum(pool.exposures, 1))[shown])


def test_a_shorter_test_is_even_over_skus_and_rounds():
    pool = clear_pool()
    played = play(pool, ShorterTest("clicks"), np.array([320, 160]), 4, np.random.default_rng(0))
    first = played.views[1].bought
    assert first[:16].tolist() == [5] * 16
    assert sorted(first[16:]) == [2] * 8 + [3] * 8
    assert [in_batches(pool, view.bought).tolist() for view in played.views[1:]] == [
        [80, 40], [160, 80], [240, 120], [320, 160]
    ]  # fmt: skip
    assert played.bought.tolist() == [20] * 16 + [10] * 16


def test_an_even_test_with_fewer_exposures_than_skus_spends_them_all_and_never_twice_on_one_before_once_on_all():
    pool = clear_pool(batches=1)
    played = play(pool, ShorterTest("clicks"), np.array([24]), 4, np.random.default_rng(0))
    assert played.bought.sum() == 24
    assert sorted(played.bought) == [1] * 8 + [2] * 8
    assert played.views[2].bought.max() == 1


def test_a_rule_of_thumb_drops_the_lower_half_after_half_the_budget():
    pool = clear_pool(batches=1, exposures=150)
    played = play(pool, RuleOfThumb("clicks"), np.array([1600]), 5, np.random.default_rng(0))
    assert played.views[1].bought.tolist() == [50] * 16
    survivors = played.bought > 50
    assert survivors.sum() == 8
    assert (played.bought[survivors] == 150).all()
    # What was dropped stands below, whatever its rate was.
    assert played.score[survivors].min() > played.score[~survivors].max()
    assert set(np.argsort(-played.score)[:2]) == {14, 15}


def test_a_rule_of_thumb_with_one_round_is_an_even_test():
    pool = clear_pool(batches=1)
    played = play(pool, RuleOfThumb("clicks"), np.array([160]), 1, np.random.default_rng(0))
    assert played.bought.tolist() == [10] * 16


def test_sequential_halving_keeps_the_same_share_each_round_and_spends_evenly():
    # From 16 to 2 in three rounds: 16, 8, 4 stand, 240 exposures each.
    pool = clear_pool(batches=1, exposures=1000)
    played = play(pool, SequentialHalving("clicks"), np.array([720]), 3, np.random.default_rng(0))
    spent = [(after.bought - before.bought) for before, after in zip(played.views, played.views[1:], strict=False)]
    assert [(s > 0).sum() for s in spent] == [16, 8, 4]
    assert [s.sum() for s in spent] == [240, 240, 240]
    assert sorted(set(played.bought)) == [15, 45, 105]
    order = np.argsort(-played.score)
    assert set(order[:4]) == set(np.flatnonzero(played.bought == 105))
    assert set(order[:2]) == {14, 15}


def test_sequential_halving_never_takes_back_what_it_dropped():
    rng = np.random.default_rng(3)
    pool = pool_of(np.zeros(40, dtype=int), 500, [3], clicks=rng.binomial(500, 0.05, 40))
    played = play(pool, SequentialHalving("clicks"), np.array([5000]), 5, rng)
    standing = np.ones(40, dtype=bool)
    for before, after in zip(played.views, played.views[1:], strict=False):
        bought = after.bought > before.bought
        assert not (bought & ~standing).any()
        standing = bought
    assert standing.sum() < 10


def test_sequential_halving_stops_when_the_survivors_have_no_room():
    pool = clear_pool(batches=1)
    played = play(pool, SequentialHalving("clicks"), np.array([1600]), 3, np.random.default_rng(0))
    assert played.bought[-1] == 100
    assert played.bought.sum() < 1600


def view_of(bought, clicks, *, room=1000, slots=1, left=100, rounds=2, at=1, name="clicks"):
    n = len(bought)
    return View(
        sku_id=np.array([f"s{i}" for i in range(n)], dtype=object),
        batch=np.zeros(n, dtype=np.int64),
        bought=np.asarray(bought),
        counts={name: np.asarray(clicks, dtype=float)},
        room=np.broadcast_to(room, n).astype(np.int64),
        left=np.array([left]),
        slots=np.array([slots]),
        round=at,
        rounds=rounds,
    )


def test_thompson_starts_evenly_and_then_goes_where_the_best_may_be():
    view = view_of([0] * 10, [0] * 10, at=0, left=200)
    assert TopKThompson("clicks").spend(view, np.random.default_rng(0)).tolist() == [10] * 10
    seen = view_of([200] * 10, [2] * 6 + [30, 35, 40, 3], left=300)
    want = TopKThompson("clicks").spend(seen, np.random.default_rng(0))
    assert want.sum() == 300
    assert want[[6, 7, 8]].sum() > 290
    assert want[8] > want[6]


def test_thompson_gives_nothing_to_a_sku_without_room():
    view = view_of([200] * 4, [50, 40, 3, 2], room=[0, 500, 500, 500])
    want = TopKThompson("clicks").spend(view, np.random.default_rng(0))
    assert want[0] == 0
    assert want.sum() == 100


def test_thompson_scores_by_the_shrunk_rate():
    # The batch's rate is (11 + 0.5) / (1100 + 1).
    view = view_of([100, 1000], [1, 10])
    mean = 11.5 / 1101
    expected = [(1 + 60 * mean) / 160, (10 + 60 * mean) / 1060]
    np.testing.assert_allclose(TopKThompson("clicks").score(view), expected)
    # One lucky click in two is no better than 30 in a hundred.
    lucky = TopKThompson("clicks").score(view_of([2, 100, 1000], [1, 30, 50]))
    assert lucky.argmax() == 1


@pytest.mark.parametrize(
    ("name", "values", "bought"),
    [("orders", [30, 12, 2], [7, 7, 7]), ("revenue", [900.5, 200, 20], [100, 100, 100])],
)
def test_thompson_takes_counts_above_one_per_exposure_and_money(name, values, bought):
    view = view_of(bought, values, name=name, room=50)
    score = TopKThompson(name).score(view)
    assert (np.diff(score) < 0).all()
    assert (score > 0).all()
    # Pulled towards the batch's rate, not past it.
    rate, own = np.array(values) / np.array(bought), sum(values) / sum(bought)
    assert rate[2] < score[2] < own < score[0] < rate[0]
    want = TopKThompson(name).spend(view, np.random.default_rng(0))
    assert want[0] >= want[2]
    assert want.sum() <= 100


def test_thompson_on_money_does_not_care_for_the_currency():
    orders = {"orders": np.array([9.0, 4.0, 1.0])}
    one, other = (
        replace(
            view_of([100] * 3, np.array([90.0, 30.0, 20.0]) * scale, name="revenue", room=500),
            counts={"revenue": np.array([90.0, 30.0, 20.0]) * scale, **orders},
        )
        for scale in (1, 700)
    )
    policy = TopKThompson("revenue")
    np.testing.assert_allclose(policy.score(other), 700 * policy.score(one))
    assert (policy.spend(one, np.random.default_rng(0)) == policy.spend(other, np.random.default_rng(0))).all()


@pytest.mark.parametrize("wrong", [{"prior": 0}, {"prior": float("nan")}, {"draws": 0}])
def test_thompson_refuses_a_prior_or_draws_that_can_not_be(wrong):
    with pytest.raises(SettingsError, match="expected prior and draws above 0"):
        TopKThompson("clicks", **wrong)


@pytest.mark.parametrize("name", NAMES)
def test_a_merit_that_was_not_counted_is_refused(name):
    with pytest.raises(DataError, match="expected one of clicks, got 'likes'"):
        play(clear_pool(), peers("likes")[name], np.full(2, 160), 2, np.random.default_rng(0))


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_is_a_value(name):
    assert peers("clicks")[name] == peers("clicks")[name]
    assert peers("clicks")[name] != peers("orders")[name]


def test_a_sku_that_was_never_shown_counts_as_its_batch_does():
    view = view_of([0, 10, 30], [0, 4, 0])
    assert FullTest("clicks").score(view).tolist() == [0.1, 0.4, 0.0]


def test_peers_that_look_twice_find_more_than_an_even_test_of_the_same_budget():
    # Thirty batches of sixty with three hits each; a tenth of a full test's budget.
    rng = np.random.default_rng(8)
    rate = np.exp(rng.normal(-4, 0.6, 1800))
    batch = np.repeat(np.arange(30), 60)
    pool = pool_of(batch, 1000, [3] * 30, clicks=rng.binomial(1000, rate))
    place = np.empty(1800, dtype=int)
    place[np.lexsort((-rate, batch))] = np.tile(np.arange(60), 30)
    found = {}
    for name, policy in peers("clicks").items():
        played = play(pool, policy, np.full(30, 6000), 6, np.random.default_rng(1))
        assert in_batches(pool, played.bought).max() <= 6000
        best = np.empty(1800, dtype=int)
        best[np.lexsort((-played.score, batch))] = np.tile(np.arange(60), 30)
        found[name] = int(((place < 3) & (best < 3)).sum())
    assert min(found[name] for name in ("sequential halving", "top-k Thompson")) > found["shorter test"]
    assert found["rule of thumb"] > found["shorter test"]
