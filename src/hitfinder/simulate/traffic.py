"""The signals of a simulated market: who was shown what, who clicked, ordered, sent it back, and when that was known.

The road of a shopper: impression -> click -> favourite or cart -> order (days later for some) -> refund (weeks later).
What the figures rest on: `hitfinder.simulate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from hitfinder.simulate.catalogue import CREATIVES_PER_STYLE, Catalogue
from hitfinder.simulate.words import CATEGORIES

__all__ = ["CHANNELS", "OUTCOME_DAYS", "TEST_DAYS", "Channel", "draw_signals"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Channel:
    """`share` of the test's impressions; effects on the log odds of a click and of an order; the report's delay."""

    name: str
    share: float
    click_effect: float
    order_effect: float
    cost_per_mille: float
    delay_hours: int


CHANNELS = (  # the first is the main one, which carries the outcome window
    Channel("search", 0.50, 0.0, 0.0, 4.0, 0),
    Channel("feed", 0.30, -0.35, -0.20, 3.0, 6),
    Channel("ads", 0.20, 0.15, -0.35, 9.0, 26),
)
TEST_DAYS, OUTCOME_DAYS = 7, 28
OUTCOME_IMPRESSIONS = 2000.0  # per SKU and day, the same for all, so that outcomes can be compared
EXPOSURE_SD, DELIVERY_SD = 0.25, 0.20  # of log test exposure: between SKUs, and between their single cells
WEEKDAY_TRAFFIC = np.array([0.95, 0.94, 0.96, 0.98, 1.02, 1.08, 1.07])  # Monday first
WEEKDAY_ORDERS = np.array([0.05, 0.03, 0.02, 0.0, -0.02, -0.05, -0.03])  # browsing at the weekend, buying after it
TRAFFIC_TREND = 0.003  # growth of traffic a week
MOOD_SD = 0.04  # weekly step of the market's readiness to buy; it reverts by a tenth a week
SEASON_SD = 0.25  # amplitude of a seasonal design's demand over the year
SEASON_PEAKS = np.array([0, 105, 196, 288, 15])  # day of the year: all-year (unused), spring, summer, autumn, winter
FAVORITE_RATE, CLOSE_RATE, BUY_NOW_RATE = 0.045, 0.36, 0.004  # per click, per cart, per click without a cart
# How far one unit of appeal moves the log odds of each step. Together 1.3, less what high rates saturate.
CLICK_LOAD, FAVORITE_LOAD, CART_LOAD, CLOSE_LOAD = 0.45, 0.35, 0.30, 0.55
PRICE_EFFECT = -0.8  # on log odds of closing, per unit of log price within the category
VISITOR_RATE = 0.88  # people per click: some click twice
SAME_DAY_SHARE, DELAY_MEAN, DELAY_MAX = 0.60, 3.0, 14  # days from click to order
EXTRA_UNITS = 0.15  # mean units of an order beyond the first
RETURN_PRICE_LOAD = 0.5  # dearer things come back more often
RETURN_FIRST, RETURN_MEAN, RETURN_LAST = 7, 13.0, 28  # days from order to refund
LATE_HOURS = 72  # by how much a late report is later
DRIFT_SD = 0.45  # of each category's new click and order level after a regime change
DRIFT_CHANNELS = np.array([-0.30, 0.35, 0.10])  # and what happens to each channel's clicks


def draw_signals(
    rng: np.random.Generator,
    catalogue: Catalogue,
    *,
    start: pd.Timestamp,
    test_impressions: float = 400.0,
    late_share: float = 0.05,
    drift_week: int | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw all signals of all SKUs, outcome windows and refunds included, whenever they became known.

    Parameters
    ----------
    rng
        Where all chance comes from.
    catalogue
        What `draw_catalogue` returned.
    start
        Day 0 of the market, a Monday.
    test_impressions
        Impressions per SKU and day of the test, in the middle.
    late_share
        Share of the reports that come `LATE_HOURS` later than their channel's usual delay.
    drift_week
        The week from which categories and channels have other rates; None: never.

    Returns
    -------
    signals, expected
        The table of the contract (any order of known_at), and one row per SKU with its true rates and expectations.
    """
    cells = _plan_cells(rng, catalogue, start, test_impressions)
    n_days = int(catalogue.launch_day.max()) + TEST_DAYS + OUTCOME_DAYS
    rates = _rates(rng, catalogue, cells, n_days, drift_week)

    noise = np.where(cells["in_test"], rng.normal(-(DELIVERY_SD**2) / 2, DELIVERY_SD, len(cells["sku"])), 0.0)
    impressions = rng.poisson(cells["impressions"] * np.exp(noise))
    clicks = rng.binomial(impressions, rates["click"])
    carts = rng.binomial(clicks, rates["cart"])
    bought = rng.binomial(carts, rates["close"]) + rng.binomial(clicks - carts, rates["buy_now"])
    orders = _place_orders(rng, catalogue, cells, bought)

    keys = [cells["key"], _key(orders["thread"], orders["day"]), _key(orders["thread"], orders["return_day"])]
    known, place = np.unique(np.concatenate(keys), return_inverse=True)
    cell_at, order_at, return_at = np.split(place, np.cumsum([len(k) for k in keys])[:-1])

    def spread(at: Array, weights: Array | None = None) -> Array:
        return np.bincount(at, weights, minlength=len(known))

    def count(at: Array, weights: Array | None = None) -> Array:
        return np.rint(spread(at, weights)).astype(np.int64)

    thread, day = known // SPAN, known % SPAN
    channel, slot = thread % len(CHANNELS), thread // len(CHANNELS) % CREATIVES_PER_STYLE
    sku = thread // (len(CHANNELS) * CREATIVES_PER_STYLE)
    delays = np.array([c.delay_hours for c in CHANNELS])[channel]
    hours = 24 * (day + 1) + delays + np.where(rng.random(len(known)) < late_share, LATE_HOURS, 0)
    costs = np.array([c.cost_per_mille for c in CHANNELS])[cells["channel"]]
    spend = impressions * costs / 1000 * np.exp(rng.normal(0, 0.10, len(impressions)))
    origin = start.as_unit("us").to_datetime64()
    style_ids = catalogue.skus["style_id"].to_numpy(dtype=object)
    signals = pd.DataFrame(
        {
            "sku_id": catalogue.skus["sku_id"].array.take(sku),
            "period_start": origin + day.astype("timedelta64[D]"),
            "channel": pd.array([c.name for c in CHANNELS], dtype="str").take(channel),
            "creative_id": _creative_names(style_ids, catalogue.style).take(
                catalogue.style[sku] * CREATIVES_PER_STYLE + slot
            ),
            "known_at": origin + hours.astype("timedelta64[h]"),
            "impressions": count(cell_at, impressions),
            "visitors": count(cell_at, np.maximum(rng.binomial(clicks, VISITOR_RATE), clicks > 0)),
            "clicks": count(cell_at, clicks),
            "favorites": count(cell_at, rng.binomial(clicks, rates["favorite"])),
            "carts": count(cell_at, carts),
            "orders": count(order_at),
            "units": count(order_at, orders["units"]),
            "revenue": spread(order_at, orders["value"]).round(2),
            "refunds": spread(return_at, orders["refund"]).round(2),
            "spend": spread(cell_at, spend).round(2),
        }
    )
    measures = signals.loc[:, "impressions":"spend"].to_numpy()
    return signals[(measures != 0).any(axis=1)].reset_index(drop=True), _expect(catalogue, cells, rates)


