"""Boosting from a prior: LightGBM trees that start from the prior's log odds and correct it where the data insist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from hitfinder.settings import TreeSettings

__all__ = ["Boosted", "fit_boosted", "tree_parameters"]

Array = npt.NDArray[np.float64]

# What is not for tuning.
FIXED: dict[str, Any] = {
    "bagging_freq": 1,
    "min_sum_hessian_in_leaf": 1e-3,
    "deterministic": True,
    "force_row_wise": True,  # with `deterministic`: the same trees on one thread and on many
    "num_threads": 1,
    "verbose": -1,
}


@dataclass(frozen=True)
class Boosted:
    """An average of boosted corrections, one per seed, as LightGBM's own text."""

    texts: tuple[str, ...]

    def boosters(self) -> list[Any]:
        """Return the live boosters; parse them once and keep them where speed matters."""
        return [lgb.Booster(model_str=text) for text in self.texts]


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
    chosen = TreeSettings.model_validate(dict(trees or {}))
    parameters = tree_parameters(chosen, monotone=monotone, seed=seed, rows_per_sku=rows_per_sku)
    order, group = np.arange(len(y)), None
    if lists is not None:
        order = np.argsort(lists, kind="stable")
        group = np.unique(lists[order], return_counts=True)[1]
        parameters.update(objective="lambdarank", lambdarank_truncation_level=20)
    data = lgb.Dataset(X[order], y[order], weight=weight[order], init_score=start[order], group=group)
    text: str = lgb.train(parameters, data, num_boost_round=chosen.rounds).model_to_string()
    return text


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
