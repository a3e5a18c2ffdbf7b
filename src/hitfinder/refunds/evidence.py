"""What is known of each SKU's refunds at a moment: the SQL steps, and their sums in effective orders."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.warehouse import build, frame

__all__ = ["GATHERED", "daily", "gather", "lateness", "set_grid"]

GATHERED = ("revenue", "orders", "refunds", "measured_revenue", "measured_orders", "squares", "developed")
DAY = 86400.0


def set_grid(con: Any, origin: pd.Timestamp | None = None, step_seconds: float | None = None) -> tuple[Any, float]:
    """Lay the days: from the start of the first report's day on, in steps of a day, or of a period if that is longer.

    Returns
    -------
    origin, step_seconds
        As given, or as found in `reports` and `scope`.
    """
    if origin is None or step_seconds is None:
        found, period = con.execute(
            "select (select date_trunc('day', min(period_start)) from reports), period_seconds from scope"
        ).fetchall()[0]
        origin = pd.Timestamp("2000-01-01") if found is None else pd.Timestamp(found)
        step_seconds = max(float(period), DAY)
    con.execute(
        "create or replace temp table refund_grid as "
        "select cast($origin as timestamp) as origin, cast($step as double) as step_seconds",
        {"origin": pd.Timestamp(origin).to_pydatetime(), "step": step_seconds},
    )
    return pd.Timestamp(origin), step_seconds


def lateness(con: Any) -> pd.DataFrame:
    """Return how late reports came: `delay, room, reports`."""
    build(con, "refunds_lateness")
    return frame(con, "select * from refunds_lateness order by delay, room")


def daily(con: Any) -> pd.DataFrame:
    """Return every SKU's days at the scope's moment: `sku_id, category, day, age, orders, refunds`, both in orders.

    An order is here the SKU's money-weighted mean order (see `gather`), so that one bulk order is not a hundred.
    """
    _set_moments(con, "select scope.as_of, catalog.sku_id from catalog cross join scope")
    build(con, "refunds_daily")
    return frame(
        con,
        """
        with sized as (
            select
                refunds_daily.*,
                sum(squares) over (partition by refunds_daily.sku_id) as all_squares,
                sum(measured_revenue) over (partition by refunds_daily.sku_id) as all_revenue
            from refunds_daily
        )
        select
            sized.sku_id,
            catalog.category,
            sized.day,
            sized.age,
            cast(measured_revenue as double) * cast(all_revenue as double) / cast(all_squares as double) as orders,
            cast(refunds as double) * cast(all_revenue as double) / cast(all_squares as double) as refunds
        from sized
        inner join catalog on sized.sku_id = catalog.sku_id
        where all_squares > 0 and sized.measured_revenue is not null
        order by sized.sku_id, sized.day
        """,
    )


def gather(
    con: Any, development: npt.NDArray[np.float64], pairs: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Gather the evidence of SKUs, and that of their styles' other SKUs at the same moments.

    Parameters
    ----------
    con
        After `features.set_scope` and `set_grid`.
    development
        `development[a]`: the share of refunds known a steps after the order's day began; all of it later.
    pairs
        `sku_id, moment`; None: every SKU at the scope's moment.

    Returns
    -------
    own, siblings
        Both one row per pair, in the pairs' order: `sku_id, moment, category, style_id, price` and `GATHERED`. Sums are
        0 where nothing was sold, in money but for the orders; `squares` is the sum of squared order values.
    """
    asked = "select sku_id, scope.as_of as moment from catalog cross join scope order by sku_id"
    if pairs is None:
        pairs = frame(con, asked)
    con.register("refund_pairs_source", pairs[["sku_id", "moment"]])
    con.execute(
        "create or replace temp table refund_pairs as "
        "select cast(sku_id as varchar) as sku_id, cast(moment as timestamp) as as_of from refund_pairs_source"
    )
    con.unregister("refund_pairs_source")
    _set_moments(
        con,
        "select distinct refund_pairs.as_of, family.sku_id from refund_pairs "
        "inner join catalog on refund_pairs.sku_id = catalog.sku_id "
        "inner join catalog as family on catalog.style_id = family.style_id",
    )
    build(con, "refunds_daily")
    _set_development(con, development)
    build(con, "refunds_evidence")
    rows = frame(
        con,
        "select refund_moments.sku_id, refund_moments.as_of as moment, catalog.category, catalog.style_id, "
        f"catalog.price, {', '.join(f'coalesce({name}, 0) as {name}' for name in GATHERED)} "
        "from refund_moments inner join catalog on refund_moments.sku_id = catalog.sku_id "
        "left join refunds_evidence on refund_moments.sku_id = refunds_evidence.sku_id "
        "and refund_moments.as_of = refunds_evidence.as_of order by refund_moments.sku_id, refund_moments.as_of",
    )
    names = list(GATHERED)
    others = rows.groupby(["style_id", "moment"], sort=False)[names].transform("sum") - rows[names]
    siblings = pd.concat([rows.drop(columns=names), others.clip(lower=0)], axis=1)
    keys = pairs[["sku_id", "moment"]].assign(moment=pairs["moment"].astype(rows["moment"].dtype))
    return tuple(keys.merge(table, how="left", on=["sku_id", "moment"]) for table in (rows, siblings))  # type: ignore[return-value]  # two of them


def _set_moments(con: Any, select: str) -> None:
    con.execute(f"create or replace temp table refund_moments as {select}")


def _set_development(con: Any, development: npt.NDArray[np.float64]) -> None:
    con.register(
        "refund_development_source",
        pd.DataFrame({"age": np.arange(len(development), dtype=np.int64), "share": development}),
    )
    con.execute("create or replace temp table refund_development as select * from refund_development_source")
    con.unregister("refund_development_source")
