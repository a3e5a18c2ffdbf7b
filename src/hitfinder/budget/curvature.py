"""How soon returns diminish: learned from lines on which spend varied, else pooled, else a stated default.

A line's value is ``slope * half * log(1 + x / half)``. `half` is a multiple of the line's own typical spend, one
multiple per channel. With slopes profiled out, only how a line's value is spread over its weeks speaks: a multinomial
likelihood, with the weeks' common ups and downs as factors near 1. Where no line's spend varied it is flat and the
default stays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["GRID", "effective", "fit_curvature", "typical"]

Array = npt.NDArray[np.float64]

# Multiples tried: from "half as good after an eighth of what is spent now" to "straight as far as anyone can see".
GRID = np.geomspace(0.125, 64, 28)
# How far a channel may be from all channels, and all channels from the default, in log multiples (normal, sd).
CHANNEL_SD, DEFAULT_SD = 0.7, 1.0
# A week's factor is believed to be within 10 % of 1.
WEEK_PRECISION = 100.0
WEEK_ROUNDS = 12
# Weeks of spend that a line must have for its ups and downs to count.
MIN_WEEKS = 3
# The best multiple has to be so much likelier than the worst before anything counts as learned.
EVIDENCE = 2.0


def effective(spend: Array, half: Array) -> Array:
    """Return spend as it would be without diminishing returns, shape (lines, weeks); `half` has shape (lines,).

    >>> effective(np.array([[100.0]]), np.array([100.0])).round(2).tolist()
    [[69.31]]
    """
    return np.asarray(half[:, None] * np.log1p(spend / half[:, None]), dtype=float)


def fit_curvature(
    spend: Array, value: Array, channel: npt.NDArray[np.int64], names: list[str], dispersion: Array, default: float
) -> pd.DataFrame:
    """Fit each channel's multiple of the typical spend at which a further unit of money brings half.

    Parameters
    ----------
    spend, value
        What was spent on each line in each week, and what came of it, shape (lines, weeks).
    channel
        Each line's channel, as a place in `names`.
    names
        The channels.
    dispersion
        Variance of a week's value for each unit expected, shape (channels,).
    default
        The multiple where nothing can be learned.

    Returns
    -------
    pandas.DataFrame
        One row per channel: `channel`, `half_at` (the multiple), `curve` (`learned`: from its own lines; `pooled`: from
        those of all channels; `default`), `curve_evidence` (log likelihood of the best multiple above the worst).
    """
    told = np.zeros((len(names), len(GRID)))
    for place in range(len(names)):
        told[place] = _likelihood(spend[channel == place], value[channel == place], dispersion[place])
    evidence = told.max(axis=1) - told.min(axis=1)
    everywhere = told.sum(axis=0)
    all_know = everywhere.max() - everywhere.min() > EVIDENCE
    centre = GRID[np.argmax(everywhere - _away(default, DEFAULT_SD))] if all_know else default
    rows = []
    for place, name in enumerate(names):
        own = evidence[place] > EVIDENCE
        best = GRID[np.argmax(told[place] - _away(centre, CHANNEL_SD))] if own else centre
        rows.append((name, float(best), "learned" if own else "pooled" if all_know else "default", evidence[place]))
    return pd.DataFrame(rows, columns=["channel", "half_at", "curve", "curve_evidence"])


def typical(spend: Array) -> Array:
    """Return each line's mean spend over the weeks in which it had any, shape (lines,)."""
    weeks = (spend > 0).sum(axis=1)
    return np.asarray(spend.sum(axis=1) / np.maximum(weeks, 1), dtype=float)


def _away(centre: float, sd: float) -> Array:
    return np.asarray(np.log(GRID / centre) ** 2 / (2 * sd**2), dtype=float)


def _likelihood(spend: Array, value: Array, dispersion: float) -> Array:
    """Return the log likelihood of each multiple on the grid, slopes profiled out, shape (grid,)."""
    # Orders come some days after the money: in a line of one or two weeks, that alone looks like a curve.
    varied = ((spend > 0).sum(axis=1) >= MIN_WEEKS) & (value.sum(axis=1) > 0)
    spend, counted = spend[varied], np.where(spend[varied] > 0, value[varied], 0.0) / dispersion
    if len(spend) == 0:
        return np.zeros(len(GRID))
    told = []
    for multiple in GRID:
        expected = effective(spend, multiple * typical(spend))
        week = np.ones(spend.shape[1])
        for _ in range(WEEK_ROUNDS):
            slope = counted.sum(axis=1) / (expected * week).sum(axis=1)
            week = (counted.sum(axis=0) + WEEK_PRECISION) / ((slope[:, None] * expected).sum(axis=0) + WEEK_PRECISION)
        share = expected * week
        share /= share.sum(axis=1)[:, None]
        fit = (counted * np.log(np.where(counted > 0, share, 1.0))).sum()
        told.append(fit + WEEK_PRECISION * (np.log(week) - week + 1).sum())
    return np.array(told)
