"""Drift of the model's inputs: as a whole, by channel, by category, and in SKUs that were there before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.monitor.looks import Looks
from hitfinder.monitor.ratios import LogRatio, difference, log_ratio, noise_of
from hitfinder.monitor.shift import Track

__all__ = ["batch_track", "psi_of", "same_skus_track"]

Array = npt.NDArray[np.float64]

BINS = 10
# So many categories and channels, the largest, are looked at one by one: each one more makes the others harder to see.
MAX_GROUPS = 12
# A group with fewer things counted in a usual week tells nothing of its own.
MIN_COUNTED = 8.0
# Shifts below these are of no interest: in standard deviations between SKUs, and as a share of a rate (5 %).
FLOOR_MEAN, FLOOR_LOG, FLOOR_PSI = 0.05, 0.05, 0.2
# What changes of itself, or only says where a SKU stands among others.
CALENDAR = ("month", "launch_weekday")
NO_LEVEL = (".place", ".lead")
PSI_COLUMNS = ["kind", "subject", "psi", "usual"]


def batch_track(looks: Looks, columns: Sequence[str]) -> tuple[Track, pd.DataFrame]:
    """Describe each batch at its look by the model's inputs, its channels and its categories.

    Returns
    -------
    (track, psi)
        `psi`: one row per column and per channel, `kind, subject, psi` of the newest batch, and `usual` of the batches
        before it. A channel's is that of its SKUs' rates.
    """
    batches = looks.batches["batch_id"].tolist()
    moments = pd.DatetimeIndex(looks.batches["moment"])
    features, psi = _features(looks.table, batches, columns, moments)
    spread, more = _channel_spread(looks, batches, moments)
    groups = _groups(looks.cells, None, "batch_id", batches, looks.rates, moments)
    return Track.joined([features, spread, groups]), pd.concat([psi, more], ignore_index=True)


def same_skus_track(looks: Looks) -> Track:
    """Describe each week by how SKUs past their test did against their own week before."""
    weeks, moments = looks.weeks["week"].tolist(), pd.DatetimeIndex(looks.weeks["moment"])
    cells = looks.pairs_of_weeks
    now, last = (cells[cells["is_last"] == side] for side in (0, 1))
    return _groups(now, last, "week", weeks, looks.rates, moments)


def psi_of(values: Array, code: npt.NDArray[np.int64], n: int) -> Array:
    """Return the population stability index of each batch against all others, shape (n,).

    Bins are deciles of all batches; a value that is missing is a bin of its own.

    >>> code = np.repeat([0, 1, 2], 100)
    >>> psi_of(np.concatenate([np.arange(100.0), np.arange(100.0), np.arange(100.0) + 500]), code, 3).round(1).tolist()
    [1.8, 1.8, 7.1]
    """
    there = np.isfinite(values)
    edges = np.unique(np.quantile(values[there], np.linspace(0, 1, BINS + 1)[1:-1])) if there.any() else np.zeros(0)
    place = np.where(there, np.searchsorted(edges, np.where(there, values, 0.0), side="right"), len(edges) + 1)
    size = len(edges) + 2
    counts = np.bincount(code * size + place, minlength=n * size).reshape(n, size).astype(float)
    others = counts.sum(axis=0) - counts
    # Half a SKU in every bin that anybody is in: an empty bin is no infinity.
    half = 0.5 * (counts.sum(axis=0) > 0)
    own, rest = counts + half, others + half
    own, rest = own / own.sum(axis=1, keepdims=True), rest / np.maximum(rest.sum(axis=1, keepdims=True), 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where((own > 0) & (rest > 0), (own - rest) * np.log(own / rest), 0.0)
    return np.asarray(parts.sum(axis=1))


def _features(
    table: pd.DataFrame, batches: list[str], columns: Sequence[str], moments: pd.DatetimeIndex
) -> tuple[Track, pd.DataFrame]:
    """Take mean and stability index of each column over each batch."""
    code = pd.Index(batches).get_indexer(pd.Index(table["batch_id"])).astype(np.int64)
    n = len(batches)
    rows, values, floors, sides, psis = [], [], [], [], []
    for column in columns:
        if column in CALENDAR or column not in table:
            continue
        x = table[column].to_numpy(dtype=float, na_value=np.nan)
        there = np.isfinite(x)
        if there.sum() < 2 * BINS or np.ptp(x[there]) < 1e-9:
            continue
        size = np.bincount(code[there], minlength=n)
        low, high = np.quantile(x[there], [0.01, 0.99])
        x = np.clip(x, low, high)
        spread = float(np.std(x[there]))
        if not column.endswith(NO_LEVEL) and spread > 0:
            total = np.bincount(code[there], weights=x[there], minlength=n)
            mean = np.divide(total, size, out=np.full(n, np.nan), where=size >= 5) / spread
            rows.append(("feature", column, "mean"))
            values.append(mean)
            floors.append(FLOOR_MEAN)
            sides.append(0.0)
        index = psi_of(x, code, n)
        rows.append(("feature", column, "psi"))
        values.append(np.log(index + 0.01))
        floors.append(FLOOR_PSI)
        sides.append(1.0)
        psis.append(("feature", column, float(index[-1]), float(np.median(index[:-1])) if n > 1 else np.nan))
    value = np.column_stack(values) if values else np.zeros((n, 0))
    about = pd.DataFrame(rows, columns=["kind", "subject", "measure"])
    track = Track(about, value, np.zeros_like(value), np.asarray(floors), np.asarray(sides), moments)
    return track, pd.DataFrame(psis, columns=PSI_COLUMNS)


def _channel_spread(looks: Looks, batches: list[str], moments: pd.DatetimeIndex) -> tuple[Track, pd.DataFrame]:
    """Take the stability index of the SKUs' rates on each channel."""
    rows, values, psis = [], [], []
    n = len(batches)
    cells = looks.sku_channels
    top = f"{looks.rates[0][0]}_num" if looks.rates else ""
    below = f"{looks.rates[0][0]}_den" if looks.rates else ""
    usual = cells["channel"].value_counts(sort=True)
    for channel in sorted(map(str, usual.index[:MAX_GROUPS])) if looks.rates else []:
        mine = cells[(cells["channel"] == channel) & (cells[below] > 0)]
        code = pd.Index(batches).get_indexer(pd.Index(mine["batch_id"])).astype(np.int64)
        size = np.bincount(code, minlength=n)
        if np.median(size) < 2 * BINS:
            continue
        index = psi_of((mine[top] / mine[below]).to_numpy(dtype=float), code, n)
        index = np.where(size >= BINS, index, np.nan)
        rows.append(("channel", channel, "psi"))
        values.append(np.log(index + 0.01))
        before = index[:-1][np.isfinite(index[:-1])]
        psis.append(("channel", channel, float(index[-1]), float(np.median(before)) if len(before) else np.nan))
    value = np.column_stack(values) if values else np.zeros((n, 0))
    about = pd.DataFrame(rows, columns=["kind", "subject", "measure"])
    track = Track(about, value, np.zeros_like(value), np.full(len(about), FLOOR_PSI), np.ones(len(about)), moments)
    return track, pd.DataFrame(psis, columns=PSI_COLUMNS)


