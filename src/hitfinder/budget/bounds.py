"""The least and the most that each line may get, and why: floors, caps, the move limit, stock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from hitfinder.budget.allotment import Lines as Curves
from hitfinder.budget.allotment import spend_for_value, value_of
from hitfinder.budget.spending import Spending
from hitfinder.errors import DataError, SettingsError
from hitfinder.settings import BudgetSettings
from hitfinder.warehouse import TableLike, frame, scan

__all__ = ["bound", "read_limits"]

# No line is ever given so much.
MOST = 1e12
LIMIT_COLUMNS = ("sku_id", "channel", "floor", "cap")


def read_limits(con: Any, limits: TableLike | None) -> pd.DataFrame:
    """Read floors and caps of single lines.

    Parameters
    ----------
    con
        A connection.
    limits
        A table `sku_id, channel, floor, cap`: without `channel`, or where it is empty, for all of the SKU's lines; a
        floor or cap that is empty is not set. None for none.

    Raises
    ------
    DataError
        A column is missing or unknown, or holds what is no amount of 0 or more.
    """
    if limits is None:
        return pd.DataFrame(
            {name: pd.Series(dtype=str if name in LIMIT_COLUMNS[:2] else float) for name in LIMIT_COLUMNS}
        )
    scan(con, limits, "limits_given")
    given = frame(con, "select * from limits_given")
    given.columns = [str(name).strip().lower() for name in given.columns]
    if "sku_id" not in given or not set(given.columns) & {"floor", "cap"} or set(given.columns) - set(LIMIT_COLUMNS):
        raise DataError(f"limits: expected columns {', '.join(LIMIT_COLUMNS)}, got {', '.join(given.columns)}")
    read = pd.DataFrame({"sku_id": given["sku_id"].astype(str)})
    named = given["channel"] if "channel" in given else pd.Series(None, index=given.index, dtype=object)
    read["channel"] = named.where(named.notna(), "").astype(str).str.strip()
    for name in ("floor", "cap"):
        raw = given[name] if name in given else pd.Series(np.nan, index=given.index)
        raw = raw.where(raw.notna() & (raw.astype(str).str.strip() != ""))
        read[name] = pd.to_numeric(raw, errors="coerce").astype(float)
        wrong = raw.notna() & ~(read[name] >= 0)
        if wrong.any():
            raise DataError(f"limits.{name}: expected amounts of 0 or more, got {str(raw[wrong].iloc[0])!r}")
    return read


def bound(lines: pd.DataFrame, spending: Spending, limits: pd.DataFrame, settings: BudgetSettings) -> pd.DataFrame:
    """Return `lines` with `low, high` and what either is from: `low_from, high_from`.

    What is asked for outright (a floor, a cap) comes before the move limit; stock comes before all.

    Parameters
    ----------
    lines
        `sku_id, channel, last_spend, slope, half` and the SKU's `units_left, returned, unit_price`.
    spending
        Where units that sell without ads are read from.
    limits
        From `read_limits`.
    settings
        `[budget]`.

    Raises
    ------
    SettingsError
        A floor is above a cap, or a limit is set on what is no line.
    """
    rows = lines.reset_index(drop=True)
    last = rows["last_spend"].to_numpy(dtype=float)
    floor = np.full(len(rows), settings.floor)
    cap = np.full(len(rows), np.inf if settings.cap is None else settings.cap)
    for limit in limits.to_dict("records"):
        hit = rows["sku_id"].to_numpy() == limit["sku_id"]
        if limit["channel"]:
            hit = hit & (rows["channel"].to_numpy() == limit["channel"])
        if not hit.any():
            raise SettingsError(
                f"limits: expected SKUs and channels that were spent on last week, got "
                f"{limit['sku_id']} {limit['channel']}; take it out, or check as_of"
            )
        floor[hit] = floor[hit] if np.isnan(limit["floor"]) else limit["floor"]
        cap[hit] = cap[hit] if np.isnan(limit["cap"]) else limit["cap"]
    if (floor > cap).any():
        row = int(np.argmax(floor > cap))
        raise SettingsError(
            f"floor and cap clash: {rows['sku_id'][row]} {rows['channel'][row]} has a floor of {floor[row]:,.2f} and a "
            f"cap of {cap[row]:,.2f}; lower the one or raise the other"
        )
    # To the cent, as money is paid.
    low = np.floor((1 - settings.move_down) * last * 100) / 100
    high = np.maximum(np.floor((1 + settings.move_up) * last * 100 + 1e-6) / 100, low)
    low_from = np.where(low > 0, "move limit", "zero").astype(object)
    high_from = np.full(len(rows), "move limit", dtype=object)
    low_from[floor > low], high_from[cap < high] = "floor", "cap"
    low, high = np.maximum(low, floor), np.minimum(high, cap)
    low_from[low > cap], high_from[high < floor] = "cap", "floor"
    low, high = np.minimum(low, cap), np.maximum(high, floor)

    stock = np.floor(_stock_ceiling(rows, spending) * 100) / 100
    short = stock < high
    high, high_from = np.minimum(high, stock), np.where(short, "stock", high_from)
    low, low_from = np.minimum(low, high), np.where(stock < low, "stock", low_from)
    return rows.assign(low=low, high=high, low_from=low_from, high_from=high_from)


def _stock_ceiling(rows: pd.DataFrame, spending: Spending) -> Any:
    """Return the spend at which the coming week's demand is the stock left, shape (lines,); infinite where not known.

    A SKU's stock is shared among its lines as their sales are expected at last week's spend; what sells without ads
    takes its part first.
    """
    n = len(rows)
    curves = Curves(
        rows["slope"].to_numpy(dtype=float),
        rows["half"].to_numpy(dtype=float),
        np.zeros(n),
        np.zeros(n),
        np.full(n, 1.0),
    )
    per_unit = (rows["unit_price"] * (1 - rows["returned"])).to_numpy(dtype=float)
    expected = value_of(curves, rows["last_spend"].to_numpy(dtype=float))
    of_sku = pd.Series(expected).groupby(rows["sku_id"].to_numpy()).transform("sum").to_numpy()
    share = np.where(of_sku > 0, expected / np.where(of_sku > 0, of_sku, 1.0), 1.0)
    weeks = spending.weeks[(spending.weeks["week"] == 0) & ~(spending.weeks["spend"] > 0)]
    unpaid = rows["sku_id"].map(weeks.groupby("sku_id")["units"].sum()).fillna(0.0).to_numpy(dtype=float)
    left = np.maximum(rows["units_left"].to_numpy(dtype=float) - unpaid, 0.0)
    ceiling = spend_for_value(curves.slope, curves.half, np.nan_to_num(left * share * per_unit))
    # Where returns diminish, the spend for much stock is beyond all money; no more than that has to be known.
    unlimited = np.isnan(left) | np.isnan(per_unit) | (ceiling > MOST)
    return np.where(unlimited, np.inf, ceiling)
