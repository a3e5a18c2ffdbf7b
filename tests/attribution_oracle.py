"""Attribution once more, slowly: plain loops over plain events, one order at a time, in whole numbers."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

BILLION = 10**9


@dataclass(frozen=True)
class Event:
    at: datetime
    kind: str
    sku: str = "K"
    channel: str | None = None
    person: int | None = None
    order_id: int | None = None
    session: int | None = None
    units: int = 1
    amount: Decimal | None = None

    @property
    def period(self) -> datetime:
        return self.at.replace(hour=0, minute=0)

    @property
    def key(self):
        return self.order_id if self.order_id is not None else self.session


def lot(sku, period, channel):
    text = "|".join([sku, f"{period:%Y-%m-%d %H:%M:%S}"] + ([channel] if channel is not None else []))
    return hashlib.md5(text.encode()).hexdigest()


def orders_of(events):
    """Group order events to orders, as lists of events; those that name no visit are orders of their own."""
    groups = defaultdict(list)
    for place, event in enumerate(events):
        if event.kind == "orders":
            own = event.key if event.key is not None else ("alone", place)
            groups[event.sku, event.period, event.channel, own].append(event)
    return groups


def buyer_of(lines):
    named = [(line.at, line.person) for line in lines if line.person is not None]
    return min(named)[1] if named else None


def visits_of(events, orders, person, sku, until, settings, most):
    """The last visits (channel, started, ended) of a person to a SKU up to a moment, within the window before it."""
    if person is None:
        return []
    bought = {
        min(e.at for e in lines) for lines in orders.values() if lines[0].sku == sku and buyer_of(lines) == person
    }
    times = defaultdict(set)
    for event in events:
        if event.kind in ("orders", "refunds") or event.channel is None:
            continue
        if event.person == person and event.sku == sku and event.at <= until:
            times[event.channel].add(event.at)
    visits = []
    for channel, moments in times.items():
        runs = []
        for at in sorted(moments):
            before = runs[-1][-1] if runs else None
            if before is None or at - before > settings.visit_gap or any(before <= b < at for b in bought):
                runs.append([])
            runs[-1].append(at)
        visits += [(channel, run[0], run[-1]) for run in runs if run[-1] >= until - settings.window]
    return sorted(visits, key=lambda visit: (visit[2], visit[1], visit[0]))[-most:]


def weights_of(visits, settings):
    """Whole weights by channel, as the model says."""
    first, last = min(v[1] for v in visits), max(v[2] for v in visits)
    firsts, lasts = [v for v in visits if v[1] == first], [v for v in visits if v[2] == last]
    others = [v for v in visits if v not in firsts and v not in lasts]
    shares = [round(BILLION * s) for s in (settings.position_first, settings.position_last)]
    weights = defaultdict(int)
    for visit in visits:
        channel, weight = visit[0], 0
        if settings.model == "linear":
            weight = 1
        elif settings.model == "first":
            weight = int(visit in firsts)
        elif settings.model == "last":
            weight = int(visit in lasts)
        elif settings.model == "time_decay":
            weight = round(1e9 * 2.0 ** -((last - visit[2]) / settings.half_life))
        elif settings.model == "position":
            weight += shares[0] // len(firsts) if visit in firsts else 0
            weight += shares[1] // len(lasts) if visit in lasts else 0
            weight += (BILLION - sum(shares)) // len(others) if visit in others else 0
        weights[channel] += weight
    return {channel: weight for channel, weight in weights.items() if weight}


def split(whole, weights, sku, period):
    """A whole number by weights, rounded down; the rest to the largest, of equals to the lowest lot."""
    total = sum(weights.values())
    parts = {channel: whole * weight // total for channel, weight in weights.items()}
    largest = min(weights, key=lambda channel: (-weights[channel], lot(sku, period, channel)))
    parts[largest] += whole - sum(parts.values())
    return parts


def whole_numbers(billionths, sku, period):
    """Largest remainders: billionths by channel to whole numbers of the same sum."""
    whole = {channel: part // BILLION for channel, part in billionths.items()}
    left = sum(billionths.values()) // BILLION - sum(whole.values())
    places = sorted(billionths, key=lambda channel: (-(billionths[channel] % BILLION), lot(sku, period, channel)))
    for channel in places[:left]:
        whole[channel] += 1
    return whole


def attributed(events, settings, most=1000):
    """Return {(sku, period, channel): (orders, units, revenue, refunds)}, money in ten-thousandths, without zeros."""
    orders = orders_of(events)
    billionths = [defaultdict(lambda: defaultdict(int)) for _ in range(2)]
    money = [defaultdict(int), defaultdict(int)]
    weights_by_order = {}
    for name, lines in orders.items():
        sku, period, logged, _ = name
        at = min(line.at for line in lines)
        visits = visits_of(events, orders, buyer_of(lines), sku, at, settings, most)
        weights = weights_of(visits, settings) if visits else {logged: 1}
        weights_by_order[name] = weights
        units = sum(line.units for line in lines)
        revenue = sum(int((line.amount or Decimal(0)) * 10_000) for line in lines)
        for channel, share in split(BILLION, weights, sku, period).items():
            billionths[0][sku, period][channel] += share
            billionths[1][sku, period][channel] += share * units
        for channel, part in split(revenue, weights, sku, period).items():
            money[0][sku, period, channel] += part
    together = defaultdict(int)
    for event in events:
        if event.kind == "refunds":
            together[event.sku, event.period, event.channel, event.at, event.order_id] += int(
                (event.amount or Decimal(0)) * 10_000
            )
    for (sku, period, logged, at, order_id), amount in together.items():
        same = [
            (min(line.at for line in lines), name[1], name[2] or "", name)
            for name, lines in orders.items()
            if name[0] == sku and order_id is not None and any(line.order_id == order_id for line in lines)
        ]
        same = [order for order in same if order[0] <= at]
        weights = {logged: 1}
        if same:
            name = max(same, key=lambda order: order[:3])[3]
            weights = weights_by_order[name]
        # Lots are those of the order's own cell: the refund follows the order's shares to the last decimal.
        for channel, part in split(amount, weights, sku, max(same, key=lambda o: o[:3])[1] if same else period).items():
            money[1][sku, period, channel] += part
    result = defaultdict(lambda: [0, 0, 0, 0])
    for place, table in enumerate(billionths):
        for (sku, period), cell in table.items():
            for channel, n in whole_numbers(cell, sku, period).items():
                result[sku, period, channel][place] = n
    for place, cells in enumerate(money):
        for key, amount in cells.items():
            result[key][2 + place] += amount
    return {key: tuple(values) for key, values in result.items() if any(values)}
