"""Splits: forward in time by batch with an embargo, and blocks of launches for out-of-fold margins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["Fold", "block_folds", "forward_folds"]


@dataclass(frozen=True)
class Fold:
    """SKUs to learn from and SKUs to be judged on; no outcome of the first was open when the second launched."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def forward_folds(labels: pd.DataFrame, n_folds: int, *, min_train: int, min_hits: int) -> list[Fold]:
    """Split labelled SKUs forward in time.

    Batches are ordered by their first launch and the later ones cut into `n_folds` test blocks. The group that hits are
    taken in is another matter: a category lasts for years, and none would be later than another. A block is
    learned for from SKUs whose outcome was known when the block's first SKU was launched: the embargo is the test and
    the outcome window together, so nothing that a test SKU did, or that was being learned meanwhile, is seen.

    Parameters
    ----------
    labels
        `sku_id, batch, launched_at, known_at, hit`; see `labels.label`.
    n_folds
        At most this many test blocks.
    min_train, min_hits
        A fold with fewer SKUs, or fewer hits among them, to learn from is left out.

    Returns
    -------
    list of Fold
        Oldest first; empty where the history is too short for any.
    """
    first = labels.groupby("batch")["launched_at"].min().sort_values(kind="stable")
    order = pd.Series(np.arange(len(first)), index=first.index)
    position = labels["batch"].map(order)
    feasible = []
    for place, start in enumerate(first):
        known = labels[labels["known_at"] <= start]
        if len(known) >= min_train and known["hit"].sum() >= min_hits:
            feasible.append(place)
    folds = []
    for block in np.array_split(np.asarray(feasible), min(n_folds, max(len(feasible), 1))):
        if len(block) == 0:
            continue
        test = labels[position.isin(block)]
        train = labels[labels["known_at"] <= test["launched_at"].min()]
        # A batch is learned from or tested on, never both, even if it launched for long.
        train = train[~train["batch"].isin(test["batch"])]
        if len(train) >= min_train and train["hit"].sum() >= min_hits:
            folds.append(Fold(tuple(train["sku_id"]), tuple(test["sku_id"])))
    return folds


def block_folds(labels: pd.DataFrame, n_folds: int) -> npt.NDArray[np.int64]:
    """Cut labelled SKUs into blocks of neighbouring launches, whole batches where there are enough of them.

    Parameters
    ----------
    labels
        `batch, launched_at`.
    n_folds
        How many blocks are wanted.

    Returns
    -------
    array of int, one fold per row of `labels`
        Every SKU launched at one moment is in one block; so is every batch where there are at least `n_folds`.
    """
    first = labels.groupby("batch")["launched_at"].transform("min")
    key = first if labels["batch"].nunique() >= n_folds else labels["launched_at"]
    moments = key.map({moment: i for i, moment in enumerate(sorted(key.unique()))}).to_numpy()
    sizes = np.bincount(moments)
    middle = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    fold_of: npt.NDArray[np.int64] = np.minimum((middle * n_folds).astype(np.int64), n_folds - 1)
    return np.asarray(fold_of[moments], dtype=np.int64)
