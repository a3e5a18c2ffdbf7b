"""Buying past tests again: nothing comes twice, nothing is lost, and nothing unbought can be seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scipy import stats

from hitfinder.trial import Pool, play, thin

FUNNEL = ("clicks", "favorites", "carts", "orders")


@dataclass(frozen=True)
class Script:
    """Asks for what is written, whatever it sees; the score is the clicks, or the orders."""

    rounds: tuple[tuple[int, ...], ...]

    def spend(self, view, rng):
        return np.array(self.rounds[view.round])

    def score(self, view):
        return view.counts[next(iter(view.counts))]


@dataclass(frozen=True)
class Greedy:
    """Asks for more than there is, or for less than nothing, at random."""

    most: int

    def spend(self, view, rng):
        return rng.integers(-5, self.most, len(view.batch))

    def score(self, view):
        return np.zeros(len(view.batch))


def pool_of(seed, n=12, batches=3, most=200):
    """Draw a pool with a whole funnel; some SKUs have no exposures."""
    rng = np.random.default_rng(seed)
    exposures = rng.integers(0, most, n)
    clicks = rng.binomial(exposures, rng.uniform(0, 0.5, n))
    orders = rng.binomial(clicks, 0.4)
    counts = {"clicks": clicks, "carts": rng.binomial(clicks, 0.6), "orders": orders, "units": orders * 2}
    counts |= {"revenue": orders * rng.uniform(5, 50, n), "visitors": exposures // 2, "spend": exposures * 0.07}
    return Pool(
        sku_id=np.array([f"s{i}" for i in range(n)], dtype=object),
        batch=np.sort(rng.integers(0, batches, n)),
        exposures=exposures,
        counts={name: np.asarray(values, dtype=float) for name, values in counts.items()},
        slots=np.full(batches, 2),
    )


def periods_of(seed, n=6, periods=5):
    rng = np.random.default_rng(seed)
    counts = {"orders": rng.poisson(3, (n, periods)).astype(float), "revenue": rng.gamma(2, 9, (n, periods))}
    ids = np.array([f"s{i}" for i in range(n)], dtype=object)
    return Pool(ids, np.arange(n) % 2, np.full(n, periods), counts, np.array([1, 1]))


def same_views(a, b):
    return all(
        (x.bought == y.bought).all()
        and (x.left == y.left).all()
        and (x.room == y.room).all()
        and all((x.counts[name] == y.counts[name]).all() for name in x.counts)
        for x, y in zip(a, b, strict=True)
    )


@effort(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_all_that_a_pool_holds_is_bought_once_and_only_once(seed, cuts):
    pool = pool_of(seed)
    n = len(pool.batch)
    script = Script((*(tuple([cut] * n) for cut in cuts), tuple([10_000] * n)))
    played = play(pool, script, np.full(3, 10**9), len(cuts) + 1, np.random.default_rng(seed))
    assert (played.bought == pool.exposures).all()
    for name, values in pool.counts.items():
        # Money is split in proportion, so its sum is the pool's up to the last digits.
        np.testing.assert_allclose(played.counts[name], values, rtol=1e-9, atol=1e-9, err_msg=name)
    for name in ("clicks", "carts", "orders", "units", "visitors"):
        assert (played.counts[name] == pool.counts[name]).all()


@pytest.mark.parametrize(("hits", "pool", "want"), [(30, 200, 60), (3, 1000, 100), (150, 200, 20), (1, 4, 2)])
def test_thinning_is_hypergeometric(hits, pool, want):
    n = 20_000
    got = thin({"clicks": np.full(n, float(hits))}, np.full(n, pool), np.full(n, want), np.random.default_rng(0))
    known = stats.hypergeom(pool, hits, want)
    clicks = got["clicks"]
    assert clicks.mean() == pytest.approx(known.mean(), abs=4 * known.std() / np.sqrt(n))
    # The variance is what tells it from drawing with replacement, which would show more.
    assert clicks.var() == pytest.approx(known.var(), rel=0.05)
    assert known.var() < 0.95 * want * hits / pool * (1 - hits / pool)


def test_a_sku_with_billions_of_exposures_is_thinned_like_any_other():
    """numpy's own draws end at a thousand million."""
    pool, hits, want = 5_000_000_000, 2_000_000, 1_000_000_000
    n = 2_000
    counts = {"clicks": np.append(np.full(n, float(hits)), 30.0)}
    exposures, wanted = np.append(np.full(n, pool), 200), np.append(np.full(n, want), 200)
    got = thin(counts, exposures, wanted, np.random.default_rng(0))["clicks"]
    assert got[-1] == 30
    assert got[:-1].mean() == pytest.approx(hits / 5, rel=1e-3)
    whole = thin(counts, exposures, exposures, np.random.default_rng(0))["clicks"]
    assert (whole == counts["clicks"]).all()


