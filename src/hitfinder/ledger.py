"""The ledger: where the money of each SKU, category, channel or week went, and what was left of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from hitfinder.admission import admit_signals_and_skus, say_where_ids_differ
from hitfinder.costs import rates_of, set_unit_economics
from hitfinder.errors import SettingsError
from hitfinder.features import moment_of_knowledge, set_scope
from hitfinder.settings import CostSettings, Settings
from hitfinder.warehouse import TableLike, build, frame, open_warehouse

__all__ = ["BY", "COSTS", "MONEY_LINES", "ledger", "ledgers", "set_ledger"]

COSTS = (
    "platform_fee", "commission", "payment_fee", "coupons", "shipping", "freight_insurance", "return_handling",
    "cost_of_goods", "ad_spend",
)  # fmt: skip
MONEY_LINES = ("revenue", "refunds", "net_revenue", *COSTS, "contribution")
COUNTED = ("impressions", "orders", "units")
BY = ("sku_id", "batch_id", "style_id", "category", "channel", "creative_id", "period_start")
# The Monday from which weeks are counted.
MONDAY = "timestamp '1970-01-05 00:00:00'"


def ledger(
    signals: TableLike,
    skus: TableLike,
    settings: Settings,
    as_of: Any = None,
    *,
    by: Sequence[str] = ("sku_id",),
    every: pd.Timedelta | None = None,
) -> pd.DataFrame:
    """Turn signals and costs into a ledger.

    Parameters
    ----------
    signals, skus
        Tables of the contract.
    settings
        `[costs]` holds the rates.
    as_of
        The moment of knowledge, UTC; default: when the newest signal was known. The newest report of a period counts.
    by
        What each row is about: one or more of BY; none for one row over all.
    every
        With `period_start` in `by`: gather periods into stretches of this length, weeks from Monday; default: the
        signals' own periods.

    Returns
    -------
    pandas.DataFrame
        One row per group, in its order: the columns of `by`, `impressions, orders, units`, the MONEY_LINES as exact
        decimals (of four places; `net_revenue` is less refunds; NULL where nothing was counted or no rate is known),
        `contribution_per_order, contribution_per_1000_impressions`, `net_return_on_spend` (net revenue per unit of
        ad spend), `break_even_return_on_spend` (what that must be so that nothing is lost) and `unknown_costs`, the
        costs that are not in the sum because nobody gave them.

    Raises
    ------
    SettingsError
        `by` names what a ledger can't be grouped by, or `every` is given without `period_start`.
    DataError
        A table can't be understood.

    Examples
    --------
    >>> from hitfinder.settings import parse_settings
    >>> signals = pd.DataFrame({"sku_id": ["a", "a"], "period_start": ["2025-01-06", "2025-01-07"], "orders": [2, 1],
    ...                         "units": [2, 1], "revenue": [100.0, 50.0], "refunds": [0.0, 50.0], "spend": 5.0})
    >>> skus = pd.DataFrame({"sku_id": ["a"], "price": [50.0], "unit_cost": [20.0]})
    >>> row = ledger(signals, skus, parse_settings({"costs": {"platform_fee": 0.05, "resellable": 1.0}})).iloc[0]
    >>> [str(row[name]) for name in ("net_revenue", "platform_fee", "cost_of_goods", "contribution")]
    ['100.0000', '5.0000', '40.0000', '45.0000']
    """
    [table] = ledgers(signals, skus, settings, as_of, by=(by,), every=every)
    return table


def ledgers(
    signals: TableLike,
    skus: TableLike,
    settings: Settings,
    as_of: Any = None,
    *,
    by: Sequence[Sequence[str]],
    every: pd.Timedelta | None = None,
) -> list[pd.DataFrame]:
    """Return several ledgers of the same signals, one for each of `by`; see `ledger`."""
    asked = [list(dict.fromkeys(names)) for names in by]
    if unknown := [name for names in asked for name in names if name not in BY]:
        raise SettingsError(f"by: expected some of {', '.join(BY)}, got {', '.join(map(repr, unknown))}")
    if every is not None and not any("period_start" in names for names in asked):
        raise SettingsError("every: gathers periods, so it needs period_start in `by`; add it or leave `every` out")
    con = open_warehouse(threads=settings.model.threads)
    try:
        admit_signals_and_skus(con, signals, skus, period=settings.signals.period)
        say_where_ids_differ(con, allowed=0.5)
        _list_all(con)
        set_scope(con, settings, moment_of_knowledge(con, as_of, needed=True))
        set_ledger(con, settings.costs)
        return [_grouped(con, names, every if "period_start" in names else None) for names in asked]
    finally:
        con.close()


def _list_all(con: Any) -> None:
    """Add SKUs that have signals and are not listed: their money is real, whatever is not known of them."""
    strange = "select distinct sku_id from signals where sku_id not in (select sku_id from skus)"
    count, one = con.execute(f"select count(*), min(sku_id) from ({strange})").fetchone()
    if count:
        con.execute(f"insert into skus (sku_id) {strange}")
        warnings.warn(
            f"skus: {count} SKUs with signals are not listed (such as {one!r}); they are in the ledger, without a "
            "category or a cost of goods",
            UserWarning,
            stacklevel=4,
        )


def set_ledger(con: Any, costs: CostSettings) -> None:
    """Make the table `ledger`, a row for each report; see sql/ledger.sql. `con` is after `features.set_scope`."""
    set_unit_economics(con, costs)
    skus = frame(con, "select sku_id, category, price, unit_cost from skus order by sku_id")
    con.register("rates_given", rates_of(skus, costs))
    con.execute("create or replace temp table cost_rates as select * from rates_given")
    con.unregister("rates_given")
    build(con, "ledger")


def _grouped(con: Any, columns: list[str], every: pd.Timedelta | None) -> pd.DataFrame:
    start = "period_start"
    if every is not None:
        seconds = int(every.total_seconds())
        start = (
            f"{MONDAY} + to_seconds(cast(floor((epoch(period_start) - epoch({MONDAY})) / {seconds}) as bigint) "
            f"* {seconds}) as period_start"
        )
    keys = [start if name == "period_start" else name for name in columns]
    counts = [f"cast(sum({name}) as bigint) as {name}" for name in COUNTED]
    # Two such sums can still be added: a decimal has 38 places at most.
    money = [f"cast(sum({name}) as decimal(28, 4)) as {name}" for name in MONEY_LINES]
    told = "list_sort(list_distinct(flatten(list(string_split(nullif(unknown_costs, ''), ', ')))))"
    group = "group by all order by all" if keys else ""
    query = f"""
        with known as (
            select {", ".join([*keys, *(f"ledger.{name}" for name in (*COUNTED, *MONEY_LINES))])},
                concat_ws(
                    ', ',
                    nullif(unknown_costs, ''),
                    -- What some reports did not count is not known of them, whatever others did.
                    case when ledger.revenue > 0 and ledger.shipping is null then 'shipping' end,
                    case when ledger.revenue > 0 and ledger.freight_insurance is null then 'freight_insurance' end,
                    case
                        when
                            ledger.revenue > 0
                            and ledger.cost_of_goods is null
                            and not contains(unknown_costs, 'unit_cost')
                            then 'cost_of_goods'
                    end
                ) as unknown_costs
            from ledger inner join (select sku_id, unknown_costs from unit_economics) using (sku_id)
        )
        select {", ".join([*columns, *counts, *money])},
            coalesce(array_to_string({told}, ', '), '') as unknown_costs
        from known
        {group}
        """
    table = con.sql(query).to_arrow_table().to_pandas(types_mapper=_exact)
    return _with_ratios(table)


def _exact(kind: pa.DataType) -> pd.ArrowDtype | None:
    """Keep decimals as they are: doubles would not add up to the cent."""
    return pd.ArrowDtype(kind) if pa.types.is_decimal(kind) else None


def _with_ratios(table: pd.DataFrame) -> pd.DataFrame:
    def of(name: str) -> Any:
        return table[name].to_numpy(dtype=float, na_value=np.nan)

    def share(above: Any, below: Any) -> Any:
        return np.divide(above, below, out=np.full(len(table), np.nan), where=below > 0)

    spent = np.nan_to_num(of("ad_spend"))
    return table.drop(columns="unknown_costs").assign(
        contribution_per_order=share(of("contribution"), of("orders")),
        contribution_per_1000_impressions=share(1000 * of("contribution"), of("impressions")),
        net_return_on_spend=share(of("net_revenue"), spent),
        break_even_return_on_spend=share(of("net_revenue"), of("contribution") + spent),
        unknown_costs=table["unknown_costs"],
    )
