"""Who gets the next exposures: never more than there is, never by the order of a table, and most where it decides."""

from __future__ import annotations

import math
import warnings
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from hitfinder.allocation import FIRST_SHARPNESS, LAST_SHARPNESS, allocate, fill, round_budget, sharpness

# ---------------------------------------- slow ways to the same answers


def fill_slowly(weight, room, exposures):
    """Share out in proportion to weight, never past room, in fractions: the level of the water by bisection."""
    room = [max(math.floor(r), 0) if w > 0 else 0 for w, r in zip(weight, room, strict=True)]
    total = min(exposures, sum(room))
    low, high = 0.0, max((r / w for w, r in zip(weight, room, strict=True) if w > 0), default=0.0)
    weight, room = np.asarray(weight), np.asarray(room)
    for _ in range(90):
        level = (low + high) / 2
        low, high = (level, high) if np.minimum(room, level * weight).sum() < total else (low, level)
    return np.minimum(room, high * weight)


def weights_slowly(belief, doubt, room, slots, rounds_left, rounds):
    """Take the weight of each SKU from its definition, without logarithms."""
    best = sorted(belief, reverse=True)
    border = (best[slots - 1] + best[slots]) / 2
    passed = 0.0 if rounds <= 1 else min(max(1 - (rounds_left - 1) / (rounds - 1), 0.0), 1.0)
    sharp = FIRST_SHARPNESS ** (1 - passed) * LAST_SHARPNESS**passed
    # Decimals do not vanish however far a SKU is.
    weight = [
        Decimal(d) * (Decimal(-sharp / 2) * ((Decimal(b) - Decimal(border)) / Decimal(d)) ** 2).exp()
        for b, d in zip(belief, doubt, strict=True)
    ]
    top = max((w for w, r in zip(weight, room, strict=True) if r > 0), default=Decimal(1))
    # A SKU without room has no say, so its weight may be anything.
    shares = [float(min(w / top, Decimal(1))) for w in weight]
    return [share if share >= 1e-9 else 0.0 for share in shares]


# ---------------------------------------- what is drawn

# Multiples of 1/64, so that adding whole numbers to a belief rounds nothing.
beliefs = st.integers(-300, 300).map(lambda k: k / 64)
doubts = st.integers(0, 128).map(lambda k: k / 64)
rooms = st.one_of(st.integers(0, 40), st.integers(0, 5_000), st.just(0))


@st.composite
def batches(draw, least=1, doubt=doubts, room=rooms):
    n = draw(st.integers(least, 25))

    def column(values):
        return np.array(draw(st.lists(values, min_size=n, max_size=n)), dtype=float)

    rounds = draw(st.integers(1, 8))
    return {
        "belief": column(beliefs),
        "doubt": column(doubt),
        "room": column(room),
        "exposures": draw(st.integers(0, 20_000)),
        "slots": draw(st.integers(1, 30)),
        "rounds_left": draw(st.integers(1, rounds)),
        "rounds": rounds,
    }


# ---------------------------------------- fill


@effort(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(0, 1e6), st.floats(-5, 3_000)), max_size=30),
    exposures=st.integers(-3, 30_000),
)
def test_filling_shares_out_whole_exposures_within_the_room_and_the_total(rows, exposures):
    weight, room = (np.array([row[i] for row in rows], dtype=float) for i in (0, 1))
    before = weight.copy(), room.copy()
    got = fill(weight, room, max(exposures, 0))
    assert got.dtype == np.int64
    assert (got >= 0).all()
    assert (got <= np.maximum(room, 0)).all()
    assert got.sum() <= max(exposures, 0)
    assert not got[weight == 0].any()
    assert (weight == before[0]).all()
    assert (room == before[1]).all()