def test_two_small_purchases_see_what_one_large_would():
    n = 20_000
    ids = np.array(["s"] * n, dtype=object)
    pool = Pool(ids, np.arange(n), np.full(n, 100), {"clicks": np.full(n, 20.0)}, np.ones(n, dtype=int))
    budget = np.full(n, 100)
    at_once = play(pool, Script(((50,) * n,)), budget, 1, np.random.default_rng(0)).counts["clicks"]
    in_parts = play(pool, Script(((20,) * n, (30,) * n)), budget, 2, np.random.default_rng(1)).counts["clicks"]
    assert in_parts.mean() == pytest.approx(at_once.mean(), abs=0.1)
    assert in_parts.var() == pytest.approx(at_once.var(), rel=0.05)


@effort(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rounds=st.integers(1, 5))
def test_the_funnel_holds_in_every_view(seed, rounds):
    pool = pool_of(seed)
    played = play(pool, Greedy(80), np.full(3, 900), rounds, np.random.default_rng(seed))
    for view in played.views:
        counts = view.counts
        assert (counts["clicks"] <= view.bought).all()
        assert (counts["orders"] <= counts["clicks"]).all()
        assert (counts["carts"] <= counts["clicks"]).all()
        for name, values in counts.items():
            assert (values >= 0).all()
            assert (values <= pool.counts[name] + 1e-9).all(), name


@effort(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    budget=st.lists(st.integers(0, 700), min_size=3, max_size=3),
    rounds=st.integers(1, 5),
    most=st.integers(1, 400),
)
def test_no_purchase_goes_past_the_room_or_the_budget(seed, budget, rounds, most):
    pool = pool_of(seed)
    played = play(pool, Greedy(most), np.array(budget), rounds, np.random.default_rng(seed))
    assert (played.bought <= pool.exposures).all()
    assert (np.bincount(pool.batch, weights=played.bought, minlength=3) <= budget).all()
    for before, after in zip(played.views, played.views[1:], strict=False):
        assert (after.bought >= before.bought).all()
        assert (after.left >= 0).all()
        assert (after.room == pool.exposures - after.bought).all()
        spent = np.bincount(pool.batch, weights=after.bought - before.bought, minlength=3)
        assert (before.left - after.left == spent).all()


def test_periods_are_bought_whole_and_in_order():
    pool = periods_of(0)
    played = play(pool, Script(((2, 1, 0, 0, 3, 9), (1, 1, 1, 0, 0, 9))), np.full(2, 99), 2, np.random.default_rng(0))
    assert played.bought.tolist() == [3, 2, 1, 0, 3, 5]
    for name, values in pool.counts.items():
        expected = [values[i, :k].sum() for i, k in enumerate(played.bought)]
        np.testing.assert_allclose(played.counts[name], expected)
    np.testing.assert_allclose(played.views[1].counts["orders"][1], pool.counts["orders"][1, 0])


@effort(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rounds=st.integers(1, 4))
def test_periods_that_were_not_bought_change_nothing(seed, rounds):
    pool = periods_of(seed)
    budget = np.full(2, 8)
    played = play(pool, Curious(), budget, rounds, np.random.default_rng(seed))
    # Only now is it known what was bought; all else becomes something else.
    unbought = np.arange(5)[None, :] >= played.bought[:, None]
    assert unbought.any()
    other = replace(pool, counts={name: np.where(unbought, 1e6, values) for name, values in pool.counts.items()})
    again = play(other, Curious(), budget, rounds, np.random.default_rng(seed))
    assert same_views(played.views, again.views)
    assert (played.score == again.score).all()


@dataclass(frozen=True)
class Curious:
    """Buys where most was seen so far, so that anything it sees would change what it does."""

    def spend(self, view, rng):
        seen = view.counts["orders"] + 1e-3 * view.counts.get("revenue", 0)
        return (seen >= np.median(seen)).astype(int) * rng.integers(1, 3, len(seen))

    def score(self, view):
        return view.counts["orders"]


