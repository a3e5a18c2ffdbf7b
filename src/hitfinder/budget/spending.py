"""What the budget reads: lines and their weeks, SKUs, what came back, and what a unit of value leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.costs import earning, set_unit_economics
from hitfinder.errors import DataError
from hitfinder.features import set_scope
from hitfinder.refunds import fit_refunds
from hitfinder.settings import Settings
from hitfinder.warehouse import build_text, frame, load_sql

__all__ = ["Spending", "read_spending"]

# No share of returns is believed above this: what is left of a sale would mean nothing.
MAX_RETURNED = 0.95


@dataclass(frozen=True)
class Spending:
    """What was known at a moment.

    Attributes
    ----------
    weeks
        One row per SKU, channel and week (0 is the newest): `sku_id, channel, category, week, spend, revenue, value,
        orders, units`; `value` is revenue less what is expected to come back of it.
    skus
        One row per SKU, by `sku_id`: `category, title, launched_at, first_week` (when it was first spent on, counting
        back; NaN for never), `units_left` (NaN where no stock is known), `returned` (share of revenue expected back),
        `margin` (what a unit of value leaves before ads), `unit_price`, `order_value`, `unknown_costs`.
    as_of
        The moment.
    """

    weeks: pd.DataFrame
    skus: pd.DataFrame
    as_of: pd.Timestamp


def read_spending(con: Any, settings: Settings, moment: pd.Timestamp, *, returned: pd.Series | None = None) -> Spending:
    """Read what was known at a moment of the admitted tables `signals` and `skus`.

    Parameters
    ----------
    con
        With both tables.
    settings
        `[budget]`, `[costs]` and `[signals]`.
    moment
        The moment of knowledge. The newest report of a period known then counts.
    returned
        Share of each SKU's revenue that will come back, by `sku_id`; default: what is forecast of its further
        orders, see `refunds`.

    Raises
    ------
    DataError
        No spend, or no revenue, was reported in these weeks.
    """
    set_scope(con, settings, moment)
    build_text(con, "budget_weeks", load_sql("budget/weeks"))
    skus = frame(con, f"select * from ({load_sql('budget/skus')}) order by sku_id").set_index("sku_id")
    economics = set_unit_economics(con, settings.costs).set_index("sku_id").reindex(skus.index)
    shares = pd.Series(np.nan, index=skus.index) if returned is None else returned.reindex(skus.index).astype(float)
    if shares.isna().any():
        # Where no refund is ever reported nothing is taken off, and `unknown_costs` names it.
        forecast = fit_refunds(con).forecast(con).set_index("sku_id")["next_share"].reindex(skus.index).astype(float)
        shares = shares.where(shares.notna(), forecast)
    skus["returned"] = shares.fillna(0.0).clip(0.0, MAX_RETURNED)
    # Where nothing at all was sold and no price is known, what an order or a unit costs is not known either.
    left = np.asarray(earning(economics.fillna({"unit_price": np.inf, "order_value": np.inf}), skus["returned"]))
    skus = skus.assign(
        margin=left / (1 - skus["returned"]),
        unit_price=economics["unit_price"],
        order_value=economics["order_value"],
        unknown_costs=economics["unknown_costs"].fillna(""),
        units_left=skus["units_left"].astype(float),
        first_week=skus["first_week"].astype(float),
    )
    weeks = frame(
        con, "select * from budget_weeks where week < $1 order by sku_id, channel, week", [settings.budget.weeks]
    )
    _require(weeks, settings.budget.weeks, moment)
    weeks["category"] = weeks["sku_id"].map(skus["category"]).fillna("(none)")
    # A SKU that is not in the table of SKUs has no costs and can't be planned for, but its weeks still teach.
    weeks["value"] = weeks["revenue"].astype(float) * (1 - weeks["sku_id"].map(skus["returned"]).fillna(0.0))
    return Spending(weeks, skus, moment)


def _require(weeks: pd.DataFrame, n_weeks: int, moment: pd.Timestamp) -> None:
    for name, what in (("spend", "what was paid for ads, by SKU and channel"), ("revenue", "what was sold")):
        if not (weeks[name] > 0).any():
            raise DataError(
                f"signals.{name}: expected {what}, found none in the {n_weeks} weeks before {moment:%Y-%m-%d %H:%M}; "
                f"give a column {name}, an earlier as_of, or more budget.weeks"
            )
