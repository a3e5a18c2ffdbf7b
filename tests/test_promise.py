"""What is promised about `stop` and `scale` is kept in markets whose truth is known, and withdrawn where it isn't."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scipy.stats import binom

from hitfinder.errors import DataError, ModelError, SettingsError
from hitfinder.promise import (
    PATIENCE,
    SCALE_GRID,
    STAKES,
    ScalePromise,
    StopPromise,
    check_promise,
    forward_losses,
    promise_scale,
    promise_stop,
    withdraw_promise,
)

USUAL = {"max_hits_lost": 0.1, "confidence": 0.9}
SCALE = {"max_false_scaled": 0.5, "confidence": 0.9}


def within_error(n_true, n, chance):
    """Whether so many of n are believable for this chance, up or down; 1 of 10,000 tests errs either way."""
    return binom.cdf(n_true, n, chance) > 1e-4, binom.sf(n_true - 1, n, chance) > 1e-4


def draw_batches(rng, n, few, ties=False):
    """Draw (batch, lowest) of hits only: batches differ in level, and the level goes with the number of hits."""
    n_hits = rng.integers(1, 4, n) if few else np.where(rng.random(n) < 0.3, 11, rng.integers(1, 25, n))
    batch = np.repeat(np.arange(n), n_hits)
    level = rng.normal(-2, 1, n) + 0.05 * n_hits
    lowest = 1 / (1 + np.exp(-level[batch] - rng.normal(0, 1, len(batch))))
    return batch, np.ceil(lowest * 80) / 80 if ties else lowest


def loses_too_much(lowest, threshold, share_in_tenths=1):
    """Count slowly, in whole numbers."""
    return 10 * int(sum(p < threshold for p in lowest)) > share_in_tenths * len(lowest)


def share_of_broken_promises(seed, m, few, ties, n_runs):
    rng = np.random.default_rng(seed)
    broken = 0
    for _ in range(n_runs):
        batch, lowest = draw_batches(rng, m + 1, few, ties)
        past = batch < m
        promise = promise_stop(batch[past], np.ones(past.sum()), lowest[past], **USUAL)
        assert promise.n_batches == m
        broken += loses_too_much(lowest[~past], promise.threshold)
    return broken


# Stop --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "k"), [(9, 1), (10, 1), (24, 2), (100, 10)])
@pytest.mark.parametrize("few", [True, False], ids=["1-3 hits", "1-24 hits, many 11"])
def test_a_new_batch_loses_too_much_exactly_as_often_as_the_ranks_say(m, k, few):
    broken = share_of_broken_promises(m, m, few, ties=False, n_runs=450)
    # Neither more often than promised nor, by a threshold that is uselessly low, much less.
    assert within_error(broken, 450, k / (m + 1)) == (True, True)
    assert k / (m + 1) <= 0.1


@pytest.mark.parametrize("m", [9, 24, 100])
def test_ties_only_make_losses_rarer(m):
    broken = share_of_broken_promises(m + 1000, m, False, ties=True, n_runs=500)
    assert binom.sf(broken - 1, 500, 0.1) > 1e-4
    assert broken > 0  # else the ties would be of everything with everything


def test_eight_batches_are_too_few_and_nine_are_enough():
    rng = np.random.default_rng(3)
    batch, lowest = draw_batches(rng, 9, few=True)
    eight = batch < 8
    promise = promise_stop(batch[eight], np.ones(eight.sum()), lowest[eight], **USUAL)
    assert (promise.threshold, promise.n_batches, promise.needed, promise.holds) == (None, 8, 9, False)
    assert promise.reason == "few_batches"
    assert promise_stop(batch, np.ones(len(batch)), lowest, **USUAL).threshold == lowest_score(batch, lowest)


def lowest_score(batch, lowest):
    """The highest threshold at which no batch loses more than a tenth, found by trying every one."""
    tried = np.unique(lowest)
    kept = [t for t in tried if not any(loses_too_much(lowest[batch == b], t) for b in np.unique(batch))]
    return max(kept)


@pytest.mark.parametrize(("confidence", "needed"), [(0.9, 9), (0.8, 4), (0.95, 19), (0.99, 99), (0.7, 3), (0.5, 1)])
def test_the_number_of_batches_it_takes_is_not_a_rounding_error(confidence, needed):
    for m in (needed - 1, needed):
        got = promise_stop(range(m), [1] * m, [0.5] * m, max_hits_lost=0.1, confidence=confidence)
        assert got.needed == needed
        assert (got.threshold is not None) == (m == needed)


@pytest.mark.parametrize(("share", "n_hits", "allowed"), [(0.1, 10, 1), (0.1, 9, 0), (0.1, 30, 3), (0.29, 100, 29)])
def test_the_hits_that_may_be_lost_are_not_a_rounding_error(share, n_hits, allowed):
    batch, lowest = np.repeat(np.arange(9), n_hits), np.tile(np.arange(n_hits) / 100, 9)
    got = promise_stop(batch, np.ones(len(batch)), lowest, max_hits_lost=share, confidence=0.9)
    assert got.threshold == allowed / 100


def test_misses_and_batches_without_hits_say_nothing():
    rng = np.random.default_rng(4)
    batch, lowest = draw_batches(rng, 20, few=False)
    alone = promise_stop(batch, np.ones(len(batch)), lowest, **USUAL)
    more = rng.integers(0, 60, 500)  # misses of the same batches, and forty batches of misses only
    got = promise_stop(
        np.r_[batch, more], np.r_[np.ones(len(batch)), np.zeros(500)], np.r_[lowest, rng.random(500)], **USUAL
    )
    assert got == alone
    assert got.n_batches == 20


def test_a_hit_that_could_never_be_stopped_is_never_lost():
    batch = np.arange(9)
    assert promise_stop(batch, np.ones(9), [np.nan] * 9, **USUAL).threshold == 1
    assert promise_stop(batch, np.ones(9), [0.2] + [np.nan] * 8, **USUAL).threshold == 0.2


past_skus = st.lists(
    st.tuples(st.integers(0, 15), st.booleans(), st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.4, 0.7, 1.0, np.nan])),
    min_size=0,
    max_size=120,
)
shares = st.sampled_from([0.05, 0.1, 0.2, 1 / 3, 0.5, 0.6, 0.75, 0.9])


@effort(max_examples=50, deadline=None)
@given(rows=past_skus, a=shares, b=shares, share=shares)
def test_who_wants_to_be_surer_or_to_lose_less_stops_less(rows, a, b, share):
    columns = [[row[i] for row in rows] for i in range(3)]

    def stop_below(max_hits_lost, confidence):
        got = promise_stop(*columns, max_hits_lost=max_hits_lost, confidence=confidence)
        return -1 if got.threshold is None else got.threshold

    low, high = sorted((a, b))
    assert stop_below(share, high) <= stop_below(share, low)
    assert stop_below(low, share) <= stop_below(high, share)

    def scale_from(max_false_scaled, confidence):
        got = promise_scale(*columns, max_false_scaled=max_false_scaled, confidence=confidence)
        return 2 if got.threshold is None else got.threshold

    assert scale_from(share, high) >= scale_from(share, low)
    assert scale_from(low, share) >= scale_from(high, share)


@effort(max_examples=35, deadline=None)
@given(rows=past_skus, shares=st.tuples(shares, shares), data=st.data())
def test_the_order_of_rows_and_the_names_of_batches_change_nothing(rows, shares, data):
    columns = [[row[i] for row in rows] for i in range(3)]
    mixed = [f"week {row[0]:02d}" for row in rows], *columns[1:]
    order = data.draw(st.permutations(range(len(rows))))
    mixed = [[column[i] for i in order] for column in mixed]
    share, confidence = shares
    for learn, name in ((promise_stop, "max_hits_lost"), (promise_scale, "max_false_scaled")):
        policy = {name: share, "confidence": confidence}
        assert learn(*columns, **policy) == learn(*mixed, **policy)
    forward = [forward_losses(c[0], c[0], c[1], c[2], **USUAL) for c in (columns, mixed)]
    pd.testing.assert_frame_equal(*(f.drop(columns=["batch", "launched"]) for f in forward))


# Check -------------------------------------------------------------------------------------------------------------


def slow_wealth(losses, chance):
    """The same bets one by one: every start and every stake has a purse of its own."""
    wealth = []
    for n in range(1, len(losses) + 1):
        cash = 1.0
        total = 0.0
        for start in range(1, n + 1):
            share = PATIENCE / (start + PATIENCE - 1) - PATIENCE / (start + PATIENCE)
            cash -= share
            for stake in STAKES:
                purse = share / len(STAKES)
                for lost in losses[start - 1 : n]:
                    purse += stake * purse * (lost / chance - 1)
                total += purse
        wealth.append(cash + total)
    return wealth


@effort(max_examples=30, deadline=None)
@given(losses=st.lists(st.integers(0, 1), max_size=12), confidence=st.sampled_from([0.5, 0.9, 0.95]))
def test_the_wealth_is_what_bets_one_by_one_make(losses, confidence):
    got = check_promise(losses, confidence=confidence)
    assert got.wealth == pytest.approx(slow_wealth(losses, 1 - confidence))


@effort(max_examples=25, deadline=None)
@given(past=st.lists(st.integers(0, 1), max_size=30), confidence=st.floats(0.05, 0.99))
def test_on_average_the_next_bet_wins_nothing_while_the_promise_holds(past, confidence):
    before = check_promise(past, confidence=confidence).wealth[-1] if past else 1.0
    kept, lost = (check_promise([*past, x], confidence=confidence).wealth[-1] for x in (0, 1))
    assert confidence * kept + (1 - confidence) * lost == pytest.approx(before)
    assert kept <= before <= lost


def test_a_promise_that_is_just_kept_is_seldom_withdrawn_however_long_one_looks():
    rng = np.random.default_rng(5)
    n = sum(check_promise(rng.random(120) < 0.1, confidence=0.9).withdrawn for _ in range(500))
    assert binom.sf(n - 1, 500, 0.05) > 1e-4
    assert n > 0  # else it would be no test


@pytest.mark.parametrize("ties", [False, True])
def test_a_stationary_market_seldom_loses_its_promise(ties):
    """The whole road: thresholds learned anew from all batches before, then bets."""
    rng = np.random.default_rng(6)
    n_runs, withdrawn, losses_seen, judged = 100, 0, 0, 0
    for _ in range(n_runs):
        batch, lowest = draw_batches(rng, 80, few=True, ties=ties)
        losses = forward_losses(batch, batch, np.ones(len(batch)), lowest, **USUAL)
        assert len(losses) == 71
        withdrawn += check_promise(losses["lost_too_much"], confidence=0.9).withdrawn
        losses_seen, judged = losses_seen + losses["lost_too_much"].sum(), judged + len(losses)
    assert binom.sf(withdrawn - 1, n_runs, 0.05) > 1e-4
    # Exact chance, batch by batch: floor((m + 1) / 10) / (m + 1). The losses are independent, so this is binomial.
    expected = np.mean([(m + 1) // 10 / (m + 1) for m in range(9, 80)])
    fine = within_error(losses_seen, judged, expected)
    assert fine[1]
    assert fine[0] or ties


@pytest.mark.parametrize("quiet", [0, 30, 100])
def test_a_drift_to_one_half_is_seen_within_a_few_months(quiet):
    rng = np.random.default_rng(7)
    delays = []
    for _ in range(200):
        losses = np.r_[rng.random(quiet) < 0.1, rng.random(60) < 0.5]
        alarm = check_promise(losses, confidence=0.9).alarm
        delays.append(np.inf if alarm is None else alarm + 1 - quiet)
    assert np.median(delays) <= 18
    assert np.quantile(delays, 0.95) <= 40


def test_a_market_that_keeps_sinking_loses_its_promise():
    rng = np.random.default_rng(8)
    alarms = 0
    for _ in range(40):
        batch, lowest = draw_batches(rng, 50, few=True)
        sinking = lowest * np.where(batch < 25, 1, 0.8 ** (batch - 25))
        losses = forward_losses(batch, batch, np.ones(len(batch)), sinking, **USUAL)
        check = check_promise(losses["lost_too_much"], confidence=0.9)
        alarms += check.withdrawn
    assert alarms >= 36


def test_an_alarm_stays():
    check = check_promise([1] * 6 + [0] * 300, confidence=0.9)
    assert check.withdrawn
    assert check.alarm < 6
    assert check.wealth[-1] < 1
    assert len(check.wealth) == 306
    assert check.n_checked == check.n_lost_too_much == check.alarm + 1


def test_wealth_stays_a_number():
    assert np.isfinite(check_promise([1] * 5000, confidence=0.99).wealth).all()
    nothing = check_promise([], confidence=0.9)
    assert (nothing.wealth, nothing.alarm, nothing.withdrawn) == ((), None, False)


# Forward losses ----------------------------------------------------------------------------------------------------


def slow_forward(batch, launched, hit, lowest):
    """Take each batch in turn and learn anew from those before it."""
    table = pd.DataFrame({"batch": batch, "launched": launched, "hit": hit, "lowest": lowest})
    first = table.groupby("batch")["launched"].min()
    ordered = sorted(first.index, key=lambda b: (first[b], str(b)))
    rows = []
    for i, name in enumerate(ordered):
        past = table[table["batch"].isin(ordered[:i])]
        promise = promise_stop(past["batch"], past["hit"], past["lowest"], **USUAL)
        seen = table[(table["batch"] == name) & table["hit"]]["lowest"]
        if promise.threshold is not None and len(seen):
            rows.append((name, promise.threshold, loses_too_much(seen, promise.threshold)))
    return rows


def draw_history(seed):
    rng = np.random.default_rng(seed)
    batch = rng.permutation(np.repeat(np.arange(40), rng.integers(1, 30, 40)))
    launched = pd.Timestamp("2025-01-06") + pd.to_timedelta(7 * (batch // 2) + rng.integers(0, 10, len(batch)), "D")
    hit = rng.random(len(batch)) < 0.15
    return np.array([f"b{39 - b:02d}" for b in batch]), launched, hit, rng.integers(0, 20, len(batch)) / 20


@pytest.mark.parametrize("seed", range(3))
def test_forward_losses_are_what_learning_anew_each_week_gives(seed):
    got = forward_losses(*draw_history(seed), **USUAL)
    wanted = slow_forward(*draw_history(seed))
    assert len(wanted) > 10
    assert [tuple(row) for row in got[["batch", "threshold", "lost_too_much"]].to_numpy().tolist()] == wanted
    assert (got["lost_too_much"] == (got["n_lost"] > got["n_allowed"])).all()


def test_what_comes_later_changes_nothing_earlier():
    batch, launched, hit, lowest = draw_history(9)
    whole = forward_losses(batch, launched, hit, lowest, **USUAL)
    rng = np.random.default_rng(10)
    for place in range(1, len(whole), 4):
        first = pd.Series(launched).groupby(batch).transform("min")
        after = (first > whole["launched"][place]).to_numpy()
        assert after.any() or place > len(whole) - 4
        changed = np.where(after, rng.random(len(batch)), lowest), np.where(after, ~hit, hit)
        early = whole["launched"] <= whole["launched"][place]
        other = forward_losses(batch, launched, changed[1], changed[0], **USUAL)
        pd.testing.assert_frame_equal(other.iloc[: early.sum()], whole[early])
        cut = forward_losses(batch[~after], launched[~after], hit[~after], lowest[~after], **USUAL)
        pd.testing.assert_frame_equal(cut, whole[early])


def test_without_enough_batches_there_is_nothing_to_judge():
    got = forward_losses(range(9), range(9), [1] * 9, [0.5] * 9, **USUAL)
    assert got.empty
    assert got["lost_too_much"].dtype == "int64"
    assert not check_promise(got["lost_too_much"], confidence=0.9).withdrawn


# Scale -------------------------------------------------------------------------------------------------------------


def draw_market(rng, n_batches, per_batch=25):
    """Draw SKUs whose probability says too much, by more in some batches than in others."""
    batch = np.repeat(np.arange(n_batches), per_batch)
    probability = rng.beta(0.7, 2, len(batch))
    trust = rng.uniform(0.45, 1.05, n_batches)[batch]
    return batch, rng.random(len(batch)) < probability * trust, probability


def false_shares(batch, hit, probability, threshold):
    """Return the share of misses among the SKUs scaled, of each batch that scales any."""
    scaled = probability >= threshold
    n = batch.max() + 1
    some = np.bincount(batch[scaled], minlength=n)
    return (np.bincount(batch[scaled & ~hit], minlength=n) / np.maximum(some, 1))[some > 0]


@pytest.mark.parametrize("n_batches", [8, 40, 150])
def test_a_certified_threshold_scales_too_many_misses_in_few_runs(n_batches):
    rng = np.random.default_rng(n_batches)
    truth = draw_market(rng, 20_000)
    risk = {float(t): false_shares(*truth, t).mean() for t in SCALE_GRID}
    limit = 0.5
    assert min(risk.values()) < limit - 0.2
    assert max(risk.values()) > limit + 0.2  # there is something to get wrong
    wrong = certified = 0
    for _ in range(200):
        promise = promise_scale(*draw_market(rng, n_batches), max_false_scaled=limit, confidence=0.9)
        certified += promise.holds
        wrong += promise.holds and risk[promise.threshold] > limit
    assert binom.sf(wrong - 1, 200, 0.1) > 1e-4
    assert certified > {8: 8, 40: 12, 150: 80}[n_batches]


def test_more_batches_let_more_skus_be_scaled():
    rng = np.random.default_rng(11)
    few, many = (promise_scale(*draw_market(rng, n), **SCALE) for n in (400, 4000))
    assert few.threshold > many.threshold
    truth = draw_market(rng, 20_000)
    lowest_safe = min(t for t in SCALE_GRID if false_shares(*truth, t).mean() <= 0.5)
    assert lowest_safe <= many.threshold <= lowest_safe + 0.12


@effort(max_examples=35, deadline=None)
@given(rows=past_skus, limit=shares, confidence=shares)
def test_scaled_skus_are_counted_as_slowly_by_hand(rows, limit, confidence):
    columns = [[row[i] for row in rows] for i in range(3)]
    got = promise_scale(*columns, max_false_scaled=limit, confidence=confidence)
    batch, hit, probability = (np.array(c) for c in columns)
    if got.holds:
        scaled = probability >= got.threshold
        assert got.n_scaled == scaled.sum() > 0
        assert got.n_batches_scaling == len(set(batch[scaled]))
        share = np.mean([1 - hit[scaled & (batch == b)].mean() for b in {*batch} if (scaled & (batch == b)).any()])
        assert share < limit
        assert probability[scaled].min() < got.threshold + 0.0101  # no laxer than the past SKUs that speak for it
    else:
        assert (got.n_scaled, got.n_batches_scaling) == (0, 0)
    assert got.n_batches == len({*batch.tolist()})


@pytest.mark.parametrize(("limit", "confidence"), [(0.5, 0.9), (0.3, 0.9), (0.9, 0.9), (0.1, 0.95), (0.5, 0.5)])
def test_the_batches_that_scale_needs_are_those_at_which_faultless_ones_are_certified(limit, confidence):
    needed = promise_scale([], [], [], max_false_scaled=limit, confidence=confidence).needed
    for n in (needed - 1, needed):
        got = promise_scale(range(n), [1] * n, [0.9] * n, max_false_scaled=limit, confidence=confidence)
        assert got.holds == (n == needed)
        assert got.reason == (None if n == needed else "few_batches")


@pytest.mark.parametrize("exactly", [0.01, 0.07, 0.4, 0.58, 0.99])
def test_a_sku_that_stands_exactly_at_the_threshold_is_scaled(exactly):
    got = promise_scale(range(10), [1] * 10, [exactly] * 10, **SCALE)
    assert (got.threshold, got.n_scaled) == (exactly, 10)


@pytest.mark.parametrize("dtype", ["boolean", "bool", "Int64", "float"])
def test_columns_of_a_table_are_read_by_place_and_left_as_they_were(dtype):
    rng = np.random.default_rng(13)
    batch, lowest = draw_batches(rng, 15, few=True)
    table = pd.DataFrame({"batch": pd.Categorical([f"周 {b}" for b in batch]), "hit": 1, "lowest": lowest})
    table = table.assign(hit=table["hit"].astype(dtype)).sample(frac=1, random_state=0)
    table["launched"] = pd.Timestamp("2025-01-06") + pd.to_timedelta(table["batch"].cat.codes.to_numpy(), "D")
    kept = table.copy()
    wanted = promise_stop(batch, np.ones(len(batch)), lowest, **USUAL)
    assert promise_stop(table["batch"], table["hit"], table["lowest"], **USUAL) == wanted
    losses = forward_losses(table["batch"], table["launched"], table["hit"], table["lowest"], **USUAL)
    assert losses["launched"].dtype.kind == "M"
    assert losses["n_before"].tolist() == list(range(9, 15))
    pd.testing.assert_frame_equal(table, kept)


@pytest.mark.parametrize(("scaling", "batches"), [(1, 12), (20, 60)])
def test_batches_that_scale_nothing_make_no_promise_for_those_that_scale_misses(scaling, batches):
    """Whatever is scaled is a miss: twelve batches without anything to scale say nothing about the next that has."""
    batch = np.repeat(np.arange(batches), 2)
    probability = np.where((batch < scaling) & (np.arange(2 * batches) % 2 == 0), 0.6, 0.005)
    got = promise_scale(batch, np.zeros(2 * batches), probability, **SCALE)
    assert got.threshold is None


def test_a_score_that_knows_nothing_is_never_trusted_to_scale():
    rng = np.random.default_rng(5)
    for _ in range(50):
        batch = np.repeat(np.arange(24), 40)
        got = promise_scale(batch, rng.random(len(batch)) < 0.05, rng.beta(0.7, 4, len(batch)), **SCALE)
        assert got.threshold is None


def test_where_nothing_could_be_scaled_nothing_is_promised():
    """Safe for want of anything to scale would be no promise."""
    none = promise_scale(range(50), [0] * 50, [0.001] * 50, **SCALE)
    assert (none.threshold, none.reason) == (None, "none_certified")
    never = promise_scale(range(50), [1] * 50, [np.nan] * 50, **SCALE)
    assert never.threshold is None
    false = promise_scale(range(50), [0] * 50, [0.995] * 50, **SCALE)
    assert (false.threshold, false.reason) == (None, "none_certified")


# Words and files ---------------------------------------------------------------------------------------------------

STOP = {"threshold": 0.031, "n_batches": 24, "needed": 9, **USUAL}
CERTIFIED = {"threshold": 0.4, "n_batches": 24, "needed": 4, "n_scaled": 60, "n_batches_scaling": 11, **SCALE}
UNCERTIFIED = {**CERTIFIED, "threshold": None, "n_scaled": 0, "n_batches_scaling": 0}
PROMISES = [
    StopPromise(**STOP),
    StopPromise(**STOP | {"threshold": 0.0}),
    StopPromise(**STOP | {"threshold": None, "n_batches": 1}),
    StopPromise(**STOP, withdrawn=True, n_checked=15, n_lost_too_much=7),
    ScalePromise(**CERTIFIED),
    ScalePromise(**UNCERTIFIED | {"n_batches": 3}),
    ScalePromise(**UNCERTIFIED | {"confidence": 0.95}),
]


@pytest.mark.parametrize(
    ("promise", "said"),
    list(
        zip(
            PROMISES,
            [
                (
                    "At most 10 % of a batch's hits are stopped in 9 of 10 batches; learned from 24 past batches.",
                    "10 批中有 9 批",
                ),
                (
                    "Nothing is stopped: past hits came down to a probability of 0; learned from 24 past batches.",
                    "不停测任何",
                ),
                ("No promise: 1 past batch had hits, it takes 9.", "至少需要 9 批"),
                ("Withdrawn: 7 of 15 batches lost more hits than promised.", "15 批中有 7 批"),
                (
                    "Where a batch has SKUs to scale, on average at most 50 % of them turn out not to be hits (90 % "
                    "sure); learned from 24 past batches, 11 of them with SKUs to scale.",
                    "其中 11 批",
                ),
                ("No promise: there are only 3 past batches, it takes 4.", "至少需要 4 批"),
                (
                    "No promise: 24 past batches don't show with 95 % certainty that at most 50 % of scaled SKUs "
                    "turn out not to be hits, whatever the threshold.",
                    "把握 95%",
                ),
            ],
            strict=True,
        )
    ),
)
def test_a_promise_is_said_in_plain_words(promise, said):
    english, chinese = said
    assert promise.sentence() == promise.sentence("en") == english
    assert chinese in promise.sentence("zh")
    assert "{" not in promise.sentence("zh")
    with pytest.raises(SettingsError, match="language: expected en or zh, got 'fr'"):
        promise.sentence("fr")


def test_a_share_that_is_no_simple_fraction_is_said_of_a_hundred():
    assert "in 93.25 of 100 batches" in StopPromise(**STOP | {"confidence": 0.9325}).sentence()


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_comes_back_from_json_as_it_was(promise):
    text = json.dumps(promise.to_dict(), allow_nan=False)
    assert type(promise).from_dict(json.loads(text)) == promise
    short = promise.to_dict()
    del short["threshold"]
    with pytest.raises(ModelError, match="missing or unknown: threshold"):
        type(promise).from_dict(short)
    with pytest.raises(ModelError, match="missing or unknown: more"):
        type(promise).from_dict({**promise.to_dict(), "more": 1})


def test_learned_promises_hold_plain_values_only():
    batch, lowest = draw_batches(np.random.default_rng(12), 30, few=True)
    stop = promise_stop(batch, np.ones(len(batch)), lowest, max_hits_lost=np.float64(0.1), confidence=np.float64(0.9))
    scale = promise_scale(batch, np.ones(len(batch)), lowest, **SCALE)
    for promise in (stop, scale):
        assert promise.holds
        assert {type(value) for value in promise.to_dict().values()} <= {int, float, bool}


def test_only_an_alarm_withdraws_and_only_what_was_promised():
    kept = StopPromise(**STOP)
    quiet, loud = (check_promise(losses, confidence=0.9) for losses in ([0] * 14 + [1], [1] * 9))
    assert withdraw_promise(kept, quiet).holds
    assert withdraw_promise(kept, quiet).n_checked == 15
    gone = withdraw_promise(kept, loud)
    assert (gone.holds, gone.reason, gone.threshold) == (False, "withdrawn", 0.031)
    assert gone.n_checked == gone.n_lost_too_much == loud.alarm + 1
    none = StopPromise(**STOP | {"threshold": None, "n_batches": 6})
    assert withdraw_promise(none, loud) == none


# Refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learn", ["stop", "scale", "forward"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (([1, 2], [1], [0.5, 0.5]), "expected one of each per SKU, got 2, 1 and 2 rows"),
        (([1, None], [1, 1], [0.5, 0.5]), "batch: expected a label in every row, 1 are empty"),
        (([1, 2], [1, 2], [0.5, 0.5]), "hit: expected 0 or 1 in every row, got 2 "),
        (([1, 2], [1, np.nan], [0.5, 0.5]), "hit: expected 0 or 1 in every row, got nan"),
        (([1, 2], [1, pd.NA], [0.5, 0.5]), "hit: expected numbers"),
        (([1, 2], [1, 0], [0.5, 1.5]), r"expected probabilities from 0 to 1, got 1.5 \(1 such rows\)"),
        (([1, 2], [1, 0], ["high", 0.5]), "expected numbers, got something else"),
        (([1, 2], [1, 0], [[0.5], [0.5]]), "expected one column, got 2 dimensions"),
    ],
)
def test_columns_that_cannot_be_understood_are_refused(learn, rows, message):
    with pytest.raises(DataError, match=message):
        {
            "stop": lambda: promise_stop(*rows, **USUAL),
            "scale": lambda: promise_scale(*rows, **SCALE),
            "forward": lambda: forward_losses(rows[0], [1, 2], *rows[1:], **USUAL),
        }[learn]()


def test_a_batch_without_a_launch_has_no_place_in_time():
    for launched in ([1, np.nan], [1]):
        with pytest.raises(DataError, match="launched: expected a moment for each of 2 rows, got 1"):
            forward_losses([1, 2], launched, [1, 0], [0.5, 0.5], **USUAL)


@pytest.mark.parametrize("wrong", [-0.1, 1, 1.5, np.nan])
def test_impossible_policies_are_refused(wrong):
    with pytest.raises(SettingsError, match="max_hits_lost: expected a number from 0 to below 1"):
        promise_stop([1], [1], [0.5], max_hits_lost=wrong, confidence=0.9)
    with pytest.raises(SettingsError, match="confidence: expected a number between 0 and 1"):
        promise_stop([1], [1], [0.5], max_hits_lost=0, confidence=wrong)
    with pytest.raises(SettingsError, match="max_false_scaled: expected"):
        promise_scale([1], [1], [0.5], max_false_scaled=wrong, confidence=0.9)
    with pytest.raises(SettingsError, match="false_alarm: expected"):
        check_promise([1], confidence=0.9, false_alarm=wrong)
    with pytest.raises(DataError, match="lost_too_much: expected 0 or 1"):
        check_promise([0.5], confidence=0.9)
