"""Features as of a moment: the SQL steps in order, and their result as one row per SKU and moment."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.errors import DataError, NotEnoughHistoryError
from hitfinder.settings import Settings
from hitfinder.warehouse import build, build_text, execute, fetch, load_sql

__all__ = [
    "KEYS",
    "RATES",
    "VIEWS",
    "count_pairs",
    "counts_of",
    "features",
    "find_training_moments",
    "is_size",
    "look_at",
    "look_back",
    "moment_of_knowledge",
    "observe",
    "on_impressions",
    "set_scope",
    "stock_outs_at",
]

KEYS = ["as_of", "sku_id"]
# A moment this long after all that is known may be a slip.
LONG_AFTER = pd.Timedelta(days=31)

# Every rate that sql/pairs.sql can count, by what it is counted on.
RATES = {
    "impression": tuple(f"{x}_per_impression" for x in ("clicks", "favorites", "carts", "orders", "units", "revenue")),
    "click": tuple(f"{x}_per_click" for x in ("favorites", "carts", "saves", "orders", "revenue")),
    "order": ("revenue_per_order", "units_per_order", "refunds_per_revenue"),
    "typical order": ("typical_revenue_per_order", "typical_units_per_order"),
    "day": tuple(f"{x}_per_day" for x in ("visitors", "clicks", "favorites", "carts", "orders", "units", "revenue"))
    + tuple(f"{x}_again_per_day" for x in ("visitors", "clicks", "orders", "units", "revenue")),
}

# What is known of each rate: its level against history, its lead over the batch, and so on (see sql/shrunk.sql).
VIEWS = ("level", "lead", "sibling_lead", "trend", "place", "own_weight", "spread", "unknown")
# What it is known from.
COUNTED = ("num", "den", "sku_rate", "category_rate", "batch_rate")


def moment_of_knowledge(con: Any, as_of: Any, *, needed: bool = False) -> pd.Timestamp:
    """Return `as_of` as naive UTC; by default the moment at which the newest admitted signal was known.

    A first round is planned, and a new batch ranked, before anything is known of it. With `needed`, nothing could come
    of such a moment, so it is refused.
    """
    if as_of is not None:
        moment = pd.to_datetime(as_of, errors="coerce")
        if not isinstance(moment, pd.Timestamp):
            raise DataError(f"as_of: expected a moment such as 2025-01-06 or 2025-01-06T10:00, got {as_of!r}")
        moment = moment.tz_convert("UTC").tz_localize(None) if moment.tz is not None else moment
        _check_span(con, moment, needed)
        return moment
    # A clock that runs ahead must not carry the list into the future, where every outcome window has closed.
    ahead = "now()::timestamp + interval 1 day"
    newest = execute(con, f"select max(known_at) from signals where known_at <= {ahead}").fetchone()[0]
    if newest is None:
        raise NotEnoughHistoryError("signals: expected rows, got none; give signals or the moment as_of")
    return pd.Timestamp(newest)


def _check_span(con: Any, moment: pd.Timestamp, needed: bool) -> None:
    """Refuse a moment before anything was known, where that is needed; say where one is long after all that is known.

    Raises
    ------
    DataError
        With `needed`, no signal was known at the moment, though later ones are there.
    """
    first, last = execute(con, "select min(known_at), max(known_at) from signals").fetchone()
    if first is None:
        return
    if needed and moment < first:
        raise DataError(
            f"as_of: the first signal was known {first:%Y-%m-%d %H:%M}, got {moment:%Y-%m-%d %H:%M}; give a later "
            "moment"
        )
    if moment - last > LONG_AFTER:
        warnings.warn(
            f"as_of {moment:%Y-%m-%d} is {(moment - last).days:,} days after the newest signal was known "
            f"({last:%Y-%m-%d}); give newer signals or an earlier as_of",
            UserWarning,
            stacklevel=4,
        )


def set_scope(con: Any, settings: Settings, as_of: pd.Timestamp, *, max_rows: int | None = None) -> None:
    """Fix the moment of knowledge: make `scope`, `reports` and `catalog` from the admitted signals and skus.

    Rows of `signals` from after `as_of`, by event time or by `known_at`, do not get past this point. With `max_rows`,
    SKUs are shown at fewer ages (three at least) where they are so many that `look_back` would give more rows.
    """
    period = settings.signals.period
    test_window = settings.label.test_window
    ages = settings.model.ages
    if max_rows is not None:
        n_skus = con.execute("select count(*) from skus").fetchone()[0]
        ages = min(ages, max(3, max_rows // max(n_skus, 1)))
    step = max(period, period * round(test_window / ages / period))
    execute(
        con,
        """
        create or replace temp table scope as
        select
            cast($as_of as timestamp) as as_of,
            cast($period as double) as period_seconds,
            cast($test as double) as test_seconds,
            cast($outcome as double) as outcome_seconds,
            cast($step as double) as step_seconds
        """,
        {
            "as_of": as_of.to_pydatetime(),
            "period": period.total_seconds(),
            "test": test_window.total_seconds(),
            "outcome": settings.label.outcome_window.total_seconds(),
            "step": step.total_seconds(),
        },
    )
    build(con, "reports")
    build(con, "catalog")


def look_at(con: Any) -> None:
    """Take every SKU at the scope's own moment: what a list or a plan needs."""
    build_text(con, "moments", "select scope.as_of, catalog.sku_id from catalog cross join scope")
    observe(con)


def look_back(con: Any) -> None:
    """Take every SKU at its launch and at the later steps of its test window: what a model learns from."""
    find_training_moments(con)
    con.execute("create or replace temp table moments as select * from training_moments")
    observe(con)


