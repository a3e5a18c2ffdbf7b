"""Counting the steps of the funnel: what happened, and on how much of what it happens to had come due.

An order follows a click by days and a refund follows an order by weeks. So clicks of yesterday are not all "clicks
without an order": only the part of them that would have ordered by now, had they been clicks like all others. How
long it takes is read off the signals themselves, over all SKUs that were launched in one week.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import nnls

from hitfinder.features import stock_outs_at
from hitfinder.settings import Settings
from hitfinder.warehouse import build, build_text, frame, load_sql

__all__ = ["STEPS", "Step", "Waits", "count_steps", "fit_waits", "measured_steps", "order_values"]

Array = npt.NDArray[np.float64]

# With fewer events the wait can't be told, and everything counts as due at once.
MIN_EVENTS = 50


@dataclass(frozen=True)
class Step:
    """One step: `name`, what is counted (`top`) on what (`below`), and whether more of it is worse (returns)."""

    name: str
    top: str
    below: str

    @property
    def more_is_worse(self) -> bool:
        """Whether a rate above the peers' is the weakness."""
        return self.name == "return"


@dataclass(frozen=True)
class Waits:
    """`share[s]`: how much of a step's events come `s` days after what they are counted on; sums to 1."""

    share: Array

    def due(self, days: Array) -> Array:
        """Return how much has come due so many whole days later."""
        reached = np.concatenate([[0.0], np.cumsum(self.share)])
        return np.asarray(reached[np.clip(days.astype(int) + 1, 0, len(self.share))])


# The first pair that was measured is taken. Orders are counted on carts only where orders go through carts.
STEPS = {
    "click": (("clicks", "impressions"),),
    "cart": (("carts", "clicks"), ("carts", "visitors")),
    "order": (("orders", "carts"), ("orders", "clicks"), ("orders", "visitors"), ("orders", "impressions")),
    "return": (("refunds", "orders"),),
}


def measured_steps(con: Any) -> list[Step]:
    """Name the steps that the reports can tell, in the order of the funnel; make `reports_in_stock`.

    What was shown of a SKU after it had sold out is no exposure: its checkout is not weak.

    Parameters
    ----------
    con
        After `features.set_scope`.
    """
    stock_outs_at(con, "last_stock_outs", "select scope.as_of, catalog.sku_id from catalog cross join scope")
    build(con, "reports_in_stock")
    columns = sorted({c for pairs in STEPS.values() for pair in pairs for c in pair} | {"revenue"})
    sums = ", ".join(f"cast(sum({c}) as double) as {c}" for c in columns)
    totals = frame(con, f"select {sums} from reports where superseded_at is null").iloc[0]
    steps = []
    for name, pairs in STEPS.items():
        for top, below in pairs:
            told = totals[top] > 0 and totals[below] > 0
            if (top, below) == ("orders", "carts"):
                told = told and totals["carts"] >= totals["orders"]
            if top == "refunds":  # turned into orders, see `order_values`
                told = told and totals["revenue"] > 0
            if told:
                steps.append(Step(name, top, below))
                break
    return steps


def order_values(con: Any) -> pd.Series:
    """Return the mean value of an order of each SKU that has any, by `sku_id`."""
    rows = frame(
        con,
        "select sku_id, cast(sum(revenue) as double) / sum(orders) as order_value from reports "
        "where superseded_at is null and revenue is not null and orders is not null "
        "group by sku_id having sum(orders) > 0 and sum(revenue) > 0 order by sku_id",
    )
    return rows.set_index("sku_id")["order_value"]


def count_steps(con: Any, settings: Settings, step: Step) -> tuple[pd.DataFrame, Waits]:
    """Count one step of every SKU, by channel, creative and week back.

    Parameters
    ----------
    con
        After `features.set_scope`.
    settings
        `signals.period` and `[diagnosis]`.
    step
        From `measured_steps`.

    Returns
    -------
    pandas.DataFrame
        `sku_id, category, channel, creative_id, week, num, den`: events counted, and on how many of what they are
        counted on had come due; money of refunds is turned into orders of the SKU's mean value. Weeks count back from
        0, the newest.
    Waits
        How long the events take.
    """
    day = max(settings.signals.period, pd.Timedelta(days=1))
    asked = settings.diagnosis
    history = max(int(asked.history / day), 1)
    wait = {"order": asked.order_wait, "return": asked.return_wait}.get(step.name)
    reach = 0 if wait is None else int(np.ceil(wait / day))
    week = max(1, round(pd.Timedelta(days=7) / day))
    build_text(
        con,
        "funnel_days",
        load_sql("funnel_days").format(
            top=step.top, below=step.below, day_seconds=day.total_seconds(), patience=week, reach=history + reach
        ),
    )
    if step.top == "refunds":
        _refunds_as_orders(con)
    waits = fit_waits(_cohorts(con, week), history, reach) if reach else Waits(np.ones(1))
    con.register("waits_source", pd.DataFrame({"days": np.arange(len(waits.share)), "share": waits.share}))
    con.execute("create or replace temp table waits as select * from waits_source where share > 0")
    con.unregister("waits_source")
    build_text(con, "funnel_cells", load_sql("funnel_cells").format(days_per_week=week, history=history))
    cells = frame(con, "select * from funnel_cells order by sku_id, channel, creative_id, week")
    return cells, waits