SPAN = 1 << 14  # more days than any market has; packs a thread and a day into one whole number


def _key(thread: Array, day: Array) -> Array:
    return thread * SPAN + day


def _thread(sku: Array, slot: Array, channel: Array) -> Array:
    """One number for SKU x creative x channel."""
    return (sku * CREATIVES_PER_STYLE + slot) * len(CHANNELS) + channel


def _creative_names(style_ids: Array, style: Array) -> Any:
    first = np.unique(style, return_index=True)[1]
    return pd.array([f"{s}-c{j + 1}" for s in style_ids[first] for j in range(CREATIVES_PER_STYLE)], dtype="str")


def _plan_cells(
    rng: np.random.Generator, catalogue: Catalogue, start: pd.Timestamp, test_impressions: float
) -> dict[str, Array]:
    """Plan who is shown where: all channels and creatives in the test, only the main ones in the outcome window."""
    n = len(catalogue.launch_day)
    exposure = test_impressions * np.clip(np.exp(rng.normal(0, EXPOSURE_SD, n)), 0.4, 1.6)
    shown, turn = np.nonzero(np.arange(CREATIVES_PER_STYLE) < catalogue.n_creatives[:, None])
    n_channels = len(CHANNELS)
    test_sku = np.repeat(shown, n_channels * TEST_DAYS)
    test_turn = np.repeat(turn, n_channels * TEST_DAYS)
    test_channel = np.tile(np.repeat(np.arange(n_channels), TEST_DAYS), len(shown))
    test_age = np.tile(np.arange(TEST_DAYS), len(shown) * n_channels)
    shares = np.array([c.share for c in CHANNELS])[test_channel]
    test = exposure[test_sku] * shares / catalogue.n_creatives[test_sku]

    sku = np.concatenate([test_sku, np.repeat(np.arange(n), OUTCOME_DAYS)])
    age = np.concatenate([test_age, np.tile(np.arange(TEST_DAYS, TEST_DAYS + OUTCOME_DAYS), n)])
    rest = np.zeros(n * OUTCOME_DAYS, dtype=int)
    channel = np.concatenate([test_channel, rest])
    slot = (catalogue.main_creative[sku] + np.concatenate([test_turn, rest])) % CREATIVES_PER_STYLE
    day = catalogue.launch_day[sku] + age
    level = WEEKDAY_TRAFFIC[day % 7] * np.exp(TRAFFIC_TREND * day / 7)
    impressions = np.concatenate([test, np.full(len(rest), OUTCOME_IMPRESSIONS)]) * level
    thread = _thread(sku, slot, channel)
    return {
        "sku": sku, "age": age, "day": day, "channel": channel, "slot": slot, "impressions": impressions,
        "in_test": age < TEST_DAYS, "thread": thread, "key": _key(thread, day),
        "year_day": (start.day_of_year + day) % 365.25,
    }  # fmt: skip