def find_training_moments(con: Any) -> None:
    """Make the table `training_moments`: every SKU at its launch and at the later steps of its test window."""
    con.execute(
        "create or replace temp table steps as "
        "select unnest(range(cast(ceil(test_seconds / step_seconds) as bigint) + 2)) as step from scope"
    )
    build(con, "training_moments")


def features(con: Any, rates: pd.DataFrame) -> pd.DataFrame:
    """Compute the features of every SKU at every moment looked at.

    Parameters
    ----------
    con
        After `look_at` or `look_back`, and `count_pairs` of the same rates.
    rates
        The pooling fitted from history (see `pooling.fit_rates`): rate, mean and four strengths.

    Returns
    -------
    pandas.DataFrame
        One row per `as_of` and `sku_id`, in that order: the context (ages, counts, price, calendar) and, for each
        rate, the views in `VIEWS` as `<rate>.<view>`, its `num`, `den`, shrunk rates and `is_measured`. Of a typical
        size (see `is_size`) `num` is a sum of logs.
    """
    _set_rates(con, rates)
    context = pd.DataFrame(fetch(con, f"select * from ({load_sql('context')}) order by as_of, sku_id"))
    numbers = (*VIEWS, *COUNTED)
    told = (*numbers, "is_measured")
    long = fetch(con, f"select {', '.join(told)} from ({load_sql('shrunk')}) order by as_of, sku_id, rate")
    names = sorted(rates["rate"])
    # Every SKU has every rate, in this order: the long table is a block that only wants another shape.
    shape = len(context), len(names) * len(numbers)
    values = np.column_stack([long[column] for column in numbers]).reshape(shape)
    wide = pd.DataFrame(values, context.index, [f"{name}.{column}" for name in names for column in numbers])
    measured = long["is_measured"].reshape(len(context), len(names))
    flags = pd.DataFrame(measured, context.index, [f"{name}.is_measured" for name in names])
    order = [*context.columns, *(f"{name}.{column}" for name in names for column in told)]
    return pd.concat([context, wide, flags], axis=1)[order]


def on_impressions(rates: Iterable[str]) -> bool:
    """Tell whether exposure is counted in impressions, by the rates that history measured; else it is days.

    >>> on_impressions(["clicks_per_impression", "carts_per_click"]), on_impressions(["orders_per_day"])
    (True, False)
    """
    return any(name.endswith("_per_impression") for name in rates)


def is_size(rate: str) -> bool:
    """Tell whether a rate is the typical size of an order: its `num` is a sum of logs, and it is a geometric mean.

    >>> is_size("typical_revenue_per_order"), is_size("revenue_per_order")
    (True, False)
    """
    return rate.startswith("typical_")


def counts_of(rates: Iterable[str]) -> list[str]:
    """Return the columns of signals that rates are counted from, sorted.

    >>> counts_of(["saves_per_click", "typical_revenue_per_order", "visitors_again_per_day"])
    ['carts', 'clicks', 'favorites', 'orders', 'revenue', 'visitors']
    """
    parts = {part for rate in rates for part in rate.removeprefix("typical_").replace("_again", "").split("_per_")}
    names = {part if part.endswith("s") or part == "revenue" else f"{part}s" for part in parts - {"day"}}
    return sorted((names - {"saves"}) | ({"favorites", "carts"} if "saves" in names else set()))


def count_pairs(con: Any, names: list[str]) -> None:
    """Count the named rates for every SKU and moment looked at: make the table `pairs`."""
    execute(
        con, "create or replace temp table rates as select unnest(cast($names as varchar[])) as rate", {"names": names}
    )
    build_text(con, "pairs", _pairs_of(frozenset(names)))


@cache
def _pairs_of(names: frozenset[str]) -> str:
    """Return sql/pairs.sql without the branches of rates that are not asked for: planning them takes its time too."""
    text = load_sql("pairs")
    head, start, rest = text.partition("counted as (\n")
    union, end, tail = rest.partition("\n),\n")
    branches = union.split("\n    union all\n")
    kept = [branch for branch in branches if re.search(r"'(\w+)' as rate", branch)[1] in names]  # type: ignore[index]
    return head + start + "\n    union all\n".join(kept or branches[:1]) + end + tail


def _set_rates(con: Any, rates: pd.DataFrame) -> None:
    """Hand the pooling to SQL as the table `rates`."""
    # A handful of numbers: as parameters, for to register a DataFrame takes longer than all that is done with it.
    kinds = {"rate": "varchar", **dict.fromkeys(rates.columns.drop("rate"), "double")}
    lists = ", ".join(f"unnest(cast(${name} as {kind}[])) as {name}" for name, kind in kinds.items())
    values = {name: rates[name].tolist() for name in kinds}
    execute(con, f"create or replace temp table rates as select {lists}", values)


def observe(con: Any) -> None:
    """Look at the table `moments` (as_of, sku_id): make `stock_outs`, `visible` and `totals`."""
    # Most lists have no SKU that can have sold out: planning the search for some would take longer than a small list.
    if execute(con, "select count(reached_stock) from catalog").fetchone()[0]:
        build(con, "stock_outs")
    else:
        execute(
            con, "create or replace temp table stock_outs (as_of timestamp, sku_id varchar, sold_out_second double)"
        )
    build(con, "visible")
    build(con, "totals")


def stock_outs_at(con: Any, table: str, moments: str) -> None:
    """Make the table `table` of the SKUs that had sold out at other moments than those looked at.

    Parameters
    ----------
    con
        After `set_scope`.
    table
        Its name; its columns are those of sql/stock_outs.sql.
    moments
        A select of `as_of, sku_id`.
    """
    build_text(con, table, f"with moments as (\n{moments}\n)\nselect * from (\n{load_sql('stock_outs')}\n)")
