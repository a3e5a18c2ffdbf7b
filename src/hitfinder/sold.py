"""Sold: how many units of each SKU were sold, and for how long it was in stock meanwhile."""

from __future__ import annotations

from typing import Any

import pandas as pd

from hitfinder.features import stock_outs_at
from hitfinder.warehouse import frame, load_sql

__all__ = ["sold_in_windows", "sold_lately", "sold_units"]

NOW = "select scope.as_of, catalog.sku_id from catalog cross join scope"
OPENS = "epoch(catalog.launched_at) + scope.test_seconds"
WINDOWS = (
    f"select catalog.sku_id, {OPENS} as begins, {OPENS} + scope.outcome_seconds as ends from catalog cross join scope"
)
# Since its window opened until it sold out, no further back than a window is long: last year's sales tell little.
LATELY = f"""
    select
        sku_id,
        least(greatest(opens, ends - outcome_seconds), ends) as begins,
        ends
    from (
        select
            catalog.sku_id,
            {OPENS} as opens,
            least(epoch(scope.as_of), last_stock_outs.sold_out_second) as ends,
            scope.outcome_seconds
        from catalog
        left join last_stock_outs on catalog.sku_id = last_stock_outs.sku_id
        cross join scope
    )
"""


def sold_in_windows(con: Any) -> pd.DataFrame:
    """Return what each SKU sold in its outcome window, by what is known at the scope's moment; see `sold_units`."""
    return sold_units(con, WINDOWS)


def sold_lately(con: Any) -> pd.DataFrame:
    """Return what each SKU sold since its outcome window opened, over the last window's length that it was in stock."""
    return sold_units(con, LATELY)


def sold_units(con: Any, stretches: str) -> pd.DataFrame:
    """Return what each SKU sold in a stretch of time of its own.

    Parameters
    ----------
    con
        After `features.set_scope`.
    stretches
        A select of `sku_id, begins, ends`, in seconds since 1970; it may read `last_stock_outs`.

    Returns
    -------
    pandas.DataFrame
        In order of `sku_id`: `sku_id, stock, is_sold_out, units` (in all), `stretch_units` (in the stretch), `in_stock`
        (how long of it, in outcome windows). NaN where units were not measured, or no stock was given.
    """
    stock_outs_at(con, "last_stock_outs", NOW)
    con.execute(f"create or replace temp table stretches as {stretches}")
    told = frame(con, f"select * from ({load_sql('sold_units')}) order by sku_id")
    for name in ("stock", "units", "stretch_units"):
        told[name] = told[name].astype(float)
    return told