def _groups(
    cells: pd.DataFrame,
    before: pd.DataFrame | None,
    over: str,
    order: list[Any],
    rates: tuple[tuple[str, str], ...],
    moments: pd.DatetimeIndex,
) -> Track:
    """Take the log of every rate over all, and of each channel and category against all.

    With `before`, against the same figure of the week before.
    """
    rows: list[tuple[str, str, str]] = []
    values: list[Array] = []
    noises: list[Array] = []
    whole: dict[str, LogRatio] = {}
    cells = cells.assign(style_rows=cells.groupby([over, "style_id"])["n_rows"].transform("sum"))

    def ratios(by: str, groups: list[str], top: str, below: str) -> LogRatio:
        column = None if by == "all" else by
        now = log_ratio(cells, over, order, column, groups, top, below)
        return now if before is None else difference(now, log_ratio(before, over, order, column, groups, top, below))

    for by in ("all", "channel", "category"):
        kind = by if before is None else f"same {by}"
        groups = [""] if by == "all" else _largest(cells, by)
        for num, den in rates:
            measure = f"{num} per {den}"
            # Money scatters with what is paid for: as many things were counted as there were orders.
            paid = ratios(by, groups, f"{num}_den", f"{num}_den") if num == "revenue" else None
            ratio = ratios(by, groups, f"{num}_num", f"{num}_den")
            value, noise = _column(ratio, paid, whole.get(measure))
            whole.setdefault(measure, ratio)
            rows += [(kind, group, measure) for group in groups]
            values.append(value)
            noises.append(noise)
    if before is None:
        for by in ("channel", "category"):
            shares = _shares(cells, over, order, by)
            rows += [(by, group, "share of reports") for group in shares[0]]
            values.append(shares[1])
            noises.append(shares[2])
    value = np.concatenate(values, axis=1) if values else np.zeros((len(moments), 0))
    noise = np.concatenate(noises, axis=1) if noises else np.zeros((len(moments), 0))
    about = pd.DataFrame(rows, columns=["kind", "subject", "measure"])
    return Track(about, value, noise, np.full(len(about), FLOOR_LOG), np.zeros(len(about)), moments)


def _shares(cells: pd.DataFrame, over: str, order: list[Any], by: str) -> tuple[list[str], Array, Array]:
    """Return the groups, the log of each one's share of a look's reports, and its noise."""
    groups = _largest(cells, by)
    if len(groups) < 2:
        return [], np.zeros((len(order), 0)), np.zeros((len(order), 0))
    # Every style is counted on in every group, also where it has no report.
    styles = cells[[over, "style_id", "style_rows"]].drop_duplicates([over, "style_id"])
    every = styles.merge(pd.DataFrame({"group": groups}), how="cross")
    own = cells.groupby([over, "style_id", by])["n_rows"].sum().rename("rows").reset_index()
    every = every.merge(own, left_on=[over, "style_id", "group"], right_on=[over, "style_id", by], how="left")
    # Counted in styles: a category of two styles is thin, however many reports each of them has.
    for name in ("rows", "style_rows"):
        every[name] = every[name].fillna(0.0) / float(styles["style_rows"].mean())
    value, noise = _column(log_ratio(every, over, order, "group", groups, "rows", "style_rows"), None, None)
    return groups, value, noise


def _largest(cells: pd.DataFrame, by: str) -> list[str]:
    size = cells.groupby(by)["n_rows"].sum().sort_values(ascending=False, kind="stable")
    return sorted(map(str, size.index[:MAX_GROUPS]))


def _column(ratio: LogRatio, paid: LogRatio | None, whole: LogRatio | None) -> tuple[Array, Array]:
    """Return values, against the whole where it is given, and their noise; NaN where too little is counted."""
    events = (ratio if paid is None else paid).counted
    value, noise = ratio.value.copy(), noise_of(ratio, whole)
    if whole is not None:
        value = value - whole.value
    few = np.array([np.median(column[np.isfinite(column)]) if np.isfinite(column).any() else 0 for column in events.T])
    value[:, few < MIN_COUNTED] = np.nan
    value[~np.isfinite(noise)] = np.nan
    return value, np.maximum(np.nan_to_num(noise), 1 / (np.nan_to_num(events) + 0.5))