@effort(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(0.001, 1e4), st.integers(0, 3_000)), min_size=1, max_size=30),
    exposures=st.integers(0, 30_000),
)
def test_filling_is_proportional_with_caps_to_within_one_exposure(rows, exposures):
    weight, room = (np.array([row[i] for row in rows], dtype=float) for i in (0, 1))
    got, expected = fill(weight, room, exposures), fill_slowly(weight, room, exposures)
    assert (np.abs(got - expected) < 1 + 1e-6).all()
    # What stays unspent is less than one each of those that could still take one.
    unspent = min(exposures, room.sum()) - got.sum()
    assert 0 <= unspent < max((got < room).sum(), 1)


def test_with_different_weights_nothing_stays_unspent():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 50, 333):
        room = rng.integers(5, 500, n)
        for exposures in (1, 17, 400, int(room.sum()) - 1, int(room.sum()) + 5):
            got = fill(rng.random(n) + 0.01, room.astype(float), exposures)
            assert got.sum() == min(exposures, room.sum())


def test_equal_remainders_get_one_more_together_or_not_at_all():
    # 2.5 each: one more for both would be one too many.
    assert fill(np.ones(2), np.full(2, 10.0), 5).tolist() == [2, 2]
    assert fill(np.ones(2), np.array([10.0, 2.0]), 5).tolist() == [3, 2]
    assert fill(np.array([1.0, 1.0, 0.0]), np.full(3, 10.0), 6).tolist() == [3, 3, 0]
    # 1.6, 1.6 and 0.8: the largest remainder is alone and gets the last one.
    assert fill(np.array([2.0, 2.0, 1.0]), np.full(3, 10.0), 4).tolist() == [1, 1, 1]


def test_large_budgets_are_shared_out_to_the_last_exposure():
    weight = np.random.default_rng(1).random(1000)
    got = fill(weight, np.full(1000, 1e12), 10**10)
    assert got.sum() == 10**10
    np.testing.assert_allclose(got, weight / weight.sum() * 1e10, atol=1)


# ---------------------------------------- allocate


@effort(max_examples=120, deadline=None)
@given(batch=batches())
def test_an_allocation_is_whole_and_stays_within_the_room_and_the_budget(batch):
    before = {name: np.copy(values) for name, values in batch.items()}
    got = allocate(**batch)
    again = allocate(**batch)
    assert got.dtype == np.int64
    assert got.shape == batch["belief"].shape
    assert (got >= 0).all()
    assert (got <= batch["room"]).all()
    assert got.sum() <= batch["exposures"]
    assert (got == again).all()
    for name, values in before.items():
        assert (np.asarray(batch[name]) == values).all(), name


@effort(max_examples=60, deadline=None)
@given(batch=batches(least=2), data=st.data())
def test_the_order_of_the_skus_changes_nothing(batch, data):
    order = np.array(data.draw(st.permutations(range(len(batch["belief"])))))
    moved = {name: batch[name][order] for name in ("belief", "doubt", "room")}
    found, expected = allocate(**{**batch, **moved}), allocate(**batch)[order]
    if expected.max() <= 1 and expected.sum() == batch["exposures"]:
        assert found.sum() == expected.sum()  # not even one for each: the first in order begin
        return
    assert (found == expected).all()


@effort(max_examples=60, deadline=None)
@given(batch=batches(), times=st.integers(2, 4))
def test_equal_skus_get_equal_exposures(batch, times):
    copied = {name: np.tile(batch[name], times) for name in ("belief", "doubt", "room")}
    got = allocate(**{**batch, **copied}).reshape(times, -1)
    if got.max() <= 1 and got.sum() == batch["exposures"]:
        return  # not even one for each: the first in order begin
    assert (got == got[0]).all()
    same = np.stack([batch[name] for name in ("belief", "doubt", "room")])
    for a in range(same.shape[1]):
        for b in range(a):
            if (same[:, a] == same[:, b]).all():
                assert got[0, a] == got[0, b]


