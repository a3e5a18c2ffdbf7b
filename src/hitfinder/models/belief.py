"""Belief: what a running test has shown of each SKU so far, and how far that may still move.

The expected standing is the prior's score of the shrunk rates alone: no title, no calendar, nothing that a
round can't tell. Its doubt comes from the rates' pooling: a posterior mean moves, until the end of the test, by as much
as its variance shrinks (law of total variance), so one factor turns pseudo-exposures into a standard deviation of
the score, and history says how large it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.models.linear import LinearPrior
from hitfinder.models.prior import fit_prior

__all__ = ["Belief", "fit_belief", "unseen_mean"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Belief:
    """A score of `columns`, and its doubt from the spread of each of `rates`.

    Attributes
    ----------
    columns
        Views of the rates that the score reads.
    prior
        The score.
    rates
        The rates behind it.
    factor
        Standard deviation of the score per unit of spread and slope.
    """

    columns: tuple[str, ...]
    prior: LinearPrior
    rates: tuple[str, ...]
    factor: float

    def mean(self, table: pd.DataFrame) -> Array:
        """Return the expected normal score of each row's standing in its batch."""
        return self.prior.score(_matrix(table, self.columns))

    def doubt(self, table: pd.DataFrame) -> Array:
        """Return the standard deviation of what is not known yet of each row's score."""
        return self.factor * np.sqrt(self._spread(table))

    def _spread(self, table: pd.DataFrame) -> Array:
        """Return the sum over the rates of (slope of the score in the rate's logarithm x spread) squared."""
        X = _matrix(table, self.columns)
        weights = self.prior.weights(X) / self.prior.scale
        slopes = np.zeros((len(table), len(self.rates)))
        for place, name in enumerate(self.columns):
            slopes[:, self.rates.index(name.rsplit(".", 1)[0])] += weights[:, place]
        spread = np.nan_to_num(_matrix(table, tuple(f"{rate}.spread" for rate in self.rates)), nan=1.0)
        squared: Array = ((spread * slopes) ** 2).sum(axis=1)
        return squared

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "columns": list(self.columns),
            "prior": self.prior.to_dict(),
            "rates": list(self.rates),
            "factor": self.factor,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Belief:
        """Undo `to_dict`."""
        prior = LinearPrior.from_dict(values["prior"])
        return cls(tuple(values["columns"]), prior, tuple(values["rates"]), float(values["factor"]))


def fit_belief(
    table: pd.DataFrame,
    sku: npt.NDArray[Any],
    standing: Array,
    weight: Array,
    folds: npt.NDArray[np.int64],
    lists: npt.NDArray[np.int64],
    rates: list[str],
    anchor: Mapping[str, float],
    funnel: list[str],
) -> Belief:
    """Fit the score on the outcome, and its doubt on how scores moved until the end of the test.

    Parameters
    ----------
    table
        Features, one row per SKU and state of its test.
    sku
        The SKU of each row; its last state is the one with the least spread.
    standing, weight, folds, lists
        One per row; see `fit_prior`. All ranks are learned from: how much a SKU will sell is asked of the low ones too.
    rates
        The measured rates.
    anchor, funnel
        The weights of the levels in one sum that the score departs from, and the levels of the other.
    """
    views = [f"{rate}.{view}" for rate in rates for view in ("level", "lead")]
    columns = (*views, *_unknown(funnel))
    prior, _ = fit_prior(
        _matrix(table, columns), standing, weight, folds, lists=lists, **_places(columns, anchor, funnel)
    )
    belief = Belief(columns, prior, tuple(rates), 1.0)
    score, spread = belief.mean(table), belief._spread(table)
    # What moves a whole list is not what tells its SKUs apart.
    score = score - pd.Series(score).groupby(lists).transform("mean").to_numpy()
    shown = _matrix(table, tuple(f"{rate}.spread" for rate in rates))
    rows = pd.DataFrame(
        {
            "sku": sku,
            "score": score,
            "spread": spread,
            "weight": weight,
            "left": np.nan_to_num(shown, nan=1.0).sum(axis=1),
        }
    )
    # The state of which most was known, whatever the score makes of it.
    last = rows.sort_values("left", kind="stable").drop_duplicates("sku").set_index("sku").reindex(rows["sku"])
    shrunk = np.maximum(rows["spread"].to_numpy() - last["spread"].to_numpy(), 0.0)
    moved = (rows["score"].to_numpy() - last["score"].to_numpy()) ** 2
    total = float((weight * shrunk).sum())
    return Belief(columns, prior, tuple(rates), float(np.sqrt((weight * moved).sum() / total)) if total > 0 else 0.0)


def unseen_mean(
    belief: Belief,
    table: pd.DataFrame,
    standing: Array,
    weight: Array,
    folds: npt.NDArray[np.int64],
    lists: npt.NDArray[np.int64],
    anchor: Mapping[str, float],
    funnel: list[str],
) -> Array:
    """Return what `belief.mean` would say of rows whose fold it had not been fitted on; see `fit_belief`."""
    X, places = _matrix(table, belief.columns), _places(belief.columns, anchor, funnel)
    return fit_prior(X, standing, weight, folds, lists=lists, **places)[1]


def _unknown(funnel: list[str]) -> list[str]:
    """Return the columns that tell how far each step of the funnel, given by its level, is not known yet."""
    return [name.replace(".level", ".unknown") for name in funnel]


def _places(columns: tuple[str, ...], anchor: Mapping[str, float], funnel: list[str]) -> dict[str, Any]:
    """Return the weights and places of the columns that the score is pulled towards; see `fit_prior`."""
    named = {"funnel": funnel, "unknown": _unknown(funnel)}
    places: dict[str, Any] = {what: [columns.index(name) for name in names] for what, names in named.items()}
    return places | {"anchor": [anchor.get(name, 0.0) for name in columns]}


def _matrix(table: pd.DataFrame, columns: tuple[str, ...]) -> Array:
    return table.reindex(columns=list(columns)).to_numpy(dtype=np.float64, na_value=np.nan)
