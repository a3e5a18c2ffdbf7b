"""Tiers: hot, trending, potential or tail, by rules in the settings, and steady from week to week.

Each rule has a strength, 0 at its threshold: log odds of the place among all SKUs, log of the growth, log odds of the
hit probability. With last week's tiers, a SKU that has a tier moves up only where it is past the higher threshold by
the margin, and loses its own only where it is short of that by the margin: in between it stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.errors import DataError
from hitfinder.settings import Settings, TierSettings
from hitfinder.warehouse import frame, load_sql

__all__ = ["TIERS", "check_tiers", "place_in_tiers", "standing_and_growth"]

Array = npt.NDArray[np.float64]

TIERS = ("hot", "trending", "potential", "tail")
# What growth is told by, the first that was counted; and how many of it each SKU is given at its batch's growth.
SOLD = ("orders", "units", "carts", "clicks")
LENT = 10.0


def standing_and_growth(con: Any, settings: Settings, value: str | None = None) -> pd.DataFrame:
    """Measure each SKU's place among all by value a day, and its growth against its batch.

    Parameters
    ----------
    con
        After `features.set_scope`.
    settings
        `[tiers]`.
    value
        The counted column that is the value; default: revenue, else what else sold.

    Returns
    -------
    pandas.DataFrame
        `sku_id, top, growth`, by `sku_id`. `top`: the share of the launched SKUs that earned as much or more a day, in
        (0, 1]; NaN before the launch. `growth`: what was sold in the last `growth_window` over that of the one before,
        over the same of its batch, with a few lent sales so that 3 after 1 is no tripling; NaN for a SKU that was not
        there for both.
    """
    asked = settings.tiers
    counts = ", ".join(f"count({c}) as {c}" for c in ("revenue", *SOLD))
    counted = frame(con, f"select {counts} from reports where superseded_at is null").iloc[0]
    sold = next((c for c in SOLD if counted[c] > 0), None)
    value = value if value is not None else "revenue" if counted["revenue"] > 0 else sold
    day = pd.Timedelta(days=1)
    sql = load_sql("tier_values").format(
        value=value or "0", sold=sold or "0", window_days=asked.window / day, growth_days=asked.growth_window / day
    )
    rows = frame(con, f"select * from ({sql}) order by sku_id")
    there = rows["days"] > 0
    # Rounded: as much over a day or twice as much over two is a tie.
    place = rows.loc[there, "value_per_day"].round(6).rank(ascending=False, method="max")
    # Who earned nothing is at the end, however many they are.
    rows["top"] = (place / max(int(there.sum()), 1)).where(rows["value_per_day"] > 0, 1.0).where(there)
    seen_twice = rows["days"] >= 2 * asked.growth_window / day
    now, before = rows["sold_now"].where(seen_twice, 0.0), rows["sold_before"].where(seen_twice, 0.0)
    usual = max(float(now.sum()), 0.5) / max(float(before.sum()), 0.5)
    of_batch = [part.groupby(rows["batch_id"], dropna=False).transform("sum") for part in (now, before)]
    batch = (of_batch[0] + LENT * usual) / (of_batch[1] + LENT)
    rows["growth"] = ((now + LENT * batch) / (before + LENT) / batch).where(seen_twice)
    return rows[["sku_id", "top", "growth"]]


def place_in_tiers(table: pd.DataFrame, asked: TierSettings, previous: pd.DataFrame | None = None) -> pd.Series:
    """Give each SKU its tier.

    Parameters
    ----------
    table
        `sku_id, hit_probability, top, growth`; what is NaN fits no rule.
    asked
        `[tiers]`.
    previous
        `sku_id, tier`: last week's. SKUs without one, and all without this table, get what the plain rules say.

    Returns
    -------
    pandas.Series
        One of TIERS for each row.

    Raises
    ------
    DataError
        `previous` lacks a column, names a SKU twice or a tier that there is none of.

    Examples
    --------
    >>> table = pd.DataFrame({"sku_id": ["a", "b", "c"], "hit_probability": [0.9, 0.19, 0.01],
    ...                       "top": [0.01, 0.5, 0.9], "growth": [1.0, 1.0, 2.0]})
    >>> place_in_tiers(table, TierSettings()).tolist()
    ['hot', 'tail', 'trending']
    >>> last_week = pd.DataFrame({"sku_id": ["b"], "tier": ["potential"]})
    >>> place_in_tiers(table, TierSettings(), last_week).tolist()
    ['hot', 'potential', 'trending']
    """
    strengths = np.column_stack(
        [
            _log_odds(asked.hot_top) - _log_odds(table["top"].to_numpy(float)),
            np.log(np.maximum(table["growth"].to_numpy(float), 1e-12) / asked.trending_growth),
            _log_odds(table["hit_probability"].to_numpy(float)) - _log_odds(asked.potential_probability),
        ]
    )
    strengths = np.where(np.isnan(strengths), -np.inf, strengths)
    tail = len(TIERS) - 1
    plain = _first(strengths >= 0, tail)
    if previous is None:
        return _named(plain, table)
    had = check_tiers(previous).reindex(table["sku_id"]).fillna(-1).to_numpy(dtype=np.int64)
    margin = np.log1p(asked.margin)
    higher = np.arange(tail) < had[:, None]
    up = _first((strengths >= margin) & higher, tail)
    own = np.take_along_axis(strengths, np.clip(had, 0, tail - 1)[:, None], axis=1)[:, 0]
    stays = (had == tail) | (own >= -margin)
    steady = np.where(up < tail, up, np.where(stays, had, plain))
    return _named(np.where(had < 0, plain, steady), table)


def _first(fits: npt.NDArray[np.bool_], otherwise: int) -> npt.NDArray[np.int64]:
    return np.where(fits.any(axis=1), fits.argmax(axis=1), otherwise)


def _named(places: npt.NDArray[np.int64], table: pd.DataFrame) -> pd.Series:
    return pd.Series(np.array(TIERS)[places], index=table.index, name="tier", dtype="str")


def _log_odds(share: Any) -> Any:
    inside = np.clip(share, 1e-9, 1 - 1e-9)
    return np.log(inside / (1 - inside))


def check_tiers(previous: pd.DataFrame) -> pd.Series:
    """Check last week's tiers; return the place of each SKU's in TIERS."""
    missing = [c for c in ("sku_id", "tier") if c not in previous.columns]
    if missing:
        raise DataError(f"previous: expected the columns sku_id and tier, {' and '.join(missing)} missing; add it")
    ids = previous["sku_id"].astype("str")
    twice = ids[ids.duplicated()]
    if len(twice):
        raise DataError(f"previous: expected each sku_id once, got {twice.iloc[0]!r} more than once; drop one")
    strange = previous.loc[~previous["tier"].isin(TIERS), "tier"]
    if len(strange):
        raise DataError(f"previous: expected tiers {', '.join(TIERS)}, got {strange.iloc[0]!r}")
    return pd.Series([TIERS.index(tier) for tier in previous["tier"]], index=ids.to_numpy())
