"""Costs: what each SKU keeps of its revenue, from the cost chain in the settings.

A SKU's contribution is linear in what is counted: so much for a unit of revenue, of refunds, for an order, a unit sold,
an impression. These few coefficients are all that the ledger, the outcome `profit`, what-if questions and the budget
know of costs; `rates_of` is where they come from.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hitfinder.settings import CostRates, CostSettings
from hitfinder.warehouse import build, frame

__all__ = ["COEFFICIENTS", "RATES", "earning", "rates_of", "set_unit_economics", "unit_economics", "unknown_costs"]

RATES = tuple(CostRates.model_fields)
COEFFICIENTS = ("per_revenue", "per_refund", "per_order", "per_unit", "per_impression")


def rates_of(skus: pd.DataFrame, costs: CostSettings) -> pd.DataFrame:
    """Return the cost rates of each SKU: its own, else its category's, else everybody's.

    Parameters
    ----------
    skus
        `sku_id`, and where there are such columns `category`, `price`, `unit_cost`.
    costs
        Settings `[costs]`.

    Returns
    -------
    pandas.DataFrame
        One row per SKU in the order given: `sku_id`, the columns RATES and `unit_cost`, NaN where nobody gave them.
        Where `skus.unit_cost` is not known, it is `goods_share` of the price.

    Examples
    --------
    >>> from hitfinder.settings import parse_settings
    >>> costs = parse_settings({"costs": {"shipping": 3, "category": {"sofa": {"shipping": 40}}}}).costs
    >>> skus = pd.DataFrame({"sku_id": ["a", "b"], "category": ["sofa", "mug"], "unit_cost": [90.0, 2.0]})
    >>> rates_of(skus, costs)[["sku_id", "shipping", "unit_cost"]].values.tolist()
    [['a', 40.0, 90.0], ['b', 3.0, 2.0]]
    """
    ids = skus["sku_id"].astype(str)
    category = (skus["category"] if "category" in skus else pd.Series(None, index=skus.index, dtype=object)).astype(str)
    rates = pd.DataFrame({"sku_id": ids.to_numpy()})
    for name in RATES:
        own = ids.map({key: getattr(given, name) for key, given in costs.sku.items()})
        shared = category.map({key: getattr(given, name) for key, given in costs.category.items()})
        values = own.astype(float).fillna(shared.astype(float))
        everywhere = getattr(costs, name)
        rates[name] = (values if everywhere is None else values.fillna(everywhere)).to_numpy()
    price = _numbers(skus, "price")
    known = _numbers(skus, "unit_cost")
    rates["unit_cost"] = np.where(np.isnan(known), rates["goods_share"].to_numpy() * price, known)
    return rates


def unit_economics(
    skus: pd.DataFrame,
    costs: CostSettings,
    seen: pd.DataFrame | None = None,
    *,
    added: Mapping[str, float] | None = None,
    price_change: float = 0.0,
) -> pd.DataFrame:
    """Return the coefficients of each SKU's contribution.

    Parameters
    ----------
    skus, costs
        See `rates_of`.
    seen
        What was seen of SKUs: `sku_id, unit_price` (revenue per unit), `order_value` (revenue per order), `unmeasured`
        (what its signals did not count, words joined by ", "). Without it, or where it is NaN, the price stands in for
        both.
    added
        What is added to rates, such as ``{"commission": -0.03}``. What is added to a rate that nobody gave counts all
        the same: the difference is known where the whole is not.
    price_change
        Relative change of all prices; 0.1 is 10 % more.

    Returns
    -------
    pandas.DataFrame
        One row per SKU in the order given: `sku_id`, COEFFICIENTS (contribution = the sum of counts times these, less
        spend), `unit_price`, `order_value`, `unknown_costs` (names of the costs that nobody gave and that are therefore
        not in the sum, joined by ", ").

    Examples
    --------
    >>> from hitfinder.settings import parse_settings
    >>> costs = parse_settings({"costs": {"platform_fee": 0.05, "shipping": 3.0}}).costs
    >>> skus = pd.DataFrame({"sku_id": ["a"], "price": [50.0], "unit_cost": [20.0]})
    >>> one = unit_economics(skus, costs).iloc[0]
    >>> float(one["per_revenue"]), float(one["per_order"]), float(one["per_unit"]), float(one["per_refund"])
    (0.95, -3.0, -20.0, -0.95)
    >>> one["unknown_costs"]
    'payment_fee, commission, coupons, freight_insurance, return_handling, resellable'
    """
    rates = rates_of(skus, costs)
    price = _numbers(skus, "price")
    beside = pd.DataFrame({"sku_id": rates["sku_id"]})
    if seen is None:
        beside = beside.assign(unit_price=np.nan, order_value=np.nan, unmeasured="")
    else:
        beside = beside.merge(seen, on="sku_id", how="left")
    unit_price = np.where(beside["unit_price"] > 0, beside["unit_price"], np.where(price > 0, price, np.nan))
    order_value = np.where(beside["order_value"] > 0, beside["order_value"], unit_price)
    unit_price, order_value = unit_price * (1 + price_change), order_value * (1 + price_change)
    more = added or {}
    of = {name: rates[name].fillna(0.0).to_numpy() + more.get(name, 0.0) for name in (*RATES, "unit_cost")}
    handling = np.nan_to_num(of["return_handling"] / order_value)
    goods_back = np.nan_to_num(of["resellable"] * of["unit_cost"] / unit_price)
    found = pd.DataFrame(
        {
            "sku_id": rates["sku_id"],
            "per_revenue": 1 - of["platform_fee"] - of["commission"] - of["payment_fee"] - of["coupons"],
            "per_refund": -1 + of["platform_fee"] + of["commission"] - handling + goods_back,
            "per_order": -of["shipping"] - of["freight_insurance"],
            "per_unit": -of["unit_cost"],
            "per_impression": -of["ad_cost"] / 1000,
            "unit_price": unit_price,
            "order_value": order_value,
        }
    )
    required = [name for name in RATES if name not in ("goods_share", "ad_cost")]
    unknown = rates[[*required, "unit_cost"]].isna()
    names = np.array([*required, "unit_cost"], dtype=object)
    told = [", ".join(names[row]) for row in unknown.to_numpy()]
    # A rate for ads stands in for spend that was not reported, where impressions were.
    unmeasured = [
        ", ".join(
            name
            for name in text.split(", ")
            if name != "impressions" and not (name == "spend" and known and "impressions" not in text)
        )
        for text, known in zip(beside["unmeasured"].fillna(""), rates["ad_cost"].notna(), strict=True)
    ]
    found["unknown_costs"] = [", ".join(part for part in pair if part) for pair in zip(told, unmeasured, strict=True)]
    return found


def earning(economics: pd.DataFrame, return_share: Any) -> Any:
    """Return what one unit of revenue leaves before ads, where a share of it will be refunded; shape (SKUs,).

    Examples
    --------
    >>> economics = pd.DataFrame({"per_revenue": [0.9], "per_refund": [-1.0], "per_order": [-5.0], "per_unit": [-40.0],
    ...                           "order_value": [100.0], "unit_price": [100.0]})
    >>> float(earning(economics, 0.1)[0].round(2))
    0.35
    """
    of = {name: economics[name].to_numpy(dtype=float) for name in (*COEFFICIENTS[:4], "order_value", "unit_price")}
    # Without a price nothing is known of what an order or a unit takes of the revenue.
    beside = of["per_order"] / of["order_value"] + of["per_unit"] / of["unit_price"]
    return of["per_revenue"] + np.asarray(return_share) * of["per_refund"] + beside


def set_unit_economics(con: Any, costs: CostSettings) -> pd.DataFrame:
    """Make the table `unit_economics` for the ledger and the labels, from `skus` and what the scope's reports show.

    Parameters
    ----------
    con
        After `features.set_scope`.
    costs
        Settings `[costs]`.
    """
    build(con, "unit_prices")
    seen = frame(con, "select * from unit_prices")
    skus = frame(con, "select sku_id, category, price, unit_cost from skus order by sku_id")
    found = unit_economics(skus, costs, seen)
    if strange := sorted(set(costs.category) - set(skus["category"].dropna().astype(str))):
        warnings.warn(
            f"costs.category: no SKU is of {', '.join(map(repr, strange))}; write the names as skus has them",
            UserWarning,
            stacklevel=2,
        )
    con.register("economics_source", found)
    con.execute(
        # A column without rows has no kind of its own.
        "create or replace temp table unit_economics as "
        "select * replace (cast(sku_id as varchar) as sku_id, cast(unknown_costs as varchar) as unknown_costs) "
        "from economics_source"
    )
    con.unregister("economics_source")
    return found


def unknown_costs(con: Any) -> str:
    """Name all costs that are unknown of some SKU; `con` is after `set_unit_economics`."""
    told = con.execute("select distinct unknown_costs from unit_economics").fetchall()
    return ", ".join(sorted({name for (text,) in told for name in text.split(", ") if name}))


def _numbers(skus: pd.DataFrame, name: str) -> Any:
    if name not in skus:
        return np.full(len(skus), np.nan)
    return pd.to_numeric(skus[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
