"""The coming week's budget: one total, one target, split over SKUs and channels, a part kept for what is untested."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.admission import admit_signals_and_skus, say_where_ids_differ
from hitfinder.budget.allotment import Allotment, Lines, allot, value_of
from hitfinder.budget.bounds import bound, read_limits
from hitfinder.budget.cautious import chance_of, draw, tighten
from hitfinder.budget.explore import bought_last_week, share_out, test_channel, test_cost, untested
from hitfinder.budget.refusals import refuse
from hitfinder.budget.responses import Responses, fit_responses
from hitfinder.budget.spending import Spending, read_spending
from hitfinder.errors import DataError, SettingsError
from hitfinder.features import moment_of_knowledge
from hitfinder.models.hit_model import HitModel
from hitfinder.settings import Settings
from hitfinder.warehouse import TableLike, open_warehouse

__all__ = ["PLAN_COLUMNS", "Budget", "split_budget"]

Array = npt.NDArray[np.float64]

PLAN_COLUMNS = (
    "sku_id", "channel", "category", "title", "kind", "last_spend", "spend", "change", "value", "profit", "roi",
    "next_value", "next_profit", "bound_by", "low", "high", "slope", "slope_sd", "half", "curve", "margin", "returned",
    "units_left", "unknown_costs",
)  # fmt: skip
NEXT = 100.0
# Points of the curve of profit over the total.
POINTS = 41
# A line that may grow so many times over was perhaps meant in per cent.
MUCH = 5.0
# A spend this near to a bound is at it.
CENT = 0.01


@dataclass(frozen=True)
class Budget:
    """A week's budget.

    Attributes
    ----------
    plan
        One row per line, most money first: PLAN_COLUMNS. `kind` is `line`, or `explore` for a SKU not tested yet.
        `value` is revenue less returns, `profit` what is left of it after all known costs and the spend, `roi` value
        over spend; `next_value` and `next_profit` are what the next 100 of spend would bring. `bound_by` says what
        holds the spend where it is: `cap`, `floor`, `move limit`, `stock`, `zero`, `target`, `total`, `explore`, or
        `profit` where a further unit would no longer pay.
    curve
        `total, spend, value, profit, roi`: the best that other totals would bring at the same target.
    channels
        By channel: `lines, last_spend, spend, value, profit, roi, half_at, curve, common_sd`.
    told
        All else, as plain values: the sums, the chance of meeting the target, what the explore money is for and what it
        bought last week, unknown costs.
    """

    plan: pd.DataFrame
    curve: pd.DataFrame
    channels: pd.DataFrame
    told: dict[str, Any]


def split_budget(
    signals: TableLike,
    skus: TableLike,
    settings: Settings,
    *,
    total: float,
    target_roi: float | None = None,
    cautious: float | None = None,
    model: HitModel | None = None,
    limits: TableLike | None = None,
    returned: pd.Series | None = None,
    as_of: Any = None,
) -> Budget:
    """Split the coming week's money over SKUs and channels to the greatest expected profit.

    Parameters
    ----------
    signals, skus
        Tables of the contract; `spend` and `revenue` have to be reported.
    settings
        `[budget]` and `[costs]`.
    total
        The most that may be spent in the week, in the settings' currency.
    target_roi
        The least value (revenue less returns) for each unit of spend, over all lines together; default: that of the
        settings, where there is one.
    cautious
        The chance, between 0.5 and 1, with which the target is to be met; default: it is met on average.
    model
        From `fit`: untested SKUs are chosen by its `hit_probability`.
    limits
        Floors and caps of single lines, a table `sku_id, channel, floor, cap`.
    returned
        Share of each SKU's coming revenue that will be refunded, by `sku_id`; default: the forecast of `refunds`.
    as_of
        The moment of knowledge, UTC; default: when the newest signal was known.

    Raises
    ------
    DataError
        A table can't be understood, no spend or no revenue was reported, or nothing was spent in the last week.
    SettingsError
        What is asked for can't be had together: the message says what clashes and what can be reached.
    """
    up = settings.budget.move_up
    if up >= MUCH:
        warnings.warn(
            f"budget.move_up {up:g} lets a line grow by {100 * up:,.0f} % in a week; write 0.10 for 10 %",
            UserWarning,
            stacklevel=2,
        )
    target = settings.budget.target_roi if target_roi is None else target_roi
    _check(total, target, cautious)
    con = open_warehouse(threads=settings.model.threads)
    try:
        admit_signals_and_skus(con, signals, skus, period=settings.signals.period, stacklevel=3)
        say_where_ids_differ(con, allowed=0.5, refuse=True)
        moment = moment_of_knowledge(con, as_of, needed=True)
        spending = read_spending(con, settings, moment, returned=returned)
        limited = read_limits(con, limits)
    finally:
        con.close()
    responses = fit_responses(spending.weeks, default_half=settings.budget.half_at)
    mine = _lines(spending, responses)
    rows = bound(mine, spending, limited, settings.budget).assign(kind="line")
    chances, version = _chances(model, signals, skus, moment)
    tests, explore = _explore(spending, responses, settings, total, chances)
    rows = pd.concat([rows, tests], ignore_index=True) if len(tests) else rows

    lines = Lines(*(rows[name].to_numpy(dtype=float) for name in ("slope", "half", "margin", "low", "high")))
    channel = pd.Index(responses.channels["channel"]).get_indexer(rows["channel"])
    draws = draw(
        lines.slope,
        rows["slope_sd"].to_numpy(dtype=float),
        channel,
        responses.channels["common_sd"].to_numpy(),
        responses.channels["dispersion"].to_numpy(),
        settings.budget.draws,
        np.random.default_rng([settings.seed, 5]),
    )
    wanted, made_for = target or 0.0, target or 0.0
    split = allot(lines, total, wanted)
    if not split.met or (split.spend.sum() <= 0 and total > 0):
        refuse(rows, lines, total, wanted, settings.budget)
    if cautious is not None:
        found = tighten(lines, draws, total, wanted, cautious)
        if found is None or found[2] < cautious:
            refuse(rows, lines, total, wanted, settings.budget, cautious=cautious, best=found)
        split, made_for, _ = found
    split = _to_cents(lines, split, total, made_for)
    plan = _table(rows, lines, split)
    told = {
        "as_of": moment.isoformat(),
        "total": float(total),
        "target_roi": target,
        "cautious": cautious,
        "made_for": made_for if cautious is not None else None,
        "spend": float(split.spend.sum()),
        "unspent": float(total - split.spend.sum()),
        "last_spend": float(rows["last_spend"].sum()),
        "value": float(split.value.sum()),
        "profit": split.profit,
        "roi": split.return_on_spend,
        "chance": None if target is None else chance_of(draws, split, wanted),
        "lines": len(mine),
        "paused": _paused(spending, responses),
        "bound_by": {str(k): int(v) for k, v in plan["bound_by"].value_counts().sort_index().items()},
        "next_total_profit": float(allot(lines, total + NEXT, made_for).profit - allot(lines, total, made_for).profit),
        "explore": explore,
        "explore_last_week": bought_last_week(spending, target),
        "unknown_costs": _unknown(plan),
        "unprofitable_lines": int((plan["margin"] <= 0).sum()),
        "model_version": version,
        "strengths": responses.strengths,
    }  # fmt: skip
    return Budget(plan, _curve(lines, total, made_for), _by_channel(plan, responses), told)


def _check(total: float, target: float | None, cautious: float | None) -> None:
    if not (np.isfinite(total) and total > 0):
        raise SettingsError(f"total: expected money to split, more than 0, got {total!r}")
    if target is not None and not (np.isfinite(target) and target >= 0):
        raise SettingsError(f"target_roi: expected 0 or more, got {target!r}")
    if cautious is not None and not 0.5 <= cautious < 1:
        raise SettingsError(f"cautious: expected a chance of 0.5 or more, below 1, got {cautious!r}")
    if cautious is not None and not target:
        raise SettingsError("cautious: there is no target to be met with that chance; give target_roi")


def _lines(spending: Spending, responses: Responses) -> pd.DataFrame:
    """Return the lines that were spent on last week, with what is known of their SKUs."""
    of_sku = spending.skus[["title", "units_left", "returned", "margin", "unit_price", "unknown_costs"]]
    lines = responses.lines[responses.lines["last_spend"] > 0].merge(of_sku, left_on="sku_id", right_index=True)
    if lines.empty:
        raise DataError(
            f"signals.spend: expected SKUs that were spent on in the week before {spending.as_of:%Y-%m-%d %H:%M}, got "
            "none; a line can only move from last week's spend, so give newer signals or an earlier as_of"
        )
    return lines.reset_index(drop=True)


def _paused(spending: Spending, responses: Responses) -> int:
    known = responses.lines["sku_id"].isin(spending.skus.index)
    return int((known & (responses.lines["last_spend"] <= 0)).sum())


def _chances(
    model: HitModel | None, signals: TableLike, skus: TableLike, moment: pd.Timestamp
) -> tuple[pd.Series | None, str | None]:
    if model is None:
        return None, None
    from hitfinder.ranking import rank

    ranked = rank(model, signals, skus, as_of=moment)
    return ranked.set_index("sku_id")["hit_probability"], model.version


def _explore(
    spending: Spending, responses: Responses, settings: Settings, total: float, chances: pd.Series | None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return a fixed row for each SKU that is to be tested, and what there is to say about it."""
    waiting = untested(spending)
    where = test_channel(spending, responses)
    slope, _ = responses.expected_of(where, "")
    each = test_cost(spending, slope, settings.budget.explore_orders)
    money = settings.budget.explore_share * total
    given = share_out(waiting, money, each, chances)
    of_channel = responses.channels.set_index("channel").loc[where]
    rows = waiting.merge(given, on="sku_id").assign(channel=where, kind="explore", last_spend=0.0)
    expected = [responses.expected_of(where, str(category)) for category in rows["category"]]
    rows = rows.assign(
        slope=[one[0] for one in expected],
        slope_sd=[one[1] for one in expected],
        half=of_channel["half_at"] * rows["spend"],
        curve=of_channel["curve"],
        low=rows["spend"],
        high=rows["spend"],
        low_from="explore",
        high_from="explore",
    ).drop(columns="spend")
    said = {
        "share": settings.budget.explore_share,
        "money": float(money),
        "given": float(given["spend"].sum()),
        "skus": len(given),
        "waiting": len(waiting),
        "each": float(each) if np.isfinite(each) else None,
        "orders": settings.budget.explore_orders,
        "channel": where,
        "by": "equal" if chances is None else "hit_probability",
    }
    return rows, said


