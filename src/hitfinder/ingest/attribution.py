"""Which channels an event log's orders go to, and what that moved: see `sql/ingest/attribution.sql`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from hitfinder.errors import DataError
from hitfinder.settings import AttributionSettings
from hitfinder.warehouse import build_text, load_sql

__all__ = ["Attribution", "Credit", "credit_orders", "way_of_attribution"]

BILLION = 1_000_000_000
CHANNELS_SHOWN = 10
# In a week no person makes as many visits to one SKU.
MOST_VISITS = 1_000
# What beside the model and the window decides who gets what.
ALSO = {"position": ("position_first", "position_last"), "time_decay": ("half_life",)}


@dataclass(frozen=True)
class Credit:
    """One channel: orders and revenue logged under it, and credited to it (`orders_exactly`: before whole numbers)."""

    orders_logged: int
    orders: int
    orders_exactly: float
    revenue_logged: Decimal
    revenue: Decimal


@dataclass(frozen=True)
class Attribution:
    """What attribution did to the orders of one call's event log.

    Attributes
    ----------
    impossible
        Why nothing was attributed, and orders stay as logged; None where it was.
    orders, with_touch, with_many
        Orders of the log; those that at least one visit led to; those that more than one did.
    cut
        Orders so soon after the log began that visits within the window may be missing from it.
    moved_orders, moved_revenue
        How much went to another channel than the one it was logged under (orders in fractions).
    refunds, refunds_followed
        Refund events, and those that followed the order that they name.
    channels
        By channel (None: no channel), the largest first.
    """

    settings: AttributionSettings
    impossible: str | None = None
    orders: int = 0
    with_touch: int = 0
    with_many: int = 0
    cut: int = 0
    moved_orders: float = 0.0
    moved_revenue: Decimal = Decimal(0)
    refunds: int = 0
    refunds_followed: int = 0
    channels: dict[str | None, Credit] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = self.settings.model_dump()
        if self.impossible is not None:
            return f"attribution: {shown['model']} not possible, {self.impossible}; orders stay as logged"
        lines = [
            f"attribution: {shown['model']} within {shown['window']}; of {self.orders} orders {self.with_touch} "
            f"({_share(self.with_touch, self.orders)}) had a touch, {self.with_many} "
            f"({_share(self.with_many, self.orders)}) more than one; {self.moved_orders:.1f} "
            f"({_share(self.moved_orders, self.orders)}) went to another channel than logged"
        ]
        if self.cut:
            lines.append(
                f"attribution: {self.cut} orders came within {shown['window']} of the log's beginning; "
                "what led to them before that is not known (give the files before it along, ingested or not)"
            )
        if self.refunds:
            lines.append(
                f"attribution: {self.refunds_followed} of {self.refunds} refunds followed their order, the rest name "
                "none of this log and stay as logged"
            )
        listed = list(self.channels.items())
        lines += [_line(name or "(no channel)", [credit]) for name, credit in listed[:CHANNELS_SHOWN]]
        if rest := [credit for _, credit in listed[CHANNELS_SHOWN:]]:
            lines.append(_line(f"({len(rest)} more channels)", rest))
        return "\n".join(lines)


def credit_orders(con: Any, settings: AttributionSettings, *, units: str) -> Attribution | None:
    """Make the temporary table `order_credits`: orders, units, revenue and refunds of `judged_events` by channel.

    Parameters
    ----------
    con
        A connection with the table `all_judged_events`, and `judged_events`: those that no earlier call has read.
    settings
        Which model; where it is `none`, or nothing can be attributed, everything stays as logged.
    units
        SQL of how many units an order event is.

    Returns
    -------
    Attribution or None
        What was moved; None for the model `none`.
    """
    impossible = _impossible(con) if settings.model != "none" else None
    if settings.model == "none" or impossible is not None:
        build_text(con, "order_credits", load_sql("ingest/as_logged").format(units=units))
        return Attribution(settings, impossible) if impossible is not None else None
    first, last = (round(BILLION * share) for share in (settings.position_first, settings.position_last))
    select = load_sql("ingest/attribution").format(
        units=units,
        model=settings.model,
        window=_interval(settings.window),
        visit_gap=_interval(settings.visit_gap),
        half_life=_microseconds(settings.half_life),
        first_share=first,
        last_share=last,
        most_visits=MOST_VISITS,
        middle_share=max(BILLION - first - last, 0),
    )
    build_text(con, "order_credits", select)
    return _what_moved(con, settings)


def way_of_attribution(
    record: dict[str, Any], settings: AttributionSettings, folder: Path, apart: Iterable[str]
) -> None:
    """Note in a folder's record how its orders are attributed; formats in `apart` hold no events.

    Raises
    ------
    DataError
        The folder's events were attributed otherwise: a channel's orders would jump where the two meet.
    """
    values = settings.model_dump()
    keys = () if settings.model == "none" else ("window", "visit_gap", *ALSO.get(settings.model, ()))
    way = {"model": settings.model} | {key: values[key] for key in keys}
    has_events = any(source["format"] not in set(apart) for source in record["sources"])
    held = record.get("attribution", {"model": "none"} if has_events else way)
    if held != way:
        held = {key: held[key] for key in ("model", *held)}  # the record's own order is the alphabet's
        told, wanted = (", ".join(f"{key} {value}" for key, value in one.items()) for one in (held, way))
        raise DataError(f"{folder}: has orders attributed by {told}, got settings with {wanted}; give a new folder")
    if settings.model != "none":
        record["attribution"] = way


def _impossible(con: Any) -> str | None:
    orders, persons, channels, touches = con.execute(
        """
        select
            count(*) filter (where kind = 'orders'),
            count(*) filter (where person_known),
            count(distinct channel) + max(case when channel is null then 1 else 0 end),
            count(*) filter (where kind not in ('orders', 'refunds') and channel is not null)
        from all_judged_events
        where rule is null and kind <> 'ignored'
        """
    ).fetchone()
    if not orders:
        return "the log holds no orders"
    if not persons:
        return "its events name nobody"
    if not touches:
        return "its events before an order name no channel"
    return "all its events have one channel" if channels == 1 else None


def _what_moved(con: Any, settings: AttributionSettings) -> Attribution:
    of_all = con.execute(
        "select coalesce(sum(logged_orders), 0), coalesce(sum(touched_orders), 0), "
        "coalesce(sum(many_touched_orders), 0), coalesce(sum(cut_orders), 0), coalesce(sum(moved_orders), 0), "
        "coalesce(sum(moved_revenue), 0), coalesce(sum(refund_events), 0), coalesce(sum(followed_events), 0) "
        "from order_credits"
    ).fetchone()
    by_channel = con.execute(
        "select channel, sum(logged_orders), sum(orders), sum(orders_exactly), sum(logged_revenue), sum(revenue) "
        "from order_credits group by channel order by 6 desc, 4 desc, 1 nulls last"
    ).fetchall()
    orders, touched, many, cut, moved, moved_revenue, refunds, followed = of_all
    return Attribution(
        settings,
        orders=int(orders),
        with_touch=int(touched),
        with_many=int(many),
        cut=int(cut),
        moved_orders=float(moved),
        moved_revenue=moved_revenue,
        refunds=int(refunds),
        refunds_followed=int(followed),
        channels={
            row[0]: Credit(int(row[1]), int(row[2]), float(row[3]), row[4], row[5])
            for row in by_channel
            if any(row[1:])
        },
    )


def _line(name: str, given: list[Credit]) -> str:
    logged, credited = sum(c.orders_logged for c in given), sum(c.orders for c in given)
    text = f"attribution: {name}: orders {logged} -> {credited}"
    before, after = sum(c.revenue_logged for c in given), sum(c.revenue for c in given)
    return f"{text}, revenue {before:.2f} -> {after:.2f}" if before or after else text


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _microseconds(length: pd.Timedelta) -> int:
    return int(length / pd.Timedelta(microseconds=1))


def _interval(length: pd.Timedelta) -> str:
    return f"interval ({_microseconds(length)}) microseconds"
