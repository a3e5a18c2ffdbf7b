"""What each line brings for its money: slopes shrunk towards category, channel and all, and how sure they are.

A line is a SKU on a channel. Its slope is value per unit of spend, counted on spend as it would be without diminishing
returns (see `curvature`). It is pulled towards the slope of its category on its channel, this one towards the channel's
and that towards all: gamma priors on a rate, as in `pooling`. How hard each pull is, in units of spend, is learned from
history by prediction: with the strength kept, what was known before each week best predicts that week. Where there is
one week only, nothing can be predicted; the strength is then what lines differ by beyond a week's luck.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.budget.curvature import effective, fit_curvature, typical

__all__ = ["Responses", "fit_responses"]

Array = npt.NDArray[np.float64]

LEVELS = ("channel", "category", "line")
# Strengths tried, as multiples of a line's mean spend.
STRENGTHS = np.geomspace(0.05, 20, 14)
# A channel's common error where there are no weeks to learn it from, and how many weeks that counts as.
COMMON_SD, COMMON_WEEKS = 0.10, 2.0
# How far a typical line's week is taken to lie from its own mean, beyond the luck of its orders, where no line has two.
WEEK_SD = 0.30


@dataclass(frozen=True)
class Responses:
    """The fitted curves.

    Attributes
    ----------
    lines
        One row per SKU and channel that was ever spent on in these weeks: `sku_id, channel, category, last_spend,
        spend, value, slope, slope_sd, half, curve`. `last_spend` is that of the newest week, `slope` the value of the
        first unit of money, `half` the spend at which a further unit brings half of that; `curve` says what `half` is
        from: `learned`, `pooled` or `default`.
    channels
        One row per channel: `channel, half_at, curve, curve_evidence, dispersion` (variance of a week's value for each
        unit expected), `common_sd` (of the log of a week's value against what was expected of all lines together).
    pools
        One row per channel and category, and one per channel with category NaN: `slope, slope_sd` expected of a line
        on which nothing was spent so far.
    strengths
        By level: how much spend the pull towards the level above counts as.
    """

    lines: pd.DataFrame
    channels: pd.DataFrame
    pools: pd.DataFrame
    strengths: dict[str, float]

    def expected_of(self, channel: str, category: str) -> tuple[float, float]:
        """Return slope and its standard deviation for a line that nothing was spent on so far."""
        of_channel = self.pools[self.pools["channel"] == channel]
        row = of_channel[of_channel["category"] == category]
        row = row if len(row) else of_channel[of_channel["category"].isna()]
        return float(row["slope"].iloc[0]), float(row["slope_sd"].iloc[0])


def fit_responses(weeks: pd.DataFrame, *, default_half: float = 1.0) -> Responses:
    """Fit the curve of each line from what was spent and what came of it.

    Parameters
    ----------
    weeks
        One row per SKU, channel and week: `sku_id, channel, category, week, spend, value`, and `orders` where they were
        counted; `week` counts back, 0 is the newest. Value in a week without spend that follows one with spend is still
        that spend's: orders take their time.
    default_half
        The spend, as a multiple of a line's typical spend, at which a further unit brings half, where no line's spend
        varied.

    Returns
    -------
    Responses
        Without lines where nothing was spent.
    """
    spend, value, lines = _matrices(weeks)
    names = sorted(lines["channel"].unique())
    channel = pd.Index(names).get_indexer(lines["channel"])
    start = typical(spend)
    worth = _worth_of_an_order(weeks)
    dispersion = _dispersion(effective(spend, default_half * start), value, channel, len(names), worth)
    curves = fit_curvature(spend, value, channel, names, dispersion, default_half)
    half = curves["half_at"].to_numpy()[channel] * start
    exposure = effective(spend, half)
    dispersion = _dispersion(exposure, value, channel, len(names), worth)

    category = lines.groupby(["channel", "category"], sort=True).ngroup().to_numpy()
    groups = {"channel": channel, "category": category, "line": np.arange(len(lines))}
    strengths = _fit_strengths(exposure, value, groups, dispersion[channel])
    slope, parents = _pool(exposure.sum(axis=1), value.sum(axis=1), groups, strengths)
    certain = exposure.sum(axis=1) + strengths["line"]
    lines = lines.assign(
        last_spend=spend[:, -1],
        spend=spend.sum(axis=1),
        value=value.sum(axis=1),
        slope=slope,
        slope_sd=np.sqrt(dispersion[channel] * slope / certain),
        half=half,
        curve=curves["curve"].to_numpy()[channel],
    )
    channels = curves.assign(
        dispersion=dispersion, common_sd=_common_sd(exposure, value, groups, strengths, dispersion)
    )
    pools = pd.concat([_pools(lines, parents["category"], ["channel", "category"]),
                       _pools(lines, parents["channel"], ["channel"])], ignore_index=True)  # fmt: skip
    spread = dispersion[pd.Index(names).get_indexer(pools["channel"])] / strengths["line"]
    return Responses(lines, channels, pools.assign(slope_sd=np.sqrt(spread * pools["slope"])), strengths)


def _pools(lines: pd.DataFrame, slope: Array, keys: list[str]) -> pd.DataFrame:
    return lines[keys].assign(slope=slope).drop_duplicates(keys).sort_values(keys, ignore_index=True)


def _matrices(weeks: pd.DataFrame) -> tuple[Array, Array, pd.DataFrame]:
    """Return spend and value of each line and week, oldest first, shape (lines, weeks), and what the lines are."""
    keys = ["sku_id", "channel", "category"]
    n_weeks = int(weeks["week"].max()) + 1 if len(weeks) else 1
    places = weeks.groupby(keys, sort=True)
    line, place = places.ngroup().to_numpy(), n_weeks - 1 - weeks["week"].to_numpy(dtype=int)
    every: pd.DataFrame = weeks[keys].assign(line=line).drop_duplicates("line").sort_values("line")[keys]
    spend, value = np.zeros((len(every), n_weeks)), np.zeros((len(every), n_weeks))
    for matrix, name in ((spend, "spend"), (value, "value")):
        np.add.at(matrix, (line, place), weeks[name].fillna(0.0).clip(lower=0).to_numpy(dtype=float))
    ever = (spend > 0).any(axis=1)
    spend, value = spend[ever], value[ever]
    for week in range(1, n_weeks):
        late = (spend[:, week] == 0) & (spend[:, week - 1] > 0)
        value[late, week - 1] += value[late, week]
    value[spend == 0] = 0.0
    return spend, value, every.iloc[np.flatnonzero(ever)].reset_index(drop=True)


def _worth_of_an_order(weeks: pd.DataFrame) -> float | None:
    if "orders" not in weeks or not (weeks["orders"] > 0).any():
        return None
    counted = weeks[weeks["orders"].notna() & weeks["value"].notna()]
    return float(counted["value"].sum() / counted["orders"].sum())


def _dispersion(exposure: Array, value: Array, channel: npt.NDArray[np.int64], n: int, worth: float | None) -> Array:
    """Return the variance of a week's value for each unit expected, by channel, from how lines' own weeks differ."""
    slope = value.sum(axis=1) / np.maximum(exposure.sum(axis=1), 1e-300)
    expected = slope[:, None] * exposure
    spread = np.where(expected > 0, (value - expected) ** 2 / np.where(expected > 0, expected, 1.0), 0.0).sum(axis=1)
    free = np.where(value.sum(axis=1) > 0, (exposure > 0).sum(axis=1) - 1, 0)

    def ratio(rows: npt.NDArray[np.bool_]) -> float:
        return float(spread[rows].sum() / free[rows].sum()) if free[rows].sum() > 0 else 0.0

    # A channel with few weeks that can be compared borrows from all. With none at all a week has the luck of its orders
    # and WEEK_SD beyond it; where orders were not counted, it is as good as one draw. Ten comparisons count as much as
    # what all channels say.
    everywhere = ratio(np.ones(len(channel), dtype=bool))
    if everywhere <= 0:
        of_week = float(value[value > 0].mean()) if (value > 0).any() else 1.0
        everywhere = of_week if worth is None else worth + WEEK_SD**2 * of_week
    counts = np.array([free[channel == place].sum() for place in range(n)])
    own = np.array([ratio(channel == place) for place in range(n)])
    return np.asarray((counts * own + 10 * everywhere) / (counts + 10), dtype=float)


def _fit_strengths(
    exposure: Array, value: Array, groups: dict[str, npt.NDArray[np.int64]], dispersion: Array
) -> dict[str, float]:
    """Choose each level's strength: what was known before each week has to predict that week best."""
    mean = float(exposure.sum(axis=1).mean()) if len(exposure) else 1.0
    known = np.cumsum(exposure, axis=1)[:, :-1], np.cumsum(value, axis=1)[:, :-1]
    coming = exposure[:, 1:], value[:, 1:]
    everything = known[0].sum(axis=0), known[1].sum(axis=0)
    parent = np.broadcast_to(everything[1] / np.maximum(everything[0], 1e-300), known[0].shape)
    use = (coming[0] > 0) & (everything[0] > 0)
    if len(exposure) and not use.any():
        return _strengths_by_spread(exposure.sum(axis=1), value.sum(axis=1), groups, dispersion)
    strengths = {}
    for level in LEVELS:
        pooled = [_sum_by(groups[level], part) for part in known]
        # A pool leaves the line itself out, so that a strength is not rewarded for knowing the line.
        others = pooled if level == "line" else [pool - part for pool, part in zip(pooled, known, strict=True)]
        telling = use & (others[0] > 0)
        losses = []
        for strength in STRENGTHS * mean:
            rate = (others[1] + strength * parent) / (others[0] + strength)
            losses.append(_deviance(rate * coming[0], coming[1], telling))
        # Where several do as well, the stronger pull is the safer one.
        tolerable = min(losses) + 1e-9 * abs(min(losses)) + 1e-12
        best = float((STRENGTHS * mean)[max(i for i, loss in enumerate(losses) if loss <= tolerable)])
        strengths[level] = best
        parent = (pooled[1] + best * parent) / (pooled[0] + best)
    return strengths


def _strengths_by_spread(
    exposure: Array, value: Array, groups: dict[str, npt.NDArray[np.int64]], dispersion: Array
) -> dict[str, float]:
    """Choose each level's strength by moments (Buehlmann and Straub 1970): how far rates differ beyond their own error.

    From the lines upwards: what lines differ by is part of the error of their category.
    """
    least, most = STRENGTHS[0] * exposure.mean(), STRENGTHS[-1] * exposure.mean()
    rate = value.sum() / exposure.sum()
    error = dispersion * rate / exposure  # variance of each member's own rate
    members, weight, total = groups["line"], exposure, value
    strengths = {}
    for level, above in (("line", "category"), ("category", "channel"), ("channel", "")):
        first = np.unique(members, return_index=True)[1]
        parent = groups[above][first] if above else np.zeros(len(first), dtype=np.int64)
        w, own, v = weight[first], total[first] / weight[first], error[first]
        of_parent = _sum_by(parent, w)
        miss = own - _sum_by(parent, w * own) / of_parent
        room = float((w * (1 - w / of_parent)).sum())
        beyond = float((w * miss**2 - w * v * (1 - w / of_parent)).sum()) / room if room > 0 else 0.0
        wanted = float(np.average(w * v, weights=w)) / beyond if beyond > 0 else most
        strengths[level] = float(np.clip(wanted, least, most))
        if above:
            spread = _sum_by(parent, w**2 * (max(beyond, 0.0) + v)) / of_parent**2
            members = groups[above]
            error = pd.Series(spread, index=parent).groupby(level=0).first().reindex(members).to_numpy(dtype=float)
            weight, total = _sum_by(members, exposure), _sum_by(members, value)
    return {level: strengths[level] for level in LEVELS}


def _deviance(expected: Array, came: Array, use: npt.NDArray[np.bool_]) -> float:
    """Return the Poisson deviance, up to a constant; what a week brings all lines alike is left out of it."""
    if not use.any():
        return 0.0
    expected, came = np.where(use, expected, 0.0), np.where(use, came, 0.0)
    level = came.sum(axis=0) / np.maximum(expected.sum(axis=0), 1e-300)
    expected = np.maximum(expected * level, 1e-12)
    return float((expected - came * np.log(expected))[use].sum())


def _pool(
    exposure: Array, value: Array, groups: dict[str, npt.NDArray[np.int64]], strengths: dict[str, float]
) -> tuple[Array, dict[str, Array]]:
    """Return each line's slope, and what its channel and category are taken for, shape (lines,)."""
    rate = np.full(len(exposure), value.sum() / max(exposure.sum(), 1e-300))
    parents = {}
    for level in LEVELS:
        own_exposure, own_value = _sum_by(groups[level], exposure), _sum_by(groups[level], value)
        rate = (own_value + strengths[level] * rate) / (own_exposure + strengths[level])
        parents[level] = rate
    return rate, parents


def _common_sd(
    exposure: Array,
    value: Array,
    groups: dict[str, npt.NDArray[np.int64]],
    strengths: dict[str, float],
    dispersion: Array,
) -> Array:
    """Return by how much all of a channel's lines together miss what was expected of them a week before.

    The variance of the ratio over weeks, less what chance and the slopes' own errors explain. Few weeks are pulled
    towards all channels, and these towards COMMON_SD.
    """
    channel = groups["channel"]
    miss = np.zeros((len(dispersion), max(exposure.shape[1] - 1, 0), 2))  # squared miss beyond chance, and its weight
    for week in range(1, exposure.shape[1]):
        before = exposure[:, :week].sum(axis=1)
        rate, _ = _pool(before, value[:, :week].sum(axis=1), groups, strengths)
        for place, spread in enumerate(dispersion):
            mine = (channel == place) & (exposure[:, week] > 0)
            expected = rate[mine] * exposure[mine, week]
            if before[mine].sum() <= 0 or expected.sum() <= 0:
                continue
            chance = spread * expected.sum()
            chance += (spread * rate[mine] / (before[mine] + strengths["line"]) * exposure[mine, week] ** 2).sum()
            chance /= expected.sum() ** 2
            ratio = value[mine, week].sum() / expected.sum()
            miss[place, week - 1] = (ratio - 1) ** 2 - chance, 1 / (1 + chance / COMMON_SD**2)
    weight = miss[:, :, 1].sum(axis=1)
    own = (miss[:, :, 0] * miss[:, :, 1]).sum(axis=1)
    everywhere = max((own.sum() + COMMON_WEEKS * COMMON_SD**2) / (weight.sum() + COMMON_WEEKS), 0.0)
    variance = (own + 2 * COMMON_WEEKS * everywhere) / (weight + 2 * COMMON_WEEKS)
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)), dtype=float)


def _sum_by(group: npt.NDArray[np.int64], values: Array) -> Array:
    """Return each row's sum over the rows of its group."""
    sums = np.zeros((int(group.max()) + 1 if len(group) else 0, *values.shape[1:]))
    np.add.at(sums, group, values)
    return np.asarray(sums[group], dtype=float)