@effort(max_examples=60, deadline=None)
@given(batch=batches(), power=st.integers(-6, 6), shift=st.integers(-50, 50))
def test_the_scale_and_the_zero_of_beliefs_change_nothing(batch, power, shift):
    # Powers of two and whole numbers, so that nothing is rounded on the way.
    other = {"belief": (batch["belief"] + shift) * 2.0**power, "doubt": batch["doubt"] * 2.0**power}
    assert (allocate(**{**batch, **other}) == allocate(**batch)).all()


@effort(max_examples=80, deadline=None)
@given(batch=batches(least=2, doubt=st.integers(8, 128).map(lambda k: k / 64)))
def test_an_allocation_is_that_of_its_definition(batch):
    assume(batch["slots"] < len(batch["belief"]))
    got = allocate(**batch)
    shape = {name: batch[name] for name in ("belief", "doubt", "room", "slots", "rounds_left", "rounds")}
    weight = weights_slowly(**shape)
    expected = fill_slowly(weight, batch["room"], batch["exposures"])
    # A weight at the edge of nothing may be read either way.
    assume(not any(0 < w < 1.001e-9 for w in weight))
    assert (np.abs(got - expected) < 1 + 1e-6).all()


@effort(max_examples=60, deadline=None)
@given(
    belief=st.lists(beliefs, min_size=3, max_size=25),
    doubt=st.integers(4, 128).map(lambda k: k / 64),
    exposures=st.integers(1, 20_000),
    slots=st.integers(1, 24),
    rounds_left=st.integers(1, 6),
)
def test_at_equal_doubt_the_nearer_to_the_border_gets_no_less(belief, doubt, exposures, slots, rounds_left):
    belief = np.array(belief)
    n = len(belief)
    assume(slots < n)
    got = allocate(belief, np.full(n, doubt), np.full(n, 1e6), exposures, slots, rounds_left, 6)
    best = np.sort(belief)[::-1]
    distance = np.abs(belief - (best[slots - 1] + best[slots]) / 2)
    for a in range(n):
        farther = distance > distance[a]
        assert (got[a] >= got[farther]).all()


@effort(max_examples=60, deadline=None)
@given(
    place=st.integers(-100, 100).map(lambda k: k / 64),
    doubt=st.lists(st.integers(1, 128).map(lambda k: k / 64), min_size=3, max_size=25),
    exposures=st.integers(1, 20_000),
    rounds_left=st.integers(1, 6),
)
def test_at_equal_distance_the_more_doubtful_gets_no_less(place, doubt, exposures, rounds_left):
    doubt = np.array(doubt)
    n = len(doubt)
    # Two fixed SKUs hold the border at 0 while all others stand at one place above it.
    belief = np.concatenate([np.full(n, abs(place)), [-abs(place)]])
    doubts_ = np.concatenate([doubt, [1.0]])
    got = allocate(belief, doubts_, np.full(n + 1, 1e6), exposures, n, rounds_left, 6)
    for a in range(n):
        assert (got[a] >= got[:n][doubt < doubt[a]]).all()


def test_far_from_the_border_there_is_less_and_with_more_doubt_there_is_more():
    belief = np.array([3.0, 1.0, 0.5, -0.5, -1.0, -3.0])
    got = allocate(belief, np.full(6, 1.0), np.full(6, 1e6), 10_000, 3, 3, 6)
    assert got[2] == got[3] > got[1] == got[4] > got[0] == got[5]
    wide = allocate(belief, np.array([1.0, 1.0, 1.0, 1.0, 2.0, 1.0]), np.full(6, 1e6), 10_000, 3, 3, 6)
    assert wide[4] > wide[1]


def test_later_rounds_spend_more_sharply():
    belief = np.linspace(-2, 2, 21)
    nearest = [
        allocate(belief, np.full(21, 0.7), np.full(21, 1e6), 10_000, 10, left, 6).max() for left in (6, 5, 4, 3, 2, 1)
    ]
    assert nearest == sorted(nearest)
    assert nearest[-1] > 1.5 * nearest[0]


