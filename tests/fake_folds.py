"""Folds to tune on that need no market: of plain rows, or of a figure that is told."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd

from hitfinder.models.boosted import BinnedRows
from hitfinder.settings import parse_settings
from hitfinder.tuning.folds import JudgedList, TuningFold

SETTINGS = parse_settings({"model": {"seeds": 2}})


class ToldFold:
    """A fold whose batches are worth what `value` says of the settings, each with a difficulty of its own."""

    def __init__(self, value, *, batches=6, seed=0, noise=0.0, seconds=0.0):
        self.about = {"batches": batches}
        self.value, self.noise, self.seconds, self.seed = value, noise, seconds, seed
        self.hard = np.random.default_rng(seed).uniform(0, 0.3, batches)
        self.asked = 0

    def value_at_k(self, trees, members=(0,)):
        self.asked += 1
        time.sleep(self.seconds)
        # Luck that belongs to the settings, as that of a season does: the same whenever they are tried.
        own = abs(hash(tuple(trees.model_dump().values()))) % 2**32
        draw = np.random.default_rng([own, members[0], self.seed])
        return pd.Series(self.hard + self.value(trees) + draw.normal(0, self.noise, len(self.hard)))


def told_folds(value, newest=None, **options):
    """Three folds to search on and the newest, of the same figure unless `newest` tells another."""
    return [ToldFold(value, seed=n, **options) for n in range(3)] + [ToldFold(newest or value, seed=3, **options)]


def smooth(trees):
    """Best at a learning rate of 0.1 and 12 leaves."""
    return 0.5 - 0.1 * abs(np.log(trees.learning_rate / 0.1)) - 0.05 * abs(np.log(trees.num_leaves / 12))


def plain_fold(seed, rows=400, columns=6):
    """A fold of plain rows in which trees find what the prior does not know."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows + 96, columns))
    X[rng.random(X.shape) < 0.1] = np.nan
    known = np.nan_to_num(X)
    worth = known[:, 0] + 2 * (known[:, 1] > 0) * (known[:, 2] > 0) + rng.normal(0, 0.5, len(X))
    hit, start = (worth > 2).astype(float), known[:, 0] - 1
    batches = [np.arange(12) + 12 * n for n in range(8)]
    judged, value = hit[rows:], np.exp(worth[rows:])
    lists = []
    for n, batch in enumerate(batches):
        k = min(max(int(judged[batch].sum()), 1), 11)
        lists.append(JudgedList(f"b{n}", batch, value[batch] / np.sort(value[batch])[::-1][:k].sum(), k))
    return TuningFold(
        rows=BinnedRows(X[:rows], hit[:rows], np.full(rows, 0.5), start[:rows]),
        X=X[rows:],
        start=start[rows:],
        lists=tuple(lists),
        monotone=[0] * columns,
        rows_per_sku=2.0,
        seed=0,
        about={"batches": len(lists)},
    )
