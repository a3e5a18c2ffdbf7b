"""The design matrix: which features the model reads, in which order, and which of them may only help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hitfinder.labels import PROFIT, parse_metric

__all__ = ["LOG_EARNING", "Design", "choose_design", "funnel_to", "merits", "simple_score", "split_attributes"]

Array = npt.NDArray[np.float64]

PRIOR_VIEWS = ("level", "lead")
TREE_VIEWS = ("place", "sibling_lead", "trend", "own_weight")
RISING_VIEWS = ("level", "lead", "place", "sibling_lead")
CONTEXT = ("age_share", "active_share", "quiet_days", "log_price", "price_lead", "siblings")
LOG_EARNING = "log_earning"
# What is counted one after the other; what else is counted hangs on clicks.
FUNNEL = ("clicks", "orders", "units", "revenue")
CALENDAR = ("month", "launch_weekday")
# Where exposures are days, the lower ranks are made by a single order or none: who stands above whom there is luck.
FLOOR = 0.7
# More than this many different texts in a column tell SKUs apart rather than kinds of SKUs.
MAX_LEVELS = 200


NAMES = ("columns", "prior", "funnel", "unknown", "rising")


@dataclass(frozen=True)
class Design:
    """Column names in the model's own order.

    `prior`: those that the prior reads. It is pulled towards the sum of those in `anchor`, each times its weight there,
    and towards the sum of those in `funnel`, logs of the steps from the exposure to what is wanted; `unknown` are those
    that tell how far each step is not known yet. `rising`: those of which more can't be worse. `floor`: the standing
    up to which SKUs count alike to the prior.
    """

    columns: tuple[str, ...]
    prior: tuple[str, ...]
    anchor: Mapping[str, float]
    funnel: tuple[str, ...]
    unknown: tuple[str, ...]
    rising: tuple[str, ...]
    floor: float = 0.0

    def matrix(self, table: pd.DataFrame) -> Array:
        """Return the features as floats, shape (rows, columns), NaN where not measured."""
        return table.reindex(columns=list(self.columns)).to_numpy(dtype=np.float64, na_value=np.nan)

    @property
    def prior_columns(self) -> list[int]:
        """Numbers of the columns that the prior reads."""
        return [self.columns.index(name) for name in self.prior]

    @property
    def anchor_weights(self) -> list[float]:
        """Return for each column its weight in the sum that the prior is pulled towards."""
        return [float(self.anchor.get(name, 0.0)) for name in self.columns]

    @property
    def funnel_columns(self) -> list[int]:
        """Numbers of the columns whose sum the prior is pulled towards."""
        return [self.columns.index(name) for name in self.funnel]

    @property
    def unknown_columns(self) -> list[int]:
        """Numbers of the columns that tell how far each step of the funnel is not known yet."""
        return [self.columns.index(name) for name in self.unknown]

    @property
    def monotone(self) -> list[int]:
        """1 for each column of which more can't be worse, else 0."""
        return [int(name in self.rising) for name in self.columns]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: list(getattr(self, name)) for name in NAMES} | {
            "anchor": dict(self.anchor),
            "floor": self.floor,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Design:
        """Undo `to_dict`."""
        read = {name: tuple(values[name]) for name in NAMES}
        return cls(anchor=dict(values["anchor"]), floor=float(values["floor"]), **read)


def choose_design(
    rates: list[str], numbers: list[str], *, metric: str, on_impressions: bool, history_days: float, hit_share: float
) -> Design:
    """Choose the columns for the rates and numeric attributes at hand.

    Parameters
    ----------
    rates
        Names of the measured rates.
    numbers
        Numeric attributes, as columns of the features table.
    metric
        What SKUs are judged by, see `labels.parse_metric`. By profit, what is left of a unit of revenue counts as much
        as what is sold.
    on_impressions
        Whether exposure is counted in impressions.
    hit_share
        Share of the SKUs that were hits, in [0, 1].
    history_days
        The calendar is learned from only where at least a year has been seen: with less, a month is a batch's name.
    """
    prior = [f"{rate}.{view}" for rate in rates for view in PRIOR_VIEWS]
    trees = [f"{rate}.{view}" for rate in rates for view in TREE_VIEWS]
    context = [*CONTEXT, "content", *(["log_impressions"] if on_impressions else [])]
    earned = [LOG_EARNING] if parse_metric(metric)[0] == PROFIT else []
    steps = funnel_to(metric, rates)
    unknown = [f"{rate}.unknown" for rate in steps]
    calendar = list(CALENDAR) if history_days >= 365 else []
    # Refunds may point to trouble or to busy customers: which, the data say.
    rising = [c for c in prior + trees if c.split(".")[1] in RISING_VIEWS and not c.startswith("refunds")]
    return Design(
        columns=(*prior, *trees, *unknown, *context, *earned, *calendar, *numbers),
        prior=(*prior, *unknown, "age_share", "content", *earned),
        anchor=simple_score(metric, rates) | dict.fromkeys(earned, 1.0) | ({} if on_impressions else {"content": 1.0}),
        funnel=(*(f"{rate}.level" for rate in steps), *(earned if steps else ())),
        unknown=tuple(unknown),
        rising=(*rising, "content", *earned),
        # As many others as hits stay above it.
        floor=0.0 if on_impressions else min(FLOOR, max(1 - 2 * hit_share, 0.0)),
    )


def merits(rates: list[str]) -> list[str]:
    """Return the rates that count what came of the exposure.

    What an order is worth is another matter, refunds are no merit, and units repeat revenue: a bulk order would count
    twice.
    """
    return [rate for rate in rates if not rate.startswith(("refunds", "units")) and "_per_order" not in rate]


def simple_score(metric: str, rates: Sequence[str]) -> dict[str, float]:
    """Return the weights of the levels in a score that needs no learning; the best guess where history is short.

    Where exposures are days, it is how often what the metric counts happens a day (the plain mean of the logs of what
    happened, of who came, and of both after the first day) and, for money and units, the typical size of an order:
    the sum so far is mostly one bulk order. Elsewhere all merits count alike; there the funnel says how they multiply.

    >>> simple_score("revenue", ["orders_per_day", "typical_revenue_per_order", "visitors_per_day"])
    {'orders_per_day.level': 0.5, 'visitors_per_day.level': 0.5, 'typical_revenue_per_order.level': 1.0}
    >>> simple_score("revenue", ["clicks_per_impression", "orders_per_click", "revenue_per_order"])
    {'clicks_per_impression.level': 0.5, 'orders_per_click.level': 0.5}
    """
    wanted, per = parse_metric(metric)
    wanted = "revenue" if wanted == PROFIT else wanted
    size = f"typical_{wanted}_per_order" if wanted in ("revenue", "units") else None
    happened = "orders" if size in rates else wanted
    paces = [f"{what}{again}_per_day" for what in dict.fromkeys((happened, "visitors")) for again in ("", "_again")]
    paces = [rate for rate in paces if rate in rates]
    if per is None and f"{happened}_per_day" in paces:
        sizes = {f"{size}.level": 1.0} if size in rates else {}
        return {f"{rate}.level": 1 / len(paces) for rate in paces} | sizes
    alike = merits(list(rates))
    return {f"{rate}.level": 1 / len(alike) for rate in alike}


def funnel_to(metric: str, rates: Sequence[str]) -> list[str]:
    """Return the rates whose product is the metric per impression, step by step; none where a step was not measured.

    Of several ways the one of most steps: each rate is shrunk by itself, as far as it is known. Days are no such
    exposure: what a SKU sold a day, however well known, is not what it will sell on later days, and how broadly it sold
    goes on telling more.

    >>> funnel_to("revenue", ["clicks_per_impression", "orders_per_click", "revenue_per_click", "revenue_per_order"])
    ['clicks_per_impression', 'orders_per_click', 'revenue_per_order']
    >>> funnel_to("click_rate", ["clicks_per_impression"])
    ['clicks_per_impression']
    >>> funnel_to("revenue", ["orders_per_day", "revenue_per_order"])
    []
    """
    wanted, per = parse_metric(metric)
    wanted = "revenue" if wanted == PROFIT else wanted
    begin = per or "impressions"

    def ways(to: str) -> list[list[str]]:
        if to == begin:
            return [[]]
        earlier = FUNNEL[: FUNNEL.index(to)] if to in FUNNEL else ("clicks",)
        steps = {start: f"{to}_per_{start.removesuffix('s')}" for start in (begin, *earlier)}
        return [[*way, rate] for start, rate in steps.items() if rate in rates for way in ways(start)]

    return max(ways(wanted), key=len, default=[])


def split_attributes(skus: pd.DataFrame, declared: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Sort a merchant's own columns into categories and numbers.

    Returns
    -------
    (categories, numbers)
        Sorted names. `category` counts as one of the categories. A text column with more than MAX_LEVELS values, or
        with another value in every row, is left out of both.
    """
    categories, numbers = [], []
    for name in sorted(str(c) for c in skus.columns if c not in declared):
        values = skus[name].dropna()
        if values.empty:
            continue
        if pd.api.types.is_object_dtype(values) and values.map(lambda v: not np.isscalar(v)).any():
            continue  # lists and structs are neither
        if pd.api.types.is_bool_dtype(values):
            categories.append(name)
        # A CSV holds numbers as text: what all reads as numbers is a number, whichever file it came in.
        elif pd.api.types.is_datetime64_any_dtype(values):
            continue  # a date is neither, and what it means is not known
        elif pd.api.types.is_numeric_dtype(values) or pd.to_numeric(values, errors="coerce").notna().all():
            numbers.append(name)
        else:
            levels = values.astype(str).nunique()
            if levels <= MAX_LEVELS and levels < max(len(values), 2):
                categories.append(name)
    if "category" in skus.columns and skus["category"].notna().any():
        categories.append("category")
    return sorted(categories), numbers
