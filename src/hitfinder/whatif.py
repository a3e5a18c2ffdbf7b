"""What if: commission, coupons, prices, traffic or ad spend were other than they are.

A question is asked of the newest stretch of weeks, as if it came again: profit as it was, with returns counted before
they have come, beside profit as it would be. Demand answers to the price that buyers pay by an elasticity; that is an
input, or learned where prices varied, or a stated default, and the answer says which.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.admission import admit_signals_and_skus, say_where_ids_differ
from hitfinder.costs import COEFFICIENTS, rates_of, unit_economics
from hitfinder.elasticity import Elasticity, learn_elasticity
from hitfinder.errors import DataError, SettingsError
from hitfinder.features import moment_of_knowledge, set_scope
from hitfinder.refunds import fit_refunds
from hitfinder.settings import Settings
from hitfinder.warehouse import TableLike, build, frame, open_warehouse

__all__ = ["Answer", "Change", "what_if"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """What is changed.

    `commission`, `coupons`: points added to the rates, -0.03 for three points less. `price`: relative change of the
    prices, 0.05 for 5 % more. `traffic`: relative change of the visitors beside what the price does, 0.10 for 10 %
    more. `spend`: money added to the ad spend of the stretch, over all SKUs asked about. `elasticity`: of demand for
    the price; None for the learned or default one. Coupons that the merchant bears make the goods cheaper, so demand
    answers to them as to the price.
    """

    commission: float = 0.0
    coupons: float = 0.0
    price: float = 0.0
    traffic: float = 0.0
    spend: float = 0.0
    elasticity: float | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be.

        Raises
        ------
        SettingsError
            A change outside its range.
        """
        for name, low, high in (("commission", -1, 1), ("coupons", -1, 1), ("price", -0.9, 10), ("traffic", -1, 100)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"{name}: expected a change from {low} to {high}, got {value}")
        if not math.isfinite(self.spend):
            raise SettingsError(f"spend: expected an amount of money, got {self.spend}")
        if self.elasticity is not None and not -20 <= self.elasticity <= 0:
            raise SettingsError(f"elasticity: expected a number from -20 to 0, got {self.elasticity}")


@dataclass(frozen=True)
class Answer:
    """What a change would do.

    Attributes
    ----------
    skus
        One row per SKU: `sku_id, revenue, profit, new_revenue, new_profit, difference, break_even_traffic` (the
        relative change of traffic with which the new profit is the old one; NaN where no traffic does that) and
        `unknown_costs`. Money over the stretch.
    total
        The same over all SKUs, as plain values.
    elasticity
        What was used; `given` tells whether it was an input.
    given
        Whether the elasticity was an input.
    commission_range
        From which to which commission rate on the whole both sides gain: the influencers earn no less than now, the
        merchant no less than now; None where there is none, or no commission rate is known.
    commission_now
        The commission on the whole, as a share of net revenue; None where it is not known of some SKU.
    unknown_costs
        Costs that nobody gave. The difference is right where they do not change, the profits are not.
    stretch
        How long the stretch was.
    """

    skus: pd.DataFrame
    total: dict[str, float]
    elasticity: Elasticity
    given: bool
    commission_range: tuple[float, float] | None
    commission_now: float | None
    unknown_costs: str
    stretch: pd.Timedelta
    change: Change = field(default_factory=Change)