def test_how_many_clicks_are_seen_depends_on_the_exposures_bought_alone():
    # Two pools that can't be told apart by what was bought: a click in either is one in ten. What a small purchase
    # shows must not tell a pool of 100 from one of 10,000.
    n = 20_000
    seen = []
    for size in (1_000, 10_000):
        counts = {"clicks": np.full(n, size / 10)}
        got = thin(counts, np.full(n, size), np.full(n, 5), np.random.default_rng(0))["clicks"]
        seen.append(np.bincount(got.astype(int), minlength=6)[:6] / n)
    np.testing.assert_allclose(seen[0], seen[1], atol=0.02)


def test_what_was_seen_so_far_says_nothing_of_the_chance_to_come():
    # Given the pool, the share of clicks in what is left is all that a view may not know: it must be what is
    # left in truth, or a policy could gain by waiting.
    n = 40_000
    ids = np.array(["s"] * n, dtype=object)
    pool = Pool(ids, np.zeros(n, dtype=int), np.full(n, 50), {"clicks": np.full(n, 10.0)}, np.array([1]))
    played = play(pool, Script(((20,) * n, (15,) * n)), np.array([10**9]), 2, np.random.default_rng(0))
    first = played.views[1].counts["clicks"]
    second = played.counts["clicks"] - first
    for clicks in range(2, 7):
        expected = 15 * (10 - clicks) / 30
        assert second[first == clicks].mean() == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("make", [pool_of, periods_of])
def test_the_same_seed_gives_the_same_test_and_zero_is_a_seed(make):
    pool = make(4)
    budget = np.full(len(pool.slots), 50)

    def once(seed):
        return play(pool, Curious(), budget, 4, np.random.default_rng(seed))

    assert same_views(once(0).views, once(0).views)
    assert not same_views(once(0).views, once(1).views)


def test_a_pool_is_not_changed_by_playing_it():
    for pool in (pool_of(1), periods_of(1)):
        before = {name: values.copy() for name, values in pool.counts.items()}
        room = pool.exposures.copy()
        play(pool, Greedy(50), np.full(len(pool.slots), 300), 3, np.random.default_rng(0))
        assert (pool.exposures == room).all()
        for name, values in before.items():
            assert (pool.counts[name] == values).all()


def test_every_view_is_kept_in_order():
    pool = pool_of(2)
    seen = play(pool, Greedy(9), np.full(3, 300), 3, np.random.default_rng(0)).views
    assert [view.round for view in seen] == [0, 1, 2, 3]
    assert [view.rounds_left for view in seen] == [3, 2, 1, 0]
    assert (seen[0].bought == 0).all()
    assert not any(values.any() for values in seen[0].counts.values())


# ---------------------------------------- nothing is lost, and nothing is seen for free


def noisy(exposures=1000, n=2000):
    clicks = np.random.default_rng(0).binomial(exposures, 0.05, n).astype(float)
    ids = np.array(["s"] * n, dtype=object)
    return Pool(ids, np.zeros(n, dtype=int), np.full(n, exposures), {"clicks": clicks}, np.array([5]))


def test_one_odd_sku_does_not_change_what_is_seen_of_the_others():
    pool = noisy()
    odd = pool.counts["clicks"].copy()
    odd[0] = 1001
    got = thin({"clicks": odd}, pool.exposures, np.full(2000, 100), np.random.default_rng(0))["clicks"]
    # A tenth of the exposures leaves a correlation of about the root of a tenth.
    assert np.corrcoef(got[1:], odd[1:])[0, 1] < 0.5


def test_fifty_exposures_do_not_show_the_money_of_a_thousand():
    pool = noisy()
    revenue = np.random.default_rng(1).gamma(2, 10, 2000)
    got = thin({**pool.counts, "revenue": revenue}, pool.exposures, np.full(2000, 50), np.random.default_rng(0))
    assert np.corrcoef(got["revenue"], revenue)[0, 1] < 0.5


def test_money_of_a_sku_without_orders_is_not_lost():
    counts = {"clicks": np.array([5.0, 5.0]), "orders": np.array([0.0, 2.0]), "refunds": np.array([7.0, 3.0])}
    all_bought = thin(counts, np.array([50, 50]), np.array([50, 50]), np.random.default_rng(0))
    assert all_bought["refunds"].tolist() == [7, 3]
