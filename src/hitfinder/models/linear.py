"""A linear score of standardised columns, some of which fade as more gets known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LinearPrior", "fade"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LinearPrior:
    """`score(X)`: expected normal score of a SKU's standing in its batch; missing features count as average.

    Attributes
    ----------
    mean, scale
        Of each column, in training.
    coefficients
        Of the standardised columns. With `unknown` they fade as the funnel gets known.
    intercept
        The score where everything is average.
    lasting
        Coefficients that hold however much is known, added to those; None where nothing fades.
    unknown
        The columns that hold, for each step of the funnel, the share of its variance that is not known yet, in [0, 1];
        empty where nothing fades.
    """

    mean: Array
    scale: Array
    coefficients: Array
    intercept: float
    lasting: Array | None = None
    unknown: tuple[int, ...] = ()

    def standardised(self, X: Array) -> Array:
        """Return features as deviations from the training mean, NaN as 0; same shape as `X`.

        They are not cut: rates come as logs, and in a season of bigger numbers than any before the best must still
        stand above the good.
        """
        return np.nan_to_num((X - self.mean) / self.scale, nan=0.0)

    def score(self, X: Array) -> Array:
        """Return one score per row of `X`, higher is better."""
        # Summed row by row, so that a SKU's score does not depend on which others are scored beside it.
        scores: Array = self.effects(X).sum(axis=1) + self.intercept
        return scores

    def effects(self, X: Array) -> Array:
        """Return what each column adds to each row's score, shape of `X`."""
        added: Array = self.standardised(X) * self.weights(X)
        return added

    def weights(self, X: Array) -> Array:
        """Return the coefficient of each standardised column in each row, shape of `X`."""
        faded: Array = fade(X, self.unknown) * self.coefficients
        return faded if self.lasting is None else faded + self.lasting

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "coefficients": self.coefficients.tolist(),
            "intercept": self.intercept,
            "lasting": None if self.lasting is None else self.lasting.tolist(),
            "unknown": list(self.unknown),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LinearPrior:
        """Undo `to_dict`."""
        mean, scale, coefficients = (
            np.asarray(values[name], dtype=float) for name in ("mean", "scale", "coefficients")
        )
        lasting = values.get("lasting")
        return cls(
            mean,
            scale,
            coefficients,
            float(values["intercept"]),
            None if lasting is None else np.asarray(lasting, dtype=float),
            tuple(values.get("unknown", ())),
        )


def fade(X: Array, unknown: Sequence[int]) -> Array:
    """Return what the coefficients that fade are to be multiplied by in each row, shape (rows, 1)."""
    if len(unknown) == 0:
        return np.ones((len(X), 1))
    share = np.clip(np.nan_to_num(X[:, list(unknown)], nan=1.0), 0.0, 1.0).mean(axis=1, keepdims=True)
    root: Array = np.sqrt(share)
    return root