def _rates(
    rng: np.random.Generator,
    catalogue: Catalogue,
    cells: dict[str, Array],
    n_days: int,
    drift_week: int | None,
) -> dict[str, Array]:
    """Chances of each step, per cell, from the causes."""
    sku, channel, day = cells["sku"], cells["channel"], cells["day"]
    category = catalogue.category[sku]
    causes = {name: values.to_numpy()[sku] for name, values in catalogue.causes.items()}
    appeal = causes["appeal"]
    season = _season(category, catalogue.season[sku], cells["year_day"])
    steps = rng.normal(0, MOOD_SD, n_days // 7 + 1)
    mood = np.zeros(len(steps))
    for week in range(1, len(steps)):
        mood[week] = 0.9 * mood[week - 1] + steps[week]

    # Drawn in any case, so that the market before a drift is the same as the market without one.
    new_levels = rng.normal(0, DRIFT_SD, (2, len(CATEGORIES)))
    drifted = np.zeros(len(day), dtype=bool) if drift_week is None else day >= 7 * drift_week
    click_effects, order_effects, click_base, cart_base = (
        np.array([c.click_effect for c in CHANNELS]), np.array([c.order_effect for c in CHANNELS]),
        logit([c.click_rate for c in CATEGORIES]), logit([c.cart_rate for c in CATEGORIES]),
    )  # fmt: skip
    creative = catalogue.creative_effects[catalogue.style[sku], cells["slot"]]
    click = click_base[category] + CLICK_LOAD * appeal + causes["click_bait_effect"] + creative + 0.5 * season
    click += click_effects[channel] + drifted * (new_levels[0][category] + DRIFT_CHANNELS[channel])
    demand = order_effects[channel] + 0.5 * season + mood[day // 7] + WEEKDAY_ORDERS[day % 7]
    demand += PRICE_EFFECT * causes["log_price_position"] + drifted * new_levels[1][category]
    return {
        "click": expit(click),
        "favorite": expit(logit(FAVORITE_RATE) + FAVORITE_LOAD * appeal),
        "cart": expit(cart_base[category] + CART_LOAD * appeal),
        "close": expit(logit(CLOSE_RATE) + CLOSE_LOAD * appeal + demand),
        "buy_now": expit(logit(BUY_NOW_RATE) + (CART_LOAD + CLOSE_LOAD) * appeal + demand),
    }


def _season(category: Array, season: Array, year_day: Array) -> Array:
    amplitude = np.array([c.season_amplitude for c in CATEGORIES])[category]
    peak = np.array([c.season_peak for c in CATEGORIES])[category]
    turn = 2 * np.pi / 365.25
    of_design = np.where(season > 0, SEASON_SD * np.cos(turn * (year_day - SEASON_PEAKS[season])), 0.0)
    of_category: Array = amplitude * np.cos(turn * (year_day - peak))
    return of_category + of_design


def _delay_chances() -> Array:
    """Chance of 0, 1, ... days from click to order."""
    later = (1 - 1 / DELAY_MEAN) ** np.arange(DELAY_MAX)
    return np.concatenate([[SAME_DAY_SHARE], (1 - SAME_DAY_SHARE) * later / later.sum()])


def _return_chances(catalogue: Catalogue) -> Array:
    base = logit([c.return_rate for c in CATEGORIES])[catalogue.category]
    chances: Array = expit(base + RETURN_PRICE_LOAD * catalogue.causes["log_price_position"].to_numpy())
    return chances


def _place_orders(
    rng: np.random.Generator, catalogue: Catalogue, cells: dict[str, Array], bought: Array
) -> dict[str, Array]:
    """One entry per order: its day, units and value, and when it came back (refund 0: it didn't)."""
    cell = np.repeat(np.arange(len(bought)), bought)
    sku, thread = cells["sku"][cell], cells["thread"][cell]
    day = cells["day"][cell] + rng.choice(DELAY_MAX + 1, len(cell), p=_delay_chances())
    units = 1 + rng.poisson(EXTRA_UNITS, len(cell))
    back = rng.random(len(cell)) < _return_chances(catalogue)[sku]
    wait = rng.gamma(2.0, (RETURN_MEAN - RETURN_FIRST) / 2, len(cell)).astype(int)

    order = np.lexsort((day, sku))  # first come, first served, until the stock is gone
    served = np.cumsum(units[order])
    first = np.searchsorted(sku[order], sku[order])
    before = np.where(first > 0, served[first - 1], 0)
    in_stock = np.zeros(len(cell), dtype=bool)
    in_stock[order] = served - before <= catalogue.skus["stock"].to_numpy()[sku[order]]

    value = units * catalogue.skus["price"].to_numpy()[sku]
    placed = {
        "thread": thread, "day": day, "units": units, "value": value, "refund": np.where(back, value, 0.0),
        "return_day": np.where(back, day + np.minimum(RETURN_FIRST + wait, RETURN_LAST), day),
    }  # fmt: skip
    return {name: values[in_stock] for name, values in placed.items()}


def _expect(catalogue: Catalogue, cells: dict[str, Array], rates: dict[str, Array]) -> pd.DataFrame:
    """Average the rates over the outcome window (main channel and creative), and say what the window is worth."""
    n, sku = len(catalogue.launch_day), cells["sku"]
    order_rate = rates["cart"] * rates["close"] + (1 - rates["cart"]) * rates["buy_now"]
    due = np.concatenate([np.cumsum(_delay_chances()), np.ones(TEST_DAYS + OUTCOME_DAYS)])
    by_end = due[TEST_DAYS + OUTCOME_DAYS - 1 - cells["age"]]
    in_test = np.where(cells["in_test"], due[np.maximum(TEST_DAYS - 1 - cells["age"], 0)], 0.0)
    clicks = cells["impressions"] * rates["click"]

    def total(values: Array) -> Array:
        return np.bincount(sku, values, minlength=n)

    per_order = 1 + EXTRA_UNITS
    price, stock, unit_cost = (catalogue.skus[c].to_numpy() for c in ("price", "stock", "unit_cost"))
    wanted = per_order * total(clicks * order_rate * (by_end - in_test))
    left = np.maximum(stock - per_order * total(clicks * order_rate * in_test), 0)
    units = np.minimum(wanted, left)
    main = ~cells["in_test"]
    main_clicks, main_impressions = total(clicks * main), total(cells["impressions"] * main)
    returned = _return_chances(catalogue)
    cost = main_impressions * CHANNELS[0].cost_per_mille / 1000
    return pd.DataFrame(
        {
            "click_rate": main_clicks / main_impressions,
            "favorite_rate": total(clicks * main * rates["favorite"]) / main_clicks,
            "cart_rate": total(clicks * main * rates["cart"]) / main_clicks,
            "order_rate": total(clicks * main * order_rate) / main_clicks,
            "return_rate": returned,
            "expected_test_orders": total(clicks * order_rate * in_test),
            "expected_orders": units / per_order,
            "expected_revenue": units * price,
            "expected_profit": units * (price * (1 - returned) - unit_cost) - cost,
        }
    )