def _to_cents(lines: Lines, split: Allotment, total: float, target: float) -> Allotment:
    """Cut every spend down to the cent, and see to it that the target is still met."""
    made_for = target
    for _ in range(10):
        cut = np.floor(split.spend / CENT + 1e-6) * CENT
        # What is fixed, or has to be spent, is not cut below it.
        spend = np.where(cut < lines.low, split.spend, cut)
        value = value_of(lines, spend)
        lacking = target * spend.sum() - value.sum()
        if target <= 0 or lacking <= 0:
            break
        made_for += 2 * lacking / spend.sum()
        tighter = allot(lines, total, made_for)
        if not tighter.met:  # the target is all that can be met: no cent to spare
            spend, value = split.spend, split.value
            break
        split = tighter
    profit = float((lines.margin * value - spend).sum())
    return Allotment(spend, value, profit, True, split.price_of_money, split.price_of_target)


def _table(rows: pd.DataFrame, lines: Lines, split: Allotment) -> pd.DataFrame:
    more = value_of(lines, split.spend + NEXT) - split.value
    plan = rows.assign(
        spend=split.spend,
        change=np.where(
            rows["last_spend"] > 0, split.spend / rows["last_spend"].where(rows["last_spend"] > 0) - 1, np.nan
        ),
        value=split.value,
        profit=lines.margin * split.value - split.spend,
        roi=np.where(split.spend > 0, split.value / np.where(split.spend > 0, split.spend, 1.0), np.nan),
        next_value=more,
        next_profit=lines.margin * more - NEXT,
        bound_by=_bound_by(rows, lines, split),
    )
    plan = plan.sort_values(["kind", "spend", "sku_id", "channel"], ascending=[False, False, True, True])
    return plan[list(PLAN_COLUMNS)].reset_index(drop=True)