@given(rounds=st.integers(1, 50), left=st.integers(1, 60))
def test_sharpness_stays_between_that_of_the_first_and_of_the_last_round(rounds, left):
    assert FIRST_SHARPNESS <= sharpness(left, rounds) <= LAST_SHARPNESS * (1 + 1e-12)
    assert sharpness(left + 1, rounds) <= sharpness(left, rounds)


@given(exposures=st.integers(0, 10**9), rounds=st.integers(1, 40))
def test_the_rounds_together_spend_the_whole_budget_in_almost_equal_parts(exposures, rounds):
    left, parts = exposures, []
    for rounds_left in range(rounds, 0, -1):
        parts.append(round_budget(left, rounds_left))
        left -= parts[-1]
    assert left == 0
    assert max(parts) - min(parts) <= 1


# ---------------------------------------- the edges


@pytest.mark.parametrize("slots", [3, 4, 1000])
def test_where_all_can_be_scaled_exposures_are_spread_evenly(slots):
    got = allocate(np.array([5.0, 0.0, -5.0]), np.array([0.1, 1.0, 3.0]), np.full(3, 1e4), 300, slots, 2, 6)
    assert got.tolist() == [100, 100, 100]


def test_without_any_doubt_exposures_are_spread_evenly():
    assert allocate(np.array([5.0, 0.0, -5.0]), np.zeros(3), np.full(3, 1e4), 300, 1, 2, 6).tolist() == [100] * 3


def test_a_sku_without_doubt_gets_nothing_beside_one_with_doubt():
    got = allocate(np.array([1.0, 0.9, 0.0]), np.array([0.0, 0.5, 0.5]), np.full(3, 1e4), 300, 1, 2, 6)
    assert got[0] == 0
    assert got.sum() >= 299


def test_a_single_sku_gets_all_that_it_may_have():
    one = np.ones(1)
    assert allocate(one, one, np.array([50.0]), 300, 1, 1, 1).tolist() == [50]
    assert allocate(one, one, np.array([500.0]), 300, 1, 1, 1).tolist() == [300]


def test_no_skus_and_no_exposures_give_nothing():
    none = np.zeros(0)
    assert allocate(none, none, none, 100, 1, 1, 1).shape == (0,)
    assert allocate(np.ones(2), np.ones(2), np.full(2, 9.0), 0, 1, 1, 1).tolist() == [0, 0]


def test_what_the_nearest_have_no_room_for_goes_to_the_next():
    belief = np.array([2.0, 1.0, 0.9, -2.0])
    free = allocate(belief, np.full(4, 1.0), np.full(4, 1e6), 1000, 2, 6, 6)
    held = allocate(belief, np.full(4, 1.0), np.array([1e6, 10.0, 0.0, 1e6]), 1000, 2, 6, 6)
    assert held[1] == 10
    assert held[2] == 0
    assert held.sum() >= 999
    assert (held[[0, 3]] > free[[0, 3]]).all()


@effort(max_examples=30, deadline=None)
@given(batch=batches(room=st.just(0)))
def test_without_room_nobody_gets_anything(batch):
    assert not allocate(**batch).any()


@pytest.mark.parametrize("room", [[0.0] * 4, [1e4, 0.0, 0.0, 1e4]])
def test_skus_that_are_full_cause_no_warning(room):
    """All at their cap; or only the two nearest the border, while the others are very far from it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        belief, doubt = np.array([60.0, 1.0, 0.9, -60.0]), np.full(4, 0.5)
        allocate(belief, doubt, np.array(room), 100, 2, 1, 6)


@pytest.mark.parametrize(("n", "exposures"), [(200, 199), (5, 4), (3, 1)])
def test_where_there_is_not_one_for_each_the_first_in_order_begin(n, exposures):
    found = allocate(np.zeros(n), np.ones(n), np.full(n, 10.0), exposures, 2, 1, 1)
    assert found.tolist() == [1] * exposures + [0] * (n - exposures)
