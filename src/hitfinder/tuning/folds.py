"""Folds to tune on: forward in time with an embargo; all that no trial changes is made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.cohorts import Fold, forward_folds
from hitfinder.history import History, examples_of, with_trials
from hitfinder.metrics import chance_of_top, list_metrics
from hitfinder.models.boosted import BinnedRows, Boosted
from hitfinder.settings import TreeSettings
from hitfinder.training import JUDGE_STATES, MIN_FOLD_HITS, MIN_FOLD_SKUS, fit_estimator, prepare

__all__ = ["TuningFold", "make_fold", "tuning_folds"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class JudgedList:
    """A list that can be judged: which rows stand on it, and each row's share of what its k best are worth."""

    batch: str
    rows: npt.NDArray[np.int64]
    value: Array
    k: int


@dataclass(frozen=True)
class TuningFold:
    """SKUs to learn from, in bins, and lists of later SKUs to be judged on.

    `start` is the prior's margin of the judged rows `X`.
    """

    rows: BinnedRows
    X: Array
    start: Array
    lists: tuple[JudgedList, ...]
    monotone: list[int]
    rows_per_sku: float
    seed: int
    about: Mapping[str, Any]

    def margin(self, trees: TreeSettings, members: Sequence[int] = (0,)) -> Array:
        """Return the margins of the judged rows by the mean of boosted members with these trees."""
        texts = tuple(
            self.rows.fit(
                trees.model_dump(), monotone=self.monotone, seed=self.seed * 1009 + n, rows_per_sku=self.rows_per_sku
            )
            for n in members
        )
        return np.asarray(self.start + Boosted(texts).correction(self.X))

    def value_at_k(self, trees: TreeSettings, members: Sequence[int] = (0,)) -> pd.Series:
        """Return the value captured at k by such a model: one figure per batch, the mean of its lists."""
        margin = self.margin(trees, members)
        captured = [(chance_of_top(margin[one.rows], one.k) * one.value).sum() for one in self.lists]
        return pd.Series(captured).groupby([one.batch for one in self.lists]).mean()


def tuning_folds(history: History) -> list[TuningFold]:
    """Return the folds in which at least one batch can be judged, oldest first."""
    found = forward_folds(history.labels, history.settings.model.folds, min_train=MIN_FOLD_SKUS, min_hits=MIN_FOLD_HITS)
    made = (make_fold(history, fold) for fold in found)
    return [fold for fold in made if fold is not None]


def make_fold(history: History, fold: Fold) -> TuningFold | None:
    """Make all of a fold that no trial changes; None where no list of it can be judged.

    What it learns from is made of its own past alone: tests that are played again spend by a belief fitted on the SKUs
    that the fold may learn from, not on all that is known today.
    """
    labels, known = history.labels, set(fold.train)
    past = with_trials(
        replace(
            history,
            labels=labels[labels["sku_id"].isin(known)].reset_index(drop=True),
            pairs=history.pairs[history.pairs["sku_id"].isin(known)],
            trial=None,
            copied=None,
        )
    )
    try:
        model, table, train = prepare(past, known, states=JUDGE_STATES)
    finally:
        past.close()
    test = examples_of(history, table[table["copy"] < 0], set(fold.test))
    seen = test.table["age_days"].to_numpy() > 0
    lists = _judged_lists(
        test.table.loc[seen, "as_of"], test.table.loc[seen, "batch_id"], test.hit[seen], test.value[seen]
    )
    if not lists:
        return None
    prior = fit_estimator(past, model.design, train, "prior", seeds=1)
    X, rows = model.design.matrix(test.table)[seen], model.design.matrix(train.table)
    launched = labels.loc[labels["sku_id"].isin(fold.test), "launched_at"]
    return TuningFold(
        rows=BinnedRows(rows, train.hit, train.weight, prior.oof_margin_),
        X=X,
        start=prior.margin(X),
        lists=lists,
        monotone=model.design.monotone,
        rows_per_sku=len(rows) / max(float(train.weight.sum()), 1.0),
        seed=history.settings.seed,
        about={
            "batches": len({one.batch for one in lists}),
            "learned_from": len(known),
            "judged": len(fold.test),
            "first_launch": launched.min().isoformat(),
            "last_launch": launched.max().isoformat(),
        },
    )


def _judged_lists(as_of: pd.Series, batch: pd.Series, hit: Array, value: Array) -> tuple[JudgedList, ...]:
    """Return the lists that `list_metrics` measures, ready to be measured many times."""
    names = pd.DataFrame({"as_of": as_of.to_numpy(), "batch": batch.astype(str).to_numpy()})
    number = names.groupby(["as_of", "batch"]).ngroup().to_numpy()
    measured = list_metrics(number, hit, value, np.zeros(len(hit)))["value_at_k"].dropna()
    lists = []
    for name in measured.index:
        rows = np.flatnonzero(number == name)
        k, worth = int(hit[rows].sum()), np.maximum(value[rows], 0.0)
        lists.append(JudgedList(names["batch"].iloc[rows[0]], rows, worth / np.sort(worth)[::-1][:k].sum(), k))
    return tuple(lists)
