"""Log ratios of sums over groups of SKUs, and how uncertain they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["LogRatio", "difference", "log_ratio", "noise_of"]

Array = npt.NDArray[np.float64]

# With fewer styles a group's scatter is not known.
MIN_STYLES = 4


@dataclass(frozen=True)
class LogRatio:
    """`value`: shape (looks, groups), NaN where nothing was counted on. `counted`: events behind each, same shape.

    `added`: what each style adds to each value, indexed by the value's place (look x groups + group) and the style.
    """

    value: Array
    counted: Array
    added: pd.Series


def log_ratio(
    cells: pd.DataFrame, over: str, order: list[Any], by: str | None, groups: list[str], top: str, below: str
) -> LogRatio:
    """Take the log of the sum of one column over that of another, for every look and group.

    Parameters
    ----------
    cells
        One row per look, style, channel and category: the columns `over`, `style_id`, `by`, `top`, `below`.
    over, order
        The column that names the look, and the looks.
    by, groups
        The column that names the group, None for one group of all, and the groups.
    top, below
        What is summed.

    Examples
    --------
    >>> cells = pd.DataFrame({"week": [0, 0, 1, 1], "style_id": list("abab"), "n": [3, 5, 6, 10], "d": [8, 8, 8, 8]})
    >>> log_ratio(cells, "week", [0, 1], None, [""], "n", "d").value.round(2).ravel().tolist()
    [-0.67, -0.01]
    """
    n_looks, n_groups = len(order), len(groups)
    look = pd.Index(order).get_indexer(pd.Index(cells[over]))
    group = np.zeros(len(cells), dtype=int) if by is None else pd.Index(groups).get_indexer(pd.Index(cells[by]))
    counted, on = (cells[name].to_numpy(dtype=float, na_value=np.nan) for name in (top, below))
    used = (look >= 0) & (group >= 0) & np.isfinite(counted) & np.isfinite(on)
    place = (look * n_groups + group)[used]
    counted, on, style = counted[used], on[used], cells["style_id"].to_numpy()[used]
    size = n_looks * n_groups
    tops, belows = np.bincount(place, counted, size), np.bincount(place, on, size)
    usual = max(float(tops.sum() / max(belows.sum(), 1e-12)), 1e-12)
    there = belows > 0
    # Half a thing counted, at the usual ratio: a group that fell silent is far off, not infinitely far.
    value = np.full(size, np.nan)
    value[there] = np.log((tops[there] + 0.5) / (belows[there] + 0.5 / usual))
    rate = np.divide(tops, belows, out=np.zeros(size), where=there)
    own = (counted - rate[place] * on) / (tops[place] + 0.5)
    added = pd.Series(own).groupby([place, style]).sum()
    shape = (n_looks, n_groups)
    return LogRatio(value.reshape(shape), np.asarray(tops, dtype=float).reshape(shape), added)


def difference(a: LogRatio, b: LogRatio) -> LogRatio:
    """Return `a` less `b`, style by style: what a style adds to both cancels."""
    counted = np.minimum(a.counted, b.counted)
    return LogRatio(a.value - b.value, counted, a.added.sub(b.added, fill_value=0.0))


def noise_of(ratio: LogRatio, whole: LogRatio | None = None) -> Array:
    """Return the variance of each value: the squares of what its styles add to it, summed.

    Whatever the scatter of SKUs, and with a style as the unit: where one style makes most of a category's orders, the
    category's rate is as uncertain as that style's. With `whole`, a ratio of one group, the variance of each value less
    that of the whole: what a style adds to both cancels. NaN where there are too few styles to tell.
    """
    size, n_groups = ratio.value.size, ratio.value.shape[1]
    place = ratio.added.index.get_level_values(0).to_numpy(dtype=np.int64)
    own, shared = ratio.added.to_numpy(dtype=float), np.zeros(len(place))
    every = np.zeros(size)
    if whole is not None:
        keys = pd.MultiIndex.from_arrays([place // n_groups, ratio.added.index.get_level_values(1)])
        shared = whole.added.reindex(keys).fillna(0.0).to_numpy(dtype=float)
        look = whole.added.index.get_level_values(0).to_numpy(dtype=np.int64)
        every = np.repeat(np.bincount(look, whole.added.to_numpy(dtype=float) ** 2, len(ratio.value)), n_groups)
    # Styles that are not in a group add to the whole alone.
    squares = every + np.bincount(place, (own - shared) ** 2 - shared**2, size)
    styles = np.bincount(place, minlength=size)
    variance = np.where(styles >= MIN_STYLES, squares * styles / np.maximum(styles - 1, 1), np.nan)
    return variance.reshape(ratio.value.shape)