def _refunds_as_orders(con: Any) -> None:
    """Turn the money of refunds into orders: of one that costs ten times as much, one return is one return."""
    con.register("order_values_source", order_values(con).reset_index())
    build_text(
        con,
        "funnel_days_of_orders",
        "select days.* replace (coalesce(days.num / values_.order_value, 0) as num) "
        "from funnel_days as days left join order_values_source as values_ on days.sku_id = values_.sku_id",
    )
    con.execute("create or replace temp table funnel_days as select * from funnel_days_of_orders")
    con.unregister("order_values_source")


def _cohorts(con: Any, week: int) -> pd.DataFrame:
    """Sum the days over the SKUs launched in one week, which have much the same traffic in the same order."""
    return frame(
        con,
        f"select floor(epoch(catalog.launched_at) / (86400.0 * {week})) as cohort, days_back, "
        "sum(num) as num, sum(den) as den from funnel_days inner join catalog "
        "on funnel_days.sku_id = catalog.sku_id group by cohort, days_back order by cohort, days_back",
    )


def fit_waits(days: pd.DataFrame, history: int, reach: int) -> Waits:
    """Read off how long events take: what a cohort counts in a day, against what it had been counted on before.

    Parameters
    ----------
    days
        `cohort, days_back, num, den`.
    history
        Days back from which events are explained; earlier ones are only what they follow.
    reach
        The longest wait, in days. Waits are told in steps that grow with them.

    Examples
    --------
    One event in ten, half of them at once and half a day later:

    >>> den = np.array([100.0, 300.0, 100.0, 500.0, 100.0, 0.0, 200.0, 400.0])
    >>> num = 0.05 * den + 0.05 * np.append(0.0, den[:-1])
    >>> days = pd.DataFrame({"cohort": 0, "days_back": np.arange(8)[::-1], "num": num, "den": den})
    >>> fit_waits(days, 7, 1).share.round(3).tolist()
    [0.5, 0.5]
    """
    if days["num"].sum() < MIN_EVENTS:
        return Waits(np.ones(1))
    edges = _edges(reach)
    tall = history + reach
    rows, counted = [], []
    for _, cohort in days.groupby("cohort"):
        num, den = (np.bincount(cohort["days_back"], cohort[c], tall)[::-1] for c in ("num", "den"))
        so_far = np.concatenate([[0.0], np.cumsum(den)])
        # Column of a bin: the mean of what stood that many days before; its coefficient is the bin's share in all.
        at = np.arange(tall)
        columns = [
            (so_far[np.maximum(at - low + 1, 0)] - so_far[np.maximum(at - high + 1, 0)]) / (high - low)
            for low, high in itertools.pairwise(edges)
        ]
        known = np.column_stack(columns)[reach:]
        there = known.sum(axis=1) > 0
        rows.append(known[there])
        counted.append(num[reach:][there])
    known, num = np.concatenate(rows), np.concatenate(counted)
    if not len(num):
        return Waits(np.ones(1))
    share = np.full(known.shape[1], 1 / known.shape[1])
    for _ in range(2):  # counts scatter as their root: weigh by what is expected of the first pass
        expected = known @ share
        root = np.sqrt(np.maximum(expected, 0.02 * expected.mean() + 1e-12))
        share, _ = nnls(known / root[:, None], num / root)
        if share.sum() <= 0:
            return Waits(np.ones(1))
    spread = np.repeat(share / np.diff(edges), np.diff(edges))
    return Waits(spread / spread.sum())


def _edges(reach: int) -> npt.NDArray[np.int64]:
    """Cut the waits into bins: 0, 1, 2, 3, then ever longer ones.

    >>> _edges(14).tolist(), _edges(2).tolist()
    ([0, 1, 2, 3, 4, 5, 7, 9, 12, 15], [0, 1, 2, 3])
    """
    edges = [0]
    while edges[-1] <= reach:
        edges.append(min(max(edges[-1] + 1, int(edges[-1] * 1.42)), reach + 1))
    return np.array(edges)
