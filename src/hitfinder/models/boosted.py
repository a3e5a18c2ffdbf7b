"""Boosting from a prior: LightGBM trees that start from the prior's log odds and correct it where the data insist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from hitfinder.settings import TreeSettings

__all__ = ["BinnedRows", "Boosted", "correction_by", "fit_boosted", "tree_parameters"]

Array = npt.NDArray[np.float64]

# What is not for tuning.
FIXED: dict[str, Any] = {
    "bagging_freq": 1,
    "min_sum_hessian_in_leaf": 1e-3,
    "deterministic": True,
    "force_row_wise": True,  # with `deterministic`: the same trees on one thread and on many
    "num_threads": 1,
    # Else LightGBM drops, while it bins, the features that no leaf of the size asked for then could split: the bins
    # would belong to one size of leaf.
    "feature_pre_filter": False,
    "verbose": -1,
}


@dataclass(frozen=True)
class Boosted:
    """An average of boosted corrections, one per seed, as LightGBM's own text."""

    texts: tuple[str, ...]

    def boosters(self) -> list[Any]:
        """Return the live boosters; parse them once and keep them where speed matters."""
        return [lgb.Booster(model_str=text) for text in self.texts]

    def correction(self, X: Array) -> Array:
        """Return what the trees add to the start of each row."""
        return correction_by(self.boosters(), X)


def correction_by(boosters: Sequence[Any], X: Array) -> Array:
    """Return the mean of what live boosters add to the start of each row."""
    if not boosters:
        return np.zeros(len(X))
    # One thread: a list has a few hundred rows, and waking threads takes longer than the trees.
    return np.asarray(np.mean([b.predict(X, raw_score=True, num_threads=1) for b in boosters], axis=0))


class BinnedRows:
    """Rows in LightGBM's bins: built once, learned from as often as wanted, by several threads at a time as well.

    Parameters
    ----------
    X, y, weight
        Features (NaN where not measured), 1 for a hit, sample weights.
    start
        Log odds (or, for ranking, scores) of the prior for each row, out of fold.
    lists
        The list that each row belongs to: with it, the trees learn to rank within lists (lambdarank).
    """

    def __init__(
        self, X: Array, y: Array, weight: Array, start: Array, *, lists: npt.NDArray[np.int64] | None = None
    ) -> None:
        order, group = np.arange(len(y)), None
        if lists is not None:
            order = np.argsort(lists, kind="stable")
            group = np.unique(lists[order], return_counts=True)[1]
        self._ranks = lists is not None
        # The raw rows are let go of: LightGBM keeps them only to bin them again where settings ask for other bins, and
        # here that has to be an error.
        self._data = lgb.Dataset(
            X[order], y[order], weight=weight[order], init_score=start[order], group=group, params=dict(FIXED)
        ).construct()

    def fit(
        self, trees: Mapping[str, Any] | None = None, *, monotone: list[int], seed: int, rows_per_sku: float
    ) -> str:
        """Fit one set of corrections to the start, on one thread; return LightGBM's text. See `fit_boosted`."""
        chosen = TreeSettings.model_validate(dict(trees or {}))
        parameters = tree_parameters(chosen, monotone=monotone, seed=seed, rows_per_sku=rows_per_sku)
        if self._ranks:
            parameters.update(objective="lambdarank", lambdarank_truncation_level=20)
        text: str = lgb.train(parameters, self._data, num_boost_round=chosen.rounds).model_to_string()
        return text


def fit_boosted(
    X: Array,
    y: Array,
    weight: Array,
    start: Array,
    *,
    monotone: list[int],
    seed: int,
    rows_per_sku: float,
    trees: Mapping[str, Any] | None = None,
    lists: npt.NDArray[np.int64] | None = None,
) -> str:
    """Fit one set of corrections to `start`, on one thread; return LightGBM's text.

    Several are fitted side by side by the caller: on data of this size threads inside LightGBM wait for each other
    longer than they work, most of all where the machine is busy.

    Parameters
    ----------
    X, y, weight
        Features (NaN where not measured), 1 for a hit, sample weights.
    start
        Log odds (or, for ranking, scores) of the prior for each row, out of fold.
    monotone
        1 for each feature of which more can't be worse, else 0.
    rows_per_sku
        Rows that share one SKU's weight.
    trees
        Fields of `TreeSettings`; default: its defaults.
    lists
        The list that each row belongs to: with it, the trees learn to rank within lists (lambdarank).
    """
    rows = BinnedRows(X, y, weight, start, lists=lists)
    return rows.fit(trees, monotone=monotone, seed=seed, rows_per_sku=rows_per_sku)


def tree_parameters(trees: TreeSettings, *, monotone: list[int], seed: int, rows_per_sku: float) -> dict[str, Any]:
    """Return LightGBM's parameters, but for the number of rounds."""
    return {
        **FIXED,
        **trees.model_dump(
            include={"learning_rate", "num_leaves", "lambda_l2", "feature_fraction", "bagging_fraction"}
        ),
        "objective": "binary",
        "monotone_constraints": monotone,
        "min_data_in_leaf": max(10, int(trees.min_skus_in_leaf * rows_per_sku)),
        "seed": seed % 2**31,
    }
