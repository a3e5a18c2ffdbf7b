"""Past tests played again: the right labels, lists of their own, and no more spent than their budgets."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from small_market import SETTINGS

from hitfinder.admission import admit_signals_and_skus
from hitfinder.errors import DataError, NotEnoughHistoryError
from hitfinder.features import features, moment_of_knowledge
from hitfinder.history import (
    TRIAL_BUDGETS,
    TRIAL_ROUNDS,
    TRIAL_STATES,
    examples_of,
    know,
    state_features,
)
from hitfinder.pooling import fit_rates
from hitfinder.settings import parse_settings
from hitfinder.simulate import simulate
from hitfinder.trial_table import pool_of
from hitfinder.warehouse import open_warehouse

KEYS = ["sku_id", "period_start", "channel", "creative_id", "known_at"]
COUNTS = ["clicks", "orders", "revenue"]


@cache
def market():
    """Return (signals, skus); a late batch whose outcome windows are open, and batches of very different sizes."""
    made = simulate(weeks=7, skus_per_week=24, complete=True, seed=3, test_impressions=150)
    skus = made.skus[made.skus.index % 3 != 0].reset_index(drop=True)
    return made.signals[[*KEYS, "impressions", *COUNTS]], skus


@contextmanager
def known(signals, skus, settings=None, moment=None):
    """Open (history, rates) on some tables."""
    settings = settings or parse_settings(SETTINGS)
    con = open_warehouse(threads=1)
    admit_signals_and_skus(con, signals, skus, period=settings.signals.period)
    moment = moment or skus["launched_at"].max() + pd.Timedelta(days=14)
    history, _ = know(con, settings, moment, outcomes_given=False)
    try:
        yield history, fit_rates(history.pairs, history.rate_names)
    finally:
        history.close()
        con.close()


@cache
def played():
    """Return (states, labels, pool, examples of all labelled SKUs) of the market."""
    signals, skus = market()
    with known(signals, skus) as (history, rates):
        table = state_features(history, rates)
        pool = pool_of(history.con, history.labels, history.settings)
        return table, history.labels, pool, examples_of(history, table, set(history.labels["sku_id"]))


def thinned():
    table = played()[0]
    return table[table["copy"] >= 0].reset_index(drop=True)


# ---------------------------------------- who is who


def test_every_labelled_sku_is_played_again_in_every_copy_and_round_once():
    states, labels = thinned(), played()[1]
    copies = states["copy"].nunique()
    assert copies == len(TRIAL_BUDGETS)
    assert set(states["sku_id"]) == set(labels["sku_id"])
    assert set(states["copy"]) == set(range(copies))
    after = (states["age_share"].astype(float) * TRIAL_ROUNDS).round(6)
    assert set(after) == set(TRIAL_STATES)
    assert not states.assign(after=after).duplicated(["sku_id", "copy", "after"]).any()
    assert len(states) == len(labels) * copies * len(TRIAL_STATES)


def test_a_thinned_state_is_of_the_sku_whose_label_it_carries():
    """No count of it is more than that SKU's own test had, and its kind is that SKU's."""
    _, skus = market()
    _, labels, pool, train = played()
    truth = labels.set_index("sku_id").reindex(train.table["sku_id"])
    for name in ("hit", "value", "standing"):
        assert (getattr(train, name) == truth[name].to_numpy(dtype=float)).all(), name
    states = thinned()
    full = pd.DataFrame({"impressions": pool.exposures, **pool.counts}, index=pool.sku_id).reindex(states["sku_id"])
    for name in ("impressions", *COUNTS):
        assert (states[name].fillna(0).to_numpy(dtype=float) <= full[name].to_numpy() + 1e-3).all(), name
    about = skus.set_index("sku_id").reindex(states["sku_id"])
    for name in ("style_id", "category"):
        assert (states[name].to_numpy() == about[name].to_numpy()).all()
    np.testing.assert_allclose(np.exp(states["log_price"].astype(float)), about["price"].astype(float))
    # The bound is one that a mix-up would break.
    mixed = full.sample(frac=1, random_state=0)
    assert (states["clicks"].fillna(0).to_numpy(dtype=float) > mixed["clicks"].to_numpy()).any()


def test_a_sku_counts_once_whatever_the_number_of_its_states():
    train = played()[3]
    total = pd.Series(train.weight).groupby(train.table["sku_id"].to_numpy()).sum()
    np.testing.assert_allclose(total, 1.0)
    folds = pd.Series(train.folds).groupby(train.table["sku_id"].to_numpy()).nunique()
    assert (folds == 1).all()
    assert (train.trial == train.table["copy"]).all()
    # Probabilities are learned from what really was alone.
    assert (train.copies[train.trial >= 0] == -1).all()


def test_states_of_a_copy_stand_on_lists_of_their_own():
    train = played()[3]
    rows = train.table.assign(list=train.lists)
    of = rows.groupby("list").agg({"copy": "nunique", "batch_id": "nunique", "as_of": "nunique"})
    assert (of == 1).all().all()
    real = rows[rows["copy"] < 0]
    assert not set(real["list"]) & set(rows.loc[rows["copy"] >= 0, "list"])
    assert not set(real["batch_id"]) & set(rows.loc[rows["copy"] >= 0, "batch_id"])
    # A list of a trial is a whole batch after one round.
    size = rows[rows["copy"] >= 0].groupby("list")["sku_id"].agg(["size", "nunique"])
    assert (size["size"] == size["nunique"]).all()
    within = played()[1].groupby("within_group")["sku_id"].size()
    assert sorted(set(size["size"])) == sorted(set(within))


# ---------------------------------------- what it cost


def test_every_batch_stays_within_its_budget_in_every_round_and_spends_most_of_it():
    states, labels, pool = thinned(), played()[1], played()[2]
    full = pd.Series(pool.exposures, index=pool.sku_id)
    group = labels.set_index("sku_id")["within_group"]
    batches = sorted(group.unique())
    total = full.groupby(group.reindex(full.index)).sum()
    after = (states["age_share"].astype(float) * TRIAL_ROUNDS).round().astype(int)
    rows = states.assign(group=group.reindex(states["sku_id"]).to_numpy(), after=after)
    spent = rows.assign(impressions=rows["impressions"].fillna(0).astype(int))
    spent = spent.groupby(["copy", "group", "after"])["impressions"].sum()
    used = {}
    for (copy, batch, round_), impressions in spent.items():
        share = TRIAL_BUDGETS[(batches.index(batch) + copy) % len(TRIAL_BUDGETS)]
        budget = int(share * total[batch])
        assert impressions <= budget * round_ / TRIAL_ROUNDS + TRIAL_ROUNDS
        if round_ == TRIAL_ROUNDS:
            assert 0.9 * budget <= impressions <= budget
            used.setdefault(copy, []).append(share)
    # Neighbouring batches and the copies of a batch cost differently.
    assert all(a != b for shares in used.values() for a, b in pairwise(shares))
    assert all(len(set(of_batch)) == len(of_batch) for of_batch in zip(*used.values(), strict=True))


def test_evidence_grows_from_round_to_round():
    states = thinned().sort_values(["copy", "sku_id", "age_share"])
    for name in ("impressions", *COUNTS):
        step = states[name].fillna(0).astype(float).groupby([states["copy"], states["sku_id"]]).diff().dropna()
        assert (step >= -1e-9).all(), name
        assert (step > 0).any(), name


def test_only_the_states_asked_for_are_kept_and_all_that_really_was():
    with known(*market()) as (history, rates):
        kept, whole = state_features(history, rates, (2, 5)), state_features(history, rates)
    after = (whole["age_share"].astype(float) * TRIAL_ROUNDS).round(6)
    wanted = whole[(whole["copy"] < 0) | after.isin([2, 5])].reset_index(drop=True)
    assert 0 < len(wanted) < len(whole)
    pd.testing.assert_frame_equal(kept, wanted)


def test_what_really_was_is_as_without_any_trial():
    signals, skus = market()
    with known(signals, skus) as (history, rates):
        real = features(history.con, rates)
        table = state_features(history, rates)
        mine = table[table["copy"] < 0].drop(columns="copy")[real.columns]
        pd.testing.assert_frame_equal(mine, real, check_dtype=False)
        # Asked again, the same trials are told.
        pd.testing.assert_frame_equal(state_features(history, rates), table)


def test_rows_in_any_order_and_later_rows_play_the_same_tests():
    signals, skus = market()
    moment = skus["launched_at"].max() + pd.Timedelta(days=14)
    assert (signals["known_at"] > moment).any()
    now = signals[signals["known_at"] <= moment].sample(frac=1, random_state=0)
    with known(now, skus.sample(frac=1, random_state=1)) as (history, rates):
        pd.testing.assert_frame_equal(state_features(history, rates), played()[0], check_exact=True)


# ---------------------------------------- where nothing is played


@pytest.mark.parametrize("counts", [["clicks", "orders", "revenue"], ["impressions", "clicks", "revenue"]])
def test_without_impressions_or_with_money_but_no_orders_no_test_is_played_again(counts):
    signals, skus = market()
    with known(signals[[*KEYS, *counts]], skus) as (history, rates):
        assert history.trial is None
        table = state_features(history, rates)
        assert (table["copy"] == -1).all()
        train = examples_of(history, table, set(history.labels["sku_id"]))
        assert (train.trial == -1).all()


def test_what_came_after_a_test_is_in_none_of_its_states():
    signals, skus = market()
    launch = signals["sku_id"].map(skus.set_index("sku_id")["launched_at"])
    after = signals["period_start"] >= launch + pd.Timedelta(days=7)
    assert after.any()
    huge = signals.assign(clicks=signals["clicks"].where(~after, signals["impressions"]))
    with known(huge, skus) as (history, rates):
        table = state_features(history, rates)
        states = table[table["copy"] >= 0].reset_index(drop=True)
        pd.testing.assert_frame_equal(states, thinned(), check_exact=True)


def test_any_id_that_is_admitted_can_be_played_again():
    signals, skus = market()
    odd = {sku: sku.replace("K", "K\x1f") for sku in skus["sku_id"]}
    with known(
        signals.assign(sku_id=signals["sku_id"].map(odd).fillna("stray")).drop_duplicates(KEYS),
        skus.assign(sku_id=skus["sku_id"].map(odd)),
    ) as (history, rates):
        table = state_features(history, rates)
    assert set(table["sku_id"]) <= set(odd.values())
    assert set(table["copy"]) == {-1, *range(len(TRIAL_BUDGETS))}


# ---------------------------------------- moments, and too little


@pytest.fixture
def newest():
    """Return a connection whose signals were known on a day, and one far ahead of the clock."""
    con = open_warehouse(threads=1)
    con.execute("create temp table signals (known_at timestamp)")
    con.execute("insert into signals values ('2025-02-01'), ('2025-03-01'), ('2199-01-01')")
    yield con
    con.close()


def test_the_moment_is_the_newest_signal_that_the_clock_has_reached(newest):
    assert moment_of_knowledge(newest, None) == pd.Timestamp("2025-03-01")
    newest.execute("delete from signals")
    with pytest.raises(NotEnoughHistoryError, match="give signals or the moment as_of"):
        moment_of_knowledge(newest, None)


def test_a_moment_is_utc_whatever_its_zone(newest):
    for given in (
        "2025-01-06T10:00",
        "2025-01-06T18:00+08:00",
        pd.Timestamp("2025-01-06T05:00", tz="America/New_York"),
    ):
        assert moment_of_knowledge(newest, given) == pd.Timestamp("2025-01-06T10:00")
    for given in ("soon", pd.NaT, float("nan"), [1]):
        with pytest.raises(DataError, match="as_of: expected a moment") as caught:
            moment_of_knowledge(newest, given)
        assert "\n" not in str(caught.value)


def test_too_little_history_is_refused_in_one_line():
    signals, skus = market()
    first = skus[skus["batch_id"] == skus["batch_id"].min()]
    few = signals[signals["sku_id"].isin(first["sku_id"])]
    said = pytest.raises(NotEnoughHistoryError, match=r"16 SKUs with a closed outcome window")
    with said as caught, known(few, first, moment=pd.Timestamp("2025-06-01")):
        pass
    assert "\n" not in str(caught.value)