def what_if(
    signals: TableLike,
    skus: TableLike,
    settings: Settings,
    change: Change,
    as_of: Any = None,
    *,
    only: Mapping[str, list[str]] | None = None,
    stretch: pd.Timedelta | None = None,
) -> Answer:
    """Say what a change would do to profit.

    Parameters
    ----------
    signals, skus, settings
        As for `ledger`.
    change
        What is changed.
    as_of
        The moment of knowledge, UTC; default: when the newest signal was known.
    only
        Which SKUs it is about, such as ``{"sku_id": ["K1"]}`` or ``{"category": ["dress"]}``; default: all.
    stretch
        Which weeks are asked about: so long before `as_of`; default `label.outcome_window`.

    Returns
    -------
    Answer

    Raises
    ------
    SettingsError
        Nothing is changed, the change takes a rate below 0 or above 1, or `only` names no column of skus.
    DataError
        No SKU asked about sold anything, or a table can't be understood.
    """
    if not any(getattr(change, name) for name in ("commission", "coupons", "price", "traffic", "spend")):
        raise SettingsError("what-if: expected a change, got none; give one, such as commission -0.03 or traffic 0.10")
    for name in ("traffic", "price"):
        if (value := getattr(change, name)) > 1:
            warnings.warn(f"{name} {100 * value:+,.0f} %; write 0.10 for 10 %", UserWarning, stacklevel=2)
    length = stretch if stretch is not None else settings.label.outcome_window
    con = open_warehouse(threads=settings.model.threads)
    try:
        admit_signals_and_skus(con, signals, skus, period=settings.signals.period)
        say_where_ids_differ(con, allowed=0.5, refuse=True)
        set_scope(con, settings, moment_of_knowledge(con, as_of, needed=True))
        con.execute("create or replace temp table stretch as select ? as seconds", [length.total_seconds()])
        build(con, "recent_sums")
        build(con, "unit_prices")
        sums = frame(con, "select * from recent_sums order by sku_id")
        seen = frame(con, "select * from unit_prices")
        about = con.execute("select * from skus order by sku_id").df()
        learned = learn_elasticity(con)
        back = fit_refunds(con).forecast(con)
    finally:
        con.close()
    kept = _asked_about(about, only)
    about, sums = about[kept].reset_index(drop=True), sums[kept.to_numpy()].reset_index(drop=True)
    if not (sums["revenue"] > 0).any():
        raise DataError(f"signals: expected sales in the {length.days} days asked about, got none; ask about more")
    if sums["spend"].sum() + change.spend < 0:
        raise SettingsError(
            f"spend: {change.spend:,.2f} takes more than the {sums['spend'].sum():,.2f} that was spent; take less"
        )
    _check_rates(about, settings, change)
    share = back.set_index("sku_id")["return_share"].reindex(about["sku_id"]).astype(float).fillna(0.0)
    return _answer(about, sums, seen, np.asarray(share, dtype=np.float64), settings, change, learned, length)


def _asked_about(about: pd.DataFrame, only: Mapping[str, list[str]] | None) -> pd.Series:
    kept = pd.Series(True, index=about.index)
    for column, values in (only or {}).items():
        if column not in about:
            raise SettingsError(f"only: expected a column of skus ({', '.join(about.columns)}), got {column!r}")
        text = about[column].astype(str)
        if missing := sorted(set(values) - set(text)):
            raise SettingsError(f"only: no SKU has {column} {', '.join(map(repr, missing))}; look the name up in skus")
        kept &= text.isin(values)
    return kept


def _check_rates(about: pd.DataFrame, settings: Settings, change: Change) -> None:
    rates = rates_of(about, settings.costs)
    for name in ("commission", "coupons"):
        after = rates[name] + getattr(change, name)
        wrong = after[(after < -1e-12) | (after > 1 + 1e-12)]
        if len(wrong):
            raise SettingsError(
                f"{name}: a change of {getattr(change, name):+.3f} makes it {wrong.iloc[0]:.3f} for "
                f"{rates['sku_id'][wrong.index[0]]}; expected a rate from 0 to 1"
            )


