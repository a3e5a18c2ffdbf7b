"""Splits: forward in time with an embargo, and blocks of launches."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from hitfinder.cohorts import block_folds, forward_folds

MONDAY = pd.Timestamp("2025-01-06")
DAY = pd.Timedelta(days=1)
OUTCOME_KNOWN = 35 * DAY  # test and outcome window


@st.composite
def labels(draw, max_groups=30):
    """Draw labels as `labels.label` returns them: groups of many sizes, some launched over weeks, in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31 - 1)))
    rows = []
    spread = draw(st.sampled_from([0, 3, 60]))
    for group in range(draw(st.integers(1, max_groups))):
        start = MONDAY + int(rng.integers(0, 300)) * DAY
        for i in range(int(rng.integers(1, 12))):
            launched = start + int(rng.integers(0, spread + 1)) * DAY
            rows.append((f"{group}-{i}", f"group {group}", launched, launched + OUTCOME_KNOWN, rng.random() < 0.3))
    table = pd.DataFrame(rows, columns=["sku_id", "batch", "launched_at", "known_at", "hit"])
    if draw(st.booleans()):  # given outcomes are known when they are known
        table["known_at"] += pd.to_timedelta(rng.integers(0, 90, len(table)), unit="D")
    return table.sort_values(["launched_at", "sku_id"], ignore_index=True)


@effort(max_examples=40, deadline=None)
@given(table=labels(), n_folds=st.integers(2, 8), min_train=st.integers(1, 40), min_hits=st.integers(0, 5))
def test_forward_folds_keep_their_promises(table, n_folds, min_train, min_hits):
    folds = forward_folds(table, n_folds, min_train=min_train, min_hits=min_hits)
    by_id = table.set_index("sku_id")
    assert len(folds) <= n_folds
    tested_groups, last_start = set(), None
    for fold in folds:
        train, test = by_id.loc[list(fold.train)], by_id.loc[list(fold.test)]
        groups = set(test["batch"])
        start = test["launched_at"].min()
        # Nothing to learn from was still open when the first test SKU was launched.
        assert (train["known_at"] <= start).all()
        assert (start - train["launched_at"]).min() >= OUTCOME_KNOWN
        assert not set(fold.train) & set(fold.test)
        assert not set(train["batch"]) & groups
        # Groups are tested whole, each once, and in their order.
        assert len(test) == table["batch"].isin(groups).sum()
        assert not groups & tested_groups
        assert last_start is None or start >= last_start
        assert len(train) >= min_train
        assert train["hit"].sum() >= min_hits
        # Everything that could be learned from is there.
        able = (by_id["known_at"] <= start) & ~by_id["batch"].isin(groups)
        assert set(fold.train) == set(by_id.index[able])
        tested_groups |= groups
        last_start = start


@effort(max_examples=40, deadline=None)
@given(table=labels())
def test_forward_folds_test_every_group_with_enough_behind_it(table):
    assume(table["batch"].nunique() > 2)
    folds = forward_folds(table, 3, min_train=1, min_hits=0)
    tested = {sku for fold in folds for sku in fold.test}
    first = table.groupby("batch")["launched_at"].min()
    able = {group for group, start in first.items() if (table["known_at"] <= start).any()}
    assert tested == set(table.loc[table["batch"].isin(able), "sku_id"])


@effort(max_examples=40, deadline=None)
@given(table=labels(), seed=st.integers(0, 2**31 - 1))
def test_forward_folds_do_not_depend_on_the_order_of_rows_where_no_two_groups_start_at_once(table, seed):
    assume(table.groupby("batch")["launched_at"].min().is_unique)
    shuffled = table.sample(frac=1, random_state=seed)
    sets = [
        [(set(f.train), set(f.test)) for f in forward_folds(t, 4, min_train=5, min_hits=1)] for t in (table, shuffled)
    ]
    assert sets[0] == sets[1]