def _bound_by(rows: pd.DataFrame, lines: Lines, split: Allotment) -> Any:
    """Say what holds each line where it is."""
    held = "target" if split.price_of_target > 0 else "total" if split.price_of_money > 0 else "profit"
    if split.price_of_target > 0 and split.price_of_money > 0:
        held = "total and target"
    at_high = split.spend >= lines.high - 2 * CENT
    at_low = (split.spend <= lines.low + 2 * CENT) & ~at_high
    fixed = lines.high - lines.low <= 2 * CENT
    return np.select(
        [(rows["kind"] == "explore").to_numpy(), fixed, at_high, at_low],
        ["explore", rows["high_from"], rows["high_from"], rows["low_from"]],
        held,
    )


def _curve(lines: Lines, total: float, target: float) -> pd.DataFrame:
    """Return what other totals would bring at the same target."""
    least, most = float(lines.low.sum()), max(float(lines.high.sum()), total)
    found = []
    for other in np.unique(np.append(np.linspace(least, min(most, 3 * total), POINTS), total)):
        split = allot(lines, float(other), target)
        if split.met:
            found.append((other, split.spend.sum(), split.value.sum(), split.profit, split.return_on_spend))
    return pd.DataFrame(found, columns=["total", "spend", "value", "profit", "roi"], dtype=float)


def _by_channel(plan: pd.DataFrame, responses: Responses) -> pd.DataFrame:
    summed = plan.groupby("channel", as_index=False).agg(
        lines=("sku_id", "size"),
        last_spend=("last_spend", "sum"),
        spend=("spend", "sum"),
        value=("value", "sum"),
        profit=("profit", "sum"),
    )
    summed["roi"] = summed["value"] / summed["spend"].where(summed["spend"] > 0)
    kept = responses.channels[["channel", "half_at", "curve", "common_sd"]]
    return summed.merge(kept, on="channel").sort_values("spend", ascending=False, ignore_index=True)


def _unknown(plan: pd.DataFrame) -> dict[str, int]:
    """Return which costs nobody gave, and of how many of the plan's SKUs."""
    named = plan.drop_duplicates("sku_id")["unknown_costs"].fillna("").str.split(", ").explode()
    counts = named[named != ""].value_counts().sort_index()
    return {str(name): int(n) for name, n in counts.items()}