def _answer(
    about: pd.DataFrame,
    sums: pd.DataFrame,
    seen: pd.DataFrame,
    share: Array,
    settings: Settings,
    change: Change,
    learned: Elasticity,
    length: pd.Timedelta,
) -> Answer:
    costs = settings.costs
    now = unit_economics(about, costs, seen)
    added = {"commission": change.commission, "coupons": change.coupons}
    then = unit_economics(about, costs, seen, added=added, price_change=change.price)
    rates = rates_of(about, costs)
    counts = {name: np.nan_to_num(sums[name].to_numpy(dtype=float)) for name in COUNTS}
    counted = sums["spend"].notna().to_numpy()
    # A coupon on the price that is asked makes the price that is paid.
    coupon = rates["coupons"].fillna(0.0).to_numpy()
    paid = (1 + change.price) * (1 - coupon - change.coupons) / np.maximum(1 - coupon, 1e-9)
    slope = learned.value if change.elasticity is None else change.elasticity
    demand = np.maximum(paid, 1e-9) ** slope
    profit_now = _contribution(counts, now, share, counted) - counts["spend"]
    # What one unit of today's traffic would leave, before the ad spend that is there in any case.
    sold = {name: values * demand for name, values in counts.items()}
    sold["revenue"] = sold["revenue"] * (1 + change.price)
    sold["impressions"] = counts["impressions"]
    per_traffic = _contribution(sold, then, share, counted)
    weight = counts["revenue"] / counts["revenue"].sum()
    spend = counts["spend"] + change.spend * weight
    profit_then = (1 + change.traffic) * per_traffic - spend
    needed = np.divide(profit_now + spend, per_traffic, out=np.full(len(about), np.nan), where=per_traffic > 0) - 1
    skus = pd.DataFrame(
        {
            "sku_id": about["sku_id"],
            "revenue": counts["revenue"],
            "profit": profit_now,
            "new_revenue": (1 + change.traffic) * sold["revenue"],
            "new_profit": profit_then,
            "difference": profit_then - profit_now,
            "break_even_traffic": needed,
            "unknown_costs": now["unknown_costs"],
        }
    )
    total = {name: float(skus[name].sum()) for name in ("revenue", "profit", "new_revenue", "new_profit", "difference")}
    whole = per_traffic.sum()
    total["break_even_traffic"] = float((profit_now + spend).sum() / whole - 1) if whole > 0 else float("nan")
    rate, both = _both_gain(rates, counts["revenue"] * (1 - share), skus, share, change)
    unknown = sorted({name for text in skus["unknown_costs"] for name in text.split(", ") if name})
    return Answer(
        skus=skus,
        total=total,
        elasticity=learned,
        given=change.elasticity is not None,
        commission_range=both,
        commission_now=rate,
        unknown_costs=", ".join(unknown),
        stretch=length,
        change=change,
    )


COUNTS = ("impressions", "orders", "units", "revenue", "spend")


def _contribution(counts: Mapping[str, Array], economics: pd.DataFrame, share: Array, counted: Any) -> Array:
    """Return what is left before ad spend that was reported; ads known by a rate per impression are taken off."""
    of = {name: economics[name].to_numpy(dtype=float) for name in COEFFICIENTS}
    ads = np.where(counted, 0.0, counts["impressions"] * of["per_impression"])
    left: Array = counts["revenue"] * (of["per_revenue"] + share * of["per_refund"])
    left += counts["orders"] * of["per_order"] + counts["units"] * of["per_unit"] + ads
    return left


def _both_gain(
    rates: pd.DataFrame, net: Array, skus: pd.DataFrame, share: Array, change: Change
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the commission on the whole, and the rates after the change between which both sides gain.

    With net revenue n now and m after, and commission c, influencers gain from c n / m on. The merchant's profit falls
    by m for each unit of the rate, so with a difference d at the rate c + change it gains up to that rate + d / m.
    """
    rate = rates["commission"].to_numpy(dtype=float)
    after = skus["new_revenue"].to_numpy() * (1 - share)
    if np.isnan(rate).any() or net.sum() <= 0 or after.sum() <= 0:
        return None, None
    now = float((rate * net).sum() / net.sum())
    least = float((rate * net).sum() / after.sum())
    at = float(((rate + change.commission) * after).sum() / after.sum())
    most = at + float(skus["difference"].sum()) / float(after.sum())
    return now, ((least, min(most, 1.0)) if least <= most else None)