def twenty_weeks():
    """Ten SKUs a week, the first of each week a hit."""
    weeks = 20
    table = pd.DataFrame({"launched_at": np.repeat([MONDAY + 7 * w * DAY for w in range(weeks)], 10)})
    table["sku_id"] = [f"s{i}" for i in range(len(table))]
    table["batch"] = table["launched_at"].astype(str)
    table["known_at"], table["hit"] = table["launched_at"] + OUTCOME_KNOWN, np.arange(len(table)) % 10 == 0
    return table


def test_forward_folds_cut_the_later_groups_into_as_many_blocks_as_are_wanted():
    table = twenty_weeks()
    folds = forward_folds(table, 4, min_train=10, min_hits=1)
    # The first week's outcome is known after five weeks: 15 weeks are left.
    assert [len(fold.test) for fold in folds] == [40, 40, 40, 30]
    assert [len(fold.train) for fold in folds] == [10, 50, 90, 130]


def test_groups_of_hits_that_last_for_all_weeks_do_not_keep_batches_from_being_split_in_time():
    table = twenty_weeks()
    by_batch = forward_folds(table, 4, min_train=10, min_hits=1)
    lasting = table.assign(within_group=np.arange(len(table)) % 3)
    assert forward_folds(lasting, 4, min_train=10, min_hits=1) == by_batch
    assert len(by_batch) == 4
    np.testing.assert_array_equal(block_folds(lasting, 4), block_folds(table, 4))


def test_a_short_history_gives_no_forward_fold():
    table = pd.DataFrame({"sku_id": ["a", "b"], "batch": ["x", "y"], "launched_at": [MONDAY, MONDAY + DAY]})
    table["known_at"], table["hit"] = table["launched_at"] + OUTCOME_KNOWN, True
    assert forward_folds(table, 5, min_train=1, min_hits=0) == []
    assert forward_folds(table.iloc[:0], 5, min_train=1, min_hits=0) == []


@effort(max_examples=40, deadline=None)
@given(table=labels(), n_folds=st.integers(2, 8))
def test_blocks_hold_neighbouring_launches_and_whole_groups_where_there_are_enough(table, n_folds):
    folds = block_folds(table, n_folds)
    assert len(folds) == len(table)
    assert set(folds) <= set(range(n_folds))
    many = table["batch"].nunique() >= n_folds
    first = table.groupby("batch")["launched_at"].transform("min")
    key = first if many else table["launched_at"]
    assert len(set(zip(key, folds, strict=True))) == key.nunique()
    ordered = folds[np.argsort(key.to_numpy(), kind="stable")]
    assert (np.diff(ordered) >= 0).all()


@effort(max_examples=40, deadline=None)
@given(table=labels(), n_folds=st.integers(2, 8), seed=st.integers(0, 2**31 - 1))
def test_blocks_do_not_depend_on_the_order_of_rows(table, n_folds, seed):
    shuffled = table.sample(frac=1, random_state=seed)
    np.testing.assert_array_equal(block_folds(shuffled, n_folds), block_folds(table, n_folds)[shuffled.index])


@pytest.mark.parametrize(("n_groups", "n_folds"), [(10, 5), (5, 5), (12, 3)])
def test_blocks_of_equal_groups_are_of_equal_size(n_groups, n_folds):
    table = pd.DataFrame({"launched_at": np.repeat([MONDAY + g * DAY for g in range(n_groups)], 6)})
    table["batch"] = table["launched_at"].astype(str)
    assert len(set(np.bincount(block_folds(table, n_folds)))) == 1
    assert len(set(block_folds(table, n_folds))) == n_folds


def test_splits_leave_the_labels_as_they_were():
    table = pd.DataFrame({"sku_id": ["a", "b"], "batch": ["x", "y"], "launched_at": [MONDAY, MONDAY + 99 * DAY]})
    table["known_at"], table["hit"] = table["launched_at"] + OUTCOME_KNOWN, True
    before = table.copy()
    forward_folds(table, 3, min_train=1, min_hits=0)
    block_folds(table, 2)
    pd.testing.assert_frame_equal(table, before)
